"""Random tables of nested types: what is read is what pyarrow's own `to_pylist` gives, as JSON."""

import datetime as dt
import math
from base64 import b64encode
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from shardline_common.errors import JobFailed
from shardline_producer.sources.files.file_documents import FileDocuments
from shardline_producer.sources.files.local_files import LocalFiles
from tests.make import job, memory_pages
from tests.source_items import documents_of

DAYS = st.dates(dt.date(1, 1, 1), dt.date(9999, 12, 31))
MOMENTS = st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2250, 1, 1))  # noqa: DTZ001 - as columns have them
LEAVES: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.int8(): st.integers(-128, 127),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.bool_(): st.booleans(),
    pa.float32(): st.floats(width=32),
    pa.float64(): st.floats(),
    pa.decimal128(25, 3): st.decimals(-(10**21), 10**21, places=3),
    pa.decimal128(30, 0): st.integers(-(10**29), 10**29).map(Decimal),
    pa.string(): st.text(max_size=9),
    pa.large_string(): st.text(max_size=9),
    pa.string_view(): st.text(max_size=20),
    pa.binary(): st.binary(max_size=9),
    pa.binary(2): st.binary(min_size=2, max_size=2),
    pa.date32(): DAYS,
    pa.timestamp("us"): st.datetimes(),
    pa.timestamp("ms", "UTC"): st.integers(-(10**12), 10**12),
    pa.timestamp("ns"): MOMENTS,
    pa.time64("us"): st.times(),
    pa.duration("us"): st.timedeltas(dt.timedelta(-9999), dt.timedelta(9999)),
    pa.dictionary(pa.int32(), pa.string()): st.sampled_from(["a", "b", ""]),
}
Column = tuple[pa.DataType, st.SearchStrategy[Any]]
LEAF: st.SearchStrategy[Column] = st.sampled_from(list(LEAVES.items()))
# Parquet stores no views inside of other values.
NESTED: st.SearchStrategy[Column] = LEAF.filter(lambda one: not pa.types.is_string_view(one[0]))
FORMS = ["snappy", "gzip", "zstd", "brotli", "lz4", "none", "feather", "stream"]


def lists(one: Column) -> Column:
    return pa.list_(one[0]), st.lists(st.none() | one[1], max_size=3)


def structs(two: tuple[Column, Column]) -> Column:
    (first, one), (second, other) = two
    values = st.fixed_dictionaries({"a": st.none() | one, "b.c": st.none() | other})
    return pa.struct([("a", first), ("b.c", second)]), values


def maps(one: Column) -> Column:
    values = st.dictionaries(st.text(max_size=3), st.none() | one[1], max_size=3)
    return pa.map_(pa.string(), one[0]), values.map(lambda found: list(found.items()))


COLUMNS: st.SearchStrategy[Column] = LEAF | st.recursive(
    NESTED,
    lambda inner: inner.map(lists) | st.tuples(inner, inner).map(structs) | inner.map(maps),
    max_leaves=4,
)


def as_json(kind: pa.DataType, value: Any) -> Any:  # noqa: C901, PLR0911 - one line for each type
    """What the table of docs/sources.md says of a value of `to_pylist`."""
    types = pa.types
    if value is None or types.is_integer(kind) or types.is_boolean(kind):
        return value
    if types.is_list(kind):
        return [as_json(kind.value_type, item) for item in value]
    if types.is_map(kind):
        return {name: as_json(kind.item_type, item) for name, item in value}
    if types.is_struct(kind):
        return {field.name: as_json(field.type, value[field.name]) for field in kind.fields}
    if types.is_floating(kind):
        if not math.isfinite(value):
            return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]
        return value if value == int(value) or kind == pa.float64() else float(str(np.float32(value)))
    if types.is_decimal(kind):
        if kind.scale == 0:
            return int(value) if -(2**63) <= value < 2**63 else str(int(value))
        return float(value) if Decimal(repr(float(value))) == value else format(value, "f")
    if isinstance(value, bytes):
        try:
            text = value.decode()
        except UnicodeDecodeError:
            text = "\0"
        bad = [char for char in text if (char < " " and char not in "\a\b\t\n\v\f\r\x1b") or char == "\x7f"]
        return b64encode(value).decode() if bad else text
    if types.is_duration(kind):
        micros = abs(value) // dt.timedelta(microseconds=1)
        rest = f".{micros % 10**6:06}" if micros % 10**6 else ""
        return f"{'-' if value < dt.timedelta() else ''}PT{micros // 10**6}{rest}S"
    return value if isinstance(value, str) else value.isoformat()


def write(table: pa.Table, form: str, group: int, path: Path) -> None:
    if form == "feather":
        pa.feather.write_feather(table, str(path), chunksize=group)
    elif form == "stream":
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=group)
    else:
        version = "2.0" if group % 2 else "1.0"
        options = {"compression": form, "row_group_size": group, "data_page_version": version}
        pa.parquet.write_table(table, path, use_dictionary=group != 3, data_page_size=1000, **options)


async def test_indices_inside_of_nulls_may_be_any_number(tmp_path: Path) -> None:
    names = pa.DictionaryArray.from_arrays(pa.array([0, 7, 1], pa.int8()), ["a", "b"], safe=False)
    laws = pa.StructArray.from_arrays([names], ["name"], mask=pa.array([False, True, False]))
    table = pa.table({"document_id": ["1", "2", "3"], "content": ["t"] * 3, "law": laws})
    write(table, "stream", 5, tmp_path / "rows")
    spec = job(source={"type": "files", "paths": ["rows"]})
    source = FileDocuments(spec, LocalFiles(tmp_path), None, memory_pages())
    items = [item async for batch in source.read(await source.freeze(), None) for item in batch]
    assert [document.metadata["law"] for document in documents_of(items)] == [
        {"name": "a"},
        None,
        {"name": "b"},
    ]
    wrong = pa.StructArray.from_arrays([names], ["name"])
    write(table.set_column(2, "law", wrong), "stream", 5, tmp_path / "rows")
    with pytest.raises(JobFailed, match=r"is damaged: .*out of bounds"):
        _ = [batch async for batch in source.read(await source.freeze(), None)]


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data(), st.lists(COLUMNS, min_size=1, max_size=3), st.sampled_from(FORMS), st.integers(1, 5))
async def test_random_tables_are_read_as_they_were_written(
    tmp_path: Path, data: st.DataObject, columns: list[Column], form: str, group: int
) -> None:
    count = data.draw(st.integers(1, 7))
    arrays = {"document_id": pa.array([f"d{n}" for n in range(count)]), "content": pa.array(["text"] * count)}
    for number, (kind, values) in enumerate(columns):
        drawn = data.draw(st.lists(st.none() | values, min_size=count, max_size=count))
        arrays[f"c{number}"] = pa.array(drawn, kind)
    table = pa.table(arrays)
    try:
        write(table, form, group, tmp_path / "rows")
    except pa.ArrowIndexError:
        # pyarrow does not write a null struct with a dictionary inside to Parquet.
        reject()
    source = FileDocuments(
        job(source={"type": "files", "paths": ["rows"]}), LocalFiles(tmp_path), None, memory_pages()
    )
    frozen = await source.freeze()
    items = [item async for batch in source.read(frozen, None) for item in batch]
    for row, document in zip(table.to_pylist(), documents_of(items), strict=True):
        for number, (kind, _) in enumerate(columns):
            name = f"c{number}"
            found, wanted = document.metadata[name], as_json(kind, row[name])
            assert (found, type(found)) == (wanted, type(wanted))
    behind = data.draw(st.integers(0, count - 1))
    again = [item async for batch in source.read(frozen, items[behind].position) for item in batch]
    assert again == items[behind + 1 :]
