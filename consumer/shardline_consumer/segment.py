"""Segments: pure cutting of a partition's messages, and the open segment that is being filled."""

import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from shardline_common.dataset.chain import Totals
from shardline_common.errors import FailureCode, JobFailed
from shardline_common.job.hashing import MODULUS, document_hash
from shardline_common.job.messages import (
    DEAD,
    DOCUMENT,
    DOCUMENT_HEAD,
    END,
    KIND_SEQUENCE,
    DeadLetter,
    Position,
    decode_dead,
    decode_end,
    decode_position,
)
from shardline_common.job.spec import JobSpec
from shardline_common.ports.broker import Record
from shardline_consumer.filters.clara import Judge, Verdict
from shardline_consumer.spool.file import SpoolFile

_MALFORMED = (struct.error, ValueError, KeyError, TypeError, OverflowError)
MOST_RECORDS = 1_000_000
SCAN_FACTOR = 4


@dataclass(frozen=True, slots=True)
class Cut:
    """When a segment closes: behind the record that reaches one of these."""

    row_bytes: int
    scanned_bytes: int
    records: int = MOST_RECORDS

    @classmethod
    def of(cls, spec: JobSpec) -> "Cut":
        """The rule of a job."""
        return cls(spec.output.shard_bytes, SCAN_FACTOR * spec.output.shard_bytes)

    def reached(self, row_bytes: int, scanned_bytes: int, records: int) -> bool:
        """Whether a segment with these sums is full."""
        return row_bytes >= self.row_bytes or scanned_bytes >= self.scanned_bytes or records >= self.records


@dataclass(frozen=True, slots=True)
class Dead:
    """A dead letter met in the topic, with its place."""

    sequence: int
    position: bytes
    letter: DeadLetter


@dataclass(slots=True)
class Taken:
    """What one `take` did: records used, replays skipped, foreign messages skipped, dead letters met."""

    used: int = 0
    replayed: int = 0
    foreign: int = 0
    dead: list[Dead] = field(default_factory=list)


class OpenSegment:
    """The segment from `first` on. Feed it records; when `closed`, its totals and files are final.

    `before` are the chain's totals up to `first`; `rejects` the decimals of a rejected document's relevance,
    None where rejected documents are not kept. Blocking (it writes its spool): call it off the loop.
    """

    def __init__(
        self, first: int, before: Totals, judge: Judge, cut: Cut, spool: Path, *, rejects: int | None
    ) -> None:
        self.first = first
        self.next = first
        self.before = before
        self.closed = False
        self.ended = False
        self.offset = -1
        self._judge = judge
        self._cut = cut
        self._spool = spool
        self._rejects = rejects
        self.rows: SpoolFile | None = None
        self.rejected: SpoolFile | None = None
        self._position = b"[]"
        self._counts: Counter[str] = Counter()
        self._dead: Counter[str] = Counter()
        self._kept = self._row_bytes = self._hash_sum = self._words = self._quality = self._scanned = 0

    @property
    def position(self) -> Position:
        """Source position of the last record."""
        return decode_position(self._position)

    @property
    def totals(self) -> Totals:
        """The counts so far."""
        return Totals(
            rows=self._kept,
            bytes=self._row_bytes,
            rejected=dict(sorted(self._counts.items())),
            dead=dict(sorted(self._dead.items())),
            hash_sum=self._hash_sum % MODULUS,
            words=self._words,
            quality=self._quality,
            scanned_bytes=self._scanned,
            segments=1,
        )

    def take(self, records: Sequence[Record]) -> Taken:
        """Take records until the segment closes or they are used up.

        Raises:
            JobFailed: a sequence is missing, or the end marker's sums disagree.
            SpoolError: the spool cannot be written.
        """
        taken = Taken()
        rows: list[bytes] = []
        rejects: list[bytes] = []
        for record in records:
            taken.used += 1
            value = record.value
            if not value or not _is_ours(value) or record.key is None:
                taken.foreign += 1
                continue
            kind, sequence = KIND_SEQUENCE.unpack_from(value)
            if sequence < self.next:
                taken.replayed += 1
                continue
            if sequence > self.next:
                raise self._gap(record, sequence)
            try:
                if kind == DOCUMENT:
                    self._document(record.key, value, rows, rejects)
                elif kind == DEAD:
                    taken.dead.append(self._dead_letter(record.key, value))
                else:
                    self._end(value)
            except _MALFORMED:
                # No producer of ours wrote it. Were it a damaged one of ours, the next sequence would tell.
                taken.foreign += 1
                continue
            self.offset = record.offset + 1
            if self.ended:
                break
            self.next += 1
            if self._cut.reached(self._row_bytes, self._scanned, self.next - self.first):
                self.closed = True
                break
        self._write(rows, rejects)
        return taken

    def _document(self, key: bytes, value: bytes, rows: list[bytes], rejects: list[bytes]) -> None:
        # The hot path: a row is never decoded, only joined with its score.
        _, _, chars, words, present, flags, relevance, p, h = DOCUMENT_HEAD.unpack_from(value)
        start = DOCUMENT_HEAD.size
        head = start + p
        tail = head + h
        if tail > len(value):
            raise ValueError("shorter than it says")
        verdict = self._judge(chars, present, flags, relevance)
        self._position = value[start:head]
        self._hash_sum += document_hash(key)
        self._scanned += len(value) - head
        if verdict.reason is None:
            rows += (value[head:tail], verdict.text, value[tail:])
            self._kept += 1
            self._row_bytes += len(value) - head + len(verdict.text)
            self._words += words
            self._quality += verdict.score
            return
        self._counts[verdict.reason.value] += 1
        if self._rejects is not None:
            rejects.append(_reject_line(key, verdict, round(relevance, self._rejects) + 0.0))

    def _dead_letter(self, key: bytes, value: bytes) -> Dead:
        self._position, letter = decode_dead(value)
        self._hash_sum += document_hash(key)
        self._scanned += len(letter.original)
        self._dead[letter.reason] += 1
        return Dead(self.next, self._position, letter)

    def _end(self, value: bytes) -> None:
        end = decode_end(value)
        if (self.before.hash_sum + self._hash_sum) % MODULUS != end.hash_sum:
            raise JobFailed(
                FailureCode.CONSERVATION,
                f"the hash sum of {end.count} documents disagrees with the producer's",
                hint="the topic holds other documents than the producer sent; retry the job",
            )
        self.ended = True
        self.closed = self.next > self.first

    def _gap(self, record: Record, sequence: int) -> JobFailed:
        return JobFailed(
            FailureCode.SEQUENCE_GAP,
            f"partition {record.partition}, offset {record.offset}: "
            f"sequence {sequence} where {self.next} was due",
            hint="messages were lost from the topic; retry the job",
        )

    def _write(self, rows: list[bytes], rejects: list[bytes]) -> None:
        if rows:
            self.rows = self.rows or SpoolFile(self._spool)
            self.rows.write(rows)
        if rejects:
            self.rejected = self.rejected or SpoolFile(self._spool)
            self.rejected.write(rejects)

    def discard(self) -> None:
        """Remove the spool files."""
        for file in (self.rows, self.rejected):
            if file is not None:
                file.discard()


def _is_ours(value: bytes) -> bool:
    return DOCUMENT <= value[0] <= END and len(value) >= KIND_SEQUENCE.size


def _reject_line(key: bytes, verdict: Verdict, relevance: float) -> bytes:
    line = {
        "document_id": key.decode(),
        "reason": verdict.reason,
        "scores": {"quality": orjson.Fragment(verdict.text), "relevance": relevance},
    }
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
