"""UDS3 on a PostgreSQL server: which tables, rows and ids are read, and what is an error instead."""

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from shardline_common.errors import JobFailed
from shardline_common.memory.store import MemoryStore
from shardline_producer.plan import make_plan
from shardline_producer.sources.uds3.planned_store import ConfiguredStores
from shardline_producer.sources.uds3.postgres.connection import Postgres
from shardline_producer.sources.uds3.postgres.sql import DocumentSelection
from tests.databases import Database
from tests.source_items import dead_letter_reasons, documents_of, item_ids
from tests.uds3_data import insert, make_uds3
from tests.uds3_reading import open_source, plan_and_read, scan_items, uds3_job

_UUIDS = ("0a1b2c3d-0000-4000-8000-00000000000a", "f0000000-0000-4000-8000-000000000001")
# Type → ids in byte order, and ids that are equal to one of them by the type and are no ids of the table.
TYPES: Sequence[tuple[str, Sequence[str], Sequence[str]]] = [
    ("text", ["A", "a", "ä"], ["b"]),
    ("varchar(5)", ["A", "a"], ["b"]),
    ("char(5)", ["A", "a", "ab"], ["ab   "]),
    ("name", ["A", "a"], ["b"]),
    ("citext", ["A", "a", "b"], ["B"]),
    ("text COLLATE folding", ["A", "a", "b"], ["B"]),
    ("kind", ["first", "second"], ["third"]),
    ("uuid", list(_UUIDS), [_UUIDS[0].upper(), "none", "{" + _UUIDS[1] + "}"]),
    ("smallint", ["-3", "10", "9"], ["010", " 9", "x"]),
    ("integer", ["-3", "10", "9"], ["9.0"]),
    ("bigint", ["-9223372036854775808", "1", "9223372036854775807"], ["9223372036854775808", "01"]),
    ("numeric", ["1", "1.50", "NaN"], ["1.5", "1.0", "x"]),
    ("a_uuid", list(_UUIDS), [_UUIDS[0].upper()]),
    ("a_word", ["A", "a"], ["b"]),
    ("a_folded", ["A", "a"], ["b"]),
    ("a_number", ["10", "9"], ["09"]),
]
REFUSED = ["bytea", "boolean", "timestamptz", "date", "jsonb", "double precision", "real", "money", "int[]"]


def over(database: Database, table: str | None = None, **changes: Any) -> ConfiguredStores:
    """The stores of a database, with options changed."""
    return ConfiguredStores(Postgres(replace(database.options, table=table, **changes)))


async def make_types(database: Database) -> None:
    await database.execute(
        "CREATE EXTENSION IF NOT EXISTS citext",
        "CREATE COLLATION folding (provider = icu, locale = 'und-u-ks-level2', deterministic = FALSE)",
        "CREATE TYPE kind AS ENUM ('second', 'first')",
        "CREATE DOMAIN a_uuid AS uuid",
        "CREATE DOMAIN a_word AS varchar(9)",
        "CREATE DOMAIN inner_folded AS citext",
        "CREATE DOMAIN a_folded AS inner_folded",
        "CREATE DOMAIN a_number AS int CHECK (VALUE > 0)",
    )


async def test_ids_of_every_type_are_compared_by_the_bytes_of_their_text(database: Database) -> None:
    await make_types(database)
    await database.execute('CREATE TABLE documents_metadata (document_id text COLLATE "C", title text)')
    every = sorted({one for _, ids, _ in TYPES for one in ids})
    await database.load("documents_metadata", ("document_id", "title"), [(one, f"T {one}") for one in every])
    for number, (type_name, ids, others) in enumerate(TYPES):
        name = f"of_type_{number}"
        await database.execute(f"CREATE TABLE {name} (document_id {type_name}, content text)")
        for one in ids:
            await database.execute(f"INSERT INTO {name} VALUES ('{one}', 'text of {one}')")
        await database.execute(f"CREATE INDEX ON {name} (document_id)")
        stores = over(database, name)
        _, items = await plan_and_read(stores)
        expected = sorted(ids, key=str.encode)
        assert item_ids(items) == expected, type_name
        texts = [(one.text, one.metadata["title"]) for one in documents_of(items)]
        assert texts == [(f"text of {one}", f"T {one}") for one in expected], type_name
        found = await plan_and_read(stores, query={"filters": {"title": f"T {ids[0]}"}})
        assert item_ids(found[1]) == [ids[0]], type_name
        found = await plan_and_read(stores, query={"text": "text", "search_types": ["keyword"]})
        assert sorted(item_ids(found[1])) == sorted(ids), type_name
        assert stores.postgres is not None
        async with stores.postgres.connect() as session:
            selection = DocumentSelection(await session.schema(), {})
            after: list[str] = []
            while page := await session.page(selection, after[-1] if after else None, 1):
                after += [identity for identity, _ in page]
            assert after == expected, type_name
            checked = await session.check_hits(selection, [*others, *ids, "\ud800", "\0"])
        known = [one for one, (is_known, _) in checked.items() if is_known and one not in every]
        assert known == [], type_name
        assert all(checked[one] == (True, True) for one in ids), type_name


async def test_a_table_that_is_there_and_unfit_is_an_error(database: Database) -> None:
    await make_uds3(database)
    await insert(database, "uds3_master_documents", {"document_id": "of-master"})
    await database.execute("DROP TABLE documents, documents_metadata")
    for type_name in REFUSED:
        await database.execute(f"CREATE TABLE documents (document_id {type_name}, content text)")
        with pytest.raises(
            JobFailed, match="documents cannot be used: its column document_id is of"
        ) as caught:
            await scan_items(database)
        assert caught.value.code == "source_invalid"
        assert "POSTGRES_TABLE" in (caught.value.hint or "")
        await database.execute("DROP TABLE documents")
    await database.execute("CREATE TABLE documents (id int, content text, deleted boolean)")
    with pytest.raises(JobFailed, match="documents cannot be used: it has no column document_id"):
        await scan_items(database)
    # The cure of the hint: a view of it, beside which the unfit table is not an error.
    await database.execute(
        "CREATE VIEW mine AS SELECT 'd' || id AS document_id, content, deleted FROM documents",
        "INSERT INTO documents VALUES (1, 'x', NULL), (2, 'x', TRUE)",
    )
    _, items = await plan_and_read(over(database, "mine"))
    assert item_ids(items) == ["d1"]
    # A table beside the main one: its metadata would be missing.
    await database.execute("DROP TABLE documents CASCADE", "CREATE TABLE documents_metadata (id int)")
    await database.execute("CREATE TABLE documents (document_id text, content text)")
    with pytest.raises(JobFailed, match="documents_metadata cannot be used: it has no column document_id"):
        await scan_items(database)


@asynccontextmanager
async def reader_of(database: Database, *grants: str) -> AsyncIterator[dict[str, str]]:
    """A role that may do what `grants` say, and nothing else. Yields the options of its connections."""
    reader = f"reader_{secrets.token_hex(4)}"
    await database.execute(f"CREATE ROLE {reader} LOGIN PASSWORD 'reader'")
    await database.execute(*(f"GRANT {grant} TO {reader}" for grant in grants))
    yield {"user": reader, "password": "reader"}
    await database.execute(f"DROP OWNED BY {reader}", f"DROP ROLE {reader}")


async def test_a_table_that_may_not_be_read_is_not_passed_over(database: Database) -> None:
    await database.execute("CREATE TABLE documents (document_id text, content text)")
    await database.execute("CREATE TABLE uds3_master_documents (document_id text, content text)")
    await insert(database, "uds3_master_documents", {"document_id": "of-master", "content": "x"})
    async with reader_of(database, "SELECT ON uds3_master_documents") as options:
        with pytest.raises(JobFailed, match="documents cannot be used: document_id cannot be read") as caught:
            await plan_and_read(over(database, **options))
        hint = caught.value.hint or ""
        assert f"GRANT SELECT ON public.documents TO {options['user']}" in hint
        assert "POSTGRES_TABLE" in hint
        _, items = await plan_and_read(over(database, "uds3_master_documents", **options))
        assert item_ids(items) == ["of-master"]


async def test_rows_without_an_id_are_dead_letters_with_the_same_keys_in_every_read(
    database: Database,
) -> None:
    await database.execute(
        "CREATE TABLE documents (document_id text, content text, deleted boolean, title text)",
        "CREATE TABLE documents_metadata (document_id text, document_type text)",
        "INSERT INTO documents (document_id, content) VALUES"
        " (NULL, 'law'), ('b', 'law'), (NULL, 'law'), ('a', 'x'), (NULL, 'x')",
        "INSERT INTO documents (content, deleted) VALUES ('law', TRUE)",
        "INSERT INTO documents (document_id, content, title) VALUES (NULL, 'law', 'T'), ('c', 'law', 'T')",
        "INSERT INTO documents_metadata VALUES (NULL, 'law'), (NULL, 'law'), ('a', 'decree')",
    )
    spec, store = uds3_job(), MemoryStore()
    source = open_source(ConfiguredStores(database.postgres), spec, store)
    plan = await make_plan(spec, source)
    items = [item async for batch in source.read(plan.frozen, None) for item in batch]
    keys = [f"documents:null:{number}" for number in range(1, 5)]
    assert item_ids(items) == ["a", "b", "c", *keys]
    assert dead_letter_reasons(items) == dict.fromkeys(keys, "missing_id")
    assert [item.position for item in items] == [(number,) for number in range(1, 8)]
    for item in items:
        again = open_source(ConfiguredStores(database.postgres), spec, store)
        rest = [one async for batch in again.read(plan.frozen, item.position) for one in batch]
        assert item_ids(rest) == item_ids(items)[item.position[0] :]
    assert item_ids(await scan_items(database)) == item_ids(items)
    assert item_ids(await scan_items(database, top_k=5)) == item_ids(items)[:5]
    assert item_ids(await scan_items(database, filters={"title": "T"})) == ["c", "documents:null:1"]
    assert item_ids(await scan_items(database, filters={"document_id": "a"})) == ["a"]
    assert item_ids(await scan_items(database, filters={"document_type": "law"})) == []
    search = {"text": "law", "search_types": ["keyword"]}
    assert item_ids(await scan_items(database, **search)) == ["b", "c", *keys[:3]]
    assert item_ids(await scan_items(database, **search, filters={"title": "T"})) == ["c", keys[0]]
    # Pages of one entry, as a plan whose pages end anywhere.
    async with database.postgres.connect() as session:
        selection = DocumentSelection(await session.schema(), {})
        listed: list[str] = []
        while page := await session.page(selection, listed[-1] if listed else None, 1):
            listed += [identity for identity, _ in page]
    assert listed == ["a", "b", "c", *(f"\0{key}" for key in keys)]


NO_PROOF = [
    "CREATE UNIQUE INDEX ON documents (document_id) WHERE content = 'one'",
    "CREATE UNIQUE INDEX ON documents ((document_id || content))",
    "CREATE UNIQUE INDEX ON documents (document_id, content)",
    "CREATE UNIQUE INDEX CONCURRENTLY left_invalid ON documents (document_id)",
]


async def test_an_id_in_two_rows_is_read_once_whatever_an_index_says(database: Database) -> None:
    rows = [{"document_id": name, "content": text} for name in "ab" for text in ("one", "two")]
    await database.execute("CREATE TABLE documents (document_id text, content text)")
    await insert(database, "documents", *rows)
    await check_read_once(database)
    for statement in NO_PROOF:
        # The last one fails and leaves an invalid index.
        with suppress(asyncpg.UniqueViolationError):
            await database.execute(statement)
    assert await database.fetch("SELECT FROM pg_index WHERE NOT indisvalid")
    await check_read_once(database)
    await database.execute(
        "DROP TABLE documents",
        "CREATE TABLE documents (document_id text UNIQUE, content text)",
        "CREATE TABLE child () INHERITS (documents)",
    )
    await insert(database, "documents", rows[0], rows[2])
    await insert(database, "child", rows[1], rows[3])
    await check_read_once(database)


async def check_read_once(database: Database) -> None:
    items = await scan_items(database)
    assert [(one.id, one.text) for one in documents_of(items)] == [("a", "one"), ("b", "one")]
    assert item_ids(await scan_items(database, filters={"document_id": ["a", "b"]})) == ["a", "b"]
    assert item_ids(await scan_items(database, text="one", search_types=["keyword"])) == ["a", "b"]
    async with database.postgres.connect() as session:
        schema = await session.schema()
        assert not schema.tables[0].unique
        # The listing finds repeats also where an index is broken and nothing says so.
        believed = replace(schema, tables=(replace(schema.tables[0], unique=True),))
        for filters in ({}, {"document_id": ["a", "b"]}):
            selection = DocumentSelection(believed, filters)
            assert await session.page(selection, None, 10) == [("a", True), ("b", True)]
            assert await session.page(selection, None, 1) == [("a", True)]
            assert await session.page(selection, "a", 1) == [("b", True)]


async def test_a_deferrable_constraint_is_no_proof_and_a_valid_index_is(database: Database) -> None:
    await database.execute(
        "CREATE TABLE documents (document_id text UNIQUE DEFERRABLE, content text)",
        "CREATE TABLE documents_metadata (document_id text UNIQUE, title text)",
        "CREATE TABLE uds3_master_documents (document_id text PRIMARY KEY) PARTITION BY HASH (document_id)",
    )
    async with database.postgres.connect() as session:
        assert [table.unique for table in (await session.schema()).tables] == [False, True, True]
