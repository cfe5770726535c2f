"""Contents of planned documents: from PostgreSQL's rows, else from the stores of bodies."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from shardline_producer.sources.documents import DeadLetterReason, dead_letter, own_score, validated
from shardline_producer.sources.planned import Entry, unusable, vanished
from shardline_producer.sources.source import Document, InvalidDocument
from shardline_producer.sources.uds3.postgres.connection import Row, Session, metadata_of
from shardline_producer.sources.uds3.postgres.sql import Selection
from shardline_producer.sources.uds3.store_ports import Bodies, Body, Unreadable, Wanted

_MOST_BODIES = 50


class ContentFetcher:
    """Implements `Fetcher` over one connection (None: there is no PostgreSQL) and the stores of bodies."""

    def __init__(
        self,
        session: Session | None,
        selection: Selection | None,
        bodies: Sequence[Bodies],
        longest: int,
    ) -> None:
        self._session = session
        self._selection = selection
        self._bodies = bodies
        self._longest = longest

    async def fetch(self, entries: Sequence[Entry]) -> list[Document | InvalidDocument]:
        """Contents of the first entries."""
        if self._selection is None or not self._selection.schema.has_contents:
            entries = entries[:_MOST_BODIES]
        rows = await self._rows(entries)
        wanted: dict[str, Wanted] = {}
        found: list[tuple[Entry, Row | None]] = []
        for entry, row in zip(entries, rows, strict=False):
            if (want := _wanted(entry, row)) is not None:
                if len(wanted) == _MOST_BODIES:
                    break
                wanted[entry.id] = want
            found.append((entry, row))
        bodies = await self._ask(wanted)
        return [self._content(entry, row, bodies) for entry, row in found]

    async def _rows(self, entries: Sequence[Entry]) -> Sequence[Row | None]:
        if self._session is None or self._selection is None:
            return [None] * len(entries)
        return await self._session.contents(self._selection, [entry.id for entry in entries], self._longest)

    async def _ask(self, wanted: Mapping[str, Wanted]) -> Mapping[str, Body | Unreadable]:
        found: dict[str, Body | Unreadable] = {}
        for store in self._bodies:
            missing = [want for identity, want in wanted.items() if identity not in found]
            if missing:
                found |= await store.bodies(missing, self._longest)
        return found

    def _content(
        self, entry: Entry, row: Row | None, bodies: Mapping[str, Body | Unreadable]
    ) -> Document | InvalidDocument:
        if row is not None and _gone(entry, row):
            return vanished(entry.id)
        if row is not None and row.digest is not None:
            return _too_large(row)
        metadata = metadata_of(row) if row is not None and row.known else {}
        if row is not None and row.body is not None:
            return _document(entry.id, row.body, metadata)
        body = bodies.get(entry.id)
        if body is None:
            return unusable(entry.id, DeadLetterReason.NO_CONTENT)
        if isinstance(body, Unreadable):
            return unusable(entry.id, body.reason, body.original)
        # The tables are the authority; what they do not say, the body's store may know.
        return _document(entry.id, body.text, {**body.metadata, **metadata})


def _gone(entry: Entry, row: Row) -> bool:
    return row.deleted or (not row.known and not entry.foreign)


def _wanted(entry: Entry, row: Row | None) -> Wanted | None:
    if row is None:
        return Wanted(entry.id)
    if _gone(entry, row) or row.body is not None:
        return None
    refs = orjson.loads(row.refs) if row.refs else {}
    return Wanted(entry.id, refs if isinstance(refs, dict) else {})


def _too_large(row: Row) -> InvalidDocument:
    start = (row.body or "").encode()
    return InvalidDocument(
        row.id, dead_letter(DeadLetterReason.TOO_LARGE, row.id, start, row.digest or "", row.size or 0)
    )


def _document(identity: str, text: str, metadata: dict[str, Any]) -> Document | InvalidDocument:
    return validated(Document(identity, text, metadata, own_score(metadata)))
