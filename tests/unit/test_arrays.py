"""Arrow arrays by their buffers, as pyarrow makes them, without the import of pandas."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import shardline_common.assembly
import shardline_consumer.assembly
import shardline_consumer.staging
from shardline_common.assembly.arrays import arrow_chosen, arrow_flags, arrow_numbers, arrow_texts, numbers_of

MAYBE_NUMBERS = st.lists(st.none() | st.integers(0, 2**64 - 1))
MAYBE_TEXTS = st.lists(st.none() | st.text(max_size=5))


@given(MAYBE_NUMBERS)
def test_numbers_with_nulls_are_those_of_pyarrow(values: list[int | None]) -> None:
    is_null = np.array([value is None for value in values], bool)
    found = arrow_numbers(np.array([value or 0 for value in values], "uint64"), pa.uint64(), is_null)
    found.validate(full=True)
    assert found.equals(pa.array(values, pa.uint64()))


@given(MAYBE_TEXTS)
def test_texts_are_those_of_pyarrow(values: list[str | None]) -> None:
    found = arrow_texts([None if value is None else value.encode() for value in values], pa.string())
    found.validate(full=True)
    assert found.equals(pa.array(values, pa.string()))


@given(st.lists(st.booleans()))
def test_flags_are_those_of_pyarrow(values: list[bool]) -> None:
    assert arrow_flags(np.array(values, bool)).equals(pa.array(values, pa.bool_()))


@given(st.lists(st.none() | st.text(max_size=5), min_size=1), st.data())
def test_chosen_texts_are_those_at_their_places(values: list[str | None], data: st.DataObject) -> None:
    places = data.draw(st.lists(st.integers(0, len(values) - 1)))
    found = arrow_chosen(values, np.array(places, "uint32"))
    assert found.to_pylist() == [values[place] for place in places]


@given(st.lists(st.integers(-(2**63), 2**63 - 1)), st.integers(0, 3))
def test_numbers_of_a_slice(values: list[int], start: int) -> None:
    assert numbers_of(pa.array(values, pa.int64())[start:]).tolist() == values[start:]


def test_null_is_no_number() -> None:
    with pytest.raises(ValueError, match="1 of 2 numbers are null"):
        numbers_of(pa.array([1, None]))


def test_items_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match="items of 4 bytes are no int64"):
        arrow_numbers(np.zeros(2, "int32"), pa.int64())


def test_arrays_import_no_pandas() -> None:
    program = """
import sys, numpy as np, pyarrow as pa
from shardline_common.assembly.arrays import arrow_chosen, arrow_numbers, arrow_texts, numbers_of
numbers_of(arrow_numbers(np.arange(3), pa.int64()))
arrow_texts([b"a", None], pa.string()), arrow_chosen(["a", None], np.arange(2))
sys.exit("pandas" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_no_stage_calls_what_imports_pandas() -> None:
    for package in (shardline_common.assembly, shardline_consumer.assembly, shardline_consumer.staging):
        for path in Path(package.__path__[0]).glob("*.py"):
            calls = re.findall(r"\w\.to_numpy\(|pa\.array\(|fill_null\(", path.read_text())
            # `write_sidecar` takes lists too, which tests give. `row_diff.py` is no stage: `diff` calls it.
            assert path.name in {"sidecar.py", "row_diff.py"} or calls == [], path
