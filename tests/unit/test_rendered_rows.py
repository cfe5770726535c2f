"""Rows of PostgreSQL that are rendered at once have the bytes that their documents have."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardline_common.job.columns import Columns
from shardline_common.job.spec import JobSpec
from shardline_producer.encoder import DocumentRenderer
from shardline_producer.sources.planned_store import Entry, RenderingFetcher
from shardline_producer.sources.source import Document, InvalidDocument, RenderedItem, RenderRow
from shardline_producer.sources.uds3.contents import ContentFetcher
from shardline_producer.sources.uds3.postgres.fields import metadata_columns
from shardline_producer.sources.uds3.postgres.row_fields import RowFields
from shardline_producer.sources.uds3.postgres.schema import PostgresColumn, PostgresSchema, PostgresTable
from shardline_producer.sources.uds3.postgres.session import PostgresRows, PostgresSession
from shardline_producer.sources.uds3.postgres.sql import DocumentSelection
from shardline_producer.sources.uds3.store_ports import MAX_BODIES, DocumentBody
from tests.make import job
from tests.uds3_data import DictBodyStore

KINDS = {
    "title": ("text", "string"),
    "classification": ("varchar", "string"),
    "pages": ("int4", "int"),
    "share": ("float8", "float"),
    "flag": ("bool", "bool"),
}
TEXTS = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('\x85\u2028\u2029\n"\\ ')) | (
    st.sampled_from(["x" * 5000, "ä\u2029 " * 900])
)
IDS = st.text(st.sampled_from("a \x1f\x7f\xe4\u2028'\""), min_size=1, max_size=4) | st.sampled_from(
    ["a", "b/1", "d", "a" * 1024, "a" * 1025]
)
ODD_FLOATS = [-0.0, 1e15, 1e15 - 1, float("nan"), float("inf"), -1e300, 5e-324]
VALUES = (
    st.none() | TEXTS,
    st.none() | TEXTS,
    st.none() | st.integers(-(1 << 63), (1 << 63) - 1),
    st.none() | st.floats() | st.sampled_from(ODD_FLOATS),
    st.none() | st.booleans(),
)
# known, deleted, whether the text is over the limit; then the text and the values.
ROWS = st.tuples(
    st.integers(0, 9).map(bool),
    st.integers(0, 9).map(lambda one: not one),
    st.integers(0, 9).map(lambda one: not one),
    st.none() | TEXTS,
    *VALUES,
)


def schema_of(kinds: dict[str, tuple[str, str]]) -> PostgresSchema:
    columns = tuple(PostgresColumn(name, name, kind, type_) for name, (type_, kind) in kinds.items())
    key = PostgresColumn("document_id", "document_id", "string", "text")
    content = PostgresColumn("content", "content", "string", "text")
    table = PostgresTable("documents", "documents", "document_id", True, True, None, (key, content, *columns))
    return PostgresSchema((table,), exact=True)


class Rows:
    """The part of a session that a fetcher uses."""

    def __init__(self, fields: RowFields, records: Sequence[Sequence[Any]], *, utf8: bool = True) -> None:
        self.stores_utf8 = utf8
        self._found = PostgresRows(fields, records)

    async def contents(self, _: object, ids: Sequence[str], __: int) -> PostgresRows:
        return PostgresRows(self._found.fields, self._found.records[: len(ids)])


def record_of(identity: str, row: tuple[Any, ...], names: Sequence[str]) -> tuple[Any, ...]:
    """The record of a row; `domain` is what the statement makes of the classification."""
    known, deleted, large, text, *values = row
    fields = dict(zip(KINDS, values, strict=True)) if known else dict.fromkeys(KINDS)
    fields["domain"] = fields["classification"] or None
    text = text if known else None
    size = None if text is None else len(text.encode())
    digest = "0" * 64 if large and text is not None else None
    return (identity, known, deleted, size, text, digest, None, None, *(fields[name] for name in names))


class CountingRenderer(DocumentRenderer):
    """Counts what is rendered without a document."""

    rows = 0

    def of_rows(self, fields: Mapping[str, str]) -> RenderRow | None:
        shorter = super().of_rows(fields)
        if shorter is None:
            return None

        def counted(*values: Any) -> RenderedItem | None:
            found = shorter(*values)
            self.rows += found is not None
            return found

        return counted


class SlowFetcher(ContentFetcher):
    """Makes every content by the rules for all rows."""

    _may_be_plain = False


def fetch_both(
    spec: JobSpec, rows: list[tuple[str, tuple[Any, ...]]], *, ranked: bool = False, utf8: bool = True
) -> tuple[list[Any], list[Any], int]:
    """The items of rows by the rules for all, and of the short way, and how many had no document.

    Documents that were made in the short way must be the same.
    """
    schema = schema_of(KINDS)
    fields = RowFields.of(schema)
    records = [record_of(identity, row, fields.decoded) for identity, row in rows]
    session = cast("PostgresSession", Rows(fields, records, utf8=utf8))
    bodies = DictBodyStore({identity: DocumentBody("body", {"pages": 7, "more": 1}) for identity, _ in rows})
    selection = DocumentSelection(schema, {})
    fetcher = ContentFetcher(session, selection, [bodies], 4_194_304)
    assert isinstance(fetcher, RenderingFetcher)
    entries = [Entry(identity, number / 7) for number, (identity, _) in enumerate(rows)]
    render = CountingRenderer(spec, Columns(metadata_columns(schema)))

    def rendered(content: object, number: int) -> object:
        if not isinstance(content, Document):
            return content
        if ranked:
            content.relevance = entries[number].score
        size = len(content.text.encode())
        return DocumentRenderer.__call__(render, (number + 11,), size, content)

    plain = asyncio.run(SlowFetcher(session, selection, [bodies], 4_194_304).fetch(entries))
    assert repr(asyncio.run(fetcher.fetch(entries))) == repr(plain)
    short = asyncio.run(fetcher.fetch_rendered(entries, 11, render, ranked=ranked))
    return (
        [rendered(content, number) for number, content in enumerate(plain)],
        [rendered(content, number) for number, content in enumerate(short)],
        render.rows,
    )


@settings(max_examples=150)
@given(
    st.lists(st.tuples(IDS, ROWS), min_size=1, max_size=8),
    st.booleans(),
    st.sampled_from(
        [
            {},
            {"validation_fraction": 0.4},
            {"validation_fraction": 0.4, "group_by": "classification"},
            {"order": {"seed": 0}},
            {"splits": {"a": 0.5, "b": 0.5}, "group_by": "classification"},
        ]
    ),
)
def test_rows_are_rendered_as_their_documents(
    rows: list[tuple[str, tuple[Any, ...]]], ranked: bool, output: dict[str, Any]
) -> None:
    spec = job(source={"type": "uds3"}, output=output, max_document_bytes=4096)
    documents, items, _ = fetch_both(spec, rows, ranked=ranked)
    assert items == documents


PLAIN = ("a", (True, False, False, "Text", "Titel", "baurecht", 3, 0.5, True))


def test_plain_rows_need_no_document() -> None:
    spec = job(source={"type": "uds3"})
    odd = [
        ("b", (True, True, False, "Text", *PLAIN[1][4:])),
        ("c", (True, False, False, None, *PLAIN[1][4:])),
        ("d", (True, False, False, "Text", *PLAIN[1][4:7], float("nan"), True)),
    ]
    documents, items, short = fetch_both(spec, [PLAIN, *odd, PLAIN])
    assert items == documents
    assert short == 2
    assert [type(item) for item in items] == [RenderedItem, InvalidDocument, *[RenderedItem] * 3]


@pytest.mark.parametrize("utf8", [True, False])
def test_sizes_of_other_encodings_are_not_those_of_the_server(utf8: bool) -> None:
    documents, items, short = fetch_both(job(source={"type": "uds3"}), [PLAIN], utf8=utf8)
    assert (items, short) == (documents, int(utf8))


def test_nothing_is_returned_behind_a_body_that_was_not_requested() -> None:
    lacking = [(f"n{number}", (True, False, False, None, *PLAIN[1][4:])) for number in range(MAX_BODIES + 1)]
    rows = [PLAIN, *lacking[:3], PLAIN, *lacking[3:], PLAIN]
    documents, items, _ = fetch_both(job(source={"type": "uds3"}), rows)
    assert items == documents
    assert len(items) == MAX_BODIES + 2
