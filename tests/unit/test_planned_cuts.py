"""Lists of documents that are cut into slices: the plan fixes the list, and each slice reads its range."""

import random
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardline_common.errors import FailureCode, JobFailed
from shardline_common.job.findings import SLICES, Findings, remarks
from shardline_common.job.names import Layout
from shardline_common.memory.store import MemoryStore
from shardline_producer.plan import make_plan, plan_job
from shardline_producer.plan_pages import StoredPlanPages
from shardline_producer.sources.memory_database import MemoryDatabase
from shardline_producer.sources.planned import PlannedSource
from shardline_producer.sources.planned_store import Entry
from shardline_producer.sources.source import Document, Part, SourceItem
from tests.make import job
from tests.simulation.simulated_source import MemorySource, documents
from tests.source_items import item_ids
from tests.unit.test_planned import NAMES, database, small_pages, spec_of

COUNT = 10


class MarkedDatabase(MemoryDatabase):
    """Has left out two documents of each page of its list, because they are marked deleted."""

    async def entries(
        self, facts: Mapping[str, Any], after: Entry | None, limit: int | None, findings: Findings
    ) -> AsyncGenerator[list[Entry], None]:
        """Batches of entries."""
        findings.leave_out("memory", 2)
        async for batch in super().entries(facts, after, limit, findings):
            yield batch


class Listed:
    """A job over a list in a database; every call is one of another process."""

    def __init__(self, content: dict[str, Document]) -> None:
        self.spec, self.content, self.store = spec_of(), content, MemoryStore()
        self.frozen: list[dict[str, Any]] = []

    def open(self) -> PlannedSource:
        store = MarkedDatabase(self.spec, self.content)
        return PlannedSource(self.spec, store, StoredPlanPages(self.store, ""))

    async def cut(self, slices: int) -> list[Part]:
        self.frozen = await self.open().freeze()
        ranges: list[Part] = orjson.loads(orjson.dumps((await self.open().cut(self.frozen, slices)).ranges))
        return ranges

    async def read(self, part: Part | None, done: int = 0) -> list[SourceItem]:
        return await self.read_with(self.open(), part, done)

    async def read_with(self, source: PlannedSource, part: Part | None, done: int = 0) -> list[SourceItem]:
        after = (done,) if done else None
        return [item async for batch in source.read(self.frozen, after, part) for item in batch]


@given(
    st.sets(NAMES, max_size=40),
    st.tuples(st.integers(1, 4), st.integers(4, 9), st.integers(1, 5)),
    st.integers(2, 9),
    st.sets(NAMES, max_size=5),
    st.data(),
)
async def test_the_parts_of_any_list_are_the_whole_whatever_changes(
    ids: set[str], sizes: tuple[int, int, int], slices: int, added: set[str], data: st.DataObject
) -> None:
    listed = Listed(database(sorted(ids)))
    with small_pages(*sizes):
        parts = await listed.cut(slices)
        # The list is complete: what comes later belongs to no slice.
        listed.content.update(database(sorted(added - ids)))
        whole = await listed.read(None)
        found: list[SourceItem] = []
        for part in parts:
            items = await listed.read(part)
            assert [item.position for item in items] == [(n,) for n in range(1, len(items) + 1)]
            done = data.draw(st.integers(0, len(items)))
            assert await listed.read(part, done) == items[done:]
            found += [replace(item, position=(len(found) + item.position[0],)) for item in items]
    assert found == whole
    assert item_ids(found) == sorted(ids, key=str.encode)
    assert len(parts) == max(1, min(slices, len(ids)))


@pytest.mark.parametrize("lost", range(4))
async def test_a_lost_page_fails_its_slices_and_no_slice_lists_again(lost: int) -> None:
    listed = Listed(database([f"d{number}" for number in range(COUNT)]))
    with small_pages(3, 3, 2):
        parts = await listed.cut(2)
        keys = sorted([info.key async for info in listed.store.list("")])
        assert len(keys) == 4
        await listed.store.delete([keys[lost]])
        failed = 0
        for number, part in enumerate(parts):
            needs = range(part["first"] // 3, (part["end"] - 1) // 3 + 1)
            if lost not in needs:
                assert len(await listed.read(part)) == COUNT // 2, number
                continue
            failed += 1
            with pytest.raises(JobFailed) as caught:
                await listed.read(part)
            assert caught.value.code is FailureCode.OBJECT_LOST
        assert failed >= 1
    assert keys[lost] not in [info.key async for info in listed.store.list("")]


async def test_findings_of_slices_add_up_to_those_of_the_list() -> None:
    listed = Listed(database([f"d{number}" for number in range(COUNT)]))
    with small_pages(3, 3, 2):
        parts, total, stores = await listed.cut(3), 0, []
        for part in parts:
            source = listed.open()
            await listed.read_with(source, part)
            found = source.findings(listed.frozen)
            total += found.deleted.get("memory", 0)
            stores.append(found.stores)
        source = listed.open()
        await listed.read_with(source, None)
        whole = source.findings(listed.frozen)
    assert whole.deleted == {"memory": total}
    assert total > 0
    assert stores == [whole.stores] * 3


async def test_the_plan_of_one_slice_is_that_of_a_job_without_slices() -> None:
    plans = []
    for spec in (job(), job(slices=3)):
        store = MemoryStore()
        plan = await plan_job(spec, MemorySource(documents(9), random.Random(1)), store)
        plans.append(orjson.loads(await store.get(Layout.of(spec).plan)))
        assert plan == await plan_job(spec, MemorySource(documents(9), random.Random(1)), store)
    one, three = plans
    assert three.pop("slices") == [{"first": n, "end": n + 3} for n in (0, 3, 6)]
    assert one == three


async def test_a_plan_with_fewer_slices_than_asked_for_says_why() -> None:
    spec = job(slices=3)
    plan = await plan_job(spec, MemorySource(documents(2), random.Random(1)), MemoryStore())
    assert len(plan.slices) == 2
    sentence = "2 of 3 slices have documents: there are no more items"
    assert plan.notes[SLICES] == sentence
    assert remarks({"type": "memory", **plan.notes}) == [sentence]


async def test_a_preview_cuts_nothing() -> None:
    class Uncut(MemorySource):
        async def cut(self, *_: object) -> Any:
            raise AssertionError

    assert (await make_plan(job(slices=3), Uncut(documents(2), random.Random(1)))).slices == []
