"""The chained lines of the audit log: each holds its number and the hash of the line before. Pure.

A line that is removed, added or changed breaks the chain at the next one. The head, kept in a file beside the
log, is the number and the hash of the last line: it shows that lines at the end are missing. Somebody who can
write both files can make the whole chain anew; a copy of a head that is kept elsewhere excludes it.
"""

import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Self

import orjson

_HEAD = re.compile(rb"([0-9]{20}) ([0-9a-f]{64})\n")
# The field of a line that follows lines of which the head did not know, with their number.
UNCONFIRMED = "unconfirmed"
# What a chain begins with, where no line is before it.
GENESIS = "0" * 64


def line_hash(line: bytes) -> str:
    """Return the hash of a line without its line break."""
    return sha256(line).hexdigest()


@dataclass(frozen=True, slots=True)
class Head:
    """The number and the hash of the last line. Number 0: no line is chained yet."""

    seq: int = 0
    hash: str = GENESIS

    def encode(self) -> bytes:
        """Return the head as text of a fixed length, so that one write replaces the head before."""
        return f"{self.seq:020d} {self.hash}\n".encode()

    @classmethod
    def decode(cls, data: bytes) -> Self | None:
        """Return the head of `encode`; None for anything else."""
        found = _HEAD.fullmatch(data)
        return cls(int(found[1]), found[2].decode()) if found else None

    def chained(self, fields: dict[str, Any]) -> bytes:
        """Return the line that follows, without its line break."""
        return orjson.dumps(fields | {"seq": self.seq + 1, "previous": self.hash}, default=str)


def parse_line(line: bytes) -> dict[str, Any] | None:
    """Return the fields of a line; None when it is not a JSON object."""
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def head_after(line: bytes) -> Head | None:
    """Return the head behind a chained line; None for a line without a place in the chain."""
    fields = parse_line(line) or {}
    seq, previous = fields.get("seq"), fields.get("previous")
    if type(seq) is int and 0 < seq < 10**20 and isinstance(previous, str):
        return Head(seq, line_hash(line))
    return None


class ChainCheck:
    """Checks the lines of all files of a log, in their order.

    `problems` says what is wrong, `notes` what an operator should know. `first` is the first number, `last`
    the number and the hash of the last line.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.first: int | None = None
        self.last = Head()
        self._before = GENESIS
        self._unchained = 0
        self._removed = 0
        self._hash_at: dict[int, str] = {}
        self._wanted: int | None = None

    def expect(self, head: Head | None) -> None:
        """Remember the hash of the line that the head names."""
        self._wanted = head.seq if head else None

    def add(self, line: bytes, where: str) -> dict[str, Any] | None:
        """Check the next line, without its line break. Returns its fields; None when it cannot be read."""
        fields = parse_line(line)
        if fields is None:
            # When it was changed since, the next line's hash shows it.
            self.notes.append(f"{where} is not whole: the process was killed, or the disk was full")
            self._before = line_hash(line)
            return None
        found = head_after(line)
        if found is None:
            if self.first is None:
                self._unchained += 1
            else:
                self.problems.append(f"{where} has no place in the chain: it was added")
            self._before = line_hash(line)
            return fields
        if fields.get("action") == REMOVED_FILE and isinstance(removed := fields.get("last_seq"), int):
            self._removed = max(self._removed, removed)
        self._check_place(found, fields["previous"], where)
        if isinstance(count := fields.get(UNCONFIRMED), int):
            self._add_unconfirmed(found.seq - count, found.seq - 1)
        self.last, self._before = found, found.hash
        if found.seq == self._wanted:
            self._hash_at[found.seq] = found.hash
        return fields

    def _check_place(self, found: Head, previous: str, where: str) -> None:
        if self.first is None:
            self.first = found.seq
            if found.seq == 1 and previous != self._before:
                self.problems.append(f"the lines before {where} were changed or removed")
        elif found.seq != self.last.seq + 1:
            if found.seq > self.last.seq:
                self.problems.append(f"{_lines(self.last.seq + 1, found.seq - 1)} missing before {where}")
            else:
                self.problems.append(
                    f"{where} has the number {found.seq}, which is not behind {self.last.seq}"
                )
        elif previous != self._before:
            self.problems.append(f"the line before {where}, number {self.last.seq}, was changed")

    def _add_unconfirmed(self, first: int, last: int) -> None:
        """Say that lines were not in the head. A process that is killed leaves one of them."""
        if first == last:
            self.notes.append(f"line {last} was not in the head: its process was killed, or it was added")
        else:
            self.problems.append(f"{_lines(first, last)} not in the head: they were added")

    def finish(self, head: Head | None) -> None:
        """Compare with the head when all lines are added. None: there is no head that can be read."""
        if self._unchained and self.first is not None and self.first > 1:
            self.problems.append(f"{self._unchained} lines before line {self.first} were added")
        elif self._unchained:
            self.notes.append(f"{self._unchained} lines of an earlier version are not chained")
        if self.first is not None and self.first > 1:
            if self._removed >= self.first - 1:
                self.notes.append(f"{_lines(1, self.first - 1)} in files that were removed by age")
            else:
                self.problems.append(f"{_lines(1, self.first - 1)} missing at the start")
        if head is None:
            if self.first is not None:
                self.problems.append("the head of the log is missing: lines may be missing at the end")
        elif head.seq > self.last.seq:
            self.problems.append(f"{_lines(self.last.seq + 1, head.seq)} missing at the end")
        elif self.last.seq > head.seq:
            self._add_unconfirmed(head.seq + 1, self.last.seq)
        if head is not None and head.seq and self._hash_at.get(head.seq, head.hash) != head.hash:
            self.problems.append(f"line {head.seq} was changed")


# The action of the line that records the removal of an old file.
REMOVED_FILE = "remove_audit_file"


def _lines(first: int, last: int) -> str:
    return f"line {first} is" if first == last else f"lines {first} to {last} are"
