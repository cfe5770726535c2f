"""The vector search against a ChromaDB server, compared with a ranking from exact integers."""

import asyncio
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from deploy.dev.service import free_ports
from shardline_common.errors import JobFailed, SourceUnavailable
from shardline_common.job.spec import Query
from shardline_producer.sources.documents import DeadLetterReason
from shardline_producer.sources.uds3.chroma.body_store import ChromaBodyStore
from shardline_producer.sources.uds3.chroma.collection import (
    ChromaOptions,
)
from shardline_producer.sources.uds3.chroma.ranker import ChromaRanker
from shardline_producer.sources.uds3.distance import similarity
from shardline_producer.sources.uds3.embedding.embedder import EmbeddingOptions
from shardline_producer.sources.uds3.embedding.factory import make_embedder
from shardline_producer.sources.uds3.store_ports import (
    DELETED_BODY,
    BodyRequest,
    DocumentBody,
    InvalidBody,
)
from tests.chroma_data import SMALL, ChromaData, deleted_ids, ids, ranked, small_collection
from tests.embedding_stub import FixedEmbedder, embedding_service, over_http
from tests.stores import Address, connections_to, http_options
from tests.vectors import Vectors, load_vectors


@pytest.fixture(scope="module")
def vectors() -> Vectors:
    return load_vectors()


@pytest.fixture(scope="module")
def laws(chroma: Address, vectors: Vectors) -> ChromaData:
    """A collection of 5,000 documents: half are chunks, and every third has a second, opposite chunk."""
    data = ChromaData(chroma, "l2")
    records: dict[str, list[float]] = {}
    metadatas: dict[str, dict[str, Any]] = {}
    for number, (identity, vector) in enumerate(zip(vectors.ids, vectors.embeddings.tolist(), strict=True)):
        record = f"{identity}::chunk::{number % 7}" if number % 2 else identity
        records[record] = vector
        metadatas[record] = {"document_id": identity, "number": number, "even": number % 2 == 0}
        if number % 3 == 0:
            records[f"{identity}::chunk::99"] = [-value for value in vector]

    async def fill() -> None:
        await data.create()
        await data.add(records, metadatas)

    asyncio.run(fill())
    return data


@pytest.mark.corpus
@pytest.mark.parametrize("number", [0, 5, 11])
async def test_the_ranking_of_all_documents_is_exact(laws: ChromaData, vectors: Vectors, number: int) -> None:
    texts = dict(zip(vectors.queries, vectors.query_embeddings.astype(float).tolist(), strict=True))
    async with embedding_service(texts) as url:
        hits = await ranked(ChromaRanker(laws.options, over_http(url)), vectors.queries[number])
    near, opposite = vectors.squared_distances(number), vectors.squared_distances(number, -1)
    best = [
        (round(min(near[place], opposite[place]) if place % 3 == 0 else near[place], 6), identity)
        for place, identity in enumerate(vectors.ids)
    ]
    best.sort(key=lambda pair: (pair[0], pair[1].encode()))
    assert [hit.id for hit in hits] == [identity for _, identity in best]
    assert [hit.score for hit in hits] == [similarity(far) for far, _ in best]


@pytest.mark.corpus
async def test_cosine_distances_are_exact_up_to_the_stores_rounding(
    chroma: Address, vectors: Vectors
) -> None:
    data = ChromaData(chroma)
    await data.create()
    distances = dict(zip(vectors.ids[:1500], vectors.cosine_distances(7), strict=False))
    await data.add(dict(zip(distances, vectors.embeddings.tolist(), strict=False)))
    hits = await ranked(
        ChromaRanker(data.options, FixedEmbedder(*vectors.query_embeddings[7].astype(float).tolist()))
    )
    assert {hit.id for hit in hits} == set(distances)
    # A returned vector may differ in its last bits, which may move its distance over a rounding boundary.
    assert all(abs(similarity(distances[hit.id]) - hit.score) < 1e-6 for hit in hits)
    assert hits == sorted(hits, key=lambda hit: (-hit.score, hit.id.encode()))


@pytest.mark.corpus
async def test_a_small_answer_limit_does_not_change_the_result(laws: ChromaData, vectors: Vectors) -> None:
    vector = vectors.query_embeddings[3].astype(float).tolist()
    narrow = replace(laws.options, http=replace(laws.options.http, max_bytes=200_000))
    query: dict[str, Any] = {"filters": {"number": {"lte": 700}}}
    whole = await ranked(ChromaRanker(laws.options, FixedEmbedder(*vector)), **query)
    assert len(whole) == 701
    assert await ranked(ChromaRanker(narrow, FixedEmbedder(*vector)), **query) == whole
    tiny = replace(laws.options, http=replace(laws.options.http, max_bytes=3_000))
    with pytest.raises(JobFailed, match=r"the record '.*' exceeds the limit"):
        await ranked(ChromaRanker(tiny, FixedEmbedder(*vector)))


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        ("cosine", ["east", "a", "b", "north", "south"]),
        ("l2", ["a", "b", "east", "north", "south"]),
        ("ip", ["a", "b", "east", "north", "south"]),
    ],
)
async def test_each_space_orders_by_distance_with_ties_by_id(
    chroma: Address, space: str, expected: list[str]
) -> None:
    vector = (1.0, 0.1) if space == "cosine" else (1.0, 0.6)
    data = await small_collection(chroma, space)
    hits = await ranked(ChromaRanker(data.options, FixedEmbedder(*vector)))
    assert [hit.id for hit in hits] == expected
    assert hits == sorted(hits, key=lambda hit: (-hit.score, hit.id.encode()))


async def test_the_nearest_chunk_ranks_its_document(chroma: Address) -> None:
    data = ChromaData(chroma)
    await data.create()
    await data.add(
        {
            "x::chunk::0": (0.0, 1.0),
            "x::chunk::1": (1.0, 0.1),
            "y": (1.0, 0.2),
            "random-uuid": (1.0, 0.0),
        },
        {"random-uuid": {"document_id": "z::chunk::5"}},
    )
    assert await ids(ChromaRanker(data.options, FixedEmbedder(1.0, 0.0))) == ["z::chunk::5", "x", "y"]


async def test_filters_select_hits_by_metadata(chroma: Address) -> None:
    data = await small_collection(
        chroma,
        north={"year": 2020, "open": True, "day": "2020-05-01", "kind": "law"},
        b={"year": 2020.0, "open": False, "day": "2021-05-01", "kind": "law"},
        a={"year": 2021.5, "day": "2019-01-01", "kind": "note"},
        east={"year": 1, "kind": "1"},
    )
    ranker = ChromaRanker(data.options, FixedEmbedder(1.0, 0.5))
    assert list(await ranker.filter_fields()) == ["day", "kind", "open", "year"]

    async def found(**filters: Any) -> list[str]:
        return sorted(await ids(ranker, filters=filters))

    assert await found(year=2020) == ["b", "north"]
    assert await found(year=[1, 2021.5]) == ["a", "east"]
    assert await found(year={"gte": 2020, "lte": 2021}) == ["b", "north"]
    assert await found(kind=["law", "note"], year={"gte": 2020.5}) == ["a"]
    assert await found(open=True) == ["north"]
    assert await found(open=[True, False]) == ["b", "north"]
    assert await found(kind="1") == ["east"]
    assert await found(kind=1) == []
    assert await found(day={"gte": "2020-01-01"}) == ["b", "north"]
    assert await found(day=None) == ["east", "south"]
    assert await found(open=[None, True]) == ["a", "east", "north", "south"]
    assert await found(kind=[]) == []


async def test_deleted_documents_are_not_hits(chroma: Address) -> None:
    data = await small_collection(
        chroma,
        north={"deleted": True},
        b={"processing_status": "archived"},
        a={"deleted_at": "2024-01-01"},
        east={"deleted": False},
    )
    assert await ids(ChromaRanker(data.options, FixedEmbedder(1.0, 0.5))) == ["east", "south"]
    archived = replace(data.options, include_archived=True)
    assert await ids(ChromaRanker(archived, FixedEmbedder(1.0, 0.5))) == ["b", "east", "south"]


async def test_all_deleted_documents_are_reported(chroma: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    tombstones: list[dict[str, Any]] = [
        {"deleted": True},
        {"deleted": "True"},
        {"is_deleted": 1},
        {"deleted_at": "2024-01-01"},
        {"deleted_at": 1704067200},
        {"processing_status": "Failed"},
        {"processing_status": "archived"},
        {"deleted": False, "is_deleted": "no", "deleted_at": "", "processing_status": "completed"},
        {"deleted_at": False},
    ]
    data = ChromaData(chroma)
    await data.create()
    assert await deleted_ids(data.options) == []
    records = {str(place): (1.0, 0.0) for place in range(10)}
    await data.add(
        records | {"a::chunk::0": (1.0, 0.0), "a::chunk::1": (1.0, 0.0), "uuid": (0.0, 1.0)},
        {str(place): one | {"content": "x" * 4000} for place, one in enumerate(tombstones)}
        # One chunk of two is marked, and so is a record whose metadata names its document.
        | {"a::chunk::1": {"deleted": "yes"}, "uuid": {"document_id": "named", "is_deleted": "t"}},
    )
    everything = [*"0123456", "a", "named"]
    assert await deleted_ids(data.options) == everything
    assert await deleted_ids(replace(data.options, include_archived=True)) == [*"012345", "a", "named"]
    narrow = replace(data.options, http=replace(data.options.http, max_bytes=10_000))
    assert await deleted_ids(narrow) == everything
    monkeypatch.setattr("shardline_producer.sources.uds3.chroma.collection._METADATAS_PER_PAGE", 2)
    assert await deleted_ids(data.options) == everything


async def test_an_empty_collection_has_no_hits(chroma: Address) -> None:
    data = ChromaData(chroma)
    await data.create()
    ranker = ChromaRanker(data.options, FixedEmbedder(1.0, 0.5))
    assert await ids(ranker) == []
    assert list(await ranker.filter_fields()) == []
    await data.add(SMALL)
    await data.remove(list(SMALL))
    assert await ids(ranker) == []


async def test_errors_name_the_collection_the_dimension_or_the_package(chroma: Address) -> None:
    data = await small_collection(chroma)
    missing = replace(data.options, collection="nowhere")
    with pytest.raises(JobFailed, match="no collection 'nowhere'") as error:
        await ids(ChromaRanker(missing, FixedEmbedder(1.0, 0.5)))
    assert "CHROMA_COLLECTION" in (error.value.hint or "")
    for other in (replace(data.options, tenant="nowhere"), replace(data.options, database="nowhere")):
        with pytest.raises(JobFailed, match="'nowhere'") as error:
            await ids(ChromaRanker(other, FixedEmbedder(1.0, 0.5)))
        assert error.value.code == "source_invalid"
    with pytest.raises(JobFailed, match="dimension 2, the model fixed makes 3"):
        await ids(ChromaRanker(data.options, FixedEmbedder(1.0, 0.5, 0.0)))
    with pytest.raises(JobFailed, match="sentence_transformers") as error:
        await ids(ChromaRanker(data.options, make_embedder(EmbeddingOptions())))
    assert "EMBEDDING_MODEL_PATH" in (error.value.hint or "")


async def test_check_reports_records_dimension_and_distance(chroma: Address) -> None:
    data = await small_collection(chroma)
    answer = await ChromaRanker(data.options, FixedEmbedder(1.0, 0.5)).check()
    assert f"{data.name} at {chroma.url} has 5 records of dimension 2, distance cosine" in answer
    with pytest.raises(JobFailed, match="dimension"):
        await ChromaRanker(data.options, FixedEmbedder(1.0)).check()


async def test_a_server_that_is_down_is_a_transient_error() -> None:
    (port,) = free_ports(1)
    options = ChromaOptions(http_options(Address(f"http://127.0.0.1:{port}")))
    for call in (
        ChromaRanker(options, FixedEmbedder(1.0)).filter_fields(),
        ids(ChromaRanker(options, FixedEmbedder(1.0))),
    ):
        with pytest.raises(SourceUnavailable, match=f"127.0.0.1:{port} cannot be read"):
            await call


@pytest.mark.corpus
async def test_cancellation_closes_the_connections(
    chroma: Address, laws: ChromaData, vectors: Vectors
) -> None:
    vector = vectors.query_embeddings[0].astype(float).tolist()
    work = asyncio.create_task(ids(ChromaRanker(laws.options, FixedEmbedder(*vector))))
    while not connections_to(chroma.port):
        await asyncio.sleep(0)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    while connections_to(chroma.port):
        await asyncio.sleep(0)


async def test_closing_a_ranking_early_closes_the_connections(chroma: Address) -> None:
    data = await small_collection(chroma)
    async with aclosing(ChromaRanker(data.options, FixedEmbedder(1.0, 0.5)).rank(Query(text="x"))) as pages:
        await anext(pages)
    while connections_to(chroma.port):
        await asyncio.sleep(0)


async def test_chunk_texts_are_joined_in_the_order_of_their_numbers(chroma: Address) -> None:
    data = ChromaData(chroma)
    await data.create()
    chunks = {f"x::chunk::{number}": f"text {number}" for number in range(11)}
    await data.add(
        dict.fromkeys((*chunks, "y", "z", "u1", "gone", "long", "part::chunk::1"), (1.0, 0.0)),
        {
            # Others have no metadata: their ids say whose they are.
            "x::chunk::0": {"document_id": "x", "title": "T", "chunk_index": 0},
            "x::chunk::9": {"document_id": "x", "chunk_index": 9.0},
            "x::chunk::10": {"document_id": "x", "title": "U"},
            "y": {"content": "from metadata"},
            "z": {"title": "no text"},
            "u1": {"document_id": "d/1"},
            "gone": {"is_deleted": True},
        },
        chunks | {"u1": "by its name", "gone": "x", "long": "ä" * 60, "part::chunk::1": "the rest"},
    )
    bodies = ChromaBodyStore(data.options)
    names = ("x", "y", "z", "d/1", "gone", "u1", "nowhere", "long", "part")
    found = await bodies.bodies([BodyRequest(one) for one in names], 110)
    assert found == {
        "x": DocumentBody("\n".join(chunks.values()), {"title": "T"}),
        "y": DocumentBody("from metadata", {}),
        "d/1": DocumentBody("by its name", {}),
        "gone": DELETED_BODY,
        "long": InvalidBody(DeadLetterReason.TOO_LARGE, ("ä" * 60).encode()),
        "part": InvalidBody(DeadLetterReason.INCOMPLETE_TEXT, b"the rest"),
    }
    assert "can be read for bodies" in await bodies.check()


async def test_a_tombstone_on_a_chunk_without_metadata_of_its_document_is_seen(chroma: Address) -> None:
    data = ChromaData(chroma)
    await data.create()
    await data.add(
        {f"d::chunk::{number}": (1.0, 0.0) for number in range(2)},
        {"d::chunk::0": {"document_id": "d"}, "d::chunk::1": {"deleted": True}},
        {f"d::chunk::{number}": "text" for number in range(2)},
    )
    assert await ChromaBodyStore(data.options).bodies([BodyRequest("d")], 100) == {"d": DELETED_BODY}
    assert await deleted_ids(data.options) == ["d"]
