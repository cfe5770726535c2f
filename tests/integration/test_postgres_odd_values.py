"""UDS3 on a PostgreSQL server: a row with a value that nothing else can hold spoils no other row."""

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from shardline_common.errors import JobFailed
from shardline_common.job.columns import Columns, conform
from shardline_common.memory.store import MemoryStore
from shardline_producer.sources.uds3.planned_store import ConfiguredStores
from shardline_producer.sources.uds3.postgres.sql import DocumentSelection
from tests.databases import Database
from tests.source_items import dead_letter_reasons, documents_of, item_ids
from tests.uds3_reading import plan_and_read, run_and_read_rows, scan_items, uds3_job

SETUP = (
    "CREATE TYPE mood AS ENUM ('sad', 'happy')",
    "CREATE TYPE pair AS (a numeric, b json)",
    "CREATE DOMAIN amount AS numeric",
    "CREATE DOMAIN whole AS numeric(38, 0)",
    "CREATE DOMAIN document AS json",
)
NUMERICS = (
    *("0", "-7", "0.1", "12.30", "1e30", "1e400", "-1e400", "1e-400", "1e130000", "9007199254740993", "NaN"),
    *("9223372036854775807", "9223372036854775808", "-9223372036854775809", "12345678901234567890.12"),
    *(
        "0.12345678901234567",
        "0.1234567890123456789",
        "1234567890123456.7",
        "Infinity",
        "-Infinity",
        "1e22",
        "1e23",
        "0.30",
    ),
)
# By type, expressions of values that a program, a float or a clock cannot hold, and ordinary ones.
NUMBERS: Mapping[str, Sequence[str]] = {
    "numeric": NUMERICS,
    "numeric(38,0)": ["7", "1234567890123456789", "12345678901234567890", "-9223372036854775808"],
    "numeric(30,2)": ["12.30", "1234567890123456789012345678.12", "0.01"],
    "amount": NUMERICS,
    "whole": ["12345678901234567890", "7"],
    "int8": ["9223372036854775807", "-9223372036854775808", "9007199254740993"],
    "float8": ["NaN", "-Infinity", "1.7976931348623157e308", "5e-324", "0.1", "-0"],
    "float4": ["NaN", "Infinity", "3.4e38", "0.7"],
    "json": ["1e400", "-1e-400", "1e200000", "12345678901234567890.12", "123456789012345678901234", "0.10"],
    "jsonb": ["1e400", "1e130000", "12345678901234567890.12", "0.1234567890123456789"],
}
TEXTS: Mapping[str, Sequence[str]] = {
    "date": ["infinity", "-infinity", "0044-03-15 BC", "4713-01-01 BC", "5874897-12-31"],
    "timestamp": ["infinity", "294276-12-31", "4713-11-24 00:00 BC"],
    "timestamptz": ["-infinity", "294276-12-31 00:00+00", "4713-11-24 00:00+00 BC"],
    "time": ["24:00"],
    "timetz": ["24:00+15:59"],
    "interval": ["178000000 years", "-1 mon +3 days"],
    "int4range": ["[1,)", "empty"],
    "numrange": ["[1e400,)"],
    "tstzrange": ["[-infinity,infinity]"],
    "daterange": ["[0044-03-15 BC,)"],
    "money": ["-92233720368547758.08"],
    "mood": ["sad"],
    "xml": ["<a>x</a>"],
    "macaddr": ["08:00:2b:01:02:03"],
    "pg_lsn": ["1/2"],
    "xid8": ["18446744073709551615"],
    "jsonpath": ['$."a"'],
    "point": ["(NaN,1)"],
    "bit(3)": ["101"],
    "uuid": ["11111111-1111-1111-1111-111111111111"],
    "text": ["a\x01b", r"a\u0000b", "\uffff\U0010ffff", "NaN", "2020-01-01"],
}
DEEP = ("[" * 3000 + '"]\\""' + "]" * 3000, '{"a":' * 2000 + "1" + "}" * 2000)
JSONS: Mapping[str, Sequence[str]] = {
    "json": [r'{"a": "cut \ud83d"}', r'"\udc00\ud83d"', r'{"\ud800": 1}', r'{"a": "\u0000"}', *DEEP],
    "jsonb": ['{"a": [1, null]}', *DEEP],
    "json[]": [r'{"{\"a\": \"\\ud800\"}", 1e400}'],
    "numeric[]": ["{1e400, NaN, 12345678901234567890.12}"],
    "float8[]": ["{NaN, Infinity, 0.1}"],
    "int[]": ["[0:1]={1,2}"],
    "text[]": ["{a, NULL}"],
    "bytea[]": [r'{"\\x00ff"}'],
    "pair": [r'(1e400,"{""a"": ""\\ud800""}")', "(12345678901234567890.12,)"],
    "document": [r'{"a": "\ud800"}', *DEEP],
}
VALUES = {
    kind: [*NUMBERS.get(kind, ()), *TEXTS.get(kind, ()), *JSONS.get(kind, ())]
    for kind in {**NUMBERS, **TEXTS, **JSONS}
}


async def fill(database: Database, *, nested: bool) -> dict[str, tuple[str, str, bool]]:
    """A row for each value, which has no other, and one behind each. `nested`: in json, and in jsonb.

    Returns by the ids of the rows: type and text of the value, and whether a row shows it as one scalar.
    """
    names = {kind: f"c{number}" for number, kind in enumerate(VALUES)}
    types = {name: "json" if nested else kind for kind, name in names.items()}
    columns = ", ".join(f"{name} {kind}" for name, kind in types.items())
    found: dict[str, tuple[str, str, bool]] = {}
    async with database.admin() as connection:
        await connection.execute("SET timezone TO 'UTC'")
        await connection.execute(
            f"CREATE TABLE documents (document_id text PRIMARY KEY, content text, {columns})"
        )
        for kind, values in VALUES.items():
            for value in values:
                made = f"$2::text::{kind}"
                made = f"json_build_object('in', json_build_array({made}))" if nested else made
                query = (
                    f"INSERT INTO documents (document_id, content, {names[kind]}) VALUES ($1, 'x', {made})"
                )
                number = 2 * len(found)
                await connection.execute(query, f"d{number:04}", value)
                text = await connection.fetchval(f"SELECT $1::text::{kind}::text", value)
                is_scalar = (
                    kind not in JSONS or value in NUMBERS.get(kind, ()) or (value in DEEP and not nested)
                )
                found[f"d{number:04}"] = (kind, text, is_scalar and "timestamp" not in kind)
                await connection.execute(
                    "INSERT INTO documents (document_id, content) VALUES ($1, 'near')", f"d{number + 1:04}"
                )
    return found


def is_same(kind: str, shown: Any, text: str) -> bool:
    """Whether a row shows what PostgreSQL prints: the text, or a number of the same digits."""
    if not isinstance(shown, int | float):
        return bool(shown == text)
    exact = Decimal(text)
    # An integer that is shown as a float must be the same integer.
    is_whole = kind.startswith("numeric") and exact == exact.to_integral_value()
    return Decimal(repr(shown)) == exact and (not is_whole or shown == int(exact))


@pytest.mark.parametrize("nested", [False, True], ids=["columns", "in json"])
async def test_a_value_that_nothing_else_can_hold_spoils_no_row_and_loses_no_digit(
    database: Database, nested: bool
) -> None:
    await database.execute(*SETUP)
    written = await fill(database, nested=nested)
    plan, items = await plan_and_read(ConfiguredStores(database.postgres))
    assert dead_letter_reasons(items) == {}
    documents, columns = documents_of(items), Columns(plan.columns)
    assert [one.id for one in documents] == [f"d{number:04}" for number in range(2 * len(written))]
    lost = []
    for document in documents:
        row = conform(document.metadata, columns)
        extra = json.loads(row.pop("extra") or "{}")
        found = [value for value in [*row.values(), *extra.values()] if value is not None]
        kind, text, is_scalar = written.get(document.id, ("", "", False))
        assert len(found) == (1 if kind else 0), (kind, text[:40], found)
        value = found[0]["in"][0] if found and isinstance(found[0], dict) and nested else (found or [""])[0]
        if is_scalar and not is_same(kind, value, text):
            lost.append((kind, text[:40], value))
    assert lost == []


async def test_a_numeric_that_a_float_would_round_is_text_and_other_numbers_are_as_before(
    database: Database, tmp_path: Path
) -> None:
    await database.execute(
        "CREATE TABLE documents (document_id text PRIMARY KEY, content text, amount numeric,"
        " account numeric(38,0), score numeric)",
        "INSERT INTO documents SELECT 'd' || i, repeat('Wort ', 100), i + 0.5, i, 0.987654321098765432109"
        " FROM generate_series(1, 9) i",
        "UPDATE documents SET amount = 12345678901234567890.12, account = 10 ^ 30 WHERE document_id = 'd3'",
        "UPDATE documents SET amount = 9007199254740993, account = 1234567890123456789"
        " WHERE document_id = 'd4'",
    )
    rows = await run_and_read_rows(uds3_job(quality={"min_score": 0.0}), database, tmp_path, MemoryStore())
    found = {row["document_id"]: row["metadata"] for row in rows}
    assert found["d1"] == {"amount": 1.5, "account": 1, "extra": None}
    big = '{"amount":"12345678901234567890.12","account":"1000000000000000000000000000000"}'
    assert found["d3"] == {"amount": None, "account": None, "extra": big}
    assert found["d4"] == {
        "amount": None,
        "account": 1234567890123456789,
        "extra": '{"amount":9007199254740993}',
    }
    # The relevance is rounded anyway.
    assert {row["relevance_score"] for row in rows} == {0.9877}


async def test_rows_of_a_plan_of_before_are_as_they_were(database: Database) -> None:
    await database.execute(
        "CREATE TABLE documents (document_id text, content text, amount numeric, meta json)",
        "INSERT INTO documents VALUES ('d', 'x', 12345678901234567890.12, '{\"a\": 1e-400}')",
    )
    async with database.postgres.connect() as session:
        schema = await session.schema()
        stored = {name: value for name, value in schema.to_json().items() if name != "exact"}
        old = type(schema).from_json(stored)
        assert (schema.exact, old.exact) == (True, False)
        [row] = await session.contents(DocumentSelection(old, {}), ["d"], 1000)
        assert row.metadata_values() == {"amount": 12345678901234567890.12, "meta": {"a": 0.0}}


async def test_metadata_json_with_half_surrogates_is_read_and_its_marks_count(database: Database) -> None:
    await database.execute(
        "CREATE TABLE documents (document_id text, content text, metadata_json json)",
        r"""INSERT INTO documents VALUES
          ('a', 'x', '{"title": "A \\ud800 \ud83d\ude00", "domain": "D", "x": "\ud800", "n": 1e200000}'),
          ('b', 'x', '{"title": "cut \ud83d", "y": "\u0000"}'), ('c', 'x', '{"title": null}'),
          ('d', 'x', '{"deleted": true, "x": "\udc00"}'), ('e', 'x', '["\ud800"]'), ('f', 'x', NULL)""",
    )
    found = {one.id: one.metadata for one in documents_of(await scan_items(database))}
    assert list(found) == ["a", "b", "c", "e", "f"]
    assert (found["a"]["title"], found["a"]["domain"]) == ("A \\ud800 \U0001f600", "D")
    assert found["a"]["metadata_json"]["x"] == "\ud800"
    assert (found["b"]["title"], found["b"]["metadata_json"]["title"]) == ("cut �", "cut \ud83d")
    assert "title" not in found["c"]
    assert item_ids(await scan_items(database, filters={"domain": "D"})) == ["a"]


async def test_filters_pass_over_values_that_they_cannot_compare(database: Database) -> None:
    await database.execute(
        "CREATE TABLE documents (document_id text, content text, meta json)",
        r"""INSERT INTO documents VALUES ('a', 'x', '"cut \ud83d"'), ('b', 'x', '"yes"'),
          ('c', 'x', '1e200000'), ('d', 'x', ('1' || repeat('0', 140000))::json),
          ('e', 'x', '12'), ('f', 'x', '{"a": "\u0000"}')""",
    )
    assert item_ids(await scan_items(database, filters={"meta": "yes"})) == ["b"]
    assert item_ids(await scan_items(database, filters={"meta": 12})) == ["e"]
    assert item_ids(await scan_items(database, filters={"meta": {"gte": 1}})) == ["e"]
    assert item_ids(await scan_items(database, filters={"meta": "1e200000"})) == ["c"]


async def test_a_row_that_the_server_cannot_return_is_a_dead_letter(database: Database) -> None:
    await database.execute(
        "CREATE TABLE rows (document_id text, content text, n int)",
        "INSERT INTO rows SELECT 'd' || i, 'x', i - 7 FROM generate_series(1, 9) i",
        "CREATE VIEW documents AS SELECT document_id, content, 100 / n AS share FROM rows",
    )
    items = await scan_items(database)
    assert dead_letter_reasons(items) == {"d7": "unreadable_row"}
    assert [one.id for one in documents_of(items)] == [f"d{number}" for number in range(1, 10) if number != 7]
    [hint] = [one.content.dead_letter.hint for one in items if hasattr(one.content, "dead_letter")]
    assert hint == "d7: the database cannot return this row: division by zero"


async def test_bytes_that_are_no_utf8_are_dead_letters(database: Database) -> None:
    name = f"bytes_{secrets.token_hex(4)}"
    options = "TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE_PROVIDER libc LOCALE 'C'"
    await database.execute(f"CREATE DATABASE {name} {options}")
    other = replace(database, name=name)
    await other.execute(
        "CREATE TABLE documents (document_id text, content text, title text)",
        r"INSERT INTO documents VALUES ('a', 'x', 'A'), ('b', E'\xe4', 'B'), ('c', 'x', E'\xff')",
        "INSERT INTO documents VALUES ('d', 'x', 'D')",
    )
    items = await scan_items(other)
    await database.execute(f"DROP DATABASE {name} WITH (FORCE)")
    assert dead_letter_reasons(items) == {"b": "unreadable_row", "c": "unreadable_row"}
    assert [(one.id, one.metadata) for one in documents_of(items)] == [
        ("a", {"title": "A"}),
        ("d", {"title": "D"}),
    ]


async def test_a_text_of_too_many_words_for_a_search_is_an_error_with_the_column_that_helps(
    database: Database,
) -> None:
    await database.execute(
        "CREATE TABLE documents (document_id text, content text)",
        "INSERT INTO documents SELECT 'a', string_agg('word' || i, ' ') FROM generate_series(1, 100000) i",
    )
    search = {"text": "word7", "search_types": ["keyword"]}
    with pytest.raises(JobFailed, match="string is too long for tsvector") as caught:
        await scan_items(database, **search)
    assert "left(content, 250000)" in (caught.value.hint or "")
    await database.execute(
        "ALTER TABLE documents ADD COLUMN search_vector tsvector"
        " GENERATED ALWAYS AS (to_tsvector('german', left(content, 250000))) STORED"
    )
    assert item_ids(await scan_items(database, **search)) == ["a"]


async def test_references_that_are_no_json_object_refer_to_nothing(database: Database) -> None:
    await database.execute(
        "CREATE TABLE documents (document_id text, content text, couchdb_refs text)",
        "INSERT INTO documents VALUES ('a', NULL, 'none'), ('b', 'x', '{\"a'), "
        " ('c', NULL, repeat('[', 3000)), ('d', NULL, '[1]')",
    )
    items = await scan_items(database)
    assert dead_letter_reasons(items) == dict.fromkeys("acd", "no_content")
    assert [one.id for one in documents_of(items)] == ["b"]


async def test_a_table_of_more_columns_than_a_job_allows_keeps_the_first(
    database: Database, tmp_path: Path
) -> None:
    columns = ", ".join(f"c{number} int" for number in range(300))
    await database.execute(
        f"CREATE TABLE documents (document_id text PRIMARY KEY, content text, {columns}, title text)",
        "INSERT INTO documents (document_id, content, c0, c254, c255, c299, title)"
        " VALUES ('d', repeat('Wort ', 100), 0, 254, 255, 299, 'T')",
    )
    rows = await run_and_read_rows(uds3_job(quality={"min_score": 0.0}), database, tmp_path, MemoryStore())
    [metadata] = [row["metadata"] for row in rows]
    assert list(metadata) == ["title", *(f"c{number}" for number in range(255)), "extra"]
    assert (metadata["c254"], metadata["extra"]) == (254, '{"c255":255,"c299":299}')
    plan, _ = await plan_and_read(ConfiguredStores(database.postgres), format={"max_columns": 2})
    assert (list(plan.columns), plan.without_column) == (["title", "c0"], 299)
