"""UDS3 on a real PostgreSQL: scans, full-text search, filters, deletions, faults and limits."""

import asyncio
import random
import secrets
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
import pytest

from common.clock import SystemClock
from common.errors import JobFailed, SourceUnavailable
from common.jobstate import Plan
from common.layout import Layout
from common.memory_store import MemoryStore
from common.metrics import Metrics
from common.models import JobSpec
from consumer.verify import Verifier
from deploy.dev.postgres import PASSWORD, USER
from deploy.dev.services import HOST, free_ports
from producer.parts import Limits
from producer.plan import make_plan
from producer.plan_parts import StoredParts
from producer.sources.planned import PlannedSource
from producer.sources.port import Broken, Document, Item
from producer.sources.query import passes
from producer.sources.uds3.postgres import Postgres
from producer.sources.uds3.store import Stores, Uds3Store
from shardline.embedded import Embedded
from shardline.wiring import source_factory
from tests.corpus import corpus_file, lines
from tests.databases import Database, local_postgres, own_database
from tests.make import job
from tests.uds3 import insert, load_corpus, make_uds3


def uds3_job(**changes: Any) -> JobSpec:
    return job(**({"job_id": "uds3", "name": "uds3", "source": {"type": "uds3"}} | changes))


def opened(stores: Stores, spec: JobSpec, store: MemoryStore | None = None) -> PlannedSource:
    return PlannedSource(spec, Uds3Store(spec, stores), StoredParts(store or MemoryStore(), ""))


async def read(stores: Stores, **changes: Any) -> tuple[Plan, list[Item]]:
    spec = uds3_job(**changes)
    source = opened(stores, spec)
    plan = await make_plan(spec, source)
    return plan, [item async for batch in source.read(plan.frozen, None) for item in batch]


async def scanned(database: Database, **query: Any) -> list[Item]:
    _, items = await read(Stores(database.postgres), query=query)
    return items


def names(items: Sequence[Item]) -> list[str]:
    return [item.content.id if isinstance(item.content, Document) else item.content.key for item in items]


def documents(items: Sequence[Item]) -> list[Document]:
    return [item.content for item in items if isinstance(item.content, Document)]


def dead(items: Sequence[Item]) -> dict[str, str]:
    return {one.content.key: one.content.dead.reason for one in items if isinstance(one.content, Broken)}


async def run(spec: JobSpec, database: Database, folder: Path, store: MemoryStore) -> list[dict[str, Any]]:
    """Run a job embedded, prove its dataset, and read its rows."""
    source = source_factory(database.settings, folder, confined=True, remote=None)
    embedded = Embedded(store, SystemClock(), Metrics(), source, Limits(progress_seconds=0.05), 1 << 30)
    view = (await embedded.run(spec, lambda _: None)).view
    assert view.state.state == "completed", view.to_json()
    report = await Verifier(store, Layout.of(spec).root).run()
    assert report.ok, report.problems
    found: list[dict[str, Any]] = []
    async for info in store.list(Layout.of(spec).root + "data/train/"):
        found += map(orjson.loads, (await store.get(info.key)).splitlines())
    return found


@pytest.mark.corpus
async def test_a_scan_gives_the_rows_of_the_same_documents_in_a_file(
    database: Database, tmp_path: Path
) -> None:
    corpus = lines(corpus_file(tmp_path))
    await load_corpus(database, corpus)
    columns = [name for name in corpus[0] if name not in ("document_id", "content", "score", "keywords")]
    shape = {
        "output": {"shard_bytes": 1 << 20},
        "format": {"metadata": columns},
        "quality": {"min_score": 0.3},
    }
    by_file = await run(
        job(source={"type": "files", "paths": ["laws.jsonl.zst"]}, **shape), database, tmp_path, MemoryStore()
    )
    store = MemoryStore()
    spec = uds3_job(**shape)
    by_table = await run(spec, database, tmp_path, store)
    assert len(by_table) == len(by_file) > 1000
    assert {row["source"] for row in by_table} == {"uds3_search"}
    expected = {row["document_id"]: row | {"source": "uds3_search"} for row in by_file}
    assert all(row == expected[row["document_id"]] for row in by_table)
    parts = [info.key async for info in store.list(Layout.of(spec).plan_parts)]
    assert 2 < len(parts) < 12
    manifest = orjson.loads(await store.get(Layout.of(spec).manifest))
    assert manifest["source"] == {"type": "uds3", "count": len(corpus)}
    assert list(manifest["schema"]["columns"]) == columns


async def test_declared_columns_are_those_of_the_tables(database: Database) -> None:
    await make_uds3(database)
    plan, items = await read(Stores(database.postgres))
    assert items == []
    assert list(plan.columns) == [
        *("title", "domain", "document_type", "rechtsgebiet", "behoerde", "file_path", "classification"),
        *("content_length", "legal_terms_count", "created_at", "quality_score", "processing_status"),
        *("uuid", "original_filename", "mime_type"),
    ]
    assert (plan.columns["content_length"], plan.columns["quality_score"]) == ("int", "float")


async def test_domain_is_the_legal_area_else_the_classification(database: Database) -> None:
    await make_uds3(database)
    await insert(
        database,
        "documents",
        {"document_id": "a", "content": "x", "classification": "class", "created_at": "2020"},
        {"document_id": "b", "content": "x", "classification": "class"},
        {"document_id": "c", "content": "x"},
    )
    await insert(database, "documents_metadata", {"document_id": "a", "rechtsgebiet": "area", "title": "T"})
    master = {"document_id": "a", "created_at": "2021-01-02T03:04:05+02:00", "metadata_json": {"k": [1]}}
    await insert(database, "uds3_master_documents", master)
    found = {one.id: one.metadata for one in documents(await scanned(database))}
    assert [found[name].get("domain") for name in "abc"] == ["area", "class", None]
    assert found["a"]["title"] == "T"
    assert found["a"]["created_at"] == "2020"
    assert found["a"]["metadata_json"] == {"k": [1]}
    assert names(await scanned(database, filters={"domain": "class"})) == ["b"]


MARKS: Mapping[str, dict[str, Any]] = {
    "deleted": {"deleted": True},
    "is_deleted": {"is_deleted": "1"},
    "deleted_at": {"deleted_at": "2020-01-01T00:00:00Z"},
    "failed": {"processing_status": "failed"},
    "archived": {"processing_status": "ARCHIVED"},
}


async def marked(database: Database) -> None:
    await make_uds3(database)
    await database.execute(
        "ALTER TABLE documents ADD deleted boolean, ADD is_deleted text, ADD deleted_at timestamptz"
    )
    await database.execute("ALTER TABLE uds3_master_documents ADD is_deleted boolean DEFAULT FALSE")
    rows = [{"document_id": name, "content": "law", **mark} for name, mark in MARKS.items()]
    live = {"document_id": "live", "content": "law", "deleted": False, "processing_status": "completed"}
    await insert(database, "documents", *rows, live, {"document_id": "by-master", "content": "law"})
    await insert(database, "uds3_master_documents", {"document_id": "by-master", "is_deleted": True})


async def test_what_is_marked_deleted_is_never_exported(database: Database) -> None:
    await marked(database)
    assert names(await scanned(database)) == ["live"]
    assert names(await scanned(database, filters={"domain": None})) == ["live"]
    only = {"text": "law", "search_types": ["keyword"]}
    assert names(await scanned(database, **only)) == ["live"]
    _, items = await read(Stores(database.postgres, archived=True))
    assert names(items) == ["archived", "live"]


async def test_marked_after_it_was_planned_it_is_a_dead_letter(database: Database) -> None:
    await marked(database)
    spec = uds3_job(query={"text": "law", "search_types": ["keyword"]})
    source = opened(Stores(database.postgres), spec)
    plan = await make_plan(spec, source)
    await database.execute("UPDATE documents SET deleted = TRUE WHERE document_id = 'live'")
    items = [item async for batch in source.read(plan.frozen, None) for item in batch]
    assert dead(items) == {"live": "vanished"}


FILTERS: list[dict[str, Any]] = [
    {"title": "T 3"},
    {"title": ["T 1", "T 5", None]},
    {"title": None},
    {"title": {"gte": "T 2", "lte": "T 4"}},
    {"title": {"gte": "é"}},
    {"title": 3},
    {"pages": 7},
    {"pages": 7.0},
    {"pages": {"gte": 5, "lte": 7.5}},
    {"pages": {"gte": "5"}},
    {"pages": (1 << 64) - 1},
    {"pages": {"lte": (1 << 64) - 1}},
    {"share": {"gte": 0.25}},
    {"share": 1},
    {"flag": True},
    {"flag": 1},
    {"document_id": ["d-3", "ä-4", "none"]},
    {"document_id": {"gte": "d-3"}},
    {"title": "'; DROP TABLE documents; --"},
    {"title": "T 3", "flag": False, "pages": {"gte": 2}},
    {"title": []},
]


@pytest.mark.parametrize("filters", FILTERS, ids=str)
async def test_a_filter_means_here_what_it_means_over_files(
    filtered: tuple[Database, list[Document]], filters: dict[str, Any]
) -> None:
    database, everything = filtered
    spec = uds3_job(query={"filters": filters})
    expected = sorted(one.id for one in everything if passes(one, spec.query.filters))
    assert names(await scanned(database, filters=filters)) == expected


@pytest.fixture(scope="module")
def filtered(postgres_server: Database) -> Iterator[tuple[Database, list[Document]]]:
    """A table that no test of this module changes."""
    database = replace(postgres_server, name=f"filtered_{secrets.token_hex(4)}")
    everything = [
        Document(
            f"{'dä'[n % 2]}-{n}",
            "x",
            {"pages": n, "flag": n % 3 == 0, "share": n / 8}
            | ({"title": ["T", "é"][n % 9 == 8] + f" {n % 7}"} if n % 5 else {}),
        )
        for n in range(40)
    ]

    async def fill() -> None:
        await postgres_server.execute(f"CREATE DATABASE {database.name}")
        rows = [{"document_id": one.id, "content": one.text, **one.metadata} for one in everything]
        await load_corpus(database, rows)

    asyncio.run(fill())
    yield database, everything
    asyncio.run(postgres_server.execute(f"DROP DATABASE {database.name} WITH (FORCE)"))


async def test_dates_compare_with_texts(database: Database) -> None:
    await database.execute(
        "CREATE TABLE documents (document_id text PRIMARY KEY, content text, at timestamptz, day date)"
    )
    rows = [
        {"document_id": f"d{n}", "content": "x", "at": f"2020-01-0{n}", "day": f"2020-01-0{n}"}
        for n in (1, 2, 3)
    ]
    await insert(database, "documents", *rows)
    assert names(await scanned(database, filters={"day": {"gte": "2020-01-02"}})) == ["d2", "d3"]
    assert names(await scanned(database, filters={"at": {"lte": "2020-01-02"}})) == ["d1", "d2"]
    assert names(await scanned(database, filters={"day": "2020-01-03"})) == ["d3"]
    found = documents(await scanned(database))[0].metadata
    assert found == {"at": "2020-01-01T00:00:00+00:00", "day": "2020-01-01"}
    with pytest.raises(JobFailed, match="yesterday"):
        await scanned(database, filters={"day": {"gte": "the day before yesterday"}})


async def test_the_order_is_that_of_bytes_whatever_the_database_sorts_by(postgres_server: Database) -> None:
    ids = ["a", "B", "ä", "Z", "a-1", "a1", "A", "é", "z", "ß", "10", "9", "\U0001f600", "\uffff"]
    found = []
    for locale in ("icu", "libc"):
        async with own_database(postgres_server, locale) as database:
            await load_corpus(database, [{"document_id": one, "content": one} for one in ids])
            found.append(names(await scanned(database)))
    assert found[0] == found[1] == sorted(ids, key=str.encode)


async def test_a_search_is_ranked_as_the_database_ranks_it(database: Database, tmp_path: Path) -> None:
    await make_uds3(database)
    corpus = lines(corpus_file(tmp_path))[:3000]
    rows = [(one["document_id"], one["content"], one.get("domain")) for one in corpus]
    await database.load("documents", ("document_id", "content", "classification"), rows)
    text = "Antrag der Behörde"
    found = await database.fetch(
        "SELECT document_id, ts_rank_cd(search_vector, plainto_tsquery('german', $1), 32) AS rank"
        " FROM documents WHERE search_vector @@ plainto_tsquery('german', $1)",
        text,
    )
    order = sorted(found, key=lambda row: (-row["rank"], row["document_id"].encode()))
    expected = [row["document_id"] for row in order]
    assert len(expected) > 20
    search = {"text": text, "search_types": ["relational"], "weights": {"keyword": 1.0, "vector": 1.0}}
    plan, items = await read(Stores(database.postgres), query=search)
    assert names(items) == expected
    assert plan.notes == {"searches": ["keyword"], "left_out": [], "degraded": []}
    assert [one.relevance for one in documents(items)] == [
        0.5 / (60 + rank) for rank in range(1, len(items) + 1)
    ]
    for most in (1, 7, len(expected)):
        assert names(await scanned(database, **search, top_k=most)) == expected[:most]
    texts = {one["document_id"]: one["content"] for one in corpus}
    assert all(one.text == texts[one.id] for one in documents(items))
    _, normal = await read(Stores(database.postgres), query=search, quality={"relevance": "normalized"})
    assert [one.relevance for one in documents(normal)][:2] == [1.0, 61 / 62]


async def test_the_configuration_is_that_of_the_table(database: Database) -> None:
    await make_uds3(database)
    await insert(database, "documents", {"document_id": "d", "content": "Die Häuser der Gemeinden"})
    await insert(database, "uds3_master_documents", {"document_id": "m", "original_filename": "houses.pdf"})
    await database.execute(
        "UPDATE uds3_master_documents SET search_vector = to_tsvector('english', 'houses')"
    )

    async def found(text: str) -> list[str]:
        return names(await scanned(database, text=text, search_types=["keyword"]))

    assert await found("Haus") == ["d"]
    assert await found("house") == ["m"]


async def test_without_a_vector_the_text_is_searched_all_the_same(database: Database) -> None:
    await load_corpus(
        database, [{"document_id": f"d{n}", "content": "Baurecht " * n + "Dach"} for n in range(4)]
    )
    found = await scanned(database, text="Baurecht", search_types=["keyword"])
    assert sorted(names(found)) == ["d1", "d2", "d3"]


async def test_several_rows_of_metadata_do_not_make_several_documents(database: Database) -> None:
    await make_uds3(database)
    await database.execute("ALTER TABLE documents_metadata DROP CONSTRAINT documents_metadata_pkey")
    await insert(database, "documents", {"document_id": "a", "content": "law"})
    rows = [{"document_id": "a", "title": title} for title in ("Z", "B")]
    await insert(database, "documents_metadata", *rows)
    found = documents(await scanned(database))
    assert [(one.id, one.metadata["title"]) for one in found] == [("a", "B")]
    assert names(await scanned(database, text="law", search_types=["keyword"])) == ["a"]


async def test_another_table_a_view_and_what_is_not_there(database: Database) -> None:
    await make_uds3(database)
    await insert(database, "documents", {"document_id": "a", "content": "x"})
    await insert(database, "uds3_master_documents", {"document_id": "m"})
    await database.execute("CREATE VIEW chosen AS SELECT document_id, content FROM documents")

    async def over(table: str) -> list[str]:
        _, items = await read(Stores(Postgres(replace(database.options, table=table))))
        return names(items)

    assert await over("chosen") == ["a"]
    assert await over("uds3_master_documents") == ["m"]
    with pytest.raises(JobFailed, match="no table nowhere"):
        await over("nowhere")
    with pytest.raises(JobFailed, match=r"no field 'colour'; it has behoerde, .*title"):
        await scanned(database, filters={"colour": "red"})
    with pytest.raises(JobFailed, match="PostgreSQL, which is not configured"):
        await read(Stores())


async def test_a_text_too_large_stays_in_the_database(database: Database) -> None:
    huge = "ä" * (10 << 20)
    await load_corpus(
        database, [{"document_id": name, "content": text} for name, text in (("a", huge), ("b", "x"))]
    )
    spec = uds3_job(max_document_bytes=65_536)
    source = opened(Stores(database.postgres), spec)
    plan = await make_plan(spec, source)
    tracemalloc.start()
    try:
        items = [item async for batch in source.read(plan.frozen, None) for item in batch]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    first = items[0].content
    assert isinstance(first, Broken)
    raw = huge.encode()
    assert (first.dead.reason, first.dead.size) == ("too_large", len(raw))
    assert first.dead.sha256 == sha256(raw).hexdigest()
    assert raw.startswith(first.dead.original)
    assert names(items) == ["a", "b"]
    assert peak < 4 << 20


async def test_a_body_in_no_store_is_a_dead_letter(database: Database) -> None:
    await make_uds3(database)
    await insert(database, "documents", {"document_id": "a"}, {"document_id": "b", "content": ""})
    items = await scanned(database)
    assert dead(items) == {"a": "no_content"}
    assert [one.text for one in documents(items)] == [""]


async def test_ids_that_cannot_be_a_rows_are_dead_letters(database: Database) -> None:
    ids = ["", "new\nline", "x" * 2000, "good"]
    await load_corpus(database, [{"document_id": one, "content": "x"} for one in ids])
    items = await scanned(database)
    assert sorted(dead(items).values()) == ["bad_id"] * 3
    assert [one.id for one in documents(items)] == ["good"]


async def test_select_is_enough_and_nothing_can_be_written(database: Database) -> None:
    await make_uds3(database)
    await insert(database, "documents", {"document_id": "a", "content": "law"})
    reader = f"reader_{secrets.token_hex(4)}"
    await database.execute(
        f"CREATE ROLE {reader} LOGIN PASSWORD 'reader'", f"GRANT SELECT ON documents TO {reader}"
    )
    options = replace(database.options, user=reader, password="reader")  # noqa: S106 - of this test
    _, items = await read(Stores(Postgres(options)), query={"text": "law", "search_types": ["keyword"]})
    assert names(items) == ["a"]
    async with database.postgres.connect() as session:
        with pytest.raises(Exception, match="read-only"):
            await session._connection.execute("DELETE FROM public.documents")
    await database.execute(f"REVOKE ALL ON documents FROM {reader}")
    with pytest.raises(JobFailed, match="cannot be read") as caught:
        await read(Stores(Postgres(options)))
    assert "GRANT SELECT" in (caught.value.hint or "")
    await database.execute(f"DROP ROLE {reader}")


async def test_some_columns_are_enough_but_for_those_that_tell_what_is_deleted(database: Database) -> None:
    await marked(database)
    reader = f"reader_{secrets.token_hex(4)}"
    await database.execute(
        f"CREATE ROLE {reader} LOGIN PASSWORD 'reader'",
        f"GRANT SELECT (document_id, content, processing_status) ON documents TO {reader}",
    )
    options = replace(database.options, user=reader, password="reader")  # noqa: S106 - of this test
    with pytest.raises(JobFailed, match=r"documents \(deleted, is_deleted, deleted_at\) tells which"):
        await read(Stores(Postgres(options)))
    await database.execute(f"GRANT SELECT (deleted, is_deleted, deleted_at) ON documents TO {reader}")
    with pytest.raises(JobFailed, match=r"uds3_master_documents \(is_deleted\) tells which"):
        await read(Stores(Postgres(options)))
    await database.execute(f"GRANT SELECT (document_id, is_deleted) ON uds3_master_documents TO {reader}")
    plan, items = await read(Stores(Postgres(options)))
    assert names(items) == ["live"]
    assert list(plan.columns) == ["processing_status"]
    await database.execute(f"DROP OWNED BY {reader}", f"DROP ROLE {reader}")


WRONG: list[tuple[Callable[[Database], Database], type[Exception], str]] = [
    (lambda one: replace(one, password="secret-wrong"), JobFailed, "password authentication failed"),  # noqa: S106
    (lambda one: replace(one, name="nowhere"), JobFailed, '"nowhere" does not exist'),
    (lambda one: replace(one, port=free_ports(1)[0]), SourceUnavailable, "is away"),
]


@pytest.mark.parametrize(("change", "kind", "said"), WRONG, ids=["password", "database", "port"])
async def test_what_is_wrong_for_good_and_what_is_only_away(
    database: Database, change: Callable[[Database], Database], kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said) as caught:
        await scanned(change(database))
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(change(database).options)


async def test_a_statement_that_takes_too_long_is_given_up(database: Database) -> None:
    await load_corpus(database, [{"document_id": "a", "content": "x"}])
    slow = Postgres(replace(database.options, statement_seconds=0.2))
    async with database.admin() as connection, connection.transaction():
        await connection.execute("LOCK TABLE documents IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(SourceUnavailable, match="timeout"):
            await read(Stores(slow))
    assert await database.readers() == 0


async def test_a_table_that_changed_its_shape_fails_the_job(database: Database) -> None:
    await load_corpus(database, [{"document_id": "a", "content": "x", "title": "t", "law": "l"}])
    spec = uds3_job()
    source = opened(Stores(database.postgres), spec)
    plan = await make_plan(spec, source)
    await database.execute("ALTER TABLE documents DROP COLUMN law")
    with pytest.raises(JobFailed) as caught:
        _ = [batch async for batch in source.read(plan.frozen, None)]
    assert caught.value.code == "source_changed"


async def test_stopped_anywhere_it_ends_with_the_same_digest(database: Database, tmp_path: Path) -> None:
    rows = [
        {"document_id": f"d{n:05d}", "content": "law " * (200 + n % 300), "title": f"T{n}"}
        for n in range(6_000)
    ]
    await load_corpus(database, rows)
    spec = uds3_job(output={"shard_bytes": 65_536})
    expected = await digest(spec, database, tmp_path, MemoryStore())
    store = MemoryStore()
    dice = random.Random(7)
    for _ in range(4):
        chained = await chain_length(store, spec)
        running = asyncio.create_task(run(spec, database, tmp_path, store))
        while not running.done() and await chain_length(store, spec) < chained + dice.randint(1, 12):
            await asyncio.sleep(0.002)
        # A cancel here is the death of producer and worker: nothing but the store outlives them.
        assert running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    await database.execute("DELETE FROM documents WHERE document_id < 'd00100'")
    assert await digest(spec, database, tmp_path, store) == expected


async def chain_length(store: MemoryStore, spec: JobSpec) -> int:
    return len([info async for info in store.list(f"{Layout.of(spec).root}_state/chain/")])


async def digest(spec: JobSpec, database: Database, folder: Path, store: MemoryStore) -> str:
    await run(spec, database, folder, store)
    return (await Verifier(store, Layout.of(spec).root).run()).digest


async def test_a_server_that_goes_away_and_comes_back(tmp_path: Path) -> None:
    with local_postgres(tmp_path / "own") as server:
        database = Database(HOST, server.ports["sql"], USER, PASSWORD)
        rows = [{"document_id": f"d{n:05d}", "content": "law " * 200, "title": "T"} for n in range(3_000)]
        await load_corpus(database, rows)
        spec = uds3_job(output={"shard_bytes": 65_536}, quality={"min_score": 0.3})
        store = MemoryStore()
        running = asyncio.create_task(run(spec, database, tmp_path, store))
        while await chain_length(store, spec) < 3:
            await asyncio.sleep(0.002)
        await asyncio.to_thread(server.stop, kill=True)
        await asyncio.to_thread(server.start)
        assert len(await running) == 3_000


async def test_certificates_are_verified_where_it_is_asked_for(tmp_path: Path) -> None:
    with (
        local_postgres(tmp_path / "one", tls=True) as server,
        local_postgres(tmp_path / "other", tls=True) as other,
    ):
        database = Database(HOST, server.ports["sql"], USER, PASSWORD)
        await load_corpus(database, [{"document_id": "a", "content": "x"}])

        async def read_by(mode: str, ca: Path | None) -> bool:
            options = replace(database.options, sslmode=mode, sslrootcert=str(ca) if ca else None)
            async with Postgres(options).connect() as session:
                query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
                return bool(await session._connection.fetchval(query))

        own = server.certificate
        assert [await read_by(mode, own) for mode in ("verify-full", "verify-ca", "require")] == [True] * 3
        assert [await read_by(mode, None) for mode in ("prefer", "disable")] == [True, False]
        for mode, ca in (("verify-full", other.certificate), ("verify-ca", None)):
            with pytest.raises(JobFailed, match="certificate verify failed"):
                await read_by(mode, ca)
        missing = replace(database.options, sslmode="verify-full", sslrootcert=str(tmp_path / "none.pem"))
        with pytest.raises(JobFailed, match="POSTGRES_SSLROOTCERT"):
            await read(Stores(Postgres(missing)))
