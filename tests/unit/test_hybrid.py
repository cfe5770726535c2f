"""Hybrid search over rankers of this test's own: what is left out, what is refused, what degrades."""

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
from shardline_producer.sources.uds3.planned_store import Stores, Uds3Store
from shardline_producer.sources.uds3.store_ports import REMOVED, Body, Hit, Tell, Unreadable
from tests.make import job
from tests.uds3 import Listed, Shelf


def stores(*rankers: Listed, bodies: Sequence[Shelf] = ()) -> Stores:
    return Stores(rankers={ranker.name: ranker for ranker in rankers}, bodies=bodies)


def shelf(names: str) -> Shelf:
    return Shelf({name: Body(f"text {name}", {"title": name.upper()}) for name in names})


async def searched(found: Stores, *, degrade: bool = False, **query: Any) -> tuple[Plan, list[SourceItem]]:
    spec = job(source={"type": "uds3", "degrade": degrade}, query={"text": "law"} | query)
    source = PlannedSource(spec, Uds3Store(spec, found), StoredPlanPages(MemoryStore(), ""))
    plan = await make_plan(spec, source)
    return plan, [item async for batch in source.read(plan.frozen, None) for item in batch]


def names(items: Sequence[SourceItem]) -> list[str]:
    return [item.content.id if isinstance(item.content, Document) else item.content.key for item in items]


async def test_two_lists_are_fused_and_their_bodies_come_from_the_shelves() -> None:
    found = stores(Listed("vector", "abc"), Listed("graph", "cd"), bodies=[shelf("ab"), shelf("bcd")])
    plan, items = await searched(found, weights={"vector": 0.5, "graph": 0.5})
    # c is third and first, and so before a, which is first alone.
    assert names(items) == ["c", "a", "b", "d"]
    assert plan.notes == {"searches": ["vector", "graph"], "left_out": [], "degraded": []}
    assert plan.columns == {"title": "string"}
    first = items[0].content
    assert isinstance(first, Document)
    assert (first.text, first.metadata) == ("text c", {"title": "C"})
    assert first.relevance == pytest.approx(0.5 / 63 + 0.5 / 61, abs=1e-17)
    assert names((await searched(found, top_k=2, weights={"vector": 0.5, "graph": 0.5}))[1]) == ["c", "a"]


async def test_a_store_that_is_not_configured_is_named_and_left_out() -> None:
    plan, items = await searched(stores(Listed("vector", "ab"), bodies=[shelf("ab")]))
    assert names(items) == ["a", "b"]
    assert plan.notes == {"searches": ["vector"], "left_out": ["graph", "keyword"], "degraded": []}
    with pytest.raises(JobFailed, match="no store of bodies is configured"):
        await searched(stores(Listed("vector", "ab")))
    with pytest.raises(JobFailed, match="none of the searches vector, graph, keyword can be done"):
        await searched(stores())


async def test_a_store_that_is_down_is_waited_for_unless_the_job_may_degrade() -> None:
    graph = Listed("graph", "b")
    graph.down = SourceUnavailable("Neo4j is away")
    found = stores(Listed("vector", "ab"), graph, bodies=[shelf("ab")])
    with pytest.raises(SourceUnavailable, match="Neo4j is away"):
        await searched(found)
    plan, items = await searched(found, degrade=True)
    assert names(items) == ["a", "b"]
    assert plan.notes["degraded"] == ["graph"]


async def test_a_store_that_breaks_off_in_the_middle_is_no_shorter_list() -> None:
    class Breaks(Listed):
        async def rank(self, query: Query, tell: Tell | None = None) -> AsyncGenerator[list[Hit], None]:
            async for page in super().rank(query, tell):
                yield page
                self.down = SourceUnavailable("gone in the middle")

    with pytest.raises(SourceUnavailable, match="gone in the middle"):
        await searched(stores(Breaks("vector", "abcdef"), bodies=[shelf("abcdef")]), degrade=True)


async def test_what_one_store_marks_deleted_is_in_no_list() -> None:
    vector, graph = Listed("vector", "abcd"), Listed("graph", "eadb")
    vector.gone, graph.gone = "ez", "acz"
    _, items = await searched(
        stores(vector, graph, bodies=[shelf("abcde")]), weights={"vector": 0.5, "graph": 0.5}
    )
    # b and d are left of both lists: once first and once second.
    assert names(items) == ["b", "d"]
    scores = [item.content.relevance for item in items if isinstance(item.content, Document)]
    assert scores == [pytest.approx(0.5 / 61 + 0.5 / 62, abs=1e-17)] * 2


@pytest.mark.parametrize("searches", [["vector", "graph"], ["vector"]])
async def test_marks_that_come_after_the_lists_count_as_well(searches: list[str]) -> None:
    ended: set[str] = set()
    all_ended = asyncio.Event()

    class Asked(Listed):
        async def rank(self, query: Query, tell: Tell | None = None) -> AsyncGenerator[list[Hit], None]:
            async for page in super().rank(query, tell):
                yield page
            ended.add(self.name)
            if len(ended) == len(searches):
                all_ended.set()

        async def removed(self) -> AsyncGenerator[list[str], None]:
            await all_ended.wait()
            async for page in super().removed():
                yield page

    vector, graph = Asked("vector", "abcd"), Asked("graph", "eadb")
    vector.gone, graph.gone = "ez", "acz"
    found = stores(vector, graph, bodies=[shelf("abcde")])
    async with asyncio.timeout(10):
        _, items = await searched(
            found, search_types=searches, top_k=2, weights={"vector": 0.5, "graph": 0.5}
        )
    assert names(items) == ["b", "d"]
    scores = [item.content.relevance for item in items if isinstance(item.content, Document)]
    assert scores[0] == pytest.approx(0.5 / 61 + (0.5 / 62 if len(searches) > 1 else 0.0), abs=1e-17)


@pytest.mark.parametrize("ids", ["abcd", ""])
async def test_marks_that_a_search_comes_by_are_not_asked_for_again(ids: str) -> None:
    class Once(Listed):
        times = 0

        async def removed(self) -> AsyncGenerator[list[str], None]:
            self.times += 1
            async for page in super().removed():
                yield page

    vector, graph = Once("vector", ids, ["year"], tells=True), Listed("graph", "eadb", ["year"])
    vector.gone, graph.gone = "ez", "acz"
    found = stores(vector, graph, bodies=[shelf("abcde")])
    _, items = await searched(found, weights={"vector": 0.5, "graph": 0.5})
    assert (sorted(names(items)), vector.times) == (["b", "d"], 1)
    _, items = await searched(found, filters={"year": 1}, weights={"vector": 0.5, "graph": 0.5})
    assert (sorted(names(items)), vector.times) == (["b", "d"], 2)


async def test_a_store_that_is_not_searched_is_asked_for_its_marks() -> None:
    vector, graph = Listed("vector", "abcd"), Listed("graph", "d")
    graph.gone = "ac"
    found = stores(vector, graph, bodies=[shelf("abcd")])
    plan, items = await searched(found, search_types=["vector"], top_k=2)
    assert names(items) == ["b", "d"]
    assert (plan.notes["searches"], graph.asked) == (["vector"], [])
    graph.down = SourceUnavailable("Neo4j is away")
    with pytest.raises(SourceUnavailable, match="Neo4j is away"):
        await searched(found, search_types=["vector"])
    plan, items = await searched(found, degrade=True, search_types=["vector"])
    assert names(items) == ["a", "b", "c", "d"]
    assert plan.notes == {"searches": ["vector"], "left_out": [], "degraded": ["graph"]}


async def test_marks_that_break_off_are_no_fewer_marks() -> None:
    class Breaks(Listed):
        async def removed(self) -> AsyncGenerator[list[str], None]:
            async for page in super().removed():
                yield page
                self.down = SourceUnavailable("gone in the middle")

    graph = Breaks("graph", "")
    graph.gone = "abcd"
    with pytest.raises(SourceUnavailable, match="gone in the middle"):
        await searched(stores(Listed("vector", "abcdef"), graph, bodies=[shelf("abcdef")]), degrade=True)


async def test_filters_go_to_rankers_that_know_them_and_are_refused_by_others() -> None:
    vector = Listed("vector", "a", fields=["year"])
    await searched(stores(vector, bodies=[shelf("a")]), filters={"year": 2020}, search_types=["vector"])
    assert vector.asked[-1].filters == {"year": 2020}
    with pytest.raises(JobFailed, match="the vector search has no field 'colour'; it has year"):
        await searched(stores(vector), filters={"colour": "red"})


async def test_bodies_are_asked_for_in_small_groups_and_may_be_unreadable() -> None:
    ids = [f"d{n:03d}" for n in range(120)]
    bodies: dict[str, Body | Unreadable] = {name: Body(name) for name in ids[2:]}
    bodies["d001"] = Unreadable(DeadLetterReason.NO_TEXT, b"%PDF-1.7")
    shelves = Shelf(bodies)
    _, items = await searched(stores(Listed("vector", ids), bodies=[shelves]))
    assert names(items) == ids
    assert shelves.largest == 50
    gone = [item.content.dead_letter for item in items if isinstance(item.content, InvalidDocument)]
    assert [(one.reason, one.original) for one in gone] == [("no_content", b""), ("no_text", b"%PDF-1.7")]


async def test_what_one_shelf_says_is_removed_no_other_is_asked_for() -> None:
    shelves = [Shelf({"a": REMOVED, "b": Body("new b")}), shelf("abc")]
    _, items = await searched(stores(Listed("vector", "abcd"), bodies=shelves))
    texts = {item.content.id: item.content.text for item in items if isinstance(item.content, Document)}
    assert texts == {"b": "new b", "c": "text c"}
    dead = {
        item.content.key: item.content.dead_letter.reason
        for item in items
        if isinstance(item.content, InvalidDocument)
    }
    assert dead == {"a": "vanished", "d": "no_content"}
