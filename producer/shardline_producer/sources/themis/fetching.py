"""The contents of planned rows: each row alone, as it was stored, or many in one response, with losses."""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from shardline_common.http.client import ResponseTooLarge
from shardline_common.runtime.tasks import gather_limited
from shardline_producer.sources.documents import (
    DeadLetterReason,
    invalid_document,
    parse_document,
    validated,
)
from shardline_producer.sources.planned_store import Entry, vanished
from shardline_producer.sources.source import Document, InvalidDocument
from shardline_producer.sources.themis.client import QueryRejected, ThemisClient
from shardline_producer.sources.themis.key_faults import key_column_mismatch
from shardline_producer.sources.themis.limiter import RateLimiter
from shardline_producer.sources.themis.listing import RowLister
from shardline_producer.sources.themis.queries import is_changed_by_proxies, key_obstacle, order_key
from shardline_producer.sources.themis.selection import RowSelection

_FETCH_BYTES = 1 << 20
_MAX_WAVE = 64
# So many missing rows of a response are looked up one by one in a call. When all of them are gone, the caller
# checks the table.
_MAX_ALONE = 16
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][-+]?\d+)?")


class RowReader:
    """Reads single rows as they were stored."""

    def __init__(self, client: ThemisClient, lister: RowLister, selection: RowSelection) -> None:
        self._client = client
        self._lister = lister
        self._selection = selection

    async def read(self, identity: str) -> tuple[Document | InvalidDocument, int]:
        """The content of a row, and its size in the source."""
        table = self._selection.query.table
        if isinstance(invalid := validated(Document(identity, "", {})), InvalidDocument):
            return invalid, 0
        if (obstacle := key_obstacle(table, identity)) is not None:
            return _unreadable(identity, obstacle), 0
        try:
            blob = await self._client.entity(table, identity)
        except QueryRejected as error:
            return _unreadable(identity, f"the server refuses ({error})"), 0
        if blob is not None:
            return content_of(blob, identity, self._selection), len(blob)
        if is_changed_by_proxies(identity) and await self._lister.lists(identity):
            return _unreadable(identity, "a proxy changes on its way, because URLs hold it only encoded"), 0
        return vanished(identity), 0


class LosslessFetcher:
    """Implements `Fetcher`: reads each row alone, byte for byte as it was stored."""

    def __init__(self, reader: RowReader, limiter: RateLimiter, concurrency: int) -> None:
        self._reader = reader
        self._limiter = limiter
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
            calls = [partial(self._reader.read, entry.id) for entry in next_entries]
            for content, length in await gather_limited(calls, self._concurrency):
                found.append(content)
                size += length
            if self._limiter.is_slow:
                # The server has refused requests: return what there is, so that the job moves.
                break
        return found


class LossyFetcher:
    """Implements `Fetcher`: reads many rows in one response of /query, and keeps those for later calls."""

    def __init__(self, reader: RowReader, lister: RowLister, selection: RowSelection, page: int) -> None:
        self._reader = reader
        self._lister = lister
        self._selection = selection
        self._page = page
        self._texts: dict[str, str] = {}
        # Whether the last response has rows whose id it does not show.
        self._has_odd_rows = False
        # The sort key up to which the last response is complete.
        self._loaded_until = b""

    async def fetch(self, entries: Sequence[Entry]) -> list[Document | InvalidDocument]:
        """The contents of the first entries, about 1 MiB of one response."""
        found, size, alone = list[Document | InvalidDocument](), 0, 0
        for index, entry in enumerate(entries):
            if order_key(entry.id) > self._loaded_until:
                if found:
                    break
                await self._load([planned.id for planned in entries[index:]])
            text = self._texts.pop(entry.id, None)
            if text is not None:
                found.append(await self._content(text, entry.id))
                size += len(text)
            else:
                content, length = await self._read_alone(entry.id)
                found.append(content)
                size, alone = size + length, alone + 1
            if size >= _FETCH_BYTES or alone >= _MAX_ALONE:
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
        self._has_odd_rows = any(row.id is None for row in rows)
        row_ids = [row.id for row in rows if row.id is not None]
        # A short response is complete only up to its last row. An empty one means that all rows are gone.
        self._loaded_until = order_key(row_ids[-1] if row_ids else ids[-1])

    async def _read_alone(self, identity: str) -> tuple[Document | InvalidDocument, int]:
        # A row that is missing in a response is requested once more: it may have been inserted again since,
        # or a row with a cut key may have taken its place.
        rows = await self._lister.rows_between(identity, identity, 1)
        if rows and rows[0].id == identity:
            self._loaded_until = order_key(identity)
            return await self._content(rows[0].text, identity), len(rows[0].text)
        is_odd = rows or self._has_odd_rows or _NUMBER.fullmatch(identity)
        if is_odd and self._selection.keyed:
            # The response shows a row without its id: it is not valid JSON, or its id is no text. A number is
            # listed in another place, because the index holds 1.5 as 1.500000.
            return await self._reader.read(identity)
        return vanished(identity), 0

    async def _content(self, text: str, identity: str) -> Document | InvalidDocument:
        found = content_of(text, identity, self._selection)
        if isinstance(found, Document) or not self._selection.reads_empty:
            return found
        if found.dead_letter.reason == DeadLetterReason.NO_CONTENT:
            # Its text may be an object or a list, which a response lacks.
            found, _ = await self._reader.read(identity)
        return found


def content_of(text: str, identity: str, selection: RowSelection) -> Document | InvalidDocument:
    """The content of a row's JSON."""
    found = parse_document(text.encode("utf-8", "surrogatepass"), identity, selection.names)
    if isinstance(found, InvalidDocument):
        return found
    if found.id != identity:
        raise key_column_mismatch(selection.query, found.id)
    # A row that was changed since it was planned may no longer meet the job's conditions.
    return found if selection.conditions.meets(found) else vanished(identity)


def _unreadable(identity: str, why: str) -> InvalidDocument:
    found = invalid_document(identity, DeadLetterReason.UNREADABLE_KEY)
    hint = (
        f"{identity}: ThemisDB cannot return a single row whose key {why}; a job with source.lossless false "
        "can read it"
    )
    return replace(found, dead_letter=replace(found.dead_letter, hint=hint))
