"""The vector search of UDS3 in ChromaDB.

ChromaDB's index is approximate, and its results depend on how it was built, so it is not used. All vectors
that pass the filters are read and ranked here exactly (distance.py). Each search costs a pass over the
collection. In return, the same job has the same documents, to the end of the list.
"""

import logging
import math
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from shardline_common.job.findings import Certainty, Level
from shardline_common.job.spec import Query, SearchType
from shardline_common.runtime.task_group import TaskGroup
from shardline_common.runtime.tasks import leaf_errors
from shardline_common.runtime.threads import run_in_thread
from shardline_producer.sources.http_store import HttpStore, open_http_store
from shardline_producer.sources.query_filters import passes
from shardline_producer.sources.source import Document
from shardline_producer.sources.uds3.chroma.chunks import document_of
from shardline_producer.sources.uds3.chroma.collection import (
    ChromaCollection,
    ChromaOptions,
    CollectionReader,
    count_records,
    find_collection,
    look_up_collection,
    wrong_records,
)
from shardline_producer.sources.uds3.chroma.identity import read_identity, why_other
from shardline_producer.sources.uds3.chroma.where_clause import where_clause
from shardline_producer.sources.uds3.distance import distance_from, query_fault, similarity
from shardline_producer.sources.uds3.embedding.embedder import Embedder, model_error
from shardline_producer.sources.uds3.scratch import ScratchDatabase
from shardline_producer.sources.uds3.spilled_lists import LowestScores, SortedIds
from shardline_producer.sources.uds3.store_ports import Hit, OnDeleted
from shardline_producer.sources.uds3.tombstones import is_deleted

_log = logging.getLogger(__name__)
_VECTORS = ("embeddings", "metadatas")
_VECTOR_REQUESTS = 2
_SAMPLE = 1000


@dataclass(slots=True)
class _Measured:
    """Of a page of records: documents that are marked deleted, and records that cannot be ranked."""

    deleted: list[str] = field(default_factory=list)
    without_vector: list[str] = field(default_factory=list)


class ChromaRanker:
    """Implements `Ranker`, `HasIdentity`, `StatesCertainty` and `ReportsMarkedHits`.

    Documents are ranked by the nearest of their chunks, ties by document id.
    """

    name: SearchType = "vector"

    def __init__(self, options: ChromaOptions, embedder: Embedder) -> None:
        self._options = options
        self._embedder = embedder

    async def filter_fields(self) -> list[str]:
        """The metadata keys that the collection declares; if it declares none, those of its first records."""
        async with open_http_store(self._options.http) as http:
            collection = await find_collection(http, self._options)
            if collection.fields is not None:
                return list(collection.fields)
            body = {"limit": _SAMPLE, "offset": 0, "include": ["metadatas"]}
            response = await http.post(collection.path + "/get", body, check=partial(wrong_records, body))
            found = await http.fields(response, "read metadata", metadatas=list)
            return sorted({key for metadata in found["metadatas"] for key in metadata or {}})

    async def check(self) -> str:
        """Embed a word, and compare its dimension with that of the collection."""
        vector = await self._embedder.embed("Recht")
        async with open_http_store(self._options.http) as http:
            collection = await find_collection(http, self._options)
            self._check_vector(http, collection, vector)
            records = await count_records(http, collection)
        return (
            f"{self._options.collection} at {self._options.http.url} has {records} records of dimension "
            f"{collection.dimension}, distance {collection.space}, model {self._embedder.identity}"
        )

    async def identity(self) -> dict[str, Any]:
        """The id of the collection, and the number of its records."""
        async with open_http_store(self._options.http) as http:
            return await read_identity(http, self._options)

    async def changed_since(self, planned: Mapping[str, Any]) -> str | None:
        """Compare the ids, and whether there are records."""
        async with open_http_store(self._options.http) as http:
            collection = await look_up_collection(http, self._options)
            records = await count_records(http, collection) if collection else None
        return why_other(planned, self._options.collection, collection, records)

    def certainty(self) -> Certainty:
        """A list that is not proven raises an error."""
        how = "two lists in a row named the same records, and each of them was read"
        return Certainty(Level.PROVEN, how)

    def reports_deleted(self, query: Query) -> bool:
        """True without filters, because all records are then read."""
        return not query.filters

    async def rank(
        self, query: Query, on_deleted: OnDeleted | None = None
    ) -> AsyncGenerator[list[Hit], None]:
        """All documents that have a vector and pass the filters, the nearest first.

        1. Embed the text of the query.
        2. List the ids of the records that may pass the filters.
        3. Read their vectors, and keep the lowest distance of each document.
        4. Return the documents by distance.
        """
        if any(wanted == [] for wanted in query.filters.values()):
            return
        vector = await self._embedder.embed(query.text or "")
        with ScratchDatabase() as database:
            distances, ids = LowestScores(database), SortedIds(database)
            async with open_http_store(self._options.http) as http:
                collection = await find_collection(http, self._options)
                self._check_vector(http, collection, vector)
                reader = CollectionReader(http, collection)
                await reader.list_ids(ids, _clause(query.filters))
                distance_to = distance_from(vector, collection.space)
                measure = partial(self._measure, distances, distance_to, query)
                with leaf_errors():
                    await _read_vectors(reader, ids, collection.records_per_page, measure, on_deleted)
                await _check_removed(reader)
            for page in distances.ranked():
                yield [Hit(document, similarity(distance)) for document, distance in page]

    def _measure(
        self,
        distances: LowestScores,
        distance_to: Callable[[Sequence[float]], float],
        query: Query,
        responses: Sequence[Mapping[str, Any]],
    ) -> _Measured:
        """Add the distances of records. Blocks."""
        found: list[tuple[str, float]] = []
        measured = _Measured()
        for response in responses:
            for record, metadata, vector in zip(
                response["ids"], response["metadatas"], response["embeddings"], strict=True
            ):
                fields = metadata or {}
                document = document_of(record, fields)
                if self._is_deleted(fields):
                    measured.deleted.append(document)
                elif passes(_filtered(document, fields), query.filters):
                    distance = distance_to(vector)
                    if distance < math.inf:
                        found.append((document, distance))
                    else:
                        measured.without_vector.append(record)
        distances.add(found)
        return measured

    async def deleted_ids(self) -> AsyncGenerator[list[str], None]:
        """Read all metadata, because ChromaDB cannot query for a key or compare text without its case."""
        async with aclosing(self._metadata(None)) as pages:
            async for page in pages:
                if deleted := [document_of(*record) for record in page if self._is_deleted(record[1])]:
                    yield deleted

    async def marked_hits(self, query: Query) -> AsyncGenerator[list[str], None]:
        """The marked documents with a record that passes the filters. Without filters `rank` reports them."""
        if self.reports_deleted(query) or any(wanted == [] for wanted in query.filters.values()):
            return
        async with aclosing(self._metadata(_clause(query.filters))) as pages:
            async for page in pages:
                yield [
                    document
                    for record, fields in page
                    if self._is_deleted(fields)
                    and passes(_filtered(document := document_of(record, fields), fields), query.filters)
                ]

    async def _metadata(
        self, where: Mapping[str, Any] | None
    ) -> AsyncGenerator[list[tuple[str, Mapping[str, Any]]], None]:
        """Pages of the ids and metadata of all records that pass a clause."""
        with ScratchDatabase() as database:
            ids = SortedIds(database)
            async with open_http_store(self._options.http) as http:
                reader = CollectionReader(http, await find_collection(http, self._options))
                await reader.list_ids(ids, where)
                async with aclosing(reader.metadatas(ids)) as pages:
                    async for page in pages:
                        yield page
                await _check_removed(reader)

    def _is_deleted(self, fields: Mapping[str, Any]) -> bool:
        return is_deleted(fields, include_archived=self._options.include_archived)

    def _check_vector(self, http: HttpStore, collection: ChromaCollection, vector: Sequence[float]) -> None:
        model = self._embedder.identity
        if collection.dimension is not None and collection.dimension != len(vector):
            raise http.invalid(
                f"the collection '{self._options.collection}' holds vectors of dimension "
                f"{collection.dimension}, the model {model} makes {len(vector)}",
                "set EMBEDDING_MODEL_NAME to the model that the collection was filled with",
            )
        if (fault := query_fault(vector, collection.space)) is not None:
            raise model_error(
                f"the model {model} makes no usable vector of the query: {fault}",
                "test the model with another text, or replace it",
            )


async def _read_vectors(
    reader: CollectionReader,
    ids: SortedIds,
    page_size: int,
    measure: Callable[[Sequence[Mapping[str, Any]]], _Measured],
    on_deleted: OnDeleted | None,
) -> None:
    """Call `measure` on a thread with each page of records, while the next page is read.

    A record whose vector cannot be ranked is requested again. If it is the same, the search fails: without
    the record its document would have a worse rank, or none.
    """
    page = ids.after("", page_size)
    records = await reader.small_records(page, _VECTORS)
    while page:
        page = ids.after(page[-1], page_size)
        async with TaskGroup() as tasks:
            following = tasks.create_task(reader.small_records(page, _VECTORS))
            measured = await run_in_thread(partial(measure, records))
            for _ in range(_VECTOR_REQUESTS):
                if not measured.without_vector:
                    break
                again = await reader.small_records(measured.without_vector, _VECTORS)
                repeated = await run_in_thread(partial(measure, again))
                measured = _Measured(measured.deleted + repeated.deleted, repeated.without_vector)
            if measured.without_vector:
                raise reader.without_vector(measured.without_vector)
            if measured.deleted and on_deleted is not None:
                await on_deleted(measured.deleted)
        records = following.result()


async def _check_removed(reader: CollectionReader) -> None:
    if removed := await reader.check_missing():
        _log.info("ChromaDB: %d records were removed between listing and reading", removed)


def _clause(filters: Mapping[str, Any]) -> dict[str, Any] | None:
    # The id of a document may stand in no metadata: only `document_of` knows it.
    return where_clause({name: wanted for name, wanted in filters.items() if name != "document_id"})


def _filtered(document: str, fields: Mapping[str, Any]) -> Document:
    """A record as filters see it."""
    text = fields.get("content")
    return Document(document, text if isinstance(text, str) else "", dict(fields))
