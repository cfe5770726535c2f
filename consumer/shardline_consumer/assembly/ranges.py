"""Which bytes of staged segments a final shard needs, and where its rows lie in one local file. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

# NumPy comes with the extra `assembly`, so it is imported where it is called.
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from shardline_common.assembly.arrays import Numbers

_MAX_GAP = 1 << 19
_MAX_READ = 1 << 23


@dataclass(frozen=True, slots=True)
class ShardRows:
    """The rows of a final shard in their order, as columns.

    Of each row: the index of its segment, its place there, and 8 bytes of its sha256. `words` and `quality`
    are sums over all rows.
    """

    segment: Numbers
    offset: Numbers
    size: Numbers
    hash: Numbers
    words: int
    quality: int


@dataclass(slots=True)
class Range:
    """Bytes [offset, offset + size) of a segment. `runs` are offset and size of those that are wanted.

    `start` is the place of the first wanted byte in the local file; the others lie behind it.
    """

    segment: int
    offset: int
    size: int
    start: int
    runs: list[tuple[int, int]]


def plan_ranges(rows: ShardRows) -> tuple[list[Range], Numbers]:
    """The ranges that hold all rows, and for each row its place in the local file.

    Rows that lie less than 512 KiB apart are read together, up to 8 MiB: a request costs more than the bytes
    between them. These are not written: a small split lies everywhere in the segments.
    """
    import numpy as np

    order = np.lexsort((rows.offset, rows.segment))
    segment, offset, size = rows.segment[order], rows.offset[order], rows.size[order]
    start = size.cumsum() - size
    places = np.empty_like(start)
    places[order] = start
    # A run begins with a row that is not directly behind the one before it.
    follows = (segment[1:] == segment[:-1]) & (offset[1:] == offset[:-1] + size[:-1])
    first = np.flatnonzero(np.concatenate(([True], ~follows)))
    columns = (segment[first], offset[first], np.add.reduceat(size, first), start[first])
    return _joined(zip(*(column.tolist() for column in columns), strict=True)), places


def _joined(runs: Iterable[tuple[int, int, int, int]]) -> list[Range]:
    """Ranges of runs, of each of which segment, offset, size and place are given, in their order."""
    found: list[Range] = []
    for segment, offset, size, place in runs:
        last = found[-1] if found else None
        begin = offset if last is None else last.offset
        near = last is not None and last.segment == segment and offset - (begin + last.size) <= _MAX_GAP
        if last is not None and near and offset + size - begin <= _MAX_READ:
            last.runs.append((offset, size))
            last.size = offset + size - begin
            continue
        for done in range(0, size, _MAX_READ):
            part = (offset + done, min(size - done, _MAX_READ))
            found.append(Range(segment, *part, place + done, [part]))
    return found


def wanted_bytes(chunk: bytes, offset: int, runs: Sequence[tuple[int, int]]) -> bytes:
    """The bytes of a chunk, which lies at `offset`, that are in the runs."""
    end = offset + len(chunk)
    return b"".join(
        [
            chunk[max(start - offset, 0) : start + size - offset]
            for start, size in runs
            if start < end and start + size > offset
        ]
    )
