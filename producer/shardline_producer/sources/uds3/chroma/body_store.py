"""Bodies from ChromaDB's records, for installations that keep the texts in no other store."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from shardline_common.errors import FailureCode, JobFailed
from shardline_common.http.client import ResponseTooLarge
from shardline_common.job.messages import MAX_ORIGINAL_BYTES
from shardline_producer.sources.documents import DeadLetterReason
from shardline_producer.sources.http_store import HttpStore, open_http_store
from shardline_producer.sources.uds3.body_limit import limited, too_large
from shardline_producer.sources.uds3.chroma.chunks import (
    Chunk,
    chunk_order,
    document_of,
    may_count_from_one,
    whole_text,
)
from shardline_producer.sources.uds3.chroma.collection import (
    ChromaCollection,
    ChromaOptions,
    CollectionReader,
    count_records,
    find_collection,
    look_up_collection,
)
from shardline_producer.sources.uds3.chroma.document_records import DocumentRecords
from shardline_producer.sources.uds3.chroma.identity import why_other
from shardline_producer.sources.uds3.store_ports import (
    DELETED_BODY,
    BodyRequest,
    DocumentBody,
    InvalidBody,
)
from shardline_producer.sources.uds3.tombstones import is_deleted

_NO_METADATA = ("document_id", "content", "chunk_index", "chunk_id")


class ChromaBodyStore:
    """Implements `BodyStore` and `PinnedBodyStore`. Not pinned, it reads the collection that it finds first.

    A body is the chunks of a document, by number, joined by line breaks. The text of a record is its
    document, else its metadata.content. ChromaDB does not record how far chunks overlap, so overlaps stay in
    the text. A document of which a chunk or its text is missing is the invalid body `incomplete_text`.
    """

    store = "chromadb"

    def __init__(self, options: ChromaOptions) -> None:
        self._options = options
        self._planned: Mapping[str, Any] | None = None
        self._records: DocumentRecords | None = None

    async def bodies(
        self, requests: Sequence[BodyRequest], max_bytes: int
    ) -> dict[str, DocumentBody | InvalidBody]:
        """The bodies of the documents that have a record with a text, or a tombstone."""
        async with open_http_store(self._options.http) as http:
            if self._planned is None:
                self._planned = {"collection": (await find_collection(http, self._options)).id}
            collection = await self._planned_collection(http, self._planned)
            if self._records is None:
                self._records = DocumentRecords()
            reader = CollectionReader(http, collection)
            found = await self._bodies(reader, self._records, [one.id for one in requests], max_bytes)
            if not found:
                await self._planned_collection(http, self._planned, filled=True)
            return found

    async def check(self) -> str:
        """Find the collection."""
        async with open_http_store(self._options.http) as http:
            await find_collection(http, self._options)
        return f"{self._options.collection} at {self._options.http.url} can be read for bodies"

    def pin(self, planned: Mapping[str, Any]) -> None:
        """Read no other collection than the one whose identity was planned."""
        self._planned = planned

    async def _planned_collection(
        self, http: HttpStore, planned: Mapping[str, Any], *, filled: bool = False
    ) -> ChromaCollection:
        """Find the collection, and check that it is the planned one and, if `filled`, not empty now."""
        collection = await look_up_collection(http, self._options)
        records = await count_records(http, collection) if filled and collection else None
        why = why_other(planned, self._options.collection, collection, records)
        if collection is None or why is not None:
            raise JobFailed(
                FailureCode.SOURCE_CHANGED,
                f"{http.address}: {why} after the job was planned",
                hint="submit a new job",
            )
        return collection

    async def _bodies(
        self, reader: CollectionReader, records: DocumentRecords, ids: Sequence[str], max_bytes: int
    ) -> dict[str, DocumentBody | InvalidBody]:
        try:
            found = await records.of(reader, ids, max_bytes)
        except ResponseTooLarge as error:
            if len(ids) == 1:
                return {ids[0]: too_large(error.start)}
            half = len(ids) // 2
            first = await self._bodies(reader, records, ids[:half], max_bytes)
            return first | await self._bodies(reader, records, ids[half:], max_bytes)
        chunks: dict[str, list[Chunk]] = defaultdict(list)
        for chunk in found:
            chunks[document_of(chunk.record, chunk.fields)].append(chunk)
        bodies: dict[str, DocumentBody | InvalidBody] = {}
        for document in ids:
            group = chunks[document]
            from_one = may_count_from_one(group) and await records.count_from_one(reader)
            if (body := self._body(document, group, max_bytes, from_one=from_one)) is not None:
                bodies[document] = body
        return bodies

    def _body(
        self, document: str, chunks: Sequence[Chunk], max_bytes: int, *, from_one: bool
    ) -> DocumentBody | InvalidBody | None:
        archived = self._options.include_archived
        if any(is_deleted(chunk.fields, include_archived=archived) for chunk in chunks):
            return DELETED_BODY
        if all(chunk.text is None for chunk in chunks):
            return None
        whole = whole_text(document, chunks, from_one=from_one)
        ordered = whole or sorted(chunks, key=lambda chunk: chunk_order(chunk.record, chunk.fields))
        text = "\n".join(chunk.text for chunk in ordered if chunk.text is not None)
        if whole is None:
            start = text[:MAX_ORIGINAL_BYTES].encode(errors="replace")
            return InvalidBody(DeadLetterReason.INCOMPLETE_TEXT, start)
        body = limited(text, max_bytes)
        if isinstance(body, InvalidBody):
            return body
        # The first chunk may be one that has no metadata at all.
        fields: Mapping[str, Any] = next((chunk.fields for chunk in whole if chunk.fields), {})
        return DocumentBody(body, {key: value for key, value in fields.items() if key not in _NO_METADATA})
