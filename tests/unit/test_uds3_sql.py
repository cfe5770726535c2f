"""SQL and schema of UDS3: values stay parameters, and the catalogue is interpreted."""

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardline_common.errors import JobFailed
from shardline_common.job.spec import Range
from shardline_producer.sources.uds3.postgres import sql
from shardline_producer.sources.uds3.postgres.fields import metadata_columns, metadata_fields
from shardline_producer.sources.uds3.postgres.schema import (
    PostgresColumn,
    PostgresSchema,
    PostgresTable,
    is_bytewise,
    json_type,
    select_tables,
)
from shardline_producer.sources.uds3.tombstones import (
    FLAG_PATTERN,
    NO_TIME_PATTERN,
    deleted_statuses,
    status_pattern,
)


def column(name: str, kind: str = "string", type_name: str = "text") -> PostgresColumn:
    return PostgresColumn(name, f'"{name}"', kind, type_name)


def table(name: str, *found: PostgresColumn, unique: bool = True, config: str | None = None) -> PostgresTable:
    key = column("document_id")
    return PostgresTable(name, f'public."{name}"', key.quoted, unique, False, config, (key, *found))


DOCUMENTS = table(
    "documents",
    column("content"),
    column("classification"),
    column("pages", "int", "int4"),
    column("share", "float", "numeric"),
    column("flag", "bool", "bool"),
    column("day", "string", "date"),
    column("deleted", "bool", "bool"),
    column("processing_status"),
    column("score", "float", "float8"),
    config="german",
)
METADATA = table("documents_metadata", column("title"), column("rechtsgebiet"), unique=False)
SCHEMA = PostgresSchema((DOCUMENTS, METADATA))
# Each type that a filter compares in a way of its own, and columns of two tables with one name.
TYPES = ("float4", "float8", "numeric", "json", "jsonb", "_text", "bpchar", "uuid", "timestamptz", "int8")
EVERY_TYPE = PostgresSchema(
    exact=True,
    tables=(
        table("documents", *(column(name, type_name=name) for name in TYPES), column("at"), unique=False),
        table("documents_metadata", column("json", "json", "jsonb"), column("at", type_name="timestamptz")),
    ),
)
QUOTED = {'"C"', '"documents"', '"documents_metadata"'}
QUOTED |= {one.quoted for each in SCHEMA.tables for one in each.columns}
STATUSES = [deleted_statuses(include_archived=archived) for archived in (False, True)]
PATTERNS = [FLAG_PATTERN, NO_TIME_PATTERN, *map(status_pattern, STATUSES)]
LITERALS = {"''", "'UTF8'", "'hex'", *(f"'^({pattern})$'" for pattern in PATTERNS)}
NAMES = st.sampled_from([*metadata_fields(SCHEMA), "document_id"])
SCALARS = (
    st.text("ab'\"$;-\\")
    | st.integers(-(1 << 64), 1 << 64)
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
)
VALUES = (
    SCALARS
    | st.none()
    | st.lists(SCALARS | st.none(), max_size=3)
    | st.builds(Range, gte=SCALARS, lte=st.none() | SCALARS)
)


DATES = ("2020-01-02", "2020-01-02T12:00Z", "infinity", "2020", "a\0b", 10**400, "0044-03-15 BC")
BOUNDS = VALUES | st.sampled_from(DATES) | st.builds(Range, lte=st.sampled_from(DATES))


@given(st.dictionaries(st.sampled_from([*TYPES, "at"]), BOUNDS, max_size=3))
def test_filters_of_every_type_have_a_value_for_each_parameter(filters: dict[str, Any]) -> None:
    statement = sql.page(sql.DocumentSelection(EVERY_TYPE, filters), "d", 10)
    used = [int(number) for number in re.findall(r"\$(\d+)", statement.text)]
    assert sorted(set(used)) == list(range(1, len(statement.values) + 1))


@given(st.dictionaries(NAMES, VALUES, max_size=4), st.text(min_size=1), st.integers(1, 50_000), st.booleans())
def test_all_values_are_parameters_in_order(
    filters: dict[str, Any], text: str, limit: int, exact: bool
) -> None:
    selection = sql.DocumentSelection(replace(SCHEMA, exact=exact), filters)
    statements = [
        sql.page(selection, None, limit),
        sql.page(selection, text, limit),
        sql.ranked(selection, text),
        sql.check_hits(selection, [text]),
        sql.contents(selection, [text], 1000, limit),
    ]
    for statement in statements:
        used = [int(number) for number in re.findall(r"\$(\d+)", statement.text)]
        assert sorted(set(used)) == list(range(1, len(statement.values) + 1))
        # Quoted names come from the catalogue, and literals are constants of the code.
        assert set(re.findall(r'"[^"]*"', statement.text)) <= QUOTED
        assert set(re.findall(r"'[^']*'", statement.text)) <= LITERALS


def test_claras_columns_come_first_and_tombstones_are_left_out() -> None:
    assert metadata_columns(SCHEMA) == {
        "title": "string",
        "domain": "string",
        "rechtsgebiet": "string",
        "classification": "string",
        "pages": "int",
        "share": "float",
        "flag": "bool",
        "day": "string",
        "processing_status": "string",
    }
    assert metadata_fields(SCHEMA)["domain"].tables == {0, 1}
    assert PostgresSchema.from_json(SCHEMA.to_json()) == SCHEMA


@pytest.mark.parametrize(
    ("type_name", "category", "kind"),
    [
        *(("int8", "N", "int"), ("numeric", "N", "float"), ("money", "N", "string"), ("bool", "B", "bool")),
        *(("text", "S", "string"), ("timestamptz", "D", "string"), ("category", "E", "string")),
        *(("uuid", "U", "string"), ("jsonb", "U", "json"), ("_text", "A", "json"), ("vector", "U", None)),
        *(("tsvector", "U", None), ("bytea", "U", None), ("xml", "U", "string"), ("hstore", "U", "json")),
    ],
)
def test_postgresql_types_map_to_json_types(type_name: str, category: str, kind: str | None) -> None:
    assert json_type(type_name, category) == kind
    # Of a domain, the type that it is over decides where the category does not.
    assert json_type("of_mine", category, type_name) == (kind if category in "UABSDE" else "string")


def test_a_numeric_without_decimals_is_an_integer() -> None:
    scales = {None: "float", 2: "float", 0: "int", -2: "int"}
    assert {scale: json_type("numeric", "N", "numeric", scale) for scale in scales} == scales


def test_only_byte_order_locales_are_bytewise() -> None:
    assert all(map(is_bytewise, ("C", "POSIX", "C.UTF-8")))
    assert not any(map(is_bytewise, ("de_DE.utf8", "en_US.UTF-8", "de-DE", "", None)))


def test_the_main_table_is_the_configured_or_the_first_known_one() -> None:
    tables = {"documents": DOCUMENTS, "documents_metadata": METADATA, "mine": table("mine")}
    assert [one.name for one in select_tables(tables, None, "here").tables] == [
        "documents",
        "documents_metadata",
    ]
    mine = select_tables(tables, "mine", "here").tables
    assert [one.name for one in mine] == ["mine", "documents", "documents_metadata"]
    with pytest.raises(JobFailed, match="here has no table other"):
        select_tables(tables, "other", "here")
