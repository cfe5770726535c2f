"""The contents of planned rows: each row alone, as it was stored, or many in one response, with losses."""

from collections.abc import Sequence
from functools import partial

from shardline_common.http.client import ResponseTooLarge
from shardline_common.runtime.tasks import gather_limited
from shardline_producer.sources.documents import DeadLetterReason, invalid_document, parse_document
from shardline_producer.sources.planned import Entry, vanished
from shardline_producer.sources.source import Document, InvalidDocument
from shardline_producer.sources.themis.client import ThemisClient
from shardline_producer.sources.themis.limiter import RateLimiter
from shardline_producer.sources.themis.listing import RowLister, RowSelection, key_column_mismatch
from shardline_producer.sources.themis.queries import is_readable, order_key

_FETCH_BYTES = 1 << 20
_MAX_WAVE = 64


class LosslessFetcher:
    """Implements `Fetcher`: reads each row alone, byte for byte as it was stored."""

    def __init__(
        self, client: ThemisClient, limiter: RateLimiter, selection: RowSelection, concurrency: int
    ) -> None:
        self._client = client
        self._limiter = limiter
        self._selection = selection
        self._concurrency = concurrency

    async def fetch(self, entries: Sequence[Entry]) -> list[Document | InvalidDocument]:
        """The contents of the first entries: about 1 MiB, limited by the rate limit's tokens."""
        found, size = list[Document | InvalidDocument](), 0
        count = min(len(entries), self._limiter.available)
        while len(found) < count and size < _FETCH_BYTES:
            # From the mean size of the rows so far, estimate how many fit into the rest of the MiB.
            wave = self._concurrency
            if found:
                wave = min(_MAX_WAVE, max(1, (_FETCH_BYTES - size) * len(found) // max(1, size)))
            next_entries = entries[len(found) : min(count, len(found) + wave)]
            calls = [partial(self._read, entry.id) for entry in next_entries]
            for content, length in await gather_limited(calls, self._concurrency):
                found.append(content)
                size += length
        return found

    async def _read(self, identity: str) -> tuple[Document | InvalidDocument, int]:
        query = self._selection.query
        if not is_readable(query.table, identity):
            return invalid_document(identity, DeadLetterReason.UNREADABLE_KEY), 0
        blob = await self._client.entity(query.table, identity)
        if blob is None:
            return vanished(identity), 0
        return _content(blob, identity, self._selection), len(blob)


class LossyFetcher:
    """Implements `Fetcher`: reads many rows in one response of /query, and keeps those for later calls."""

    def __init__(self, lister: RowLister, selection: RowSelection, page: int) -> None:
        self._lister = lister
        self._selection = selection
        self._page = page
        self._texts: dict[str, str] = {}
        # The sort key up to which the last response is complete.
        self._loaded_until = b""

    async def fetch(self, entries: Sequence[Entry]) -> list[Document | InvalidDocument]:
        """The contents of the first entries, about 1 MiB of one response."""
        found, size = list[Document | InvalidDocument](), 0
        for index, entry in enumerate(entries):
            if order_key(entry.id) > self._loaded_until:
                if found:
                    break
                await self._load([planned.id for planned in entries[index:]])
            text = self._texts.pop(entry.id, None)
            if text is None:
                text = await self._read_alone(entry.id)
            found.append(vanished(entry.id) if text is None else _content(text, entry.id, self._selection))
            size += len(text or "")
            if size >= _FETCH_BYTES:
                break
        return found

    async def _load(self, ids: Sequence[str]) -> None:
        while True:
            try:
                rows = await self._lister.rows_between(ids[0], ids[-1], self._page)
                break
            except ResponseTooLarge:
                self._page = max(1, self._page // 2)
        planned = set(ids)
        self._texts = {row.id: row.text for row in rows if row.id in planned}
        row_ids = [row.id for row in rows if row.id is not None]
        # A short response is complete only up to its last row. An empty one means that all rows are gone.
        self._loaded_until = order_key(row_ids[-1] if row_ids else ids[-1])

    async def _read_alone(self, identity: str) -> str | None:
        # A row that is missing in a response is requested once more: it may have been inserted again since,
        # or a row with a cut key may have taken its place.
        rows = await self._lister.rows_between(identity, identity, 1)
        if not rows or rows[0].id != identity:
            return None
        self._loaded_until = order_key(identity)
        return rows[0].text


def _content(text: str, identity: str, selection: RowSelection) -> Document | InvalidDocument:
    found = parse_document(text.encode("utf-8", "surrogatepass"), identity, selection.names)
    if isinstance(found, InvalidDocument):
        return found
    if found.id != identity:
        raise key_column_mismatch(selection.query, found.id)
    # A row that was changed since it was planned may no longer meet the job's conditions.
    return found if selection.conditions.meets(found) else vanished(identity)
