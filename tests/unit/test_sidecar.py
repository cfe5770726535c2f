"""Sidecars: the same content has the same sha256 whatever wrote it, and any change is found."""

from array import array
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shardline_common.assembly.sidecar import (
    BANDS,
    RECORDS,
    SIGNATURES,
    Sidecar,
    SidecarKind,
    prove_sidecar,
    read_sidecar,
    sidecar_batches,
    write_sidecar,
)
from shardline_common.errors import FailureCode, JobFailed, UsageError

INT64 = st.integers(-(2**63), 2**63 - 1)
UINT64 = st.integers(0, 2**64 - 1)
RECORD = st.tuples(
    INT64,
    st.text(max_size=5),
    st.integers(0, 2),
    st.none() | st.sampled_from(["empty", "below_min_score"]),
    st.none() | st.floats(allow_nan=False),
    st.none() | st.floats(allow_nan=False),
    UINT64,
    st.none() | st.binary(min_size=16, max_size=16),
    UINT64,
    st.none() | UINT64,
    UINT64,
    st.none() | INT64,
    st.none() | INT64,
    st.none() | INT64,
    st.none() | INT64,
    st.none() | UINT64,
)
FIXTURE = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def columns_of(rows: list[tuple[Any, ...]], kind: SidecarKind) -> list[list[Any]]:
    return [[row[place] for row in rows] for place in range(len(kind.columns))]


def by_the_book(rows: list[tuple[Any, ...]], kind: SidecarKind) -> str:
    """`values-v1` as its description says, one value at a time."""
    widths = {"int8": 1, "int16": 2, "int64": 8, "uint64": 8}
    digest = sha256()
    for place, (_, written) in enumerate(kind.columns):
        streams = [b"", b"", b""]
        for row in rows:
            value, named = row[place], written.rstrip("?")
            if written.endswith("?"):
                streams[0] += b"\0" if value is None else b"\1"
            if named in widths:
                streams[1] += (value or 0).to_bytes(widths[named], "little", signed=named[0] != "u")
            elif named == "float64":
                streams[1] += array("d", [value or 0.0 if value is None else value]).tobytes()
            elif named == "binary16":
                streams[1] += value or bytes(16)
            else:
                data = (value or "").encode() if named == "string" else value or b""
                streams[1] += len(data).to_bytes(4, "little")
                streams[2] += data
        for stream in streams:
            digest.update(sha256(stream).digest())
    return digest.hexdigest()


@FIXTURE
@given(rows=st.lists(RECORD, max_size=12), cut=st.integers(0, 12))
def test_hash_is_that_of_the_description_whatever_the_chunks(
    tmp_path: Path, rows: list[tuple[Any, ...]], cut: int
) -> None:
    path = tmp_path / "records.parquet"
    chunks = [columns_of(rows[:cut], RECORDS), columns_of(rows[cut:], RECORDS)]
    written = write_sidecar(path, RECORDS, chunks)
    assert written == Sidecar(len(rows), by_the_book(rows, RECORDS))
    assert read_sidecar(path, RECORDS) == written
    found = [tuple(line.values()) for batch in sidecar_batches(path, RECORDS) for line in batch.to_pylist()]
    assert found == rows


def test_bytes_of_another_writer_are_the_same_sidecar(tmp_path: Path) -> None:
    first, second = tmp_path / "first.parquet", tmp_path / "second.parquet"
    lines = range(200_000)
    bands = [array("h", [0] * len(lines)), array("Q", lines), array("q", lines)]
    written = write_sidecar(first, BANDS, [bands])
    pq.write_table(pq.read_table(first), second, compression="none", row_group_size=1_000)
    assert first.read_bytes() != second.read_bytes()
    prove_sidecar(second, BANDS, written)
    assert max(batch.num_rows for batch in sidecar_batches(first, BANDS)) == 65_536


def test_signatures_of_arrays_lists_and_numpy_are_the_same(tmp_path: Path) -> None:
    import numpy as np

    path = tmp_path / "sidecar.parquet"
    positions = [5, 6, 7]
    signatures = [b"abcd", b"", b"ef"]
    forms: list[Any] = [positions, array("q", positions), np.array(positions), np.array(positions, "int32")]
    contents = {write_sidecar(path, SIGNATURES, [[form, signatures]]) for form in forms}
    assert contents == {Sidecar(3, by_the_book(list(zip(positions, signatures, strict=True)), SIGNATURES))}


@pytest.mark.parametrize("place", range(len(RECORDS.columns)))
def test_any_changed_value_is_found(tmp_path: Path, place: int) -> None:
    row = (1, "a", 0, "empty", 0.5, 0.5, 2, b"x" * 16, 3, 4, 5, 6, 7, 8, 9, 10)
    other = (2, "b", 1, None, 0.0, None, 3, None, 4, None, 6, None, 8, None, 10, 11)
    path = tmp_path / "records.parquet"
    written = write_sidecar(path, RECORDS, [columns_of([row, row], RECORDS)])
    changed = (*row[:place], other[place], *row[place + 1 :])
    write_sidecar(path, RECORDS, [columns_of([row, changed], RECORDS)])
    with pytest.raises(JobFailed, match=r"records\.parquet is not the sidecar `records`"):
        prove_sidecar(path, RECORDS, written)


def test_lines_in_another_order_are_found(tmp_path: Path) -> None:
    path = tmp_path / "bands.parquet"
    written = write_sidecar(path, BANDS, [[[0, 0], [1, 2], [3, 4]]])
    write_sidecar(path, BANDS, [[[0, 0], [2, 1], [4, 3]]])
    with pytest.raises(JobFailed, match="2 lines"):
        prove_sidecar(path, BANDS, written)


@pytest.mark.parametrize("damage", ["cut", "other", "kind"])
def test_a_file_that_is_no_sidecar_fails_the_job(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "bands.parquet"
    write_sidecar(path, BANDS, [[[0], [1], [2]]])
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-5])
    elif damage == "other":
        path.write_bytes(b"")
    else:
        pq.write_table(pa.table({"band": [1]}), path)
    with pytest.raises(JobFailed) as raised:
        read_sidecar(path, BANDS)
    assert raised.value.code == FailureCode.DATASET_DAMAGED


def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(UsageError, match="pyarrow") as raised:
        write_sidecar(tmp_path / "bands.parquet", BANDS, [])
    assert "assembly" in str(raised.value.hint)
