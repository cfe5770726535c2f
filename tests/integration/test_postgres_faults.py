"""UDS3 on a PostgreSQL server: privileges, errors, time-outs, restarts and TLS."""

import asyncio
import random
import secrets
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.dev.postgres import PASSWORD, USER
from deploy.dev.service import HOST, free_ports
from shardline_common.dataset.verify import Verifier
from shardline_common.errors import JobFailed, SourceUnavailable
from shardline_common.job.names import Layout
from shardline_common.job.spec import JobSpec
from shardline_common.memory.store import MemoryStore
from shardline_producer.plan import make_plan
from shardline_producer.sources.uds3.planned_store import ConfiguredStores
from shardline_producer.sources.uds3.postgres.connection import Postgres
from tests.databases import Database, local_postgres
from tests.source_items import item_ids
from tests.uds3_data import insert, load_corpus, make_uds3
from tests.uds3_reading import open_source, plan_and_read, run_and_read_rows, scan_items, uds3_job


async def test_select_is_the_only_privilege_needed_and_writes_fail(database: Database) -> None:
    await make_uds3(database)
    await insert(database, "documents", {"document_id": "a", "content": "law"})
    reader = f"reader_{secrets.token_hex(4)}"
    await database.execute(
        f"CREATE ROLE {reader} LOGIN PASSWORD 'reader'", f"GRANT SELECT ON documents TO {reader}"
    )
    options = replace(database.options, user=reader, password="reader")  # noqa: S106 - of this test
    _, items = await plan_and_read(
        ConfiguredStores(Postgres(options)), query={"text": "law", "search_types": ["keyword"]}
    )
    assert item_ids(items) == ["a"]
    async with database.postgres.connect() as session:
        with pytest.raises(Exception, match="read-only"):
            await session._connection.execute("DELETE FROM public.documents")
    await database.execute(f"REVOKE ALL ON documents FROM {reader}")
    with pytest.raises(JobFailed, match="cannot be read") as caught:
        await plan_and_read(ConfiguredStores(Postgres(options)))
    assert "GRANT SELECT" in (caught.value.hint or "")
    await database.execute(f"DROP ROLE {reader}")


ERRORS: list[tuple[Callable[[Database], Database], type[Exception], str]] = [
    (lambda one: replace(one, password="secret-wrong"), JobFailed, "password authentication failed"),  # noqa: S106
    (lambda one: replace(one, name="nowhere"), JobFailed, '"nowhere" does not exist'),
    (lambda one: replace(one, port=free_ports(1)[0]), SourceUnavailable, "is unavailable"),
]


@pytest.mark.parametrize(("change", "kind", "message"), ERRORS, ids=["password", "database", "port"])
async def test_permanent_and_transient_errors_are_told_apart(
    database: Database, change: Callable[[Database], Database], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        await scan_items(change(database))
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(change(database).options)


async def test_a_statement_over_its_timeout_is_a_transient_error(database: Database) -> None:
    await load_corpus(database, [{"document_id": "a", "content": "x"}])
    slow = Postgres(replace(database.options, statement_seconds=0.2))
    async with database.admin() as connection, connection.transaction():
        await connection.execute("LOCK TABLE documents IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(SourceUnavailable, match="timeout"):
            await plan_and_read(ConfiguredStores(slow))
    async with asyncio.timeout(10):
        while await database.readers():
            await asyncio.sleep(0.01)


async def test_a_column_dropped_after_planning_fails_the_job(database: Database) -> None:
    await load_corpus(database, [{"document_id": "a", "content": "x", "title": "t", "law": "l"}])
    spec = uds3_job()
    source = open_source(ConfiguredStores(database.postgres), spec)
    plan = await make_plan(spec, source)
    await database.execute("ALTER TABLE documents DROP COLUMN law")
    with pytest.raises(JobFailed) as caught:
        _ = [batch async for batch in source.read(plan.frozen, None)]
    assert caught.value.code == "source_changed"


async def test_a_job_cancelled_at_random_points_has_the_same_digest(
    database: Database, tmp_path: Path
) -> None:
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
        running = asyncio.create_task(run_and_read_rows(spec, database, tmp_path, store))
        while not running.done() and await chain_length(store, spec) < chained + dice.randint(1, 12):
            await asyncio.sleep(0.002)
        # A cancellation here is a crash of producer and worker: only the store keeps its state.
        assert running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    await database.execute("DELETE FROM documents WHERE document_id < 'd00100'")
    assert await digest(spec, database, tmp_path, store) == expected


async def chain_length(store: MemoryStore, spec: JobSpec) -> int:
    return len([info async for info in store.list(f"{Layout.of(spec).root}_state/chain/")])


async def digest(spec: JobSpec, database: Database, folder: Path, store: MemoryStore) -> str:
    await run_and_read_rows(spec, database, folder, store)
    return (await Verifier(store, Layout.of(spec).root).run()).digest


async def test_a_job_survives_a_restart_of_the_server(tmp_path: Path) -> None:
    with local_postgres(tmp_path / "own") as server:
        database = Database(HOST, server.ports["sql"], USER, PASSWORD)
        rows = [{"document_id": f"d{n:05d}", "content": "law " * 200, "title": "T"} for n in range(3_000)]
        await load_corpus(database, rows)
        spec = uds3_job(output={"shard_bytes": 65_536}, quality={"min_score": 0.3})
        store = MemoryStore()
        running = asyncio.create_task(run_and_read_rows(spec, database, tmp_path, store))
        while await chain_length(store, spec) < 3:
            await asyncio.sleep(0.002)
        await asyncio.to_thread(server.stop, kill=True)
        await asyncio.to_thread(server.start)
        assert len(await running) == 3_000


async def test_certificates_are_verified_by_sslmode(tmp_path: Path) -> None:
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
            await plan_and_read(ConfiguredStores(Postgres(missing)))


async def test_permanent_refusals_name_the_database_and_the_cure(database: Database) -> None:
    await load_corpus(database, [{"document_id": "a", "content": "x"}])
    for changes, message, hint in (
        ({"sslmode": "require"}, "SSL", "POSTGRES_SSLMODE"),
        ({"sslmode": "verify-full"}, "SSL", "POSTGRES_SSLMODE"),
        ({"table": "nowhere"}, "nowhere", "POSTGRES_TABLE"),
        ({"schema": "nowhere"}, "nowhere", ""),
    ):
        stores = ConfiguredStores(Postgres(replace(database.options, **changes)))  # type: ignore[arg-type]
        with pytest.raises(JobFailed, match=message) as caught:
            await plan_and_read(stores)
        assert caught.value.code == "source_invalid"
        assert database.name in str(caught.value)
        assert hint in (caught.value.hint or "")


async def test_a_user_without_a_free_connection_is_waited_for(database: Database) -> None:
    reader = f"reader_{secrets.token_hex(4)}"
    await database.execute(f"CREATE ROLE {reader} LOGIN PASSWORD 'reader' CONNECTION LIMIT 0")
    options = replace(database.options, user=reader, password="reader")  # noqa: S106 - of this test
    with pytest.raises(SourceUnavailable, match="too many connections"):
        await plan_and_read(ConfiguredStores(Postgres(options)))
    await database.execute(f"DROP ROLE {reader}")
