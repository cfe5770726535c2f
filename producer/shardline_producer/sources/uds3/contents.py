"""Contents of planned documents: from PostgreSQL's rows, else from the body stores."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import takewhile
from typing import Any, TypeVar

from shardline_producer.sources.documents import (
    DeadLetterReason,
    invalid_document,
    is_plain_id,
    own_score,
    too_large,
    validated,
)
from shardline_producer.sources.exact_json import parse_row
from shardline_producer.sources.planned_store import Entry, vanished
from shardline_producer.sources.source import Document, InvalidDocument, Render, RenderedItem
from shardline_producer.sources.uds3.postgres.keyless import is_storable, keyless_key
from shardline_producer.sources.uds3.postgres.session import PostgresRow, PostgresRows, PostgresSession
from shardline_producer.sources.uds3.postgres.sql import DocumentSelection
from shardline_producer.sources.uds3.rendered_rows import plain_documents, rendered_rows
from shardline_producer.sources.uds3.store_ports import (
    DELETED_BODY,
    MAX_BODIES,
    BodyRequest,
    BodyStore,
    DocumentBody,
    InvalidBody,
    MarkedBodyStore,
)

Item = TypeVar("Item", Document, RenderedItem)


class ContentFetcher:
    """Implements `RenderingFetcher` over one connection (None: without PostgreSQL) and the body stores."""

    def __init__(
        self,
        session: PostgresSession | None,
        selection: DocumentSelection | None,
        body_stores: Sequence[BodyStore],
        max_bytes: int,
        marked_stores: Sequence[MarkedBodyStore] = (),
    ) -> None:
        self._session = session
        self._selection = selection
        self._body_stores = body_stores
        self._max_bytes = max_bytes
        self._marked_stores = marked_stores

    async def fetch(self, entries: Sequence[Entry]) -> list[Document | InvalidDocument]:
        """Read the contents of the first entries. Those that no row can have are dead letters."""
        unreadable, entries = _without_rows(entries)
        if unreadable:
            return unreadable
        entries, rows = await self._read_rows(entries)
        plain: Sequence[Document | None] = [None] * len(entries)
        if rows and self._may_be_plain:
            plain = plain_documents(rows, entries)
        return await self._completed(entries, rows, plain)

    async def fetch_rendered(
        self, entries: Sequence[Entry], first: int, render: Render, *, ranked: bool
    ) -> list[RenderedItem | Document | InvalidDocument]:
        """Implements `RenderingFetcher`: rows that are documents as they are, are rendered at once."""
        unreadable, entries = _without_rows(entries)
        if unreadable:
            return [*unreadable]
        entries, rows = await self._read_rows(entries)
        rendered: Sequence[RenderedItem | None] = [None] * len(entries)
        if rows and self._may_be_plain:
            rendered = rendered_rows(rows, entries, first, render, ranked=ranked)
        return await self._completed(entries, rows, rendered)

    @property
    def _may_be_plain(self) -> bool:
        """Whether rows may be documents as they are: sizes are those of UTF-8, no other store marks them."""
        return self._session is not None and self._session.stores_utf8 and not self._marked_stores

    async def _completed(
        self, entries: Sequence[Entry], rows: PostgresRows | None, found: Sequence[Item | None]
    ) -> list[Item | Document | InvalidDocument]:
        """What was found, and the contents of the first entries of which nothing was found."""
        others = [number for number, item in enumerate(found) if item is None]
        contents = await self._contents(
            [(entries[number], rows.row(number) if rows else None) for number in others]
        )
        # Nothing is returned that is behind an entry that was not read.
        read = others[len(contents)] if len(contents) < len(others) else len(entries)
        left = iter(contents)
        return [next(left) if item is None else item for item in found[:read]]

    async def _read_rows(self, entries: Sequence[Entry]) -> tuple[Sequence[Entry], PostgresRows | None]:
        """The rows of the first entries, about 1 MiB of them; None without PostgreSQL."""
        if self._selection is None or not self._selection.schema.has_content:
            entries = entries[:MAX_BODIES]
        if self._session is None or self._selection is None:
            return entries, None
        ids = [entry.id for entry in entries]
        rows = await self._session.contents(self._selection, ids, self._max_bytes)
        return entries[: len(rows)], rows

    async def _contents(
        self, rows: Sequence[tuple[Entry, PostgresRow | None]]
    ) -> list[Document | InvalidDocument]:
        """The contents of the first of these entries, with their rows.

        1. Take the first entries, until MAX_BODIES of them have no text in their row.
        2. Ask the stores of bodies which of them they mark deleted, wherever the text is.
        3. Request the missing bodies from each body store in turn.
        4. Make a document or a dead letter of each entry.
        """
        requests: dict[str, BodyRequest] = {}
        taken: list[tuple[Entry, PostgresRow | None]] = []
        for entry, row in rows:
            if (row is None or row.body is None) and (request := _body_request(entry, row)) is not None:
                if len(requests) == MAX_BODIES:
                    break
                requests[entry.id] = request
            taken.append((entry, row))

        bodies: dict[str, DocumentBody | InvalidBody] = {}
        if self._marked_stores:
            live = [
                _request(entry, row) for entry, row in taken if row is None or not _is_deleted(entry, row)
            ]
            for marks in self._marked_stores if live else ():
                bodies |= dict.fromkeys(await marks.deleted(live), DELETED_BODY)
        for store in self._body_stores if requests else ():
            missing = [request for identity, request in requests.items() if identity not in bodies]
            if missing:
                bodies |= await store.bodies(missing, self._max_bytes)
        utf8 = self._session is not None and self._session.stores_utf8
        return [_content(entry, row, bodies, utf8=utf8) for entry, row in taken]


def _without_rows(
    entries: Sequence[Entry],
) -> tuple[list[Document | InvalidDocument], Sequence[Entry]]:
    """The dead letters of the first entries, as long as PostgreSQL cannot hold their ids.

    If there are none: the first entries, as long as it can.
    """
    if is_storable("".join([entry.id for entry in entries])):
        return [], entries
    found: list[Document | InvalidDocument] = []
    for entry in takewhile(lambda entry: not is_storable(entry.id), entries):
        if (key := keyless_key(entry.id)) is not None:
            found.append(invalid_document(key, DeadLetterReason.MISSING_ID))
        else:
            found.append(validated(Document(entry.id, "", {})))
    return found, list(takewhile(lambda entry: is_storable(entry.id), entries))


def _is_deleted(entry: Entry, row: PostgresRow) -> bool:
    return row.deleted or (not row.known and not entry.foreign)


def _body_request(entry: Entry, row: PostgresRow | None) -> BodyRequest | None:
    if row is not None and (_is_deleted(entry, row) or row.body is not None or row.fault):
        return None
    return _request(entry, row)


def _request(entry: Entry, row: PostgresRow | None) -> BodyRequest:
    """The request for the body of an entry, with the references of its row."""
    return body_request(entry.id, row.refs if row else None)


def body_request(identity: str, couchdb_refs: str | None) -> BodyRequest:
    """The request for the body of a document, with the JSON of its couchdb_refs."""
    refs: Mapping[str, Any] = {}
    if couchdb_refs:
        # A column of text may hold anything. What is no JSON object refers to nothing.
        with suppress(ValueError):
            refs = parse_row(couchdb_refs)
    return BodyRequest(identity, refs)


def _content(
    entry: Entry, row: PostgresRow | None, bodies: Mapping[str, DocumentBody | InvalidBody], *, utf8: bool
) -> Document | InvalidDocument:
    metadata: dict[str, Any] = {}
    if row is not None:
        if _is_deleted(entry, row) or bodies.get(entry.id) == DELETED_BODY:
            return vanished(entry.id)
        if row.fault or row.digest is not None:
            return _invalid_row(row)
        if row.known:
            metadata = row.metadata_values()
        if row.body is not None:
            return _document_of_row(entry.id, row.body, metadata, row.size if utf8 else None)
    body = bodies.get(entry.id)
    if body is None:
        return invalid_document(entry.id, DeadLetterReason.NO_CONTENT)
    if isinstance(body, InvalidBody):
        return invalid_document(entry.id, body.reason, body.original)
    # The tables take precedence. The store of the body adds the fields that they lack.
    return _document(entry.id, body.text, {**body.metadata, **metadata})


def _document_of_row(
    identity: str, text: str, metadata: dict[str, Any], size: int | None
) -> Document | InvalidDocument:
    """As `_document`, for a text that PostgreSQL returned: it is UTF-8, without halves of surrogate pairs.

    `size`: the length of the text in UTF-8, if it is known.
    """
    if is_plain_id(identity):
        score = own_score(metadata) if "score" in metadata else 0.0
        return Document(identity, text, metadata, score, text_bytes=size)
    return _document(identity, text, metadata)


def _invalid_row(row: PostgresRow) -> InvalidDocument:
    if row.fault:
        found = invalid_document(row.id, DeadLetterReason.UNREADABLE_ROW)
        letter = found.dead_letter
        return replace(found, dead_letter=replace(letter, hint=f"{letter.hint}: {row.fault}"))
    start = (row.body or "").encode()
    return too_large(row.id, start, row.digest or "", row.size or 0)


def _document(identity: str, text: str, metadata: dict[str, Any]) -> Document | InvalidDocument:
    return validated(Document(identity, text, metadata, own_score(metadata)))
