"""Planned sources: each planned document is read once, from any position, by any producer."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardline_common.errors import FailureCode, JobFailed
from shardline_common.job.spec import JobSpec
from shardline_common.memory.store import MemoryStore
from shardline_producer.plan import make_plan, plan_job
from shardline_producer.plan_pages import StoredPlanPages
from shardline_producer.sources import planned
from shardline_producer.sources.documents import DeadLetterReason, invalid_document
from shardline_producer.sources.memory_database import MemoryDatabase
from shardline_producer.sources.planned import PlannedSource, PlanPage, page_size
from shardline_producer.sources.planned_store import Entry
from shardline_producer.sources.source import Document, InvalidDocument, SourceItem
from tests.make import job
from tests.source_items import item_ids

NAMES = st.text(st.sampled_from("abäz€-"), min_size=1, max_size=3)
TEXTS = st.text(max_size=4)


@contextmanager
def small_pages(first: int, largest: int, fetched: int) -> Iterator[None]:
    """Pages of a few entries, so that a few documents make many pages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planned, "_FIRST_PAGE", first)
        patch.setattr(planned, "_LARGEST_PAGE", largest)
        patch.setattr(planned, "_LARGEST_FETCH", fetched)
        yield


def spec_of(**query: Any) -> JobSpec:
    return job(source={"type": "uds3"}, query=query)


def database(names: Sequence[str]) -> dict[str, Document]:
    return {name: Document(name, f"law {name} " * (1 + len(name)), {}) for name in names}


@given(
    st.sets(NAMES, max_size=40),
    st.lists(st.tuples(st.booleans(), NAMES), max_size=12),
    st.tuples(st.integers(1, 4), st.integers(4, 9), st.integers(1, 5)),
    st.none() | st.integers(1, 30),
    st.data(),
)
async def test_changes_repeat_or_lose_no_planned_document(
    ids: set[str],
    changes: list[tuple[bool, str]],
    sizes: tuple[int, int, int],
    top: int | None,
    data: st.DataObject,
) -> None:
    documents, store, spec = database(sorted(ids)), MemoryStore(), spec_of(top_k=top)
    untouched = ids - {name for _, name in changes}
    with small_pages(*sizes):
        frozen = await PlannedSource(
            spec, MemoryDatabase(spec, documents), StoredPlanPages(store, "")
        ).freeze()
        seen: list[SourceItem] = []
        ended = False
        while not ended:
            # Each time another producer reads on behind the last position.
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
        plan = [page async for page in source._plan(frozen, 0)]
    entries = [entry.id for page in plan for entry in page.entries]
    assert item_ids(seen) == entries == sorted(set(entries), key=str.encode)
    assert [item.position for item in seen] == [(n,) for n in range(1, len(seen) + 1)]
    assert [page.last for page in plan] == [False] * (len(plan) - 1) + [True]
    assert [page.first for page in plan] == [0, *(page.next for page in plan[:-1])]
    assert top is not None or untouched <= set(entries)
    assert len(entries) <= (top or 1000)


@given(
    st.sets(NAMES, max_size=30), st.tuples(st.integers(1, 4), st.integers(4, 9), st.integers(1, 5)), st.data()
)
async def test_search_resumes_behind_any_position(
    ids: set[str], sizes: tuple[int, int, int], data: st.DataObject
) -> None:
    documents, store = database(sorted(ids)), MemoryStore()
    top = data.draw(st.none() | st.integers(1, 30))
    spec = spec_of(text="law", top_k=top)
    with small_pages(*sizes):
        source = PlannedSource(spec, MemoryDatabase(spec, documents), StoredPlanPages(store, ""))
        frozen = await source.freeze()
        documents.pop(next(iter(documents), ""), None)
        found = [item async for batch in source.read(frozen, None) for item in batch]
        start = data.draw(st.integers(0, len(found)))
        after = found[start - 1].position if start else None
        rest = [item async for batch in source.read(frozen, after) for item in batch]
    assert rest == found[start:]
    order = sorted(ids, key=lambda name: (-(1 + len(name)), name.encode()))
    assert item_ids(found) == order[:top]
    assert frozen[0]["count"] == len(found)


async def test_two_planners_at_once_read_the_stored_ranking() -> None:
    documents, store, spec = database("abc"), MemoryStore(), spec_of(text="law")
    pages = StoredPlanPages(store, "plan/")

    def source() -> PlannedSource:
        return PlannedSource(spec, MemoryDatabase(spec, documents), pages)

    async def late() -> Any:
        await asyncio.sleep(0)
        documents["d"] = Document("d", "law " * 9, {})
        return await plan_job(spec, source(), store)

    one, other = await asyncio.gather(plan_job(spec, source(), store), late())
    assert one == other
    read = [[item async for batch in source().read(one.frozen, None) for item in batch] for _ in range(2)]
    assert read[0] == read[1]
    folders = {info.key.split("/")[1] async for info in store.list("plan/")}
    assert len(folders) == 2, "both ranked, and neither wrote into the other's folder"


@given(st.lists(st.builds(Entry, NAMES, st.floats(0, 1), st.booleans()), max_size=9), st.booleans())
def test_page_round_trips_through_json(entries: list[Entry], last: bool) -> None:
    page = PlanPage(7, last, entries)
    assert PlanPage.decode(page.encode(), f"folder/{page.name}") == page


def test_pages_grow() -> None:
    first, count = 0, 0
    while first < 1_000_000:
        first, count = first + page_size(first), count + 1
    assert page_size(0) == 1_000
    assert count < 32


async def test_pages_are_bounded_in_bytes() -> None:
    names_ = [f"{n:04d}" + "x" * 1020 for n in range(9_000)]
    documents, store, spec = {name: Document(name, "x", {}) for name in names_}, MemoryStore(), spec_of()
    source = PlannedSource(spec, MemoryDatabase(spec, documents), StoredPlanPages(store, ""))
    with small_pages(9_000, 50_000, 500):
        plan = [page async for page in source._plan(await source.freeze(), 0)]
    assert [entry.id for page in plan for entry in page.entries] == names_
    assert max(len(page.encode()) for page in plan) < 6 << 20


def test_invalid_document_keeps_reason_and_size() -> None:
    found = invalid_document("a", DeadLetterReason.NO_TEXT, b"%PDF")
    assert isinstance(found, InvalidDocument)
    assert (found.key, found.dead_letter.reason, found.dead_letter.size) == ("a", "no_text", 4)


async def read_to_the_end(store: MemoryStore, spec: JobSpec, frozen: Any, done: int) -> list[SourceItem]:
    """The items behind the first `done`, read by another producer."""
    source = PlannedSource(spec, MemoryDatabase(spec, database([])), StoredPlanPages(store, ""))
    return [item async for batch in source.read(frozen, (done,) if done else None) for item in batch]


async def planned_store(text: str | None) -> tuple[MemoryStore, JobSpec, Any, list[str]]:
    """A plan of 9 entries in pages of three, with the keys of its pages."""
    store, spec = MemoryStore(), spec_of(text=text)
    source = PlannedSource(
        spec, MemoryDatabase(spec, database([f"d{n}" for n in range(9)])), StoredPlanPages(store, "")
    )
    frozen = await source.freeze()
    assert len([item async for batch in source.read(frozen, None) for item in batch]) == 9
    return store, spec, frozen, sorted([info.key async for info in store.list("")])


@pytest.mark.parametrize(
    ("text", "lost", "done"),
    [(text, lost, done) for text in (None, "law") for lost, done in ((1, 0), (1, 4), (0, 2), (2, 8))]
    + [("law", 0, 0), ("law", 2, 0)],
)
async def test_a_lost_page_fails_the_job_instead_of_shifting_the_rest(
    text: str | None, lost: int, done: int
) -> None:
    with small_pages(3, 3, 2):
        store, spec, frozen, keys = await planned_store(text)
        await store.delete([keys[lost]])
        with pytest.raises(JobFailed) as failed:
            await read_to_the_end(store, spec, frozen, done)
        assert failed.value.code is FailureCode.OBJECT_LOST
        assert keys[lost].rpartition("/")[2] in str(failed.value)


async def test_pages_of_what_was_read_are_not_needed_again() -> None:
    with small_pages(3, 3, 2):
        store, spec, frozen, keys = await planned_store(None)
        await store.delete(keys[:2])
        assert item_ids(await read_to_the_end(store, spec, frozen, 7)) == ["d7", "d8"]


@pytest.mark.parametrize("damaged", [b"", b"[]", b'{"first": 3}', b'{"first": 0, "last": false, "ids": []}'])
async def test_a_damaged_page_is_named(damaged: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shardline_common.runtime.read_again.PAUSES", (0.0,))
    with small_pages(3, 3, 2):
        store, spec, frozen, keys = await planned_store(None)
        await store.delete([keys[1]])
        await store.create(keys[1], damaged)
        with pytest.raises(JobFailed, match=keys[1]) as failed:
            await read_to_the_end(store, spec, frozen, 0)
    assert failed.value.code is FailureCode.DATASET_DAMAGED


async def test_of_the_columns_that_a_store_declares_the_first_are_kept() -> None:
    columns = {f"c{number}": "int" for number in range(300)}

    async def planned_columns(**fields: Any) -> tuple[list[str], int]:
        spec = job(source={"type": "uds3"}, format=fields)
        source = PlannedSource(spec, MemoryDatabase(spec, {}, columns), StoredPlanPages(MemoryStore(), ""))
        plan = await make_plan(spec, source)
        return list(plan.columns), plan.without_column

    assert await planned_columns() == (list(columns)[:256], 44)
    assert await planned_columns(max_columns=2) == (["c0", "c1"], 298)
    assert await planned_columns(max_columns=300) == (list(columns), 0)
    # Those that the job names are columns, and have the types that the store declares.
    spec = job(source={"type": "uds3"}, format={"metadata": ["c299", "other"], "max_columns": 2})
    source = PlannedSource(spec, MemoryDatabase(spec, {}, columns), StoredPlanPages(MemoryStore(), ""))
    plan = await make_plan(spec, source)
    assert (plan.columns, plan.without_column) == ({"c299": "int", "other": "string"}, 0)
