"""The range of a job's files that one slice reads: from a line of a file to a line of that or another."""

from bisect import bisect_right
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from shardline_producer.sources.files.file_errors import source_changed
from shardline_producer.sources.source import Frozen, Part

Stream = Callable[[int], AsyncGenerator[bytes, None]]


@dataclass(frozen=True, slots=True, order=True)
class CutPoint:
    """A place between two lines: index of the file, the lines and the bytes of the file before it.

    The end of a file is the start of the next one, so a place inside of a file has bytes before it.
    """

    file: int = 0
    line: int = 0
    offset: int = 0

    def to_json(self) -> list[int]:
        """The point as the plan keeps it."""
        return [self.file, self.line, self.offset]


@dataclass(frozen=True, slots=True)
class FileRange:
    """What lies from `start` up to `end`."""

    start: CutPoint
    end: CutPoint

    @classmethod
    def of(cls, part: Part | None, frozen: Frozen) -> "FileRange":
        """The range of a part of the plan; None, or an empty one, is all files."""
        if not part:
            return cls(CutPoint(), CutPoint(len(frozen)))
        return cls(CutPoint(*part["start"]), CutPoint(*part["end"]))

    def to_json(self) -> dict[str, Any]:
        """The range as a part of the plan."""
        return {"start": self.start.to_json(), "end": self.end.to_json()}

    @property
    def files(self) -> int:
        """The index behind the last file of which something is in the range."""
        return self.end.file + (self.end.offset > 0)

    def bounded(self, stream: Stream, path: str, index: int, line: int) -> Stream:
        """The stream of a file, up to the end of the range.

        A file that is not that of the plan has another number of lines before the cut, or a line across it.
        Then the lines behind the cut would have other numbers than here, and a record would be two.

        Args:
            stream: opens the file at an offset.
            path: the file, for the error.
            index: its index in the plan.
            line: the number of lines before the offset.
        """
        end = self.end
        if index != end.file:
            return stream

        async def lines(offset: int) -> AsyncGenerator[bytes, None]:
            number, last = line, b"\n"
            if offset < end.offset:
                async with aclosing(stream(offset)) as chunks:
                    async for chunk in chunks:
                        piece = chunk[: end.offset - offset]
                        number += piece.count(b"\n")
                        offset += len(piece)
                        if offset == end.offset:
                            last = piece[-1:]
                            if number == end.line and last == b"\n":
                                yield piece
                            break
                        yield piece
            if (offset, number, last) != (end.offset, end.line, b"\n"):
                raise source_changed(path, f"its line {end.line:,} does not end at byte {end.offset:,}")

        return lines


class FileSizes:
    """The sizes of a job's files, summed once: a job may have 100,000 of them."""

    def __init__(self, frozen: Frozen) -> None:
        self.frozen = frozen
        self._before: list[int] = [0, *accumulate(file["size"] for file in frozen)]

    @property
    def total(self) -> int:
        """The bytes of all files."""
        return self._before[-1]

    def before(self, point: CutPoint) -> int:
        """The bytes before a point. A point behind the end of its file is at its end."""
        end = self._before[min(point.file + 1, len(self.frozen))]
        return min(end, self._before[point.file] + point.offset)

    def file_at(self, place: int) -> int:
        """The index of the file in which a byte lies."""
        return bisect_right(self._before, place) - 1

    def file_end(self, place: int) -> int:
        """Where the file ends in which a byte lies, or the last file."""
        return self._before[min(bisect_right(self._before, place), len(self._before) - 1)]

    def share(self, within: FileRange, point: CutPoint) -> float:
        """The share of a range that lies before a point."""
        first, end = self.before(within.start), self.before(within.end)
        return min(1.0, max(0, self.before(point) - first) / ((end - first) or 1))
