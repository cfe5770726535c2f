"""A text cut into pieces of whole lines, which other processes read."""

from collections.abc import Iterator
from typing import NamedTuple

from shardline_producer.sources.files.lines import Line, OversizedRecord

# A piece costs a hand-over between processes, and a few of them are in memory at once.
_PIECE_BYTES = 1 << 20


class Piece(NamedTuple):
    """Whole lines. `number` and `offset` are those of the line before the first."""

    number: int
    offset: int
    text: bytes


class PieceCutter:
    """Cuts chunks of a text into pieces. `number` and `offset` are those of the line before the first chunk.

    A line of more than `max_bytes` is not held in memory: it is returned as the Line that LineSplitter makes
    of it. The lines of all pieces, with these, are those of LineSplitter.
    """

    def __init__(self, max_bytes: int, number: int = 0, offset: int = 0) -> None:
        self._max_bytes = max_bytes
        self._number = number
        self._offset = offset
        self._whole: list[bytes] = []
        self._whole_bytes = 0
        self._rest = b""
        self._oversized: OversizedRecord | None = None

    def feed(self, chunk: bytes) -> Iterator[Piece | Line]:
        """The pieces that this chunk completes."""
        if self._oversized is not None:
            end = chunk.find(b"\n")
            self._oversized.add(chunk if end < 0 else chunk[:end])
            if end < 0:
                return
            yield self._end_oversized(self._oversized, 1)
            chunk = chunk[end + 1 :]
        if end := chunk.rfind(b"\n") + 1:
            self._whole += (self._rest, chunk[:end])
            self._whole_bytes += len(self._rest) + end
            self._rest = chunk[end:]
            if self._whole_bytes >= _PIECE_BYTES:
                yield self._piece()
        else:
            self._rest += chunk
        if len(self._rest) > self._max_bytes:
            if self._whole_bytes:
                yield self._piece()
            self._oversized, self._rest = OversizedRecord(self._rest), b""

    def finish(self) -> Iterator[Piece | Line]:
        """What the end of the text completes."""
        self._whole.append(self._rest)
        self._whole_bytes += len(self._rest)
        if self._whole_bytes:
            yield self._piece()
        if self._oversized is not None:
            yield self._end_oversized(self._oversized, 0)

    def _piece(self) -> Piece:
        piece = Piece(self._number, self._offset, b"".join(self._whole))
        self._number += piece.text.count(b"\n")
        self._offset += len(piece.text)
        self._whole, self._whole_bytes = [], 0
        return piece

    def _end_oversized(self, line: OversizedRecord, line_end: int) -> Line:
        self._oversized = None
        self._number += 1
        self._offset += line.size + line_end
        return Line(self._number, self._offset, line.start, line.size, line.digest.hexdigest())
