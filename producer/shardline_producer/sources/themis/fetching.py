"""Contents of planned rows: one by one and as they were stored, or by windows of /query, quick and lossy."""

from collections.abc import Sequence
from functools import partial

from shardline_common.http.client import AnswerTooLarge
from shardline_producer.sources.documents import DeadLetterReason, parse_document
from shardline_producer.sources.planned import Entry, unusable, vanished
from shardline_producer.sources.source import Document, InvalidDocument
from shardline_producer.sources.themis.client import ThemisClient
from shardline_producer.sources.themis.fanout import in_order
from shardline_producer.sources.themis.limiter import RateLimiter
from shardline_producer.sources.themis.listing import Listing, Wanted, not_its_key
from shardline_producer.sources.themis.queries import order_key, readable

_BYTES = 1 << 20
_WAVE = 64


class WholeRows:
    """Implements `Fetcher`: each row alone, byte for byte as it was stored."""

    def __init__(self, client: ThemisClient, limiter: RateLimiter, wanted: Wanted, width: int) -> None:
        self._client = client
        self._limiter = limiter
        self._wanted = wanted
        self._width = width

    async def fetch(self, entries: Sequence[Entry]) -> list[Document | InvalidDocument]:
        """As many as a MiB holds, and as the rate limit lets through without a wait."""
        found, size = list[Document | InvalidDocument](), 0
        most = min(len(entries), self._limiter.free)
        while len(found) < most and size < _BYTES:
            width = (
                self._width if not found else min(_WAVE, max(1, (_BYTES - size) * len(found) // max(1, size)))
            )
            wave = entries[len(found) : min(most, len(found) + width)]
            for content, length in await in_order(
                [partial(self._one, entry.id) for entry in wave], self._width
            ):
                found.append(content)
                size += length
        return found

    async def _one(self, identity: str) -> tuple[Document | InvalidDocument, int]:
        target = self._wanted.target
        if not readable(target.table, identity):
            return unusable(identity, DeadLetterReason.UNREADABLE_KEY), 0
        blob = await self._client.entity(target.table, identity)
        if blob is None:
            return vanished(identity), 0
        found = self._document(blob, identity)
        return found, len(blob)

    def _document(self, blob: str, identity: str) -> Document | InvalidDocument:
        found = parse_document(blob.encode("utf-8", "surrogatepass"), identity, self._wanted.names)
        if isinstance(found, InvalidDocument):
            return found
        if found.id != identity:
            raise not_its_key(self._wanted.target, found.id)
        # It was changed since it was planned: what is there now is no part of what the job asks for.
        return found if self._wanted.conditions.meets(found) else vanished(identity)


class QuickRows:
    """Implements `Fetcher`: rows as /query gives them, many in one answer; what came too early is held."""

    def __init__(self, listing: Listing, wanted: Wanted, page: int) -> None:
        self._listing = listing
        self._wanted = wanted
        self._page = page
        self._texts: dict[str, str] = {}
        self._until = b""

    async def fetch(self, entries: Sequence[Entry]) -> list[Document | InvalidDocument]:
        """As many as a MiB holds, of a window that is a page long at most."""
        found, size = list[Document | InvalidDocument](), 0
        for place, entry in enumerate(entries):
            if order_key(entry.id) > self._until:
                if found:
                    break
                await self._load([one.id for one in entries[place:]])
            text = self._texts.pop(entry.id, None)
            if text is None:
                text = await self._alone(entry.id)
            found.append(vanished(entry.id) if text is None else self._document(text, entry.id))
            size += len(text or "")
            if size >= _BYTES:
                break
        return found

    async def _load(self, wanted: Sequence[str]) -> None:
        first, last = wanted[0], wanted[-1]
        while True:
            try:
                rows = await self._listing.window(first, last, self._page)
                break
            except AnswerTooLarge:
                self._page = max(1, self._page // 2)
        planned = set(wanted)
        self._texts = {row.id: row.text for row in rows if row.id in planned}
        ids = [row.id for row in rows if row.id is not None]
        # A short page is no end, where rows went away; an empty one says that all are gone.
        self._until = order_key(ids[-1] if ids else last)

    async def _alone(self, identity: str) -> str | None:
        # Whether it is gone is asked once more: it may have come back, or the window been cut.
        rows = await self._listing.window(identity, identity, 1)
        if not rows or rows[0].id != identity:
            return None
        self._until = order_key(identity)
        return rows[0].text

    def _document(self, text: str, identity: str) -> Document | InvalidDocument:
        found = parse_document(text.encode("utf-8", "surrogatepass"), identity, self._wanted.names)
        if isinstance(found, InvalidDocument):
            return found
        return found if self._wanted.conditions.meets(found) else vanished(identity)
