"""ChromaDB: the vector search of UDS3, and texts where it holds them. HTTP, API version 2.

Its index is approximate and its order depends on how it was built, so it is not asked: every vector
that passes the filters is read, and ranked here exactly (distance.py). That costs a pass over the
collection for each search, and makes the same job give the same documents, to the end of the list.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote

from shardline_common.errors import SourceUnavailable
from shardline_common.http.client import AnswerTooLarge
from shardline_common.job.spec import Query, SearchType
from shardline_common.runtime.tasks import leaf_errors
from shardline_common.runtime.threads import run_in_thread
from shardline_producer.sources.http_store import HttpStore, HttpStoreOptions, open_http_store
from shardline_producer.sources.query_filters import passes
from shardline_producer.sources.source import Document
from shardline_producer.sources.uds3.chroma.chunks import document_of
from shardline_producer.sources.uds3.chroma.where import where_clause
from shardline_producer.sources.uds3.distance import SPACES, distance_from, similarity
from shardline_producer.sources.uds3.embedding.embedder import Embedder
from shardline_producer.sources.uds3.spilled_lists import BestOf, Listed, scratch
from shardline_producer.sources.uds3.store_ports import Hit, Tell
from shardline_producer.sources.uds3.tombstones import is_deleted

_MISSING = 404
_MOST_RECORDS = 500
_MOST_NUMBERS = 400_000
_WHOLE = ("embeddings", "metadatas")
_SAMPLE = 1000
_IDS = 50_000
_MOST_METADATAS = 2_000
_LISTINGS = 3


@dataclass(frozen=True, slots=True)
class ChromaOptions:
    """Where the collection is. `include_archived`: documents marked archived are hits as well."""

    http: HttpStoreOptions
    tenant: str = "default_tenant"
    database: str = "default_database"
    collection: str = "document_chunks"
    include_archived: bool = False


@dataclass(frozen=True, slots=True)
class Collection:
    """What a collection says of itself. `dimension` None: no vector was ever added."""

    path: str
    dimension: int | None
    space: str
    fields: tuple[str, ...] | None

    @property
    def page(self) -> int:
        """Records of one request: few where vectors are long."""
        return max(1, min(_MOST_RECORDS, _MOST_NUMBERS // max(self.dimension or 1, 1)))


async def find_collection(http: HttpStore, options: ChromaOptions) -> Collection:
    """The collection that the settings name.

    Raises:
        JobFailed: there is none of that name, or it measures in an unknown way.
    """
    parts = ("tenants", options.tenant, "databases", options.database, "collections")
    folder = "/api/v2/" + "/".join(quote(part, safe="") for part in parts)
    answer = await http.get(f"{folder}/{quote(options.collection, safe='')}")
    if answer.status == _MISSING:
        raise http.invalid(
            f"there is no collection '{options.collection}' in tenant '{options.tenant}', "
            f"database '{options.database}'",
            "set CHROMA_COLLECTION, CHROMA_TENANT and CHROMA_DATABASE; Shardline never creates one",
        )
    found = await http.json(answer, "find the collection")
    space = _space(found)
    if space not in SPACES:
        raise http.invalid(f"the collection measures distance as '{space}'", f"known are {', '.join(SPACES)}")
    keys = (found.get("schema") or {}).get("keys")
    fields = None if keys is None else tuple(sorted(key for key in keys if not key.startswith("#")))
    return Collection(f"{folder}/{found['id']}", found.get("dimension"), space, fields)


def _space(found: Mapping[str, Any]) -> str:
    configuration = found.get("configuration_json") or {}
    for index in ("hnsw", "spann"):
        if space := (configuration.get(index) or {}).get("space"):
            return str(space)
    return str((found.get("metadata") or {}).get("hnsw:space") or "l2")


class ChromaRanker:
    """Implements `Ranker`: documents by the nearest of their chunks, ties by document id."""

    name: SearchType = "vector"

    def __init__(self, options: ChromaOptions, embedder: Embedder) -> None:
        self._options = options
        self._embedder = embedder

    async def fields(self) -> list[str]:
        """The metadata keys that the collection declares; in older versions, of its first records."""
        async with open_http_store(self._options.http) as http:
            collection = await find_collection(http, self._options)
            if collection.fields is not None:
                return list(collection.fields)
            body = {"limit": _SAMPLE, "offset": 0, "include": ["metadatas"]}
            found = await http.json(await http.post(collection.path + "/get", body), "read metadata")
            return sorted({key for metadata in found["metadatas"] for key in metadata or {}})

    async def check(self) -> str:
        """Embed a word, and compare the dimensions."""
        vector = await self._embedder.embed("Recht")
        async with open_http_store(self._options.http) as http:
            collection = await find_collection(http, self._options)
            self._compare(http, collection, vector)
            records = await _count(http, collection)
        return (
            f"{self._options.collection} at {self._options.http.url} has {records} records of dimension "
            f"{collection.dimension}, distance {collection.space}, model {self._embedder.identity}"
        )

    def sees_all(self, query: Query) -> bool:
        """Where nothing is filtered: then every record is read."""
        return not query.filters

    async def rank(self, query: Query, tell: Tell | None = None) -> AsyncGenerator[list[Hit], None]:
        """All documents that pass the filters and have a vector, the nearest first."""
        if any(wanted == [] for wanted in query.filters.values()):
            return
        vector = await self._embedder.embed(query.text or "")
        with scratch() as connection:
            best, listed = BestOf(connection), Listed(connection)
            async with open_http_store(self._options.http) as http:
                collection = await find_collection(http, self._options)
                self._compare(http, collection, vector)
                keeper = _Keeper(best, distance_from(vector, collection.space), self._options, query)
                reader = _Reader(http, collection)
                await reader.list_into(listed, where_clause(query.filters))
                with leaf_errors():
                    await reader.read_into(keeper, listed, tell)
            for page in best.ranked():
                yield [Hit(document, similarity(far)) for document, far in page]

    async def removed(self) -> AsyncGenerator[list[str], None]:
        """A pass over the metadata: ChromaDB can neither ask for a key that is there, nor ignore case."""
        with scratch() as connection:
            listed = Listed(connection)
            async with open_http_store(self._options.http) as http:
                reader = _Reader(http, await find_collection(http, self._options))
                await reader.list_into(listed, None)
                async with aclosing(reader.metadatas(listed)) as pages:
                    async for page in pages:
                        if gone := [document_of(*record) for record in page if self._is_gone(record[1])]:
                            yield gone

    def _is_gone(self, fields: Mapping[str, Any]) -> bool:
        return is_deleted(fields, include_archived=self._options.include_archived)

    def _compare(self, http: HttpStore, collection: Collection, vector: Sequence[float]) -> None:
        if collection.dimension is not None and collection.dimension != len(vector):
            raise http.invalid(
                f"the collection '{self._options.collection}' holds vectors of dimension "
                f"{collection.dimension}, the model {self._embedder.identity} makes {len(vector)}",
                "EMBEDDING_MODEL_NAME must be the model that the collection was filled with",
            )


class _Keeper:
    """Takes pages of records in, and keeps the nearest distance of each document."""

    def __init__(
        self,
        best: BestOf,
        distance: Callable[[Sequence[float]], float],
        options: ChromaOptions,
        query: Query,
    ) -> None:
        self._best = best
        self._distance = distance
        self._archived = options.include_archived
        self._filters = query.filters

    def take(self, answers: Sequence[Mapping[str, Any]]) -> list[str]:
        """Offer the documents of some answers, and give those that are marked deleted; blocks."""
        gone: list[str] = []
        for answer in answers:
            self._best.offer(self._documents(answer, gone))
        return gone

    def _documents(self, answer: Mapping[str, Any], gone: list[str]) -> list[tuple[str, float]]:
        found = []
        for record, metadata, vector in zip(
            answer["ids"], answer["metadatas"], answer["embeddings"], strict=True
        ):
            fields = metadata or {}
            document = document_of(record, fields)
            if is_deleted(fields, include_archived=self._archived):
                gone.append(document)
                continue
            far = self._distance(vector)
            if far < math.inf and passes(Document(document, "", fields), self._filters):
                found.append((document, far))
        return found


async def _count(http: HttpStore, collection: Collection) -> int:
    return int(await http.json(await http.get(collection.path + "/count"), "count records"))


class _Reader:
    """Reads a collection: first the ids of its records, then the records by their ids.

    Pages cut by number cost the server more the further they lie behind, and shift when a record is
    removed. So only ids are listed that way, in few big pages, and a list that was disturbed is made again.
    """

    def __init__(self, http: HttpStore, collection: Collection) -> None:
        self._http = http
        self._collection = collection
        self._path = collection.path + "/get"

    async def list_into(self, listed: Listed, clause: Mapping[str, Any] | None) -> None:
        """List the records that pass the clause, each once.

        Raises:
            SourceUnavailable: the collection changed each time.
        """
        for _ in range(_LISTINGS):
            listed.clear()
            before, seen = await _count(self._http, self._collection), 0
            while ids := await self._ids(seen, clause):
                seen += len(ids)
                await run_in_thread(partial(listed.add, ids))
            after = await _count(self._http, self._collection)
            whole = clause is not None or seen == after
            if before == after and whole and listed.count() == seen:
                return
        raise SourceUnavailable(
            f"{self._http.place}: records were added or removed while the collection was listed",
            hint="try again when nothing writes into the collection",
        )

    async def _ids(self, offset: int, clause: Mapping[str, Any] | None) -> Sequence[str]:
        most = _IDS
        while True:
            try:
                answer = await self._get({"limit": most, "offset": offset, "include": []}, clause)
            except AnswerTooLarge:
                if most == 1:
                    raise self._http.invalid("one id is over the limit of an answer") from None
                most //= 2
            else:
                ids: Sequence[str] = answer["ids"]
                return ids

    async def read_into(self, keeper: _Keeper, listed: Listed, tell: Tell | None) -> None:
        """Give the keeper every record, on a thread, while the next ones are on their way."""
        ids = listed.after("", self._collection.page)
        page = await self._records(ids, _WHOLE)
        while ids:
            ids = listed.after(ids[-1], self._collection.page)
            async with asyncio.TaskGroup() as tasks:
                following = tasks.create_task(self._records(ids, _WHOLE))
                gone = await run_in_thread(partial(keeper.take, page))
                if gone and tell is not None:
                    await tell(gone)
            page = following.result()

    async def metadatas(self, listed: Listed) -> AsyncGenerator[list[tuple[str, Mapping[str, Any]]], None]:
        """Pages of (record, metadata) of every record."""
        last = ""
        while ids := listed.after(last, _MOST_METADATAS):
            last = ids[-1]
            for answer in await self._records(ids, ("metadatas",)):
                pairs = zip(answer["ids"], answer["metadatas"], strict=True)
                yield [(record, metadata or {}) for record, metadata in pairs]

    async def _records(self, ids: Sequence[str], parts: Sequence[str]) -> Sequence[Mapping[str, Any]]:
        if not ids:
            return []
        try:
            return [await self._get({"ids": list(ids), "include": parts}, None)]
        except AnswerTooLarge:
            if len(ids) == 1:
                raise self._http.invalid(f"the record '{ids[0]}' is over the limit of an answer") from None
            half = len(ids) // 2
            return [*await self._records(ids[:half], parts), *await self._records(ids[half:], parts)]

    async def _get(self, body: Mapping[str, Any], clause: Mapping[str, Any] | None) -> Mapping[str, Any]:
        asked = dict(body) if clause is None else {**body, "where": clause}
        found: Mapping[str, Any] = await self._http.json(
            await self._http.post(self._path, asked), "read records"
        )
        return found
