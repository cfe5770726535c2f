"""Values of rows that the driver decodes are those that the JSON of the rows shows, to the byte."""

from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardline_common.job.columns import Columns
from shardline_producer.encoder import DocumentRenderer
from shardline_producer.sources.planned_store import Entry
from shardline_producer.sources.source import Document, RenderedItem
from shardline_producer.sources.uds3 import contents
from shardline_producer.sources.uds3.contents import ContentFetcher
from shardline_producer.sources.uds3.postgres import row_fields
from shardline_producer.sources.uds3.postgres.fields import metadata_columns
from shardline_producer.sources.uds3.postgres.sql import DocumentSelection
from tests.databases import Database
from tests.make import job

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
WHOLE = INT64.map(float) | st.integers(-5, 20).map(lambda digits: float(10) ** digits - 1) | st.just(-0.0)
ODD_FLOATS = [float("nan"), float("inf"), float("-inf"), 1e15, 1e15 - 1, -1e15, 5e-324, 1e300]
SHARES = st.floats(width=64) | WHOLE | st.sampled_from(ODD_FLOATS)
# The column `flat` stands between others as JSON: the order of the fields must be that of the table.
COLUMNS: dict[str, tuple[str, st.SearchStrategy[Any]]] = {
    "title": ("text", TEXTS),
    "classification": ("varchar(20)", TEXTS),
    "kind": ("label", TEXTS),
    "small": ("smallint", st.integers(-32768, 32767)),
    "pages": ("int", st.integers(-(1 << 31), (1 << 31) - 1)),
    "flat": ("char(20)", TEXTS),
    "large": ("bigint", INT64),
    "share": ("float8", SHARES),
    "score": ("float8", SHARES),
    "near": ("float4", st.floats(width=32)),
    "flag": ("bool", st.booleans()),
    "sure": ("truth", st.booleans()),
}
# What an array of PostgreSQL, JSON or SQL writes in another way.
ODD = ["", '"', "\\", ",", "{}", " ", "\tNULL", "ä", "'$1", '"\\"', '","', "\\n", "\n"]
ROWS = st.tuples(TEXTS, *(st.none() | values for _, values in COLUMNS.values()))


def examples() -> list[tuple[Any, ...]]:
    """Rows that hypothesis draws."""
    found = []

    @settings(max_examples=300, database=None, deadline=None)
    @given(ROWS)
    def draw(row: tuple[Any, ...]) -> None:
        found.append(row)

    draw()
    return found


async def test_decoded_values_are_those_of_the_json_of_the_rows(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = examples()
    columns = ", ".join(f"{name} {kind}" for name, (kind, _) in COLUMNS.items())
    await database.execute(
        "CREATE DOMAIN label AS text",
        "CREATE DOMAIN truth AS bool",
        f"CREATE TABLE documents (document_id text PRIMARY KEY, content text, {columns})",
    )
    ids = [f"d{number:03}{ODD[number % len(ODD)]}" for number in range(len(rows))]
    named = ("document_id", "content", *COLUMNS)
    await database.load("documents", named, [(one, *row) for one, row in zip(ids, rows, strict=True)])
    async with database.postgres.connect() as session:
        schema = await session.schema()
        selection = DocumentSelection(schema, {})
        assert len(row_fields.RowFields.of(schema).decoded) == len(COLUMNS) - len({"flat", "near"}) + len(
            {"domain"}
        )
        assert not row_fields.RowFields.of(replace(schema, exact=False)).decoded
        fetcher = ContentFetcher(session, selection, [], 1 << 20)
        entries = [Entry(one) for one in ids]
        decoded = await fetcher.fetch(entries)
        one_by_one = [content for entry in entries[: len(ODD)] for content in await fetcher.fetch([entry])]
        assert repr(one_by_one) == repr(decoded[: len(ODD)])
    monkeypatch.setattr(row_fields, "_MOST_DECODED", 0)
    # A session keeps the statement that it made.
    async with database.postgres.connect() as session:
        assert not row_fields.RowFields.of(schema).decoded
        shown = await ContentFetcher(session, selection, [], 1 << 20).fetch(entries)
    assert len(decoded) == len(shown) == len(rows)
    for identity, one, other, (text, *_) in zip(ids, decoded, shown, rows, strict=True):
        if "\n" in identity or "\t" in identity:
            # No id of a document has control characters, whichever way its row is read.
            assert repr(one) == repr(other)
            continue
        assert isinstance(one, Document)
        assert one.id == identity
        assert isinstance(other, Document)
        assert one.text_bytes == (len(text.encode()) if identity.isascii() else None)
        assert (one.text, repr(one.relevance)) == (text, repr(other.relevance))
        assert orjson.dumps(one.metadata) == orjson.dumps(other.metadata)
        # JSON of Python does not tell 5 from 5.0 in every writer, and rows do.
        assert repr(one.metadata) == repr(other.metadata)


PLAIN = ("title", "classification", "small", "pages", "large", "share", "flag")


async def test_rows_rendered_at_once_are_those_of_their_documents(database: Database) -> None:
    numbers = [list(COLUMNS).index(name) + 1 for name in PLAIN]
    columns = ", ".join(f"{name} {COLUMNS[name][0]}" for name in PLAIN)
    await database.execute(
        f"CREATE TABLE documents (document_id text PRIMARY KEY, content text, deleted bool, {columns})"
    )
    rows = [
        (f"d{number:03}", None if number % 50 == 1 else row[0], number % 50 == 2, *(row[n] for n in numbers))
        for number, row in enumerate(examples())
    ]
    await database.load("documents", ("document_id", "content", "deleted", *PLAIN), rows)
    async with database.postgres.connect() as session:
        schema = await session.schema()
        fetcher = ContentFetcher(session, DocumentSelection(schema, {}), [], 4000)
        entries = [Entry(identity) for identity, *_ in rows]
        render = DocumentRenderer(job(source={"type": "uds3"}), Columns(metadata_columns(schema)))
        documents = await fetcher.fetch(entries)
        items = await fetcher.fetch_rendered(entries, 1, render, ranked=False)
    at_once = [item for item in items if isinstance(item, RenderedItem)]
    assert len(rows) * 0.8 < len(at_once) < len(rows)
    assert len(items) == len(documents) == len(rows)
    for number, (item, content) in enumerate(zip(items, documents, strict=True), 1):
        if isinstance(item, RenderedItem):
            assert isinstance(content, Document)
            assert item == render((number,), len(content.text.encode()), content)
        else:
            assert repr(item) == repr(content)


ODD_IDS = st.text(st.sampled_from("a\x1f\x7f\xe4\u2028\ud800 "), max_size=5) | st.sampled_from(
    ["a" * 1024, "a" * 1025, "ä" * 512, "ä" * 513]
)


@given(ODD_IDS, st.floats() | st.text() | st.none())
def test_the_short_way_of_a_row_makes_the_same_document(identity: str, score: Any) -> None:
    short = contents._document_of_row(identity, "text", {"score": score}, 4)
    assert repr(short).replace("text_bytes", "") == repr(
        contents._document(identity, "text", {"score": score})
    )
