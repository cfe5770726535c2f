"""CouchDB documents that have another id than the document, which metadata.document_id names."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from shardline_common.http.client import OK
from shardline_common.runtime.threads import run_in_thread
from shardline_producer.sources.http_store import HttpStore
from shardline_producer.sources.uds3.couch.body_text import is_deleted_document
from shardline_producer.sources.uds3.couch.catalogue import CouchCatalogue, alias_of
from shardline_producer.sources.uds3.couch.documents import database_path, is_text
from shardline_producer.sources.uds3.tombstones import TOMBSTONE_FIELDS

_PAGE = 200
_MAX_DIGITS = 16
_DOCUMENT_ID = "metadata.document_id"
_FIELDS = ["_id", _DOCUMENT_ID, *TOMBSTONE_FIELDS, *(f"metadata.{name}" for name in TOMBSTONE_FIELDS)]


class CouchAliases:
    """Finds the CouchDB ids of documents by metadata.document_id.

    Of several with the same document_id, those that are not deleted have precedence, then byte order.
    """

    def __init__(self, catalogue: CouchCatalogue, *, include_archived: bool) -> None:
        self._catalogue = catalogue
        self._include_archived = include_archived
        self._has_index: bool | None = None

    async def find(self, http: HttpStore, database: str, ids: Sequence[str]) -> list[tuple[str, str]]:
        """The (CouchDB id, document id) pairs of the documents that have one.

        Uses an index on metadata.document_id if there is one. Without an index, a query would read all
        documents of the database for each group of ids: so all are read once, into the catalogue.
        """
        if self._has_index is None:
            self._has_index = await _has_index(http, database)
        pairs: list[tuple[str, str]] = []
        if self._has_index:
            pairs = [(alias[1:], identity) for alias, identity in await self._query(http, database, ids)]
            found = {identity for _, identity in pairs}
            ids = [identity for identity in ids if identity not in found]
            # The catalogue is asked too where it was read: nothing proves that a query found all.
            if not self._catalogue.documents_read:
                return pairs
        await self._catalogue.read_documents(http, database)
        return pairs + await run_in_thread(partial(self._catalogue.aliases, ids))

    async def _query(self, http: HttpStore, database: str, ids: Sequence[str]) -> list[tuple[str, str]]:
        body: dict[str, Any] = {
            "selector": {_DOCUMENT_ID: {"$in": [*ids, *(int(one) for one in ids if _is_number(one))]}},
            "limit": _PAGE,
            "fields": _FIELDS,
        }
        aliases: dict[str, str] = {}
        while True:
            response = await http.post(f"{database_path(database)}/_find", body, check=_fault_of_found)
            page = await http.fields(response, "find documents by metadata.document_id", docs=list)
            for identity, alias in self._pairs(page["docs"]):
                aliases[identity] = min(alias, aliases.get(identity, alias))
            # A page with fewer documents is not the last one: it may have been cut. The last one is empty.
            if not page["docs"] or page.get("bookmark") in (None, body.get("bookmark")):
                return [(alias, identity) for identity, alias in sorted(aliases.items())]
            body["bookmark"] = page["bookmark"]

    def _pairs(self, documents: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
        for document in documents:
            deleted = is_deleted_document(document, include_archived=self._include_archived)
            yield from alias_of(document, deleted=deleted)


def _is_number(identity: str) -> bool:
    # A document may name the id as a number; longer ones are not exact in JSON.
    return identity.isascii() and identity.isdecimal() and len(identity) < _MAX_DIGITS


def _fault_of_found(found: Any) -> str | None:
    """Why a page of `_find` is not whole; None when it is, or is no page, which the caller names."""
    documents = found.get("docs") if isinstance(found, dict) else None
    if not isinstance(documents, list):
        return None
    if not all(isinstance(one, dict) and is_text(one.get("_id")) for one in documents):
        return "it found documents without an id"
    bookmark = found.get("bookmark")
    return None if bookmark is None or is_text(bookmark) else "its bookmark is no text"


def _has_alias_index(indexes: Any) -> bool:
    # CouchDB uses a partial index, which lacks documents, only if a query names it.
    return any(
        index["type"] == "json"
        and not index["def"].get("partial_filter_selector")
        and [key for part in index["def"]["fields"] for key in part] == [_DOCUMENT_ID]
        for index in indexes
    )


def _fault_of_indexes(found: Any) -> str | None:
    if isinstance(found, dict) and isinstance(found.get("indexes"), list):
        # It raises for indexes of another form.
        _has_alias_index(found["indexes"])
    return None


async def _has_index(http: HttpStore, database: str) -> bool:
    response = await http.get(f"{database_path(database)}/_index", check=_fault_of_indexes)
    if response.status != OK:  # CouchDB before 2.0 has no indexes
        return False
    return _has_alias_index((await http.fields(response, "list indexes", indexes=list))["indexes"])
