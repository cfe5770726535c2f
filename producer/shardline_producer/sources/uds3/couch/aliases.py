"""CouchDB documents that have another id than the document, which metadata.document_id names."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import orjson

from shardline_common.http.client import OK, ResponseTooLarge
from shardline_producer.sources.http_store import HttpStore
from shardline_producer.sources.uds3.couch.body_text import is_deleted_document
from shardline_producer.sources.uds3.spilled_lists import AliasIndex
from shardline_producer.sources.uds3.tombstones import TOMBSTONE_FIELDS

_PAGE = 200
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
            "selector": {_DOCUMENT_ID: {"$in": list(ids)}},
            "limit": _PAGE,
            "fields": _FIELDS,
        }
        aliases: dict[str, str] = {}
        while True:
            response = await http.post(f"/{quote(database, safe='')}/_find", body)
            page = await http.fields(response, "find documents by metadata.document_id", docs=list)
            for identity, alias in self._pairs(page["docs"]):
                aliases[identity] = min(alias, aliases.get(identity, alias))
            # A page with fewer documents is not the last one: it may have been cut. The last one is empty.
            if not page["docs"] or page.get("bookmark") in (None, body.get("bookmark")):
                return [(alias, identity) for identity, alias in sorted(aliases.items())]
            body["bookmark"] = page["bookmark"]

    async def _scan(self, http: HttpStore, database: str) -> None:
        path, last, is_repeated = f"/{quote(database, safe='')}/_all_docs", "", False
        size = _PAGE
        while True:
            params = {"include_docs": "true", "limit": str(size)}
            if last:
                params["startkey"] = orjson.dumps(last).decode()
            try:
                response = await http.get(path, params)
                rows = (await http.fields(response, "list documents", rows=list))["rows"]
            except ResponseTooLarge:
                if size == 2:  # noqa: PLR2004 - the last document of the previous page, and one more
                    raise http.invalid("one document exceeds the limit of a response") from None
                size = max(2, size // 2)
                continue
            # A page begins with the last row of the one before. It is the end of the list if it has no other
            # row, and not if it has fewer rows than it may have: it may have been cut.
            further = [row for row in rows if row["id"] != last]
            self._aliases.add(self._pairs(row["doc"] for row in further if row.get("doc")))
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
            identity = metadata.get("document_id") if isinstance(metadata, Mapping) else None
            if isinstance(identity, str):
                deleted = is_deleted_document(document, include_archived=self._include_archived)
                pairs.append((identity, f"{int(deleted)}{document['_id']}"))
        return pairs


async def _has_index(http: HttpStore, database: str) -> bool:
    response = await http.get(f"/{quote(database, safe='')}/_index")
    if response.status != OK:  # CouchDB before 2.0 has no indexes
        return False
    indexes = (await http.fields(response, "list indexes", indexes=list))["indexes"]
    return any(
        index["type"] == "json" and [key for part in index["def"]["fields"] for key in part] == [_DOCUMENT_ID]
        for index in indexes
    )
