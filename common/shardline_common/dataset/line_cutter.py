"""Cuts the chunks of an object into lines."""

import sys

from shardline_common.errors import FailureCode, JobFailed


class LineCutter:
    """Cuts chunks into lines without their ends. `limit` is the largest line that `check_rest` accepts."""

    def __init__(self, limit: int = sys.maxsize) -> None:
        self._limit = limit
        self._parts = list[bytes]()
        self._size = 0

    @property
    def rest(self) -> bytes:
        """The bytes behind the last end of a line."""
        return b"".join(self._parts)

    def cut(self, chunk: bytes) -> list[bytes]:
        """The lines that end in a chunk."""
        lines = chunk.split(b"\n")
        rest = lines.pop()
        if lines:
            lines[0] = b"".join((*self._parts, lines[0]))
            self._parts, self._size = [], 0
        self._parts.append(rest)
        self._size += len(rest)
        return lines

    def check_rest(self) -> None:
        """Raise JobFailed when the line that has not ended is longer than the limit."""
        if self._size > self._limit:
            raise JobFailed(FailureCode.CONSERVATION, f"a line has more than {self._limit} bytes")
