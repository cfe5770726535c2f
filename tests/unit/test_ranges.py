"""Which bytes of staged segments are read for a final shard, and where its rows lie then."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from shardline_consumer.assembly import ranges
from shardline_consumer.assembly.ranges import ShardRows, plan_ranges, wanted_bytes

SEGMENTS = st.lists(
    st.lists(st.tuples(st.integers(1, 300), st.booleans()), min_size=1, max_size=30), min_size=1, max_size=4
)


def shard_rows(places: list[tuple[int, int, int]]) -> ShardRows:
    """Rows of segment, offset and size."""
    segment, offset, size = (np.array(column, "int64") for column in zip(*places, strict=True))
    return ShardRows(segment, offset, size, np.zeros(len(places), "uint64"), words=0, quality=0)


def read(content: bytes, wanted: ranges.Range, chunk: int) -> bytes:
    """What is kept of a range that comes in chunks of this size."""
    end = wanted.offset + wanted.size
    starts = range(wanted.offset, end, chunk)
    return b"".join(
        wanted_bytes(content[start : min(start + chunk, end)], start, wanted.runs) for start in starts
    )


@settings(max_examples=150)
@given(SEGMENTS, st.randoms(use_true_random=False), st.integers(1, 200), st.integers(0, 400))
def test_rows_lie_at_their_places_whatever_the_gaps_and_chunks(
    segments: list[list[tuple[int, bool]]], random: object, chunk: int, gap: int
) -> None:
    contents, places = [], []
    for number, found in enumerate(segments):
        content = b""
        for size, taken in found:
            if taken:
                places.append((number, len(content), size))
            content += bytes((len(content) + at * 7 + number) % 256 for at in range(size))
        contents.append(content)
    if not places:
        return
    random.shuffle(places)  # type: ignore[attr-defined]
    kept, limits = (ranges._MAX_GAP, ranges._MAX_READ), (gap, 500)
    ranges._MAX_GAP, ranges._MAX_READ = limits
    try:
        planned, starts = plan_ranges(shard_rows(places))
    finally:
        ranges._MAX_GAP, ranges._MAX_READ = kept
    local = bytearray()
    for one in planned:
        assert one.start == len(local)
        assert one.size <= 500
        local += read(contents[one.segment], one, chunk)
    assert len(local) == sum(size for _, _, size in places)
    for (segment, offset, size), start in zip(places, starts.tolist(), strict=True):
        assert bytes(local[start : start + size]) == contents[segment][offset : offset + size]


def test_a_small_split_is_read_in_few_ranges_and_its_gaps_are_not_written() -> None:
    rows = [(0, number * 46_000, 2300) for number in range(1000)]
    planned, places = plan_ranges(shard_rows(rows))
    assert len(planned) == 6
    assert places.tolist() == [number * 2300 for number in range(1000)]


def test_a_run_longer_than_one_read_is_cut() -> None:
    planned, _ = plan_ranges(shard_rows([(0, 5, 20 << 20)]))
    assert [(one.offset, one.size, one.start) for one in planned] == [
        (5, 8 << 20, 0),
        (5 + (8 << 20), 8 << 20, 8 << 20),
        (5 + (16 << 20), 4 << 20, 16 << 20),
    ]
