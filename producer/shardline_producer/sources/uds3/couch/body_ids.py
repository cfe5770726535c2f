"""Which CouchDB document holds the body of another id: those whose metadata.document_id names it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import orjson

from shardline_common.http.client import AnswerTooLarge
from shardline_producer.sources.http_store import HttpStore
from shardline_producer.sources.uds3.couch.body_text import is_gone
from shardline_producer.sources.uds3.spilled_lists import Names

_SCAN_PAGE = 200
_NAME = "metadata.document_id"
_MARKS = ("deleted", "is_deleted", "deleted_at", "processing_status")


class CouchNames:
    """Finds documents by the id that they name: of several the first in byte order, a deleted one last."""

    def __init__(self, *, include_archived: bool) -> None:
        self._names = Names()
        self._archived = include_archived
        self._scanned = False
        self._indexed: bool | None = None

    async def named(self, http: HttpStore, database: str, identities: Sequence[str]) -> list[tuple[str, str]]:
        """The documents whose metadata.document_id is one of those: (name, document id).

        By an index where there is one. Else all documents are read once, and the names kept on disk:
        a query without an index would read them all for each group.
        """
        if self._indexed is None:
            self._indexed = await self._has_index(http, database)
        if self._indexed:
            ranked = await self._find(http, database, identities)
        else:
            if not self._scanned:
                await self._scan(http, database)
                self._scanned = True
            ranked = self._names.of(identities)
        return [(name[1:], identity) for name, identity in ranked]

    async def _has_index(self, http: HttpStore, database: str) -> bool:
        answer = await http.get(f"/{quote(database, safe='')}/_index")
        if answer.status != 200:  # noqa: PLR2004 - versions before 2.0 have no such call
            return False
        indexes = (await http.json(answer, "list indexes"))["indexes"]
        return any(
            index["type"] == "json" and [key for part in index["def"]["fields"] for key in part] == [_NAME]
            for index in indexes
        )

    async def _find(self, http: HttpStore, database: str, identities: Sequence[str]) -> list[tuple[str, str]]:
        ask: dict[str, Any] = {"selector": {_NAME: {"$in": list(identities)}}, "limit": _SCAN_PAGE}
        ask["fields"] = ["_id", _NAME, *_MARKS, *(f"metadata.{mark}" for mark in _MARKS)]
        names: dict[str, str] = {}
        while True:
            answer = await http.post(f"/{quote(database, safe='')}/_find", ask)
            page = await http.json(answer, "find documents by metadata.document_id")
            for identity, name in self._pairs(page["docs"]):
                names[identity] = min(name, names.get(identity, name))
            if len(page["docs"]) < _SCAN_PAGE or page.get("bookmark") in (None, ask.get("bookmark")):
                return [(name, identity) for identity, name in sorted(names.items())]
            ask["bookmark"] = page["bookmark"]

    async def _scan(self, http: HttpStore, database: str) -> None:
        path, last = f"/{quote(database, safe='')}/_all_docs", ""
        size = _SCAN_PAGE
        while True:
            params = {"include_docs": "true", "limit": str(size)}
            if last:
                params["startkey"] = orjson.dumps(last).decode()
            try:
                rows = (await http.json(await http.get(path, params), "list documents"))["rows"]
            except AnswerTooLarge:
                if size == 2:  # noqa: PLR2004 - the last one read, and one more
                    raise http.invalid("one document is over the limit of an answer") from None
                size = max(2, size // 2)
                continue
            self._names.add(self._pairs(row["doc"] for row in rows if row.get("doc")))
            if len(rows) < size:
                return
            last = rows[-1]["id"]

    def _pairs(self, documents: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
        """(document id, name) of those that name a document; before the name 1 where it is marked, else 0."""
        pairs = []
        for document in documents:
            metadata = document.get("metadata")
            identity = metadata.get("document_id") if isinstance(metadata, Mapping) else None
            gone = is_gone(document, include_archived=self._archived)
            if isinstance(identity, str):
                pairs.append((identity, f"{int(gone)}{document['_id']}"))
        return pairs
