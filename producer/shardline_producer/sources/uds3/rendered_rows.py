"""The hot path of a scan: from the values of rows to rendered items, without a document in between."""

from collections.abc import Sequence

from shardline_producer.sources.documents import are_plain_ids
from shardline_producer.sources.planned import Entry
from shardline_producer.sources.source import RenderedItem, Renderer
from shardline_producer.sources.uds3.postgres.session import PostgresRows


def rendered_rows(
    rows: PostgresRows, entries: Sequence[Entry], first: int, render: Renderer, *, ranked: bool
) -> list[RenderedItem | None]:
    """The rows that need no other rule, rendered as their documents would be; None for each other row.

    Those are: the text and all metadata are values that the driver decodes, the columns of the rows are these
    fields, the id is plain, and nothing is wrong with the row. The server stores UTF-8. `first` is the
    ordinal of the first row.
    """
    plain = rows.fields.plain(render.columns)
    if plain is None or not are_plain_ids([entry.id for entry in entries]):
        return [None] * len(rows)
    found: list[RenderedItem | None] = []
    row_of, rendered = plain.row, render.row
    for ordinal, (record, entry) in enumerate(zip(rows.records, entries, strict=True), first):
        identity, known, deleted, size, text, digest = record[:6]
        usable = known and not deleted and text is not None and digest is None
        if usable and (row := row_of(record[8:])) is not None:
            relevance = entry.score if ranked else 0.0
            found.append(rendered((ordinal,), size, identity, text, row, relevance))
        else:
            found.append(None)
    return found
