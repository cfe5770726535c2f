"""Bodies out of ChromaDB's own documents, for installations that keep texts nowhere else."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from shardline_common.http.client import AnswerTooLarge
from shardline_producer.sources.documents import ORIGINAL_BYTES
from shardline_producer.sources.http_store import HttpStore, open_http_store
from shardline_producer.sources.uds3.chroma.chunks import document_of, place_of
from shardline_producer.sources.uds3.chroma.ranker import ChromaOptions, Collection, find_collection
from shardline_producer.sources.uds3.couch.body_text import fits, too_large
from shardline_producer.sources.uds3.store_ports import REMOVED, Body, Unreadable, Wanted
from shardline_producer.sources.uds3.tombstones import is_deleted

_RECORDS = 2000
_OWN = ("document_id", "content", "chunk_index", "chunk_id")

_Record = tuple[str, str | None, Mapping[str, Any]]


class ChromaBodies:
    """Implements `Bodies`: a document's chunks by their numbers, joined by a line break.

    A record's text is its document, else its metadata.content. How far chunks overlap is not recorded
    in the store, so nothing is cut.
    """

    def __init__(self, options: ChromaOptions) -> None:
        self._options = options

    async def bodies(self, wanted: Sequence[Wanted], longest: int) -> dict[str, Body | Unreadable]:
        """The texts that are there."""
        async with open_http_store(self._options.http) as http:
            collection = await find_collection(http, self._options)
            return await self._some(http, collection, [one.id for one in wanted], longest)

    async def check(self) -> str:
        """Find the collection."""
        async with open_http_store(self._options.http) as http:
            await find_collection(http, self._options)
        return f"{self._options.collection} at {self._options.http.url} can give texts"

    async def _some(
        self, http: HttpStore, collection: Collection, ids: Sequence[str], longest: int
    ) -> dict[str, Body | Unreadable]:
        try:
            records = await self._records(http, collection, ids)
        except AnswerTooLarge as error:
            if len(ids) == 1:
                return {ids[0]: too_large(error.start)}
            half = len(ids) // 2
            first = await self._some(http, collection, ids[:half], longest)
            return first | await self._some(http, collection, ids[half:], longest)
        return self._joined(records, set(ids), longest)

    async def _records(self, http: HttpStore, collection: Collection, ids: Sequence[str]) -> list[_Record]:
        """The records of documents: those that name them, and those that bear their ids."""
        named: dict[str, Any] = {"where": {"document_id": {"$in": list(ids)}}}
        records: dict[str, _Record] = {}
        for choice in ({"ids": list(ids)}, named):
            offset = 0
            while True:
                body = choice | {"limit": _RECORDS, "offset": offset, "include": ["documents", "metadatas"]}
                page = await http.json(await http.post(collection.path + "/get", body), "read texts")
                for record, text, metadata in zip(
                    page["ids"], page["documents"], page["metadatas"], strict=True
                ):
                    records[record] = (record, text, metadata or {})
                offset += len(page["ids"])
                if len(page["ids"]) < _RECORDS:
                    break
        return list(records.values())

    def _joined(
        self, records: Sequence[_Record], ids: set[str], longest: int
    ) -> dict[str, Body | Unreadable]:
        chunks: dict[str, list[_Record]] = defaultdict(list)
        for record in records:
            chunks[document_of(record[0], record[2])].append(record)
        return {
            document: body
            for document, parts in chunks.items()
            if document in ids and (body := self._body(parts, longest)) is not None
        }

    def _body(self, parts: list[_Record], longest: int) -> Body | Unreadable | None:
        if any(is_deleted(fields, include_archived=self._options.include_archived) for _, _, fields in parts):
            return REMOVED
        parts.sort(key=lambda part: place_of(part[0]))
        texts = [text if text is not None else fields.get("content") for _, text, fields in parts]
        known = [text for text in texts if isinstance(text, str)]
        if not known:
            return None
        fields, text = parts[0][2], "\n".join(known)
        if not fits(text, longest):
            return too_large(text[:ORIGINAL_BYTES].encode(errors="replace"))
        return Body(text, {key: value for key, value in fields.items() if key not in _OWN})
