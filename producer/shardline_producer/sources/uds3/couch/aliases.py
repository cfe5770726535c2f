"""CouchDB documents that have another id than the document, which metadata.document_id names."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from shardline_common.http.client import OK, ResponseTooLarge
from shardline_producer.sources.http_store import HttpStore
from shardline_producer.sources.uds3.couch.body_text import is_deleted_document
from shardline_producer.sources.uds3.couch.documents import database_path, fault_of_row
from shardline_producer.sources.uds3.spilled_lists import AliasIndex
from shardline_producer.sources.uds3.tombstones import TOMBSTONE_FIELDS, document_id

_PAGE = 200
_MAX_DIGITS = 16
_DOCUMENT_ID = "metadata.document_id"
_FIELDS = ["_id", _DOCUMENT_ID, *TOMBSTONE_FIELDS, *(f"metadata.{name}" for name in TOMBSTONE_FIELDS)]


class CouchAliases:
    """Finds the CouchDB ids of documents by metadata.document_id.

    Of several with the same document_id, those that are not deleted have precedence, then byte order.
    """

    def __init__(self, *, include_archived: bool) -> None:
        self._aliases = AliasIndex()
        self._include_archived = include_archived
        self._scanned = False
        self._has_index: bool | None = None

    async def find(self, http: HttpStore, database: str, ids: Sequence[str]) -> list[tuple[str, str]]:
        """The (CouchDB id, document id) pairs of the documents that have one.

        Uses an index on metadata.document_id if there is one. Without an index, a query would read all
        documents of the database for each group of ids: so all are read once, and their ids are kept on disk.
        """
        if self._has_index is None:
            self._has_index = await _has_index(http, database)
        if self._has_index:
            aliases = await self._query(http, database, ids)
        else:
            if not self._scanned:
                await self._scan(http, database)
                self._scanned = True
            aliases = self._aliases.find(ids)
        return [(alias[1:], identity) for alias, identity in aliases]

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

    async def _scan(self, http: HttpStore, database: str) -> None:
        path, last, is_repeated = f"{database_path(database)}/_all_docs", "", False
        size = _PAGE
        while True:
            params = {"include_docs": "true", "limit": str(size)}
            if last:
                params["startkey"] = orjson.dumps(last).decode()
            try:
                response = await http.get(path, params, check=_fault_of_page)
                rows = (await http.fields(response, "list documents", rows=list))["rows"]
            except ResponseTooLarge:
                if size == 2:  # noqa: PLR2004 - the last document of the previous page, and one more
                    raise http.invalid("one document exceeds the limit of a response") from None
                size = max(2, size // 2)
                continue
            # A page begins with the last row of the one before. It is the end of the list if it has no other
            # row, and not if it has fewer rows than it may have: it may have been cut.
            further = [row for row in rows if row["id"] != last]
            self._aliases.add(self._pairs(row["doc"] for row in further))
            if not further and (rows or not last or is_repeated):
                return
            # Without any row, the last one was deleted, or the page is not whole.
            is_repeated = not further
            last = further[-1]["id"] if further else last

    def _pairs(self, documents: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
        """The (document id, alias) pairs of documents.

        An alias is a digit, 1 if the document is deleted, else 0, and the CouchDB id: deleted ones sort last.
        """
        pairs = []
        for document in documents:
            metadata = document.get("metadata")
            fields = metadata if isinstance(metadata, Mapping) else {}
            if (identity := document_id(fields, ("document_id",))) is not None:
                deleted = is_deleted_document(document, include_archived=self._include_archived)
                pairs.append((identity, f"{int(deleted)}{document['_id']}"))
        return pairs


def _is_number(identity: str) -> bool:
    # A document may name the id as a number; longer ones are not exact in JSON.
    return identity.isascii() and identity.isdecimal() and len(identity) < _MAX_DIGITS


def _fault_of_page(found: Any) -> str | None:
    """Why a page of `_all_docs` is not whole; None when it is, or is no page, which the caller names."""
    rows = found.get("rows") if isinstance(found, dict) else None
    if not isinstance(rows, list):
        return None
    # A document that was removed since its row was made has no document: asked again, it has no row.
    return next((fault for row in rows if (fault := fault_of_row(row, documents=True))), None)


def _fault_of_found(found: Any) -> str | None:
    """Why a page of `_find` is not whole; None when it is, or is no page, which the caller names."""
    documents = found.get("docs") if isinstance(found, dict) else None
    if not isinstance(documents, list):
        return None
    if all(isinstance(one, dict) and isinstance(one.get("_id"), str) for one in documents):
        return None
    return "it found documents without an id"


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
