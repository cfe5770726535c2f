"""The lines of a byte stream in bounded memory, numbered, each with the offset behind it."""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO

from shardline_common.job.messages import MAX_ORIGINAL_BYTES

BOM = b"\xef\xbb\xbf"
_WHITE_SPACE = b" \t\r\n\v\f"
_SPACE, _CR, _LF = 0x20, 0x0D, 0x0A


class BrokenText(Exception):
    """The text of a file cannot be cut into records. The message says what is wrong, and at which byte."""


# Not frozen: to make a frozen one takes three times as long, and there is one for each document.
@dataclass(slots=True)
class Line:
    """A line without its line end, or another record.

    `number` counts from 1, `end` is the offset behind the line end, `size` the length in bytes. For a line
    over the limit, `text` is only its first MAX_ORIGINAL_BYTES, and `digest` the sha256 of the whole line.
    For every other line `digest` is None.
    """

    number: int
    end: int
    text: bytes
    size: int
    digest: str | None = None


class LineSplitter:
    """Splits chunks of a stream into lines. Lines of white space are counted and not returned.

    The lines do not depend on how the stream is cut into chunks. `number` and `offset` are those of the line
    before the first chunk. A line of more than `max_bytes` is not held in memory.
    """

    def __init__(self, max_bytes: int, number: int = 0, offset: int = 0) -> None:
        self._max_bytes = max_bytes
        self._number = number
        self._offset = offset
        self._rest = b""
        self._oversized: OversizedRecord | None = None

    def feed(self, chunk: bytes) -> Iterator[Line]:
        """The lines that this chunk completes."""
        largest = self._max_bytes
        # To iterate over BytesIO takes half of the time of `split`.
        for line in BytesIO(chunk):
            if line[-1] != _LF:
                self._add(line)
                return
            text = line[:-1]
            if self._rest or self._oversized is not None or len(text) > largest or not self._number:
                found = self._complete(text, 1)
                if found is not None:
                    yield found
                continue
            # The whole line is in this chunk.
            self._number += 1
            self._offset += len(text) + 1
            if text and text[-1] == _CR:
                text = text[:-1]
            if text and (text[0] > _SPACE or text.strip(_WHITE_SPACE)):
                yield Line(self._number, self._offset, text, len(text))

    def finish(self) -> Iterator[Line]:
        """The last line, when the stream does not end with a line end."""
        if self._rest or self._oversized:
            line = self._complete(b"", 0)
            if line is not None:
                yield line

    def _add(self, part: bytes) -> None:
        if self._oversized is None:
            self._rest += part
            if len(self._rest) > self._max_bytes:
                self._oversized = OversizedRecord(self._rest)
                self._rest = b""
        else:
            self._oversized.add(part)

    def _complete(self, part: bytes, line_end: int) -> Line | None:
        self._add(part)
        self._number += 1
        if self._oversized is not None:
            line, self._oversized = self._oversized, None
            self._offset += line.size + line_end
            return Line(self._number, self._offset, line.start, line.size, line.digest.hexdigest())
        text, self._rest = self._rest, b""
        self._offset += len(text) + line_end
        if self._number == 1:
            text = text.removeprefix(BOM)
        text = text.removesuffix(b"\r")
        if not text or (text[0] in _WHITE_SPACE and not text.strip(_WHITE_SPACE)):
            return None
        return Line(self._number, self._offset, text, len(text))


class OversizedRecord:
    """Start, size and sha256 of a record over the limit, which is not held in memory."""

    def __init__(self, first: bytes) -> None:
        self.start = first[:MAX_ORIGINAL_BYTES]
        self.size = len(first)
        self.digest = sha256(first)

    def add(self, part: bytes) -> None:
        """Add the next bytes of the record."""
        self.start += part[: MAX_ORIGINAL_BYTES - len(self.start)]
        self.size += len(part)
        self.digest.update(part)


class RecordBuffer:
    """The bytes of the record that is being read. Of more than `max_bytes`, only the start is held."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held = bytearray()
        self._oversized: OversizedRecord | None = None

    @property
    def size(self) -> int:
        """The bytes so far."""
        return self._oversized.size if self._oversized is not None else len(self._held)

    def add(self, part: bytes) -> None:
        """Add the next bytes of the record."""
        if self._oversized is not None:
            self._oversized.add(part)
            return
        self._held += part
        if len(self._held) > self._max_bytes:
            self._oversized = OversizedRecord(bytes(self._held))
            self._held.clear()

    def take(self, number: int, end: int) -> Line:
        """The record, which is complete. The buffer is empty afterwards."""
        if self._oversized is not None:
            record, self._oversized = self._oversized, None
            return Line(number, end, record.start, record.size, record.digest.hexdigest())
        text = bytes(self._held)
        self._held.clear()
        return Line(number, end, text, len(text))
