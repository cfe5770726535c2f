"""The values of Arrow's types as JSON values, as the table in docs/sources.md has them."""

import datetime as dt
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest

from shardline_producer.sources.field_values import NotFinite
from shardline_producer.sources.files.arrow_values import (
    InvalidText,
    converter,
    distinct_names,
    json_bytes,
    to_json,
    unsupported_type,
)

DAY = dt.date(2020, 1, 2)
MOMENT = dt.datetime(2020, 1, 2, 3, 4, 5, 600000)  # noqa: DTZ001 - a column without a zone
LARGEST = 2**64 - 1


def ints(kind: pa.DataType, *values: int | None) -> pa.Array:
    """An array of a type from the whole numbers that it stores."""
    stored = pa.int32() if kind in (pa.date32(), pa.time32("s"), pa.time32("ms")) else pa.int64()
    return pa.array(values, stored).view(kind)


def raw(kind: pa.DataType, *values: bytes | None) -> pa.Array:
    """An array of texts from their bytes, which may be no UTF-8."""
    binary = {pa.large_string(): pa.large_binary(), pa.string_view(): pa.binary_view()}.get(kind, pa.binary())
    return pa.array(values, binary).view(kind)


CASES: list[tuple[str, pa.Array, list[Any]]] = [
    ("null", pa.nulls(2), [None, None]),
    ("bool", pa.array([True, None]), [True, None]),
    ("int8", pa.array([-128, 127], pa.int8()), [-128, 127]),
    ("int64", pa.array([2**63 - 1, -(2**63)]), [2**63 - 1, -(2**63)]),
    ("uint64", pa.array([LARGEST], pa.uint64()), [LARGEST]),
    ("double", pa.array([0.1, float("nan"), None]), [0.1, NotFinite("NaN"), None]),
    ("infinity", pa.array([float("inf"), -float("inf")]), [NotFinite("Infinity"), NotFinite("-Infinity")]),
    ("float", pa.array([0.7, -1.5e-7, 123456792.0, 1e-45], pa.float32()), [0.7, -1.5e-7, 123456792.0, 1e-45]),
    (
        "half",
        pa.array([0.7, 65504.0, None, float("nan")], pa.float16()),
        [0.7, 65504.0, None, NotFinite("NaN")],
    ),
    ("decimal", pa.array([Decimal("12.50"), None], pa.decimal128(10, 2)), [12.5, None]),
    ("decimal of a whole number", pa.array([Decimal(7)], pa.decimal128(10, 2)), [7.0]),
    ("decimal without a scale", pa.array([Decimal(10**18)], pa.decimal128(38, 0)), [10**18]),
    ("decimal beyond int64", pa.array([Decimal(10**30)], pa.decimal128(38, 0)), ["1" + "0" * 30]),
    ("decimal with a negative scale", pa.array([Decimal("1.2E+4")], pa.decimal128(5, -3)), [12000]),
    (
        "decimal beyond a float",
        pa.array([Decimal("12345678901234567.89")], pa.decimal128(30, 2)),
        ["12345678901234567.89"],
    ),
    ("decimal256", pa.array([Decimal(f"1{'0' * 70}.5")], pa.decimal256(76, 1)), [f"1{'0' * 70}.5"]),
    ("string", pa.array(["ä", "", None]), ["ä", "", None]),
    ("large_string", pa.array(["ä"], pa.large_string()), ["ä"]),
    ("string_view", pa.array(["ä" * 20, None], pa.string_view()), ["ä" * 20, None]),
    ("invalid text", raw(pa.string(), b"\xff", b"ok", None), [InvalidText(b"\xff"), "ok", None]),
    ("surrogates", raw(pa.large_string(), b"\xed\xa0\x80"), [InvalidText(b"\xed\xa0\x80")]),
    ("invalid view", raw(pa.string_view(), b"\xff" * 20), [InvalidText(b"\xff" * 20)]),
    ("binary that is text", pa.array([b"a\nb", "ä".encode()]), ["a\nb", "ä"]),
    ("binary", pa.array([b"\xff\x00", b"a\0b", None]), [b"\xff\x00", b"a\0b", None]),
    ("large_binary", pa.array([b"\x01"], pa.large_binary()), [b"\x01"]),
    ("binary_view", pa.array([b"\x01" * 20, b"text"], pa.binary_view()), [b"\x01" * 20, "text"]),
    ("fixed_size_binary", pa.array([b"EUR", b"\x80\x80\x80"], pa.binary(3)), ["EUR", b"\x80\x80\x80"]),
    ("date32", pa.array([DAY, None]), ["2020-01-02", None]),
    ("date64", pa.array([DAY], pa.date64()), ["2020-01-02"]),
    ("date64 with a time", ints(pa.date64(), 90_000_000), ["1970-01-02T01:00:00"]),
    ("dates beyond Python's", ints(pa.date32(), -735_000, 2**31 - 1), ["-0043-08-22", "+5881580-07-11"]),
    (
        "year 0 and leap days",
        ints(pa.date32(), -719_528, -719_469, 11_016),
        ["0000-01-01", "0000-02-29", "2000-02-29"],
    ),
    ("timestamp", pa.array([MOMENT]), ["2020-01-02T03:04:05.600000"]),
    ("timestamp in seconds", ints(pa.timestamp("s"), 0, -1), ["1970-01-01T00:00:00", "1969-12-31T23:59:59"]),
    (
        "timestamp in ns",
        ints(pa.timestamp("ns"), 1, 1000),
        ["1970-01-01T00:00:00.000000001", "1970-01-01T00:00:00.000001"],
    ),
    ("timestamp with a zone", ints(pa.timestamp("us", "Europe/Berlin"), 0), ["1970-01-01T00:00:00+00:00"]),
    ("timestamp with an offset", ints(pa.timestamp("s", "+02:00"), 0), ["1970-01-01T00:00:00+00:00"]),
    (
        "timestamp in an unknown zone",
        ints(pa.timestamp("s", "Mars/Olympus"), 0),
        ["1970-01-01T00:00:00+00:00"],
    ),
    (
        "timestamps beyond Python's",
        ints(pa.timestamp("s"), 2**62, -(2**62)),
        ["+146138514283-06-19T07:45:04", "-146138510344-07-14T16:14:56"],
    ),
    ("time32", pa.array([dt.time(1, 2, 3)], pa.time32("s")), ["01:02:03"]),
    ("time64", ints(pa.time64("ns"), 1, None), ["00:00:00.000000001", None]),
    ("duration", ints(pa.duration("ms"), 90_500, -1), ["PT90.500000S", "-PT0.001000S"]),
    ("interval", pa.array([pa.MonthDayNano([1, -2, 3])]), ["P1M-2DT0.000000003S"]),
    ("list", pa.array([[1, None], None, []]), [[1, None], None, []]),
    ("large_list", pa.array([["a"], None], pa.large_list(pa.string())), [["a"], None]),
    ("fixed_size_list", pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int8(), 2)), [[1, 2], None, [3, 4]]),
    ("list_view", pa.array([[1], None, [2, 3]], pa.list_view(pa.int64())), [[1], None, [2, 3]]),
    ("large_list_view", pa.array([[DAY], []], pa.large_list_view(pa.date32())), [["2020-01-02"], []]),
    ("struct", pa.array([{"a": DAY, "b": {"c": 1}}, None]), [{"a": "2020-01-02", "b": {"c": 1}}, None]),
    ("struct without fields", pa.array([{}, None], pa.struct([])), [{}, None]),
    (
        "struct with one name twice",
        pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], ["x", "x"]),
        [{"x": 1, "x_2": 2}],
    ),
    ("map", pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64())), [{"a": 1}, None]),
    (
        "map with numbers as keys",
        pa.array([[(1, "x"), (2, "y")]], pa.map_(pa.int64(), pa.string())),
        [{"1": "x", "2": "y"}],
    ),
    (
        "map with a key twice",
        pa.array([[("a", 1), ("a", 2)]], pa.map_(pa.string(), pa.int64())),
        [[["a", 1], ["a", 2]]],
    ),
    ("dictionary", pa.array(["x", None, "x"]).dictionary_encode(), ["x", None, "x"]),
    ("dictionary of dates", pa.array([DAY, DAY]).dictionary_encode(), ["2020-01-02"] * 2),
    ("run_end_encoded", pa.RunEndEncodedArray.from_arrays([2, 3], ["x", None]), ["x", "x", None]),
    ("uuid", pa.array([UUID(int=7).bytes], pa.uuid()), [str(UUID(int=7))]),
    (
        "bool8",
        pa.ExtensionArray.from_storage(pa.bool8(), pa.array([2, 0, None], pa.int8())),
        [True, False, None],
    ),
    (
        "json",
        pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a": 12345678901234567890123}', "{", None])),
        [{"a": 12345678901234567890123}, "{", None],
    ),
    (
        "json that is too deep",
        pa.ExtensionArray.from_storage(pa.json_(), pa.array(["[" * 500 + "]" * 500])),
        ["[" * 500 + "]" * 500],
    ),
    (
        "tensor",
        pa.ExtensionArray.from_storage(
            pa.fixed_shape_tensor(pa.int8(), [2]), pa.array([[1, 2]], pa.list_(pa.int8(), 2))
        ),
        [[1, 2]],
    ),
]


@pytest.mark.parametrize(("array", "values"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_values_of_each_type_are_json_values(array: pa.Array, values: list[Any]) -> None:
    assert unsupported_type(array.type) is None
    convert = converter(array.type)
    found = convert(array)
    assert found == values
    assert [type(value) for value in found] == [type(value) for value in values]
    json_bytes({"values": found})
    # Slices share the memory of the whole.
    for start in range(len(values) + 1):
        assert convert(array.slice(start)) == values[start:]
        assert convert(array.slice(0, start)) == values[:start]


@pytest.mark.parametrize(("array", "values"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_values_inside_of_others_are_the_same(array: pa.Array, values: list[Any]) -> None:
    size = len(values)
    lists = pa.ListArray.from_arrays([0, 0, size], array)
    assert converter(lists.type)(lists.slice(1)) == [values]
    structs = pa.StructArray.from_arrays([array], ["x"], mask=pa.array([True] + [False] * (size - 1)))
    assert converter(structs.type)(structs) == [None, *({"x": value} for value in values[1:])]


def test_unions_are_named_wherever_they_are() -> None:
    union = pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])])
    nested = pa.list_(pa.struct([("a", pa.map_(pa.string(), union.type))]))
    assert unsupported_type(nested) == str(union.type)


def test_types_that_are_nested_too_deep_are_named() -> None:
    kind = pa.int64()
    for _ in range(101):
        kind = pa.list_(kind)
    assert unsupported_type(kind) == "nested more than 100 levels deep"
    assert unsupported_type(kind.value_type) is None


def test_bytes_are_shown_as_base64_and_broken_text_with_escapes() -> None:
    fields = {"a": b"\xff", "b": [{"c": b"\x00"}], "d": InvalidText(b"x\xff")}
    assert json_bytes(fields) == (rb'{"a":"/w==","b":[{"c":"AA=="}],"d":"x\\xff"}', True)
    assert json_bytes({"a": b"\xff", "b": 2**70}) == (b'{"a":"/w==","b":%d}' % 2**70, False)
    assert to_json(fields) == {"a": "/w==", "b": [{"c": "AA=="}], "d": "x\\xff"}


def test_columns_of_one_name_get_distinct_names() -> None:
    assert distinct_names(["a", "a", "a_2", "A", "a"]) == ["a", "a_3", "a_2", "A", "a_4"]
    assert distinct_names([""] * 3) == ["", "_2", "_3"]
