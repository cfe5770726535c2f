"""Lines of a byte stream in bounded memory: numbered, with the offset behind each."""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256

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
        self._long: _Long | None = None

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
        if self._long is None:
            self._rest += part
            if len(self._rest) > self._longest:
                self._long = _Long(self._rest)
                self._rest = b""
        else:
            self._long.add(part)

    def _complete(self, part: bytes, newline: int) -> Line | None:
        self._keep(part)
        self._number += 1
        if self._long is not None:
            long, self._long = self._long, None
            self._offset += long.size + newline
            return Line(self._number, self._offset, long.start, long.size, long.digest.hexdigest())
        text, self._rest = self._rest, b""
        self._offset += len(text) + newline
        if self._number == 1:
            text = text.removeprefix(_BOM)
        text = text.removesuffix(b"\r")
        if not text or (text[0] in _WHITE and not text.strip(_WHITE)):
            return None
        return Line(self._number, self._offset, text, len(text))


class _Long:
    """A line over the limit: its start, its size and its sha256; the same however it came in."""

    def __init__(self, begun: bytes) -> None:
        self.start = begun[:KEPT_OF_LONG]
        self.size = len(begun)
        self.digest = sha256(begun)

    def add(self, part: bytes) -> None:
        self.start += part[: KEPT_OF_LONG - len(self.start)]
        self.size += len(part)
        self.digest.update(part)
