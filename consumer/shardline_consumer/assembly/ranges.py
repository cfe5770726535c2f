"""Which bytes of staged segments a final shard needs, and where they lie in one local file. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

_MAX_GAP = 1 << 16
_MAX_READ = 1 << 23


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a final shard: the index of its segment, its place there, and 8 bytes of its sha256."""

    segment: int
    offset: int
    size: int
    hash: int


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes [offset, offset + size) of a segment; `start` is their place in the local file."""

    segment: int
    offset: int
    size: int
    start: int


def plan_ranges(rows: Sequence[Row]) -> tuple[list[Range], list[int]]:
    """The ranges that hold all rows, and for each row its place in the local file.

    Rows that lie less than 64 KiB apart are read together, up to 8 MiB: a request costs more than the bytes
    between them.
    """
    order = sorted(range(len(rows)), key=lambda index: (rows[index].segment, rows[index].offset))
    ranges: list[Range] = []
    places = [0] * len(rows)
    segment, begin, end, start = -1, 0, 0, 0
    for index in order:
        row = rows[index]
        upto = row.offset + row.size
        joined = row.segment == segment and row.offset - end <= _MAX_GAP and upto - begin <= _MAX_READ
        if not joined:
            if segment >= 0:
                ranges.append(Range(segment, begin, end - begin, start))
                start += end - begin
            segment, begin = row.segment, row.offset
        end = upto
        places[index] = start + row.offset - begin
    if segment >= 0:
        ranges.append(Range(segment, begin, end - begin, start))
    return ranges, places
