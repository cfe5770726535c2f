"""Planned sources: whatever happens meanwhile, the plan is read once, from anywhere, by anyone."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardline_common.job.spec import JobSpec
from shardline_common.memory.store import MemoryStore
from shardline_producer.plan import plan_job
from shardline_producer.plan_pages import StoredPlanPages
from shardline_producer.sources import planned
from shardline_producer.sources.documents import DeadLetterReason
from shardline_producer.sources.memory import MemoryDatabase
from shardline_producer.sources.planned import Entry, PlannedSource, PlanPage, part_size, unusable
from shardline_producer.sources.source import Document, InvalidDocument, SourceItem
from tests.make import job

NAMES = st.text(st.sampled_from("abäz€-"), min_size=1, max_size=3)
TEXTS = st.text(max_size=4)


@contextmanager
def small_parts(first: int, largest: int, fetched: int) -> Iterator[None]:
    """Parts of a few entries, so that a few documents make many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planned, "_FIRST_PART", first)
        patch.setattr(planned, "_LARGEST_PART", largest)
        patch.setattr(planned, "_FETCH", fetched)
        yield


def spec_of(**query: Any) -> JobSpec:
    return job(source={"type": "uds3"}, query=query)


def database(names: Sequence[str]) -> dict[str, Document]:
    return {name: Document(name, f"law {name} " * (1 + len(name)), {}) for name in names}


def names(items: Sequence[SourceItem]) -> list[str]:
    return [item.content.id if isinstance(item.content, Document) else item.content.key for item in items]


@given(
    st.sets(NAMES, max_size=40),
    st.lists(st.tuples(st.booleans(), NAMES), max_size=12),
    st.tuples(st.integers(1, 4), st.integers(4, 9), st.integers(1, 5)),
    st.none() | st.integers(1, 30),
    st.data(),
)
async def test_each_planned_document_once_whatever_changes_meanwhile(
    ids: set[str],
    changes: list[tuple[bool, str]],
    sizes: tuple[int, int, int],
    top: int | None,
    data: st.DataObject,
) -> None:
    documents, store, spec = database(sorted(ids)), MemoryStore(), spec_of(top_k=top)
    untouched = ids - {name for _, name in changes}
    with small_parts(*sizes):
        frozen = await PlannedSource(
            spec, MemoryDatabase(spec, documents), StoredPlanPages(store, "")
        ).freeze()
        seen: list[SourceItem] = []
        ended = False
        while not ended:
            # Another producer each time, from wherever the last one stood.
            source = PlannedSource(spec, MemoryDatabase(spec, documents), StoredPlanPages(store, ""))
            stop = data.draw(st.integers(1, 6))
            async with aclosing(source.read(frozen, seen[-1].position if seen else None)) as batches:
                async for batch in batches:
                    seen += batch
                    stop -= 1
                    if not stop:
                        break
                else:
                    ended = True
            for _ in range(min(3, len(changes))):
                removed, name = changes.pop()
                if removed:
                    documents.pop(name, None)
                else:
                    documents |= database([name])
        plan = [part async for part in source._plan(frozen, 0)]
    entries = [entry.id for part in plan for entry in part.entries]
    assert names(seen) == entries == sorted(set(entries), key=str.encode)
    assert [item.position for item in seen] == [(n,) for n in range(1, len(seen) + 1)]
    assert [part.last for part in plan] == [False] * (len(plan) - 1) + [True]
    assert [part.first for part in plan] == [0, *(part.next for part in plan[:-1])]
    assert top is not None or untouched <= set(entries)
    assert len(entries) <= (top or 1000)


@given(
    st.sets(NAMES, max_size=30), st.tuples(st.integers(1, 4), st.integers(4, 9), st.integers(1, 5)), st.data()
)
async def test_a_search_is_the_same_from_anywhere(
    ids: set[str], sizes: tuple[int, int, int], data: st.DataObject
) -> None:
    documents, store = database(sorted(ids)), MemoryStore()
    top = data.draw(st.none() | st.integers(1, 30))
    spec = spec_of(text="law", top_k=top)
    with small_parts(*sizes):
        source = PlannedSource(spec, MemoryDatabase(spec, documents), StoredPlanPages(store, ""))
        frozen = await source.freeze()
        documents.pop(next(iter(documents), ""), None)
        found = [item async for batch in source.read(frozen, None) for item in batch]
        start = data.draw(st.integers(0, len(found)))
        after = found[start - 1].position if start else None
        rest = [item async for batch in source.read(frozen, after) for item in batch]
    assert rest == found[start:]
    order = sorted(ids, key=lambda name: (-(1 + len(name)), name.encode()))
    assert names(found) == order[:top]
    assert frozen[0]["count"] == len(found)


async def test_two_who_rank_at_once_read_the_ranking_of_the_plan_that_stands() -> None:
    documents, store, spec = database("abc"), MemoryStore(), spec_of(text="law")
    parts = StoredPlanPages(store, "plan/")

    def source() -> PlannedSource:
        return PlannedSource(spec, MemoryDatabase(spec, documents), parts)

    async def late() -> Any:
        await asyncio.sleep(0)
        documents["d"] = Document("d", "law " * 9, {})
        return await plan_job(spec, source(), store)

    one, other = await asyncio.gather(plan_job(spec, source(), store), late())
    assert one == other
    read = [[item async for batch in source().read(one.frozen, None) for item in batch] for _ in range(2)]
    assert read[0] == read[1]
    folders = {info.key.split("/")[1] async for info in store.list("plan/")}
    assert len(folders) == 2, "both ranked, and neither touched the other's parts"


@given(st.lists(st.builds(Entry, NAMES, st.floats(0, 1), st.booleans()), max_size=9), st.booleans())
def test_a_part_survives_its_object(entries: list[Entry], last: bool) -> None:
    part = PlanPage(7, last, entries)
    assert PlanPage.decode(part.encode()) == part


def test_parts_are_small_at_first_and_few_at_last() -> None:
    first, count = 0, 0
    while first < 1_000_000:
        first, count = first + part_size(first), count + 1
    assert part_size(0) == 1_000
    assert count < 32


async def test_parts_are_bounded_in_bytes() -> None:
    names_ = [f"{n:04d}" + "x" * 1020 for n in range(9_000)]
    documents, store, spec = {name: Document(name, "x", {}) for name in names_}, MemoryStore(), spec_of()
    source = PlannedSource(spec, MemoryDatabase(spec, documents), StoredPlanPages(store, ""))
    with small_parts(9_000, 50_000, 500):
        plan = [part async for part in source._plan(await source.freeze(), 0)]
    assert [entry.id for part in plan for entry in part.entries] == names_
    assert max(len(part.encode()) for part in plan) < 6 << 20


def test_what_cannot_be_a_document_tells_why() -> None:
    found = unusable("a", DeadLetterReason.NO_TEXT, b"%PDF")
    assert isinstance(found, InvalidDocument)
    assert (found.key, found.dead_letter.reason, found.dead_letter.size) == ("a", "no_text", 4)
