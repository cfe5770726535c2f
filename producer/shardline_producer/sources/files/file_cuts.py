"""Where the files of a job are cut into slices: between files, and inside of plain JSONL at line ends."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from functools import partial
from itertools import pairwise
from typing import Any

from shardline_common.runtime.paths import shown_path
from shardline_common.runtime.tasks import gather_limited
from shardline_common.runtime.waits import log_wait
from shardline_producer.sources.files.file_format import UTF_8, format_of
from shardline_producer.sources.files.file_ranges import CutPoint, FileRange, FileSizes
from shardline_producer.sources.source import Cuts, Frozen

_FILES_AT_ONCE = 4
_ONLY = "only uncompressed JSONL in UTF-8 is cut inside of a file"
OpenFile = Callable[[int], AsyncGenerator[bytes, None]]
"""Streams the bytes of a file, which is named by its index, from its start."""


async def cut_files(frozen: Frozen, slices: int, open_file: OpenFile) -> Cuts:
    """Up to `slices` ranges of about as many bytes.

    The lines before each cut inside of a file are counted, because positions, the keys of dead letters and
    ids that are lines have their numbers. For that the file is read up to its last cut.

    Raises: as `FileLocation.stream`.
    """
    sizes = FileSizes(frozen)
    wanted = _wanted(sizes, slices)
    counter = _LineCounter(sizes, open_file)
    calls = [partial(counter.cut, file, offsets) for file, offsets in wanted.items()]
    size = sum(max(offsets) for offsets in wanted.values())
    with log_wait(
        "the lines before each slice, which are counted", lambda: f"{counter.read:,} of {size:,} bytes"
    ):
        found = await gather_limited(calls, _FILES_AT_ONCE)
    # Several cuts may come to one line end, and a cut behind the last line of all is none.
    points = {sizes.before(point): point for points in found for point in points}
    inner = [points[place] for place in sorted(points) if 0 < place < sizes.total]
    if not inner:
        return Cuts([{}], _why_fewer(frozen))
    edges = [CutPoint(), *inner, CutPoint(len(frozen))]
    ranges = [FileRange(start, end).to_json() for start, end in pairwise(edges)]
    return Cuts(ranges, "" if len(ranges) == slices else _why_fewer(frozen))


def _is_divisible(file: Any) -> bool:
    found = format_of(file)
    return found.is_plain and found.records == "jsonl"


def _wanted(sizes: FileSizes, slices: int) -> dict[int, list[int]]:
    """File -> where it is to be cut, as offsets in rising order; 0 is the cut before the file."""
    last = 0
    wanted: dict[int, list[int]] = {}
    for number in range(1, slices if sizes.total else 1):
        place = sizes.total * number // slices
        file = sizes.file_at(place)
        if not _is_divisible(sizes.frozen[file]):
            # The nearer one of its ends. A slice has something: if both are taken, the next file is cut off.
            ends = [sizes.before(CutPoint(file)), sizes.before(CutPoint(file + 1))]
            free = [end for end in ends if last < end < sizes.total]
            place = min(free, key=partial(_distance, place), default=sizes.file_end(last))
            file = sizes.file_at(place)
        if last < place < sizes.total:
            wanted.setdefault(file, []).append(place - sizes.before(CutPoint(file)))
            last = place
    return wanted


def _distance(one: int, other: int) -> int:
    return abs(one - other)


class _LineCounter:
    """Counts lines. `read`: how many bytes were read so far."""

    def __init__(self, sizes: FileSizes, open_file: OpenFile) -> None:
        self._sizes = sizes
        self._open = open_file
        self.read = 0

    async def cut(self, file: int, offsets: Sequence[int]) -> list[CutPoint]:
        """The first line end at or behind each offset. Behind the last line end it is the end of the file."""
        points = [CutPoint(file) for offset in offsets if offset == 0]
        targets = [offset for offset in offsets if offset > 0]
        if not targets:
            return points
        at = lines = 0
        async with aclosing(self._open(file)) as chunks:
            async for chunk in chunks:
                start = 0
                # A line that ends just before the offset is before the cut.
                while targets and (end := chunk.find(b"\n", max(start, targets[0] - 1 - at)) + 1):
                    lines += chunk.count(b"\n", start, end)
                    start = end
                    is_whole = at + end == self._sizes.frozen[file]["size"]
                    points.append(CutPoint(file + 1) if is_whole else CutPoint(file, lines, at + end))
                    # A long line may lie over several cuts.
                    targets = [target for target in targets if target > at + end]
                if not targets:
                    return points
                lines += chunk.count(b"\n", start)
                at += len(chunk)
                self.read += len(chunk)
        return [*points, CutPoint(file + 1)]


def _why_fewer(frozen: Frozen) -> str:
    whole = [file for file in frozen if not _is_divisible(file)]
    if not whole:
        return "the files have too few lines"
    if len(frozen) > 1:
        return f"there are {len(frozen):,} files, and {_ONLY}"
    found = format_of(whole[0])
    form = found.records.replace("_", " ")
    if found.compression != "none":
        form += f" in {found.compression}"
    elif found.encoding != UTF_8:
        form += f" in {found.encoding}"
    return f"{shown_path(whole[0]['path'])} is a file of {form}, and {_ONLY}"
