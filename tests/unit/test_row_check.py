"""A row that fits its schema is known by its types; no later row of these types passes unseen."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardline_common.job.columns import Columns
from shardline_common.job.row_check import RowCheck

COLUMNS = Columns({"s": "string", "i": "int", "f": "float", "b": "bool"})
VALUES: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.text(max_size=3),
    st.integers(-(1 << 63), (1 << 64) - 1),
    st.sampled_from([1 << 53, (1 << 53) + 1, (1 << 63) - 1, 1 << 63]),
    st.floats(allow_nan=False, allow_infinity=False),
)
METADATA = st.fixed_dictionaries(dict.fromkeys((*COLUMNS.types, "extra"), VALUES))


def row(metadata: dict[str, Any]) -> Any:
    """A row with the metadata, as it is read."""
    whole = {
        "text": "x",
        "metadata": metadata,
        "source": "files",
        "quality_score": 0.5,
        "document_id": "a",
        "relevance_score": 0.0,
    }
    return orjson.loads(orjson.dumps(whole))


@given(st.lists(METADATA, min_size=2, max_size=6))
def test_the_rows_before_decide_nothing(several: list[dict[str, Any]]) -> None:
    one = RowCheck(COLUMNS)
    rows = [row(metadata) for metadata in several]
    assert [one.problem(found) for found in rows] == [RowCheck(COLUMNS).problem(found) for found in rows]


@pytest.mark.parametrize(
    ("name", "good", "wrong"),
    [("i", 1, 1 << 63), ("f", 1, (1 << 53) + 1), ("s", "x", 1), ("b", True, 1), ("extra", "x", 1.0)],
)
def test_a_wrong_value_is_found_behind_a_good_one(name: str, good: Any, wrong: Any) -> None:
    empty = dict.fromkeys([*COLUMNS.types, "extra"])
    check = RowCheck(COLUMNS)
    assert check.problem(row(empty | {name: good})) is None
    assert str(check.problem(row(empty | {name: wrong}))).startswith(f"metadata.{name} is not a")
    assert check.problem(row(empty | {name: good})) is None


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"metadata": None}, "other columns"),
        ({"metadata": {"s": None}}, "other columns"),
        ({"text": None}, "text is not a str"),
        ({"relevance_score": 0}, "relevance_score is not a float"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any], problem: str) -> None:
    assert problem in str(RowCheck(COLUMNS).problem(row(dict.fromkeys([*COLUMNS.types, "extra"])) | change))
    assert "its keys" in str(RowCheck(COLUMNS).problem([]))
