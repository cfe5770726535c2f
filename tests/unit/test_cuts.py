"""Where splits are cut: the counts that a job names, the fewest shards within a limit, equal ones."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shardline_common.assembly.cuts import SplitRows, cut_split, read_rows
from shardline_common.dataset.decision_rules import ShardRules
from shardline_common.errors import FailureCode, JobFailed

FIXTURE = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def split_of(folder: Path, sizes: list[int]) -> SplitRows:
    rows = SplitRows(folder / "rows")
    # In two batches, as they come from the engine.
    for part in (range(len(sizes) // 3), range(len(sizes) // 3, len(sizes))):
        if part:
            own = np.array([sizes[at] for at in part], "int64")
            at = np.array(part, "int64")
            rows.add(at.astype("uint64") * 3, at, own, at.astype("uint64") + 2**63)
    return rows


def by_bytes(limit: int, multiple: int = 1, *, equal: bool = False) -> ShardRules:
    return ShardRules(count=None, multiple=multiple, limit=limit, equal=equal)


def largest(sizes: list[int], count: int, *, equal: bool) -> int:
    used = len(sizes) // count * count if equal else len(sizes)
    return max(sum(sizes[i * used // count : (i + 1) * used // count]) for i in range(count))


@FIXTURE
@given(
    sizes=st.lists(st.integers(1, 100), min_size=1, max_size=60),
    limit=st.integers(1, 500),
    multiple=st.integers(1, 5),
    equal=st.booleans(),
)
def test_fewest_shards_within_the_limit(
    tmp_path: Path, sizes: list[int], limit: int, multiple: int, equal: bool
) -> None:
    rules = by_bytes(limit, multiple, equal=equal)
    if len(sizes) < multiple:
        if equal:
            with pytest.raises(JobFailed) as raised:
                cut_split("train", split_of(tmp_path, sizes), rules)
            assert raised.value.code == FailureCode.TOO_FEW_ROWS
            return
        assert cut_split("train", split_of(tmp_path, sizes), rules).shards == len(sizes)
        return
    cuts = cut_split("train", split_of(tmp_path, sizes), rules)
    counts = np.diff(cuts.ends)
    assert cuts.shards % multiple == 0
    assert counts.max() - counts.min() <= (0 if equal else 1)
    assert cuts.rows > len(sizes) - cuts.shards if equal else cuts.rows == len(sizes)
    most = len(sizes) // multiple * multiple
    wanted = -(-sum(sizes) // limit)
    first = min(max(wanted + -wanted % multiple, multiple), most)
    allowed = max(limit, *sizes)
    fitting = [
        count
        for count in range(first, min(most, 2 * first) + 1, multiple)
        if largest(sizes, count, equal=equal) <= allowed
    ]
    assert cuts.shards == (fitting[0] if fitting else first)
    assert (cuts.warning is None) == bool(fitting)


@FIXTURE
@given(sizes=st.lists(st.integers(1, 100), max_size=30), count=st.integers(1, 40), equal=st.booleans())
def test_counts_that_the_job_names(tmp_path: Path, sizes: list[int], count: int, equal: bool) -> None:
    rules = ShardRules(count=count, multiple=1, limit=1, equal=equal)
    rows = split_of(tmp_path, sizes)
    if len(sizes) < count and equal:
        with pytest.raises(JobFailed, match=f"fewer than the {count} shards"):
            cut_split("train", rows, rules)
        return
    cuts = cut_split("train", rows, rules)
    shards = min(count, len(sizes))
    used = len(sizes) // shards * shards if equal and shards else len(sizes)
    assert cuts.ends.tolist() == [i * used // shards for i in range(shards + 1)] if shards else [0]
    assert (cuts.warning is None) == (len(sizes) >= count)
    for number in range(cuts.shards):
        first, end = int(cuts.ends[number]), int(cuts.ends[number + 1])
        size, hash_sum, first_key, last_key = rows.cut(first, end)
        assert size == sum(sizes[first:end])
        assert hash_sum == sum(at + 2**63 for at in range(first, end)) % 2**64
        assert (first_key, last_key) == ((first * 3, first), ((end - 1) * 3, end - 1))


def test_many_shards_are_tried_in_steps(tmp_path: Path) -> None:
    sizes = [1, 1, 1, 97] * 2_000
    rules = by_bytes(100)
    tried: list[int] = []
    rows = split_of(tmp_path, sizes)
    measure = rows.sums
    rows.sums = lambda ends: tried.append(len(ends) - 1) or measure(ends)  # type: ignore[method-assign, func-returns-value]
    cuts = cut_split("train", rows, rules)
    assert cuts.shards == 2_000
    assert tried == [1, 2_000]
    uneven = [1] * 60_000 + [90] * 1_000
    tried.clear()
    rows = split_of(tmp_path, uneven)
    measure = rows.sums
    rows.sums = lambda ends: tried.append(len(ends) - 1) or measure(ends)  # type: ignore[method-assign, func-returns-value]
    cuts = cut_split("train", rows, rules)
    assert tried[1:4] == [1_500, 1_505, 1_510], "n // 256 each"
    assert len(tried) < 200
    assert cuts.shards == 1_500
    assert cuts.warning is not None
    assert "too uneven for shards of at most 100 bytes; the largest of 1,500 has" in cuts.warning


@pytest.mark.parametrize("batches", [[[0, 0]], [[0], [0]], [[1, 0]], [[1], [0]]])
def test_a_record_twice_or_out_of_order_fails(tmp_path: Path, batches: list[list[int]]) -> None:
    def batch(positions: list[int]) -> pa.RecordBatch:
        zero = pa.array([0] * len(positions), pa.uint64())
        columns = [zero, zero, pa.array(positions, pa.int64()), pa.array(positions, pa.int64()), zero]
        return pa.RecordBatch.from_arrays(columns, ["split", "order", "position", "size", "id_hash"])

    with pytest.raises(JobFailed, match="twice"):
        read_rows(map(batch, batches), tmp_path, 1)
