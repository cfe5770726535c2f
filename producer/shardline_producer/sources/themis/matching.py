"""Which rows of a page meet the conditions of a job: decided from the response, else from the stored row."""

from collections.abc import Sequence
from functools import partial

from shardline_common.runtime.tasks import gather_limited
from shardline_producer.sources.themis.client import ThemisClient
from shardline_producer.sources.themis.queries import ThemisRow, is_readable
from shardline_producer.sources.themis.selection import RowSelection


class RowMatcher:
    """Checks rows over one client, with `concurrency` requests at once."""

    def __init__(self, client: ThemisClient, selection: RowSelection, concurrency: int) -> None:
        self._client = client
        self._selection = selection
        self._concurrency = concurrency

    async def matching(self, page: Sequence[ThemisRow]) -> list[ThemisRow]:
        """The rows of a page that meet the conditions."""
        selection, conditions = self._selection, self._selection.conditions
        if conditions.empty:
            return list(page)
        decisions: list[bool | None] = []
        for row in page:
            document = selection.parse(row.text, "")
            if row.fields is None:
                # The stored row may be valid JSON.
                decisions.append(None)
            elif not selection.lossless:
                # A row that cannot be a document becomes a dead letter: the filters do not apply to it.
                decisions.append(document is None or conditions.meets(document))
            else:
                decisions.append(None if document is None else conditions.meets_lossy(document))
        undecided = [row for row, decision in zip(page, decisions, strict=True) if decision is None]
        calls = [partial(self._stored_row_matches, row.id or "") for row in undecided]
        stored = iter(await gather_limited(calls, self._concurrency))
        return [
            row
            for row, decision in zip(page, decisions, strict=True)
            if (next(stored) if decision is None else decision)
        ]

    async def _stored_row_matches(self, identity: str) -> bool:
        if not is_readable(self._selection.query.table, identity):
            return True
        blob = await self._client.entity(self._selection.query.table, identity)
        if blob is None:
            return False
        document = self._selection.parse(blob, identity)
        return document is None or self._selection.conditions.meets(document)
