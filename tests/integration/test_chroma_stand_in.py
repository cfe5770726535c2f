"""ChromaDB's stand-in answers as the server does, and the search is right when a collection changes."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from deploy.dev.service import free_ports
from shardline_common.errors import JobFailed, SourceUnavailable
from shardline_common.job.spec import Range
from shardline_common.runtime.retry import Backoff
from shardline_producer.sources.http_store import open_http_store
from shardline_producer.sources.uds3.chroma import collection
from shardline_producer.sources.uds3.chroma.collection import (
    ChromaOptions,
    CollectionReader,
    find_collection,
)
from shardline_producer.sources.uds3.chroma.ranker import ChromaRanker
from tests.chroma_data import SMALL, ChromaData, deleted_ids, ids, small_collection
from tests.embedding_stub import FixedEmbedder
from tests.stores import Address, http_options
from tests.support.chroma_stand_in import ChromaStandIn


@pytest.mark.usefixtures("no_pauses")
async def test_tombstones_of_a_changing_collection_are_a_transient_error() -> None:
    async with stub(*range(4, 20)) as (_, options):
        with pytest.raises(SourceUnavailable, match="added or removed"):
            await deleted_ids(options)
    (port,) = free_ports(1)
    with pytest.raises(SourceUnavailable, match="cannot be read"):
        await deleted_ids(ChromaOptions(http_options(Address(f"http://127.0.0.1:{port}"))))


@asynccontextmanager
async def stub(*counts: int) -> AsyncIterator[tuple[ChromaStandIn, ChromaOptions]]:
    """A collection of the records r1, r2 and r3. It reports these counts first, then the true ones."""
    store, left = ChromaStandIn("ip", 1), list(counts)
    for number in (1, 2, 3):
        store.add(f"r{number}", (0.5,), x=1, z="a")
    store.count = lambda count: left.pop(0) if left else count
    async with store.running() as options:
        yield store, options


def removes(store: ChromaStandIn, record: str) -> None:
    """Remove a record after the ids were listed."""

    def before(body: dict[str, Any]) -> None:
        if "ids" in body:
            store.records.pop(record, None)

    store.before = before


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pause", "longest"):
        monkeypatch.setattr(Backoff, name, lambda *_: 0.0)


@pytest.mark.usefixtures("no_pauses")
async def test_a_collection_that_changes_is_listed_again() -> None:
    async with stub(3, 4, 3) as (store, options):
        removes(store, "r2")
        ranker = ChromaRanker(options, FixedEmbedder(1.0))
        assert await ids(ranker) == ["r1", "r3"]
        assert list(await ranker.filter_fields()) == ["x", "z"]
    async with stub(*range(4, 20)) as (_, options):
        with pytest.raises(SourceUnavailable, match="added or removed"):
            await ids(ChromaRanker(options, FixedEmbedder(1.0)))


async def test_the_server_receives_the_filters_that_it_can_evaluate() -> None:
    async with stub() as (store, options):
        filters = {"x": Range(gte=1), "y": None, "z": "a", "document_id": ["r1", "r3"]}
        assert await ids(ChromaRanker(options, FixedEmbedder(1.0)), filters=filters) == ["r1", "r3"]
    clauses = [body.get("where") for body in store.requests]
    assert {"$and": [{"x": {"$gte": 1}}, {"z": {"$eq": "a"}}]} in clauses


async def test_refused_credentials_are_a_permanent_error() -> None:
    async with stub() as (store, options):
        store.token = "right"  # noqa: S105 - of no server
        with pytest.raises(JobFailed, match="refuses the credentials") as error:
            await ids(ChromaRanker(options, FixedEmbedder(1.0)))
        assert error.value.hint == "check its credentials"
        known = replace(options, http=replace(options.http, headers={"X-Chroma-Token": "right"}))
        assert await ids(ChromaRanker(known, FixedEmbedder(1.0))) == ["r1", "r2", "r3"]
        assert "right" not in repr(known)


@pytest.mark.parametrize("filters", [{}, {"kind": "law"}])
async def test_a_record_that_shifts_between_two_pages_is_ranked(
    chroma: Address, monkeypatch: pytest.MonkeyPatch, filters: dict[str, Any]
) -> None:
    data, law = ChromaData(chroma), {"kind": "law"}
    await data.create()
    await data.add(SMALL, dict.fromkeys(SMALL, law))
    monkeypatch.setattr(collection, "_IDS_PER_PAGE", 2)
    id_page, changed = CollectionReader._id_page, False

    async def changing(reader: CollectionReader, offset: int, where: Any) -> Sequence[str]:
        nonlocal changed
        if offset and not changed:
            changed = True
            # `a`, the first of the second page, becomes the second record, and the count stays.
            await data.remove(["north"])
            await data.add({"west": (-1.0, 0.0)}, {"west": law})
        return await id_page(reader, offset, where)

    monkeypatch.setattr(CollectionReader, "_id_page", changing)
    found = await ids(ChromaRanker(data.options, FixedEmbedder(1.0, 0.9)), filters=filters)
    assert found == ["a", "b", "east", "south", "west"]


async def test_a_vector_that_the_server_cannot_return_fails_the_search(chroma: Address) -> None:
    data = await small_collection(chroma)
    # Its length is beyond float32: the server returns null for each of its values.
    await data.add({"huge": (3e38, 3e38)})
    with pytest.raises(JobFailed, match="vector of the record 'huge' is not 2 finite numbers"):
        await ids(ChromaRanker(data.options, FixedEmbedder(1.0, 0.5)))
    await data.remove(["huge"])
    assert len(await ids(ChromaRanker(data.options, FixedEmbedder(1.0, 0.5)))) == len(SMALL)


async def test_the_stand_in_answers_as_the_server(chroma: Address) -> None:
    data, store = ChromaData(chroma, "l2"), ChromaStandIn()
    await data.create()
    records: dict[str, dict[str, Any]] = {
        "d::chunk::0": {"document_id": "d", "chunk_index": 0, "kind": "law"},
        "d::chunk::1": {"document_id": "d", "chunk_index": 1.0},
        "n": {"document_id": 7, "chunk_index": "0"},
        "plain": {},
        "f": {"document_id": 7.0, "open": True},
    }
    await data.add(dict.fromkeys(records, (1.0, 0.5)), records, {"n": "text", "plain": "other"})
    for name, metadata in records.items():
        store.add(name, (1.0, 0.5), {"n": "text", "plain": "other"}.get(name), **metadata)
    # What is written again stands at the end.
    await data.remove(["d::chunk::0"])
    await data.add({"d::chunk::0": (0.0, 1.0)}, {"d::chunk::0": {"document_id": "d"}})
    store.add("d::chunk::0", (0.0, 1.0), document_id="d")
    requests: list[dict[str, Any]] = [
        {"include": []},
        {"include": ["embeddings", "metadatas", "documents"]},
        {"include": ["metadatas"], "limit": 2, "offset": 1},
        {"include": [], "limit": 3, "offset": 5},
        {"include": ["documents"], "ids": ["plain", "nowhere", "n", "d::chunk::0"]},
        {"include": [], "ids": ["plain", "n", "f"], "limit": 1, "offset": 1},
        {"include": ["metadatas"], "ids": ["nowhere"]},
        *({"include": [], "where": clause} for clause in CLAUSES),
    ]
    async with store.running() as options, aiohttp.ClientSession() as session:
        for body in requests:
            answers = []
            for at in (data.options, options):
                async with open_http_store(at.http) as http:
                    path = (await find_collection(http, at)).path
                async with session.post(f"{at.http.url}{path}/get", json=body) as answer:
                    answers.append((answer.status, await answer.json()))
            assert answers[0] == answers[1], body
        anew = str(uuid4())
        statuses = []
        for url in (chroma.url, store.url):
            for rest in ("/count", "/get"):
                path = f"{url}{FOLDER}/{anew}{rest}"
                call = session.get(path) if rest == "/count" else session.post(path, json={"include": []})
                async with call as answer:
                    statuses.append((answer.status, await answer.json()))
        assert statuses[0] == statuses[1] == statuses[2] == statuses[3]


FOLDER = "/api/v2/tenants/default_tenant/databases/default_database/collections"
CLAUSES: list[dict[str, Any]] = [
    {"document_id": {"$in": ["d", "7"]}},
    {"document_id": {"$in": [7]}},
    {"$or": [{"document_id": {"$in": ["d"]}}, {"document_id": {"$in": [7]}}]},
    {"$or": [{"chunk_index": {"$eq": 0}}, {"chunk_index": {"$eq": "0"}}]},
    {"$and": [{"chunk_index": {"$gte": 1}}, {"chunk_index": {"$lte": 1}}]},
    {"kind": {"$eq": "law"}},
    {"open": {"$eq": True}},
]
