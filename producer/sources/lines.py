"""Lines of a byte stream in bounded memory: numbered, with the offset behind each."""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

_BOM = b"\xef\xbb\xbf"
_WHITE = b" \t\r\n\v\f"
KEPT_OF_LONG = 65_536


@dataclass(frozen=True, slots=True)
class Line:
    """A line without its end. Of one that is too long only the start is kept; `size` tells its length."""

    number: int
    end: int
    text: bytes
    size: int
    digest: str | None = None


class LineSplitter:
    """Feed it chunks, take its lines. Lines of white space are counted, but not given."""

    def __init__(self, longest: int, number: int = 0, offset: int = 0) -> None:
        self._longest = longest
        self._number = number
        self._offset = offset
        self._rest = b""
        self._long: tuple[Any, bytes, int] | None = None

    def feed(self, chunk: bytes) -> Iterator[Line]:
        """The lines that this chunk completes."""
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            line = self._complete(chunk[start:end], 1)
            if line is not None:
                yield line
            start = end + 1
        self._keep(chunk[start:])

    def finish(self) -> Iterator[Line]:
        """The last line, where it has no end of line."""
        if self._rest or self._long:
            line = self._complete(b"", 0)
            if line is not None:
                yield line

    def _keep(self, part: bytes) -> None:
        if self._long is not None:
            digest, head, size = self._long
            digest.update(part)
            self._long = (digest, head, size + len(part))
            return
        self._rest += part
        if len(self._rest) > self._longest + len(_BOM) + 1:
            self._long = (sha256(self._rest), self._rest[:KEPT_OF_LONG], len(self._rest))
            self._rest = b""

    def _complete(self, part: bytes, newline: int) -> Line | None:
        self._number += 1
        if self._long is not None:
            self._keep(part)
            digest, head, size = self._long
            self._long = None
            self._offset += size + newline
            return Line(self._number, self._offset, head, size, digest.hexdigest())
        text, self._rest = self._rest + part, b""
        self._offset += len(text) + newline
        if self._number == 1:
            text = text.removeprefix(_BOM)
        text = text.removesuffix(b"\r")
        if not text or (text[0] in _WHITE and not text.strip(_WHITE)):
            return None
        if len(text) > self._longest:
            return Line(self._number, self._offset, text[:KEPT_OF_LONG], len(text), sha256(text).hexdigest())
        return Line(self._number, self._offset, text, len(text))
