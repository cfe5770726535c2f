"""One suite for every source: each keeps the contract of the port `Source`."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa
import pyarrow.parquet
import pytest

from shardline_common.errors import JobFailed
from shardline_common.job.findings import Findings
from shardline_common.job.messages import Position
from shardline_common.job.spec import JobSpec, ThemisSource
from shardline_common.memory.store import MemoryStore
from shardline_common.runtime.clock import SystemClock
from shardline_producer.plan import make_plan
from shardline_producer.plan_pages import StoredPlanPages
from shardline_producer.sources.files.file_documents import FileDocuments
from shardline_producer.sources.files.local_files import LocalFiles
from shardline_producer.sources.memory_database import MemoryDatabase
from shardline_producer.sources.planned import PlannedSource
from shardline_producer.sources.source import Document, InvalidDocument, Part, PlanPages, Source, SourceItem
from shardline_producer.sources.themis.client import ThemisOptions
from shardline_producer.sources.themis.limiter import RateLimiter
from shardline_producer.sources.themis.planned_store import ThemisTable
from shardline_producer.sources.themis.queries import order_key
from shardline_producer.sources.uds3.planned_store import ConfiguredStores, Uds3Store
from tests.databases import Database, own_database
from tests.make import job
from tests.source_items import item_ids
from tests.themis_server import READER, themis_server
from tests.uds3_data import ListRanker

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = {"title": "string", "number": "int"}
TABLE = "CREATE TABLE documents (document_id text PRIMARY KEY, content text, title text, number int)"


@dataclass
class Case:
    """One source over documents that the suite chooses.

    `put` inserts or replaces documents, `remove` deletes them, `connections` counts the open connections;
    None where the source cannot change or has no connections. `order` sorts ids as the store does.
    """

    source: Mapping[str, Any]
    open: Callable[[JobSpec, PlanPages], Source]
    fill: Callable[[Sequence[Document]], Awaitable[None]]
    put: Callable[[Sequence[Document]], Awaitable[None]] | None = None
    remove: Callable[[Sequence[str]], Awaitable[None]] | None = None
    connections: Callable[[], Awaitable[int]] | None = None
    query: Mapping[str, Any] = field(default_factory=dict)
    order: Callable[[str], Any] = str.encode

    def job(self, **query: Any) -> JobSpec:
        """A job over this source."""
        return job(source=dict(self.source), query={**self.query, **query})


def make_documents(count: int, start: int = 0) -> list[Document]:
    """Documents whose ids do not sort by number and are not all ASCII."""
    numbers = range(start, start + count)
    return [
        Document(f"{'zäAé'[n % 4]}-{n}", f"text {n}", {"title": f"T {n % 7}", "number": n}) for n in numbers
    ]


@asynccontextmanager
async def files_case(request: pytest.FixtureRequest) -> AsyncIterator[Case]:
    folder: Path = request.getfixturevalue("tmp_path")

    async def fill(documents: Sequence[Document]) -> None:
        rows = [{"document_id": one.id, "content": one.text, **one.metadata} for one in documents]
        (folder / "in.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))

    yield Case(
        {"type": "files", "paths": ["in.jsonl"]},
        lambda spec, pages: FileDocuments(spec, LocalFiles(folder, confined=True), None, pages),
        fill,
    )


@asynccontextmanager
async def tables_case(request: pytest.FixtureRequest) -> AsyncIterator[Case]:
    """A Parquet file with small row groups, and an Arrow stream behind it."""
    folder: Path = request.getfixturevalue("tmp_path")

    async def fill(documents: Sequence[Document]) -> None:
        half = len(documents) // 2
        tables = [
            pa.table(
                {
                    "document_id": pa.array([one.id for one in part], pa.string()),
                    "content": pa.array([one.text for one in part], pa.string()),
                    "title": pa.array([one.metadata.get("title") for one in part], pa.string()),
                    "number": pa.array([one.metadata.get("number") for one in part], pa.int64()),
                }
            )
            for part in (documents[:half], documents[half:])
        ]
        pa.parquet.write_table(tables[0], folder / "in.parquet", row_group_size=400)
        with (folder / "in.arrows").open("wb") as file, pa.ipc.new_stream(file, tables[1].schema) as out:
            out.write_table(tables[1], max_chunksize=400)

    yield Case(
        {"type": "files", "paths": ["in.parquet", "in.arrows"]},
        lambda spec, pages: FileDocuments(spec, LocalFiles(folder, confined=True), None, pages),
        fill,
    )


@asynccontextmanager
async def memory_case(_: pytest.FixtureRequest) -> AsyncIterator[Case]:
    documents: dict[str, Document] = {}
    opened: list[MemoryDatabase] = []

    def open_source(spec: JobSpec, pages: PlanPages) -> Source:
        opened.append(MemoryDatabase(spec, documents, COLUMNS))
        return PlannedSource(spec, opened[-1], pages)

    async def put(more: Sequence[Document]) -> None:
        documents.update({one.id: one for one in more})

    async def remove(ids: Sequence[str]) -> None:
        for identity in ids:
            del documents[identity]

    async def connections() -> int:
        return sum(one.connections for one in opened)

    yield Case({"type": "uds3"}, open_source, put, put, remove, connections)


@asynccontextmanager
async def postgres_case(request: pytest.FixtureRequest) -> AsyncIterator[Case]:
    async with own_database(request.getfixturevalue("postgres_server")) as database:
        await database.execute(TABLE)
        yield postgres_case_over(database)


def postgres_case_over(database: Database) -> Case:
    async def fill(documents: Sequence[Document]) -> None:
        await database.load("documents", ("document_id", "content", "title", "number"), rows(documents))

    async def put(documents: Sequence[Document]) -> None:
        await remove([one.id for one in documents])
        await fill(documents)

    async def remove(ids: Sequence[str]) -> None:
        async with database.admin() as connection:
            await connection.execute("DELETE FROM documents WHERE document_id = ANY ($1)", list(ids))

    stores = ConfiguredStores(database.postgres)
    return Case(
        {"type": "uds3"},
        lambda spec, pages: PlannedSource(spec, Uds3Store(spec, stores), pages),
        fill,
        put,
        remove,
        database.readers,
    )


@asynccontextmanager
async def hybrid_case(request: pytest.FixtureRequest) -> AsyncIterator[Case]:
    """A search that finds every document: by its text in PostgreSQL, and in the list of another store."""
    async with own_database(request.getfixturevalue("postgres_server")) as database:
        await database.execute(TABLE)
        tables, vector = postgres_case_over(database), ListRanker("vector", [])
        stores = ConfiguredStores(database.postgres, {"vector": vector})

        async def fill(documents: Sequence[Document]) -> None:
            await tables.fill(documents)
            vector.ids = [one.id for one in reversed(documents)]

        yield replace(
            tables,
            open=lambda spec, pages: PlannedSource(spec, Uds3Store(spec, stores), pages),
            fill=fill,
            put=None,
            remove=None,
            query={"text": "text", "search_types": ["keyword", "vector"]},
        )


def rows(documents: Sequence[Document]) -> list[tuple[object, ...]]:
    return [(one.id, one.text, one.metadata.get("title"), one.metadata.get("number")) for one in documents]


@asynccontextmanager
async def themis_case(_: pytest.FixtureRequest, *, lossless: bool = True) -> AsyncIterator[Case]:
    limiter = RateLimiter(0, SystemClock())

    async with themis_server() as server:
        options = ThemisOptions(server.url, READER)

        def open_source(spec: JobSpec, pages: PlanPages) -> Source:
            assert isinstance(spec.source, ThemisSource)
            return PlannedSource(spec, ThemisTable(spec, spec.source, options, limiter, SystemClock()), pages)

        async def put(documents: Sequence[Document]) -> None:
            found = [{"doc_id": one.id, "content": one.text, **one.metadata} for one in documents]
            server.fill("documents", "doc_id", found)

        async def remove(ids: Sequence[str]) -> None:
            for identity in ids:
                server.tables.delete(f"documents:{identity}")

        async def connections() -> int:
            return await server.connected()

        source = {"type": "themis", "lossless": lossless}
        yield Case(source, open_source, put, put, remove, connections, order=order_key)


CASES: dict[str, Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[Case]]] = {
    "files": files_case,
    "tables": tables_case,
    "memory": memory_case,
    "postgres": postgres_case,
    "hybrid": hybrid_case,
    "themis": themis_case,
    "themis-lossy": partial(themis_case, lossless=False),
}


ON_SERVERS = {"postgres", "hybrid"}


@pytest.fixture(
    params=[pytest.param(name, marks=[pytest.mark.server] * (name in ON_SERVERS)) for name in CASES]
)
async def case(request: pytest.FixtureRequest) -> AsyncIterator[Case]:
    async with CASES[request.param](request) as found:
        yield found


@dataclass
class PlannedJob:
    """The source of a job, and what it froze."""

    source: Source
    frozen: Sequence[Mapping[str, Any]]

    async def items(self, after: Position | None = None) -> list[SourceItem]:
        """All items behind a position."""
        return [item async for batch in self.source.read(self.frozen, after) for item in batch]

    async def part(self, after: Position | None, part: Part) -> list[SourceItem]:
        """The items of a part behind a position."""
        return [item async for batch in self.source.read(self.frozen, after, part) for item in batch]


async def plan(case: Case, pages: PlanPages | None = None, **query: Any) -> PlannedJob:
    spec = case.job(**query)
    source = case.open(spec, pages or StoredPlanPages(MemoryStore(), ""))
    return PlannedJob(source, (await make_plan(spec, source)).frozen)


async def test_each_document_once_in_a_stable_order(case: Case) -> None:
    await case.fill(make_documents(2_500))
    opened = await plan(case)
    found = await opened.items()
    assert sorted(item_ids(found)) == sorted(one.id for one in make_documents(2_500))
    assert [item.position[-1] for item in found] == list(range(1, 2_501))
    assert [item.position for item in found] == sorted(item.position for item in found)
    by_id = {one.id: one for one in make_documents(2_500)}
    for item in found:
        # In a search the relevance is the search's.
        assert isinstance(item.content, Document)
        assert replace(item.content, relevance=0.0) == by_id[item.content.id]
    assert await opened.items() == found
    assert await (await plan(case)).items() == found
    assert opened.source.progress(opened.frozen, None) == 0
    assert opened.source.progress(opened.frozen, found[-1].position) == 1


@pytest.mark.parametrize("ordinal", [1, 2, 499, 500, 501, 999, 1_000, 1_001, 2_499, 2_500])
async def test_read_resumes_behind_any_position(case: Case, ordinal: int) -> None:
    await case.fill(make_documents(2_500))
    pages = StoredPlanPages(MemoryStore(), "")
    found = await (await plan(case, pages)).items()
    again = await plan(case, pages)
    assert await again.items(found[ordinal - 1].position) == found[ordinal:]


# What says why these have fewer parts than slices.
FEWER = {
    "tables": "cut inside of a file",
    "hybrid": "the order of its ranking",
    "themis": "limits the requests",
}


async def test_parts_are_the_whole_source(case: Case, request: pytest.FixtureRequest) -> None:
    name = str(request.node.callspec.params["case"]).removesuffix("-lossy")
    most = {"tables": 2, "hybrid": 1, "themis": 1}.get(name, 7)
    await case.fill(make_documents(2_500 if most > 1 else 250))
    opened = await plan(case)
    whole = await opened.items()
    for slices in (2, 7):
        cuts = await opened.source.cut(opened.frozen, slices)
        assert cuts.reason == "" if slices <= most else FEWER[name] in cuts.reason
        assert len(cuts.ranges) == min(slices, most)
        found, findings = list[SourceItem](), list[Findings]()
        # The plan keeps the parts as JSON.
        for part in orjson.loads(orjson.dumps(cuts.ranges)):
            items = await opened.part(None, part)
            assert [item.position[-1] for item in items] == list(range(1, len(items) + 1))
            assert abs(len(items) - len(whole) / len(cuts.ranges)) < 100
            assert opened.source.progress(opened.frozen, None, part) == 0
            assert opened.source.progress(opened.frozen, items[-1].position, part) == 1
            findings.append(opened.source.findings(opened.frozen))
            # The ordinals of the whole source go on.
            before = len(found)
            found += [replace(one, position=(*one.position[:-1], before + one.position[-1])) for one in items]
        assert found == whole
        assert all(one.stores == findings[0].stores for one in findings)


async def test_each_part_resumes_behind_any_position(case: Case) -> None:
    await case.fill(make_documents(250))
    store = MemoryStore()
    opened = await plan(case, StoredPlanPages(store, ""))
    for part in (await opened.source.cut(opened.frozen, 3)).ranges:
        items = await opened.part(None, part)
        for behind in (1, len(items) // 2, len(items) - 1, len(items)):
            # In another process.
            source = case.open(case.job(), StoredPlanPages(store, ""))
            rest = await PlannedJob(source, opened.frozen).part(items[behind - 1].position, part)
            assert rest == items[behind:]


async def test_a_source_of_top_k_is_one_part(case: Case) -> None:
    await case.fill(make_documents(250))
    opened = await plan(case, top_k=100)
    cuts = await opened.source.cut(opened.frozen, 3)
    assert list(cuts.ranges) == [{}]
    assert cuts.reason
    assert await opened.part(None, cuts.ranges[0]) == await opened.items()


async def test_an_empty_source_has_empty_parts(case: Case) -> None:
    await case.fill([])
    opened = await plan(case)
    cuts = await opened.source.cut(opened.frozen, 3)
    assert cuts.reason
    for part in cuts.ranges:
        assert await opened.part(None, part) == []


async def test_empty_store_yields_nothing(case: Case) -> None:
    await case.fill([])
    opened = await plan(case)
    assert await opened.items() == []
    assert await opened.items() == []


async def test_top_k_counts_filtered_documents(case: Case) -> None:
    await case.fill(make_documents(2_500))
    everything = await (await plan(case, filters={"title": "T 3"})).items()
    assert len(everything) == 357
    for most in (1, 10, 356, 357, 10_000):
        opened = await plan(case, filters={"title": "T 3"}, top_k=most)
        assert item_ids(await opened.items()) == item_ids(everything)[:most]


async def test_unknown_filter_field_names_the_known_ones(case: Case) -> None:
    await case.fill(make_documents(3))
    with pytest.raises(JobFailed, match=r"no field 'colour'.* document_id.* number.* title") as caught:
        await plan(case, filters={"colour": "red"})
    assert caught.value.code == "source_invalid"


async def test_batches_are_bounded(case: Case) -> None:
    await case.fill([Document(f"d{n}", "x" * 100_000, {}) for n in range(100)])
    opened = await plan(case)
    largest = 0
    async with aclosing(opened.source.read(opened.frozen, None)) as batches:
        async for batch in batches:
            assert batch
            largest = max(largest, sum(item.size for item in batch))
    assert largest < 2 << 20


async def test_changes_during_a_read(case: Case) -> None:
    if case.put is None or case.remove is None:
        return
    documents = make_documents(2_500)
    await case.fill(documents)
    in_order = sorted((one.id for one in documents), key=case.order)
    opened = await plan(case)
    found = list[SourceItem]()
    async with aclosing(opened.source.read(opened.frozen, None)) as batches:
        found += await anext(batches)
        # Of the page that is stored and not read yet, the last document is removed. Behind that page
        # everything may change.
        await case.remove([in_order[999], in_order[2_000]])
        await case.put([Document("A-0000", "before", {}), Document("zz-new", "behind", {})])
        await case.put([Document(in_order[2_100], "changed", {"title": "T", "number": 1})])
        async for batch in batches:
            found += batch
    expected = [name for name in in_order if name != in_order[2_000]]
    assert item_ids(found) == sorted([*expected, "zz-new"], key=case.order)
    gone = [item.content for item in found if isinstance(item.content, InvalidDocument)]
    assert [(one.key, one.dead_letter.reason) for one in gone] == [(in_order[999], "vanished")]
    changed = found[item_ids(found).index(in_order[2_100])].content
    assert isinstance(changed, Document)
    assert changed.text == "changed"
    # Once stored, the plan stays: a second read has the same ids.
    assert item_ids(await opened.items()) == item_ids(found)


async def test_two_readers_of_a_new_page_read_the_same(case: Case) -> None:
    if case.put is None:
        return
    await case.fill(make_documents(1_500))
    store = MemoryStore()
    one, late = await plan(case, StoredPlanPages(store, "")), await plan(case, EmptyPlanPages(store, ""))
    first = await one.items()
    await case.put(make_documents(50, start=5_000))
    assert await late.items() == first


class EmptyPlanPages(StoredPlanPages):
    """Plan pages as listed before another producer stored the first one."""

    async def item_ids(self, folder: str) -> list[str]:
        assert folder == ""
        return []


async def test_closed_read_closes_its_connections(case: Case) -> None:
    if case.connections is None:
        return
    await case.fill(make_documents(2_500))
    opened = await plan(case)
    await wait_until_closed(case.connections, 0)
    async with aclosing(opened.source.read(opened.frozen, None)) as batches:
        await anext(batches)
        assert await case.connections() > 0
    await wait_until_closed(case.connections, 0)


async def test_cancelled_read_closes_its_connections(case: Case) -> None:
    if case.connections is None:
        return
    await case.fill(make_documents(2_500))
    opened = await plan(case)
    before = await case.connections()
    reading = asyncio.Event()

    async def read() -> None:
        async with aclosing(opened.source.read(opened.frozen, None)) as batches:
            async for _ in batches:
                reading.set()
                await asyncio.sleep(0)

    task = asyncio.create_task(read())
    await reading.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await wait_until_closed(case.connections, before)


async def wait_until_closed(connections: Callable[[], Awaitable[int]], before: int) -> None:
    """Wait until no more connections are open than before; servers notice a close late."""
    async with asyncio.timeout(10):
        while await connections() > before:
            await asyncio.sleep(0.01)
