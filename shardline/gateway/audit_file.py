"""The file of the audit log: chained lines, rotated by size, appended to by any number of processes."""

import errno
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import orjson

from shardline.gateway.audit_chain import REMOVED_FILE, UNCONFIRMED, Head, head_after, line_hash

if sys.platform != "win32":
    import fcntl

_TAIL_BYTES = 1 << 12
_DIGITS = 12
_LOCK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class AuditLimits:
    """The size at which a file is closed and another one begun, and the number of closed files that are kept.

    `files` 0: all are kept.
    """

    bytes: int = 16 << 20
    files: int = 100


@dataclass(frozen=True, slots=True)
class _Tail:
    """The end of the open file: its size, the last line, and whether that has its line break."""

    size: int
    line: bytes
    complete: bool


class AuditFile:
    """Appends to the log at `path`. All methods block, and raise OSError.

    A closed file is named like the log, with the number of its last line behind it. The head is in
    `<path>.head`, and is the lock of the log, too: processes append one after the other. A pipe or a device,
    such as /dev/stdout of a container, has no chain, because its lines cannot be read back.
    """

    def __init__(self, path: Path, limits: AuditLimits | None = None) -> None:
        self._path = real_path(path)
        self._limits = limits or AuditLimits()

    def check_writable(self) -> str | None:
        """Create folder and files. Returns a sentence when lines are missing at the end of the log."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if not self._chained():
            self._path.open("ab", buffering=0).close()
            return None
        with self._locked() as head_file, self._path.open("ab") as log:
            head, tail = Head.decode(head_file.read()), _tail(log)
            found = head_after(tail.line) or Head()
            if head is not None and head.seq > found.seq and tail.size:
                return f"{self._path}: lines {found.seq + 1} to {head.seq} are missing at its end"
        return None

    def append(self, fields: dict[str, Any]) -> None:
        """Append a line: the fields, its number, and the hash of the line before.

        1. Find the last line: by the head, or by the file when a process was killed between the two writes.
        2. Begin another file when this one is full.
        3. Write the line, then the head. A head that is behind proves the lines up to it; one that is ahead
           would report a line as missing that was never written.
        """
        if not self._chained():
            with self._path.open("ab", buffering=0) as log:
                log.write(orjson.dumps(fields, default=str) + b"\n")
            return
        with self._locked() as head_file:
            head = self._write(head_file, fields)
            if head is not None:
                for removed in self._expired():
                    removed.unlink(missing_ok=True)
                    note = {"at": fields.get("at"), "action": REMOVED_FILE, "file": removed.name}
                    self._write(head_file, note | {"last_seq": _last_seq(removed), "outcome": "200"})

    def _write(self, head_file: IO[bytes], fields: dict[str, Any]) -> Head | None:
        """Append a line. Returns the head at which the file before was closed; None when it was not."""
        head_file.seek(0)
        head, unconfirmed = Head.decode(head_file.read()) or Head(), 0
        with self._path.open("ab", buffering=0) as log:
            tail = _tail(log)
            # 1.
            found = head_after(tail.line)
            if found is not None and found.seq > head.seq:
                # Somebody else may have written them, so the next line says it for ever.
                head, unconfirmed = found, found.seq - head.seq
            elif found is None and tail.line:
                # A line of an earlier version, or one that a crash has cut: its bytes are part of the chain.
                head = Head(head.seq, line_hash(tail.line))
            line = head.chained(fields | ({UNCONFIRMED: unconfirmed} if unconfirmed else {})) + b"\n"
            # 2.
            full = tail.size > 0 and tail.complete and tail.size + len(line) > self._limits.bytes
            if not full:
                _write_all(log, line if tail.complete else b"\n" + line)
        if full:
            self._path.rename(self._path.with_name(f"{self._path.name}.{head.seq:0{_DIGITS}d}"))
            with self._path.open("ab", buffering=0) as log:
                _write_all(log, line)
        # 3.
        written = Head(head.seq + 1, line_hash(line[:-1]))
        head_file.seek(0)
        head_file.write(written.encode())
        head_file.flush()
        return head if full else None

    def _chained(self) -> bool:
        return self._path.is_file() or not self._path.exists()

    def _expired(self) -> list[Path]:
        return closed_files(self._path)[: -self._limits.files] if self._limits.files else []

    @contextmanager
    def _locked(self) -> Iterator[IO[bytes]]:
        descriptor = os.open(
            head_path(self._path), os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o640
        )
        with os.fdopen(descriptor, "r+b") as file, _lock(file):
            yield file


@contextmanager
def _lock(file: IO[bytes], *, shared: bool = False) -> Iterator[None]:
    # Closing the file ends the lock. Windows has no flock: there one process may write to a log.
    if sys.platform != "win32":
        kind, ends = fcntl.LOCK_SH if shared else fcntl.LOCK_EX, time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(file, kind | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                # A process that was stopped in the middle of a line must not stop all others.
                if time.monotonic() > ends:
                    raise OSError(errno.EAGAIN, "another process holds the lock of the audit log") from None
                time.sleep(0.001)
    yield


def real_path(path: Path) -> Path:
    """Return the path of the log itself where `path` is a link: its other files lie beside it."""
    return Path(os.path.realpath(path))


def head_path(path: Path) -> Path:
    """Return the path of the head of a log."""
    return path.with_name(path.name + ".head")


def closed_files(path: Path) -> list[Path]:
    """Return the closed files of a log, the oldest first."""
    found = [one for one in path.parent.glob(f"{_escaped(path.name)}.[0-9]*") if _last_seq(one) is not None]
    return sorted(found, key=lambda one: _last_seq(one) or 0)


def _escaped(name: str) -> str:
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)


def _last_seq(path: Path) -> int | None:
    number = path.name.rpartition(".")[2]
    # Fewer digits are a number of logrotate.
    return int(number) if len(number) >= _DIGITS and number.isascii() and number.isdecimal() else None


def _tail(log: IO[bytes]) -> _Tail:
    size = os.fstat(log.fileno()).st_size
    if not size:
        return _Tail(0, b"", complete=True)
    with Path(log.name).open("rb") as file:
        length = min(size, _TAIL_BYTES)
        while True:
            file.seek(size - length)
            end = file.read(length)
            body = end.removesuffix(b"\n")
            if b"\n" in body or length == size:
                return _Tail(size, body.rpartition(b"\n")[2], complete=end.endswith(b"\n"))
            length = min(size, length * 4)


def _write_all(log: IO[bytes], data: bytes) -> None:
    """Write a line whole, or not at all: half of a line on a full disk would be a broken chain."""
    size = os.fstat(log.fileno()).st_size
    written = 0
    try:
        written = log.write(data)
    finally:
        if written != len(data):
            log.truncate(size)
    if written != len(data):
        raise OSError(errno.ENOSPC, f"{written} of {len(data)} bytes were written")


@contextmanager
def open_whole(path: Path) -> Iterator[tuple[Head | None, list[tuple[str, IO[bytes], int]]]]:
    """Open the head and all files of a log as of one moment: (head, [(name, file, size)]), the oldest first.

    Gateways may go on writing: bytes behind `size` are no part of that moment.
    """
    path, opened = real_path(path), list[tuple[str, IO[bytes], int]]()
    try:
        try:
            head_file = head_path(path).open("rb")
        except FileNotFoundError:
            head_file = None
        if head_file is None:
            head = None
            _open_all(path, opened)
        else:
            with head_file, _lock(head_file, shared=True):
                head = Head.decode(head_file.read())
                _open_all(path, opened)
        yield head, opened
    finally:
        for _, file, _ in opened:
            file.close()


def _open_all(path: Path, opened: list[tuple[str, IO[bytes], int]]) -> None:
    for one in [*closed_files(path), path]:
        try:
            file = one.open("rb")
        except FileNotFoundError:
            if one == path:
                continue
            raise
        opened.append((one.name, file, os.fstat(file.fileno()).st_size))
