"""Bodies from ChromaDB's records, for installations that keep the texts in no other store."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from shardline_common.http.client import ResponseTooLarge
from shardline_producer.sources.http_store import HttpStore, open_http_store
from shardline_producer.sources.uds3.body_limit import limited, too_large
from shardline_producer.sources.uds3.chroma.chunks import chunk_order, document_of
from shardline_producer.sources.uds3.chroma.collection import (
    ChromaCollection,
    ChromaOptions,
    find_collection,
    uneven_lists,
)
from shardline_producer.sources.uds3.store_ports import (
    DELETED_BODY,
    BodyRequest,
    DocumentBody,
    InvalidBody,
)
from shardline_producer.sources.uds3.tombstones import is_deleted

_RECORDS_PER_PAGE = 2000
_LISTS = ("documents", "metadatas")
_NO_METADATA = ("document_id", "content", "chunk_index", "chunk_id")

_Record = tuple[str, str | None, Mapping[str, Any]]


class ChromaBodyStore:
    """Implements `BodyStore`: a body is the chunks of a document, by number, joined by line breaks.

    The text of a record is its document, else its metadata.content. ChromaDB does not record how far chunks
    overlap, so overlaps stay in the text.
    """

    def __init__(self, options: ChromaOptions) -> None:
        self._options = options

    async def bodies(
        self, requests: Sequence[BodyRequest], max_bytes: int
    ) -> dict[str, DocumentBody | InvalidBody]:
        """The bodies of the documents that have a record with a text, or a tombstone."""
        async with open_http_store(self._options.http) as http:
            collection = await find_collection(http, self._options)
            return await self._bodies(http, collection, [request.id for request in requests], max_bytes)

    async def check(self) -> str:
        """Find the collection."""
        async with open_http_store(self._options.http) as http:
            await find_collection(http, self._options)
        return f"{self._options.collection} at {self._options.http.url} can be read for bodies"

    async def _bodies(
        self, http: HttpStore, collection: ChromaCollection, ids: Sequence[str], max_bytes: int
    ) -> dict[str, DocumentBody | InvalidBody]:
        try:
            records = await self._records(http, collection, ids)
        except ResponseTooLarge as error:
            if len(ids) == 1:
                return {ids[0]: too_large(error.start)}
            half = len(ids) // 2
            first = await self._bodies(http, collection, ids[:half], max_bytes)
            return first | await self._bodies(http, collection, ids[half:], max_bytes)
        chunks: dict[str, list[_Record]] = defaultdict(list)
        for record in records:
            chunks[document_of(record[0], record[2])].append(record)
        wanted = set(ids)
        return {
            document: body
            for document, group in chunks.items()
            if document in wanted and (body := self._body(group, max_bytes)) is not None
        }

    async def _records(
        self, http: HttpStore, collection: ChromaCollection, ids: Sequence[str]
    ) -> list[_Record]:
        """The records of documents: those with a document's id, and those whose metadata names one."""
        by_name: dict[str, Any] = {"where": {"document_id": {"$in": list(ids)}}}
        records: dict[str, _Record] = {}
        for selector in ({"ids": list(ids)}, by_name):
            offset = 0
            while True:
                page = {"limit": _RECORDS_PER_PAGE, "offset": offset, "include": _LISTS}
                response = await http.post(
                    collection.path + "/get", selector | page, check=partial(uneven_lists, _LISTS)
                )
                found = await http.fields(response, "read texts", ids=list, documents=list, metadatas=list)
                for record, text, metadata in zip(
                    found["ids"], found["documents"], found["metadatas"], strict=True
                ):
                    records[record] = (record, text, metadata or {})
                offset += len(found["ids"])
                # A page with fewer records is not the last one: it may have been cut. The last one is empty.
                if not found["ids"] or offset == len(selector.get("ids", ())):
                    break
        return list(records.values())

    def _body(self, chunks: list[_Record], max_bytes: int) -> DocumentBody | InvalidBody | None:
        archived = self._options.include_archived
        if any(is_deleted(fields, include_archived=archived) for _, _, fields in chunks):
            return DELETED_BODY
        chunks.sort(key=lambda chunk: chunk_order(chunk[0]))
        texts = [text if text is not None else fields.get("content") for _, text, fields in chunks]
        known = [text for text in texts if isinstance(text, str)]
        if not known:
            return None
        text = limited("\n".join(known), max_bytes)
        if isinstance(text, InvalidBody):
            return text
        fields = chunks[0][2]
        return DocumentBody(text, {key: value for key, value in fields.items() if key not in _NO_METADATA})
