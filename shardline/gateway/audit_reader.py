"""Reading the audit log: the lines that are asked for, and whether the chain of all lines is whole."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any

from shardline.gateway.audit_chain import ChainCheck, Head
from shardline.gateway.audit_file import open_whole
from shardline_common.errors import UsageError
from shardline_common.runtime.paths import os_reason, shown_path

_AGO = re.compile(r"([0-9]{1,6})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """Which lines are asked for; None: any. `user` is a subject or a name."""

    since: datetime | None = None
    until: datetime | None = None
    user: str | None = None
    fields: Mapping[str, str | None] = field(default_factory=dict)

    def matches(self, line: Mapping[str, Any]) -> bool:
        """Whether a line is asked for."""
        at = _time_of(line.get("at"))
        if self.since is not None and (at is None or at < self.since):
            return False
        if self.until is not None and (at is None or at >= self.until):
            return False
        if self.user is not None and self.user not in (line.get("user_id"), line.get("user")):
            return False
        return all(line.get(name) == value for name, value in self.fields.items() if value is not None)


@dataclass(frozen=True, slots=True)
class AuditReport:
    """The lines that were asked for, and what the chain of all lines says. `problems` empty: it is whole."""

    lines: list[dict[str, Any]]
    problems: list[str]
    notes: list[str]
    head: Head

    def to_json(self) -> dict[str, Any]:
        """Return the report as `audit --json` prints it."""
        return {
            "ok": not self.problems,
            "lines": self.lines,
            "problems": self.problems,
            "notes": self.notes,
            "head": {"seq": self.head.seq, "sha256": self.head.hash},
        }


def read_audit_log(path: Path, wanted: Callable[[Mapping[str, Any]], bool]) -> AuditReport:
    """Read the log at `path` with its closed files, as of now.

    Raises:
        UsageError: there is no log, or it cannot be read.
    """
    check, found = ChainCheck(), list[dict[str, Any]]()
    try:
        with open_whole(path) as (head, files):
            if not files:
                raise UsageError(
                    f"there is no audit log at {shown_path(path)}",
                    hint="name the gateway's GATEWAY_AUDIT_LOG with --file",
                )
            check.expect(head)
            for name, file, size in files:
                for number, line in enumerate(_lines(file, size), 1):
                    fields = check.add(line, f"{name}:{number}")
                    if fields is not None and wanted(fields):
                        found.append(fields)
            check.finish(head)
    except OSError as error:
        raise UsageError(f"the audit log {shown_path(path)} cannot be read: {os_reason(error)}") from None
    return AuditReport(found, check.problems, check.notes, check.last)


def _lines(file: IO[bytes], size: int) -> Iterator[bytes]:
    while size > 0:
        line = file.readline(size)
        if not line:
            return
        size -= len(line)
        yield line.removesuffix(b"\n")


def _time_of(value: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return found.replace(tzinfo=found.tzinfo or UTC) if found else None


def parse_moment(text: str, now: datetime) -> datetime:
    """Return the moment that a user names: `24h` or `7d` ago, a day, or a time; without a zone in UTC.

    Raises:
        UsageError: it is none of them.
    """
    try:
        if (ago := _AGO.fullmatch(text)) is not None:
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        if (found := _time_of(text)) is not None:
            return found
    except OverflowError:
        pass
    raise UsageError(f"'{text[:100]}' is no time", hint="write 24h, 7d, 2026-11-29 or 2026-11-29T08:00:00Z")
