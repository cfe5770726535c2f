"""UDS3 on a PostgreSQL server: which tables, rows and ids are read, and what is an error instead."""

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import asyncpg
import orjson
import pytest

from shardline_common.errors import JobFailed, SourceUnavailable
from shardline_common.job.findings import Findings
from shardline_common.job.names import Layout
from shardline_common.memory.store import MemoryStore
from shardline_producer.plan import make_plan
from shardline_producer.sources.uds3.planned_store import ConfiguredStores, Uds3Store
from shardline_producer.sources.uds3.postgres.catalog import Catalog
from shardline_producer.sources.uds3.postgres.session import PostgresSession
from shardline_producer.sources.uds3.postgres.sql import DocumentSelection
from shardline_producer.sources.uds3.store_ports import DocumentBody
from tests.databases import Database
from tests.source_items import dead_letter_reasons, documents_of, item_ids
from tests.uds3_data import DictBodyStore, ListRanker, insert, make_uds3
from tests.uds3_reading import (
    open_source,
    over,
    plan_and_read,
    planned,
    run_and_read_rows,
    scan_items,
    uds3_job,
)

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
    for number, (type_name, ids, _) in enumerate(TYPES):
        values = ", ".join(f"('{one}', 'text of {one}')" for one in ids)
        await database.execute(
            f"CREATE TABLE of_type_{number} (document_id {type_name}, content text);"
            f"INSERT INTO of_type_{number} VALUES {values};"
            f"CREATE INDEX ON of_type_{number} (document_id)"
        )
    async with database.postgres.connect() as session:
        for number, (type_name, ids, others) in enumerate(TYPES):
            options = replace(database.options, table=f"of_type_{number}")
            schema = await Catalog(session._connection, options).schema()
            selection, expected = DocumentSelection(schema, {}), sorted(ids, key=str.encode)
            assert await listed(session, selection) == expected, type_name
            rows = await session.contents(selection, [*expected, others[0]], 1_000)
            texts = [(one.body, one.metadata_values()["title"]) for one in rows if one.body]
            assert texts == [(f"text of {one}", f"T {one}") for one in expected], type_name
            filtered = DocumentSelection(schema, {"title": f"T {ids[0]}"})
            assert await listed(session, filtered) == [ids[0]], type_name
            by_id = DocumentSelection(schema, {"document_id": [ids[-1], *others]})
            assert await listed(session, by_id) == [ids[-1]], type_name
            hits = [hit.id async for page in session.rank(selection, "text") for hit in page]
            assert hits == expected, type_name
            checked = await session.check_hits(selection, [*others, *ids, "\ud800", "\0"])
            known = [one for one, (is_known, _) in checked.items() if is_known and one not in every]
            assert known == [], type_name
            assert all(checked[one] == (True, True) for one in ids), type_name
    _, items = await plan_and_read(over(database, "of_type_7"))
    assert [one.text for one in documents_of(items)] == [f"text of {one}" for one in _UUIDS]


async def listed(session: PostgresSession, selection: DocumentSelection) -> list[str]:
    """The ids of a selection, page by page of one."""
    found: list[str] = []
    while page := await session.page(selection, found[-1] if found else None, 1, Findings()):
        found += [identity for identity, _ in page]
    return found


async def test_a_table_that_is_there_and_unfit_is_an_error(database: Database) -> None:
    await make_uds3(database)
    await insert(database, "uds3_master_documents", {"document_id": "of-master"})
    await database.execute("DROP TABLE documents, documents_metadata")
    for type_name in REFUSED:
        await database.execute(f"CREATE TABLE documents (document_id {type_name}, content text)")
        with pytest.raises(JobFailed, match="documents cannot be used: its column document_id is") as caught:
            await Uds3Store(uds3_job(), ConfiguredStores(database.postgres)).describe()
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


async def test_an_empty_table_beside_a_filled_one_is_no_empty_source(database: Database) -> None:
    await make_uds3(database)
    assert item_ids(await scan_items(database)) == []
    await insert(database, "uds3_master_documents", {"document_id": "m", "original_filename": "houses"})
    with pytest.raises(JobFailed, match="documents is empty, and uds3_master_documents has rows") as caught:
        await scan_items(database)
    assert "POSTGRES_TABLE" in (caught.value.hint or "")
    assert item_ids((await plan_and_read(over(database, "documents")))[1]) == []
    assert item_ids((await plan_and_read(over(database, "uds3_master_documents")))[1]) == ["m"]


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
        with pytest.raises(
            JobFailed, match="documents cannot be used: document_id, content cannot"
        ) as caught:
            await plan_and_read(over(database, **options))
        hint = caught.value.hint or ""
        assert f"GRANT SELECT ON public.documents TO {options['user']}" in hint
        assert "POSTGRES_TABLE" in hint
        _, items = await plan_and_read(over(database, "uds3_master_documents", **options))
        assert item_ids(items) == ["of-master"]
        # Its text would be that of another store, which may be older.
        await database.execute(f"GRANT SELECT (document_id) ON documents TO {options['user']}")
        with pytest.raises(JobFailed, match="documents cannot be used: content cannot be read"):
            await plan_and_read(over(database, **options))


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
        found = await listed(session, DocumentSelection(await session.schema(), {}))
    assert found == ["a", "b", "c", *(f"\0{key}" for key in keys)]


async def test_a_job_over_rows_without_an_id_proves_each_of_them(database: Database, tmp_path: Path) -> None:
    await database.execute(
        "CREATE TABLE documents (document_id text, content text)",
        "INSERT INTO documents VALUES (NULL, 'law'), (NULL, 'law'), ('a', 'law')",
    )
    spec, store = uds3_job(quality={"min_score": 0.0}), MemoryStore()
    rows = await run_and_read_rows(spec, database, tmp_path, store)
    assert [row["document_id"] for row in rows] == ["a"]
    manifest = orjson.loads(await store.get(Layout.of(spec).manifest))
    assert (manifest["source"]["count"], manifest["dead_letters"]) == (3, {"missing_id": 2})


async def test_a_session_that_lost_its_settings_is_not_read(database: Database) -> None:
    await database.execute("CREATE TABLE documents (document_id text, content text)")
    async with database.postgres.connect() as session:
        selection = DocumentSelection(await session.schema(), {})
        await session._connection.execute("RESET ALL")
        with pytest.raises(SourceUnavailable, match="forgot the settings") as caught:
            await session.page(selection, None, 10, Findings())
    assert "pool_mode" in (caught.value.hint or "")


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
            assert await session.page(selection, None, 10, Findings()) == [("a", True), ("b", True)]
            assert await session.page(selection, None, 1, Findings()) == [("a", True)]
            assert await session.page(selection, "a", 1, Findings()) == [("b", True)]


async def test_a_deferrable_constraint_is_no_proof_and_a_valid_index_is(database: Database) -> None:
    await database.execute(
        "CREATE TABLE documents (document_id text UNIQUE DEFERRABLE, content text)",
        "CREATE TABLE documents_metadata (document_id text UNIQUE, title text)",
        "CREATE TABLE uds3_master_documents (document_id text PRIMARY KEY) PARTITION BY HASH (document_id)",
    )
    async with database.postgres.connect() as session:
        assert [table.unique for table in (await session.schema()).tables] == [False, True, True]
        await database.execute(
            "ALTER TABLE uds3_master_documents DROP CONSTRAINT uds3_master_documents_pkey",
            "CREATE TABLE p PARTITION OF uds3_master_documents FOR VALUES WITH (MODULUS 1, REMAINDER 0)",
            "CREATE UNIQUE INDEX ON ONLY uds3_master_documents (document_id)",
        )
        assert [table.unique for table in (await session.schema()).tables] == [False, True, False]


async def test_rows_that_a_policy_hides_are_an_error(database: Database) -> None:
    await database.execute("CREATE TABLE documents (document_id text PRIMARY KEY, content text, owner text)")
    rules = "ALTER TABLE documents"
    rows = [{"document_id": f"d{n}", "content": "x", "owner": "ab"[n % 2]} for n in range(4)]
    await insert(database, "documents", *rows)
    await database.execute(
        "CREATE VIEW of_a AS SELECT * FROM documents WHERE owner = 'a'",
        f"{rules} ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY mine ON documents FOR SELECT USING (owner = 'a')",
    )
    async with reader_of(database, "SELECT ON documents, of_a") as options:
        user = options["user"]
        with pytest.raises(JobFailed, match="a policy of row-level security may hide rows of doc") as caught:
            await plan_and_read(over(database, **options))
        assert caught.value.code == "source_invalid"
        assert f"ALTER ROLE {user} BYPASSRLS" in (caught.value.hint or "")
        # A view reads with the rights of its owner, unless it is to read with those of the user.
        _, items = await plan_and_read(over(database, "of_a", **options))
        assert item_ids(items) == ["d0", "d2"]
        await database.execute("ALTER VIEW of_a SET (security_invoker = TRUE)")
        with pytest.raises(JobFailed, match="a policy of row-level security may hide rows of of_a"):
            await plan_and_read(over(database, "of_a", **options))
        await database.execute(f"ALTER ROLE {user} BYPASSRLS")
        _, items = await plan_and_read(over(database, **options))
        assert item_ids(items) == ["d0", "d1", "d2", "d3"]
        # A policy that comes while the job reads.
        await database.execute(f"ALTER ROLE {user} NOBYPASSRLS", f"{rules} DISABLE ROW LEVEL SECURITY")
        source, plan = await planned(over(database, **options))
        await database.execute(f"{rules} ENABLE ROW LEVEL SECURITY")
        with pytest.raises(JobFailed, match="row-level security"):
            _ = [batch async for batch in source.read(plan.frozen, None)]


async def test_collations_of_the_tables_may_differ(database: Database) -> None:
    await make_types(database)
    await database.execute(
        "CREATE TABLE documents (document_id text COLLATE folding PRIMARY KEY, content text,"
        ' classification text COLLATE folding, processing_status text COLLATE "tr-x-icu")',
        'CREATE TABLE documents_metadata (document_id text COLLATE "de-x-icu", title text COLLATE folding,'
        ' rechtsgebiet text COLLATE "de-x-icu")',
        'CREATE TABLE uds3_master_documents (document_id text COLLATE "C" PRIMARY KEY, content text)',
    )
    await insert(
        database,
        "documents",
        {"document_id": "a", "content": "law", "classification": "X"},
        {"document_id": "b", "content": "law", "classification": "x", "processing_status": "ARCHIVED"},
    )
    metadata = [{"document_id": one, "title": f"T {one}"} for one in ("A", "a", "B")]
    await insert(database, "documents_metadata", *metadata)
    await insert(database, "uds3_master_documents", {"document_id": "A", "content": "law of A"})
    found = documents_of(await scan_items(database))
    assert [(one.id, one.metadata["title"]) for one in found] == [("a", "T a")]
    assert item_ids(await scan_items(database, filters={"title": "T a"})) == ["a"]
    assert item_ids(await scan_items(database, filters={"title": "t a"})) == []
    assert item_ids(await scan_items(database, filters={"domain": "X"})) == ["a"]
    assert item_ids(await scan_items(database, filters={"domain": "x"})) == []
    assert item_ids(await scan_items(database, text="law", search_types=["keyword"])) == ["A", "a"]


async def test_ids_that_postgresql_cannot_hold_are_dead_letters(database: Database) -> None:
    await database.execute("CREATE TABLE documents (document_id text, content text)")
    await insert(database, "documents", {"document_id": "a", "content": "x"})
    ranker = ListRanker("vector", ["a", "with\0zero", "\0documents:null:1x", "b"])
    stores = ConfiguredStores(
        database.postgres, {"vector": ranker}, [DictBodyStore({"b": DocumentBody("of b")})]
    )
    _, items = await plan_and_read(stores, query={"text": "x", "search_types": ["vector"]})
    assert [(one.id, one.text) for one in documents_of(items)] == [("a", "x"), ("b", "of b")]
    assert sorted(dead_letter_reasons(items).values()) == ["bad_id", "bad_id"]
    assert len(items) == 4
