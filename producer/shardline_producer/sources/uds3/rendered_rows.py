"""The hot path of a scan: from the values of rows to rendered items, without a document in between."""

from collections.abc import Sequence

from shardline_producer.sources.documents import are_plain_ids
from shardline_producer.sources.planned import Entry
from shardline_producer.sources.source import Render, RenderedItem, RowRendering
from shardline_producer.sources.uds3.postgres.session import PostgresRows


def rendered_rows(
    rows: PostgresRows, entries: Sequence[Entry], first: int, render: Render, *, ranked: bool
) -> list[RenderedItem | None]:
    """The rows that need no other rule, rendered as their documents would be; None for each other row.

    Those are: the text and all metadata are values that the driver decodes, the id is plain, and nothing is
    wrong with the row. The server stores UTF-8. `first` is the ordinal of the first row.
    """
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
