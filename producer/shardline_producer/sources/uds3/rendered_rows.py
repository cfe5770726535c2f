"""The hot path of rows: from the values of the driver to documents, or to rendered items without documents.

It takes the rows that need no other rule: the text and all metadata are values that the driver decodes, the
id is plain, and nothing is wrong with the row. The server stores UTF-8. Other rows are None.
"""

from collections.abc import Sequence

from shardline_producer.sources.documents import are_plain_ids
from shardline_producer.sources.planned_store import Entry
from shardline_producer.sources.source import Document, Render, RenderedItem, RowRendering
from shardline_producer.sources.uds3.postgres.session import PostgresRows


def rendered_rows(
    rows: PostgresRows, entries: Sequence[Entry], first: int, render: Render, *, ranked: bool
) -> list[RenderedItem | None]:
    """The rows as their documents would be rendered; `first` is the ordinal of the first row."""
    rendering: object = render
    fields = rows.fields.plain if isinstance(rendering, RowRendering) else None
    shorter = rendering.of_rows(fields) if fields and isinstance(rendering, RowRendering) else None
    if shorter is None or not are_plain_ids([entry.id for entry in entries]):
        return [None] * len(rows)
    found: list[RenderedItem | None] = []
    for ordinal, (record, entry) in enumerate(zip(rows.records, entries, strict=True), first):
        identity, known, deleted, size, text, digest = record[:6]
        if known and not deleted and text is not None and digest is None:
            relevance = entry.score if ranked else 0.0
            found.append(shorter((ordinal,), size, identity, text, record[8:], relevance))
        else:
            found.append(None)
    return found


def plain_documents(rows: PostgresRows, entries: Sequence[Entry]) -> list[Document | None]:
    """The documents of the rows."""
    if rows.fields.plain is None or not are_plain_ids([entry.id for entry in entries]):
        return [None] * len(rows)
    found: list[Document | None] = []
    values_of = rows.fields.values
    for record in rows.records:
        identity, known, deleted, size, text, digest = record[:6]
        if known and not deleted and text is not None and digest is None:
            found.append(Document(identity, text, values_of(None, record[8:]), 0.0, False, size))
        else:
            found.append(None)
    return found
