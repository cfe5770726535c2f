"""Hybrid search over rankers in memory: fusion, tombstones, left out and degraded searches, bodies."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest

from shardline_common.errors import JobFailed, SourceUnavailable
from shardline_common.job.plan import Plan
from shardline_common.job.spec import Query
from shardline_common.memory.store import MemoryStore
from shardline_producer.plan import make_plan
from shardline_producer.plan_pages import StoredPlanPages
from shardline_producer.sources.documents import DeadLetterReason
from shardline_producer.sources.planned import PlannedSource
from shardline_producer.sources.source import Document, InvalidDocument, SourceItem
from shardline_producer.sources.uds3.planned_store import ConfiguredStores, Uds3Store
from shardline_producer.sources.uds3.store_ports import (
    DELETED_BODY,
    DocumentBody,
    Hit,
    InvalidBody,
    OnDeleted,
)
from tests.make import job
from tests.uds3_data import DictBodyStore, ListRanker


def stores(*rankers: ListRanker, bodies: Sequence[DictBodyStore] = ()) -> ConfiguredStores:
    return ConfiguredStores(rankers={ranker.name: ranker for ranker in rankers}, body_stores=bodies)


def body_store(names: str) -> DictBodyStore:
    return DictBodyStore({name: DocumentBody(f"text {name}", {"title": name.upper()}) for name in names})


async def searched(
    found: ConfiguredStores, *, degrade: bool = False, **query: Any
) -> tuple[Plan, list[SourceItem]]:
    spec = job(source={"type": "uds3", "degrade": degrade}, query={"text": "law"} | query)
    source = PlannedSource(spec, Uds3Store(spec, found), StoredPlanPages(MemoryStore(), ""))
    plan = await make_plan(spec, source)
    return plan, [item async for batch in source.read(plan.frozen, None) for item in batch]


def names(items: Sequence[SourceItem]) -> list[str]:
    return [item.content.id if isinstance(item.content, Document) else item.content.key for item in items]


async def test_lists_are_fused_and_bodies_come_from_body_stores() -> None:
    found = stores(
        ListRanker("vector", "abc"), ListRanker("graph", "cd"), bodies=[body_store("ab"), body_store("bcd")]
    )
    plan, items = await searched(found, weights={"vector": 0.5, "graph": 0.5})
    # c has the ranks 3 and 1, a only the rank 1.
    assert names(items) == ["c", "a", "b", "d"]
    assert plan.notes == {"searches": ["vector", "graph"], "left_out": [], "degraded": []}
    assert plan.columns == {"title": "string"}
    first = items[0].content
    assert isinstance(first, Document)
    assert (first.text, first.metadata) == ("text c", {"title": "C"})
    assert first.relevance == pytest.approx(0.5 / 63 + 0.5 / 61, abs=1e-17)
    assert names((await searched(found, top_k=2, weights={"vector": 0.5, "graph": 0.5}))[1]) == ["c", "a"]


async def test_a_store_that_is_not_configured_is_left_out_and_named() -> None:
    plan, items = await searched(stores(ListRanker("vector", "ab"), bodies=[body_store("ab")]))
    assert names(items) == ["a", "b"]
    assert plan.notes == {"searches": ["vector"], "left_out": ["graph", "keyword"], "degraded": []}
    with pytest.raises(JobFailed, match="no store of bodies is configured"):
        await searched(stores(ListRanker("vector", "ab")))
    with pytest.raises(JobFailed, match="none of the searches vector, graph, keyword can be done"):
        await searched(stores())


async def test_a_store_that_is_down_fails_planning_unless_the_job_degrades() -> None:
    graph = ListRanker("graph", "b")
    graph.down = SourceUnavailable("Neo4j is down")
    found = stores(ListRanker("vector", "ab"), graph, bodies=[body_store("ab")])
    with pytest.raises(SourceUnavailable, match="Neo4j is down"):
        await searched(found)
    plan, items = await searched(found, degrade=True)
    assert names(items) == ["a", "b"]
    assert plan.notes["degraded"] == ["graph"]


async def test_an_error_in_the_middle_of_a_list_fails_planning() -> None:
    class FailsInRank(ListRanker):
        async def rank(
            self, query: Query, on_deleted: OnDeleted | None = None
        ) -> AsyncGenerator[list[Hit], None]:
            async for page in super().rank(query, on_deleted):
                yield page
                self.down = SourceUnavailable("failed in the middle")

    with pytest.raises(SourceUnavailable, match="failed in the middle"):
        await searched(stores(FailsInRank("vector", "abcdef"), bodies=[body_store("abcdef")]), degrade=True)


async def test_a_tombstone_in_one_store_applies_to_all_lists() -> None:
    vector, graph = ListRanker("vector", "abcd"), ListRanker("graph", "eadb")
    vector.deleted, graph.deleted = "ez", "acz"
    _, items = await searched(
        stores(vector, graph, bodies=[body_store("abcde")]), weights={"vector": 0.5, "graph": 0.5}
    )
    # Both lists keep b and d, with the ranks 1 and 2 the other way round.
    assert names(items) == ["b", "d"]
    scores = [item.content.relevance for item in items if isinstance(item.content, Document)]
    assert scores == [pytest.approx(0.5 / 61 + 0.5 / 62, abs=1e-17)] * 2


@pytest.mark.parametrize("searches", [["vector", "graph"], ["vector"]])
async def test_tombstones_read_after_the_lists_are_applied(searches: list[str]) -> None:
    ended: set[str] = set()
    all_ended = asyncio.Event()

    class WaitsForLists(ListRanker):
        async def rank(
            self, query: Query, on_deleted: OnDeleted | None = None
        ) -> AsyncGenerator[list[Hit], None]:
            async for page in super().rank(query, on_deleted):
                yield page
            ended.add(self.name)
            if len(ended) == len(searches):
                all_ended.set()

        async def deleted_ids(self) -> AsyncGenerator[list[str], None]:
            await all_ended.wait()
            async for page in super().deleted_ids():
                yield page

    vector, graph = WaitsForLists("vector", "abcd"), WaitsForLists("graph", "eadb")
    vector.deleted, graph.deleted = "ez", "acz"
    found = stores(vector, graph, bodies=[body_store("abcde")])
    async with asyncio.timeout(10):
        _, items = await searched(
            found, search_types=searches, top_k=2, weights={"vector": 0.5, "graph": 0.5}
        )
    assert names(items) == ["b", "d"]
    scores = [item.content.relevance for item in items if isinstance(item.content, Document)]
    assert scores[0] == pytest.approx(0.5 / 61 + (0.5 / 62 if len(searches) > 1 else 0.0), abs=1e-17)


async def test_hits_that_are_left_out_are_counted_by_store() -> None:
    vector, graph = ListRanker("vector", "abcd", reports_deleted=True), ListRanker("graph", "eadbf")
    vector.deleted, graph.deleted = "az", "acf"
    found = stores(vector, graph, bodies=[body_store("abcdef")])
    spec = job(source={"type": "uds3"}, query={"text": "law"})
    source = PlannedSource(spec, Uds3Store(spec, found), StoredPlanPages(MemoryStore(), ""))
    plan = await make_plan(spec, source)
    items = [item async for batch in source.read(plan.frozen, None) for item in batch]
    assert sorted(names(items)) == ["b", "d", "e"]
    # The search of vectors reads every document: z, which it reports, would be in its list.
    assert source.findings(plan.frozen).deleted == {"chromadb": 2, "neo4j": 2}


@pytest.mark.parametrize("ids", ["abcd", ""])
async def test_tombstones_that_a_search_reports_are_not_read_again(ids: str) -> None:
    class CountsReads(ListRanker):
        reads = 0

        async def deleted_ids(self) -> AsyncGenerator[list[str], None]:
            self.reads += 1
            async for page in super().deleted_ids():
                yield page

    vector, graph = (
        CountsReads("vector", ids, ["year"], reports_deleted=True),
        ListRanker("graph", "eadb", ["year"]),
    )
    vector.deleted, graph.deleted = "ez", "acz"
    found = stores(vector, graph, bodies=[body_store("abcde")])
    _, items = await searched(found, weights={"vector": 0.5, "graph": 0.5})
    assert (sorted(names(items)), vector.reads) == (["b", "d"], 1)
    _, items = await searched(found, filters={"year": 1}, weights={"vector": 0.5, "graph": 0.5})
    assert (sorted(names(items)), vector.reads) == (["b", "d"], 2)


async def test_tombstones_of_stores_that_are_not_searched_are_read() -> None:
    vector, graph = ListRanker("vector", "abcd"), ListRanker("graph", "d")
    graph.deleted = "ac"
    found = stores(vector, graph, bodies=[body_store("abcd")])
    plan, items = await searched(found, search_types=["vector"], top_k=2)
    assert names(items) == ["b", "d"]
    assert (plan.notes["searches"], graph.queries) == (["vector"], [])
    graph.down = SourceUnavailable("Neo4j is down")
    with pytest.raises(SourceUnavailable, match="Neo4j is down"):
        await searched(found, search_types=["vector"])
    plan, items = await searched(found, degrade=True, search_types=["vector"])
    assert names(items) == ["a", "b", "c", "d"]
    assert plan.notes == {"searches": ["vector"], "left_out": [], "degraded": ["graph"]}


async def test_an_error_in_the_middle_of_tombstones_fails_planning() -> None:
    class FailsInTombstones(ListRanker):
        async def deleted_ids(self) -> AsyncGenerator[list[str], None]:
            async for page in super().deleted_ids():
                yield page
                self.down = SourceUnavailable("failed in the middle")

    graph = FailsInTombstones("graph", "")
    graph.deleted = "abcd"
    with pytest.raises(SourceUnavailable, match="failed in the middle"):
        await searched(
            stores(ListRanker("vector", "abcdef"), graph, bodies=[body_store("abcdef")]), degrade=True
        )


async def test_filters_reach_rankers_that_know_the_field_or_are_refused() -> None:
    vector = ListRanker("vector", "a", fields=["year"])
    await searched(stores(vector, bodies=[body_store("a")]), filters={"year": 2020}, search_types=["vector"])
    assert vector.queries[-1].filters == {"year": 2020}
    with pytest.raises(JobFailed, match="the vector search has no field 'colour'; it has year"):
        await searched(stores(vector), filters={"colour": "red"})


async def test_bodies_are_requested_in_groups_and_may_be_invalid() -> None:
    ids = [f"d{n:03d}" for n in range(120)]
    bodies: dict[str, DocumentBody | InvalidBody] = {name: DocumentBody(name) for name in ids[2:]}
    bodies["d001"] = InvalidBody(DeadLetterReason.NO_TEXT, b"%PDF-1.7")
    store = DictBodyStore(bodies)
    _, items = await searched(stores(ListRanker("vector", ids), bodies=[store]))
    assert names(items) == ids
    assert store.largest == 50
    letters = [item.content.dead_letter for item in items if isinstance(item.content, InvalidDocument)]
    assert [(one.reason, one.original) for one in letters] == [("no_content", b""), ("no_text", b"%PDF-1.7")]


async def test_a_deleted_body_is_not_requested_from_the_next_store() -> None:
    bodies = [DictBodyStore({"a": DELETED_BODY, "b": DocumentBody("new b")}), body_store("abc")]
    _, items = await searched(stores(ListRanker("vector", "abcd"), bodies=bodies))
    texts = {item.content.id: item.content.text for item in items if isinstance(item.content, Document)}
    assert texts == {"b": "new b", "c": "text c"}
    dead = {
        item.content.key: item.content.dead_letter.reason
        for item in items
        if isinstance(item.content, InvalidDocument)
    }
    assert dead == {"a": "vanished", "d": "no_content"}
