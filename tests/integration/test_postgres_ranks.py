"""The first hits of a keyword search on PostgreSQL: read at once, in the order and the snapshot of all."""

import asyncio
from contextlib import aclosing

import pytest

from shardline_producer.sources.uds3.postgres import ranked_hits, sql
from shardline_producer.sources.uds3.postgres.session import PostgresSession
from shardline_producer.sources.uds3.postgres.sql import DocumentSelection
from shardline_producer.sources.uds3.store_ports import Hit
from tests.databases import Database

VECTOR = "search_vector tsvector GENERATED ALWAYS AS (to_tsvector('german', content)) STORED"
UNIQUE = f"CREATE TABLE documents (document_id text PRIMARY KEY, content text, {VECTOR})"
INDEX = "CREATE INDEX ON documents USING gin (search_vector)"
MASTER = "CREATE TABLE uds3_master_documents (document_id text PRIMARY KEY, search_vector tsvector)"
SECOND = "SELECT 'd' || n, to_tsvector('german', repeat('Bau ', n % 3)) FROM generate_series(1, 30) n"
TABLES = {
    "no vector": ("CREATE TABLE documents (document_id text PRIMARY KEY, content text)",),
    "unique ids and an index": (UNIQUE, INDEX),
    "marks, repeated ids and none": (
        f"CREATE TABLE documents (document_id text, content text, deleted boolean, {VECTOR})",
        INDEX,
        "INSERT INTO documents SELECT NULL, 'Bau' FROM generate_series(1, 4)",
        "INSERT INTO documents VALUES ('d1', 'Bau'), ('d1', 'Bau Bau Bau')",
        "INSERT INTO documents SELECT 'd' || n, 'Bau Bau', n % 2 = 0 FROM generate_series(1, 9) n",
    ),
    "two tables": (UNIQUE, MASTER, f"INSERT INTO uds3_master_documents {SECOND}"),
}
# Four scores for twenty documents: most hits have neighbours with the same score.
FILL = (
    "INSERT INTO documents (document_id, content)"
    " SELECT chr(65 + n % 26) || n, repeat('Bau ', 1 + n % 4) FROM generate_series(1, 20) n"
)


async def ranked(session: PostgresSession, wanted: int | None) -> list[Hit]:
    """All hits, whatever is wanted."""
    selection = DocumentSelection(await session.schema(), {})
    return [hit async for page in session.rank(selection, "Bau", wanted=wanted) for hit in page]


@pytest.mark.parametrize("shape", TABLES)
async def test_what_is_wanted_changes_neither_the_hits_nor_their_order(
    database: Database, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranked_hits, "PAGE", 3)
    await database.execute(*TABLES[shape], FILL)
    async with database.postgres.connect() as session:
        every = await ranked(session, None)
        assert len(every) >= 20
        assert len({hit.id for hit in every}) == len(every)
        named = [hit for hit in every if not hit.id.startswith("\0")]
        assert named == sorted(named, key=lambda hit: (-hit.score, hit.id.encode()))
        for wanted in (1, 2, 3, 4, len(named) - 3, len(every), 100):
            assert await ranked(session, wanted) == every, wanted


async def test_a_search_without_hits_has_no_first_page(database: Database) -> None:
    await database.execute(*TABLES["unique ids and an index"])
    async with database.postgres.connect() as session:
        assert await ranked(session, 5) == []


async def test_later_pages_are_of_the_snapshot_of_the_first_one(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranked_hits, "PAGE", 3)
    await database.execute(*TABLES["unique ids and an index"], FILL)
    async with database.postgres.connect() as session:
        every, found = await ranked(session, None), list[Hit]()
        selection = DocumentSelection(await session.schema(), {})
        async for page in session.rank(selection, "Bau", wanted=2):
            found += page
            await database.execute(
                f"INSERT INTO documents (document_id, content) VALUES ('new{len(found)}', 'Bau Bau Bau Bau')",
                f"DELETE FROM documents WHERE document_id = '{every[-1].id}'",
            )
        assert found == every
        assert await ranked(session, 2) != every


async def test_a_table_that_is_refilled_while_a_search_begins_is_read_as_it_is_then(
    database: Database,
) -> None:
    await database.execute(*TABLES["unique ids and an index"], FILL)
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    waiting += " AND application_name = 'shardline' AND wait_event_type = 'Lock'"
    async with database.admin() as other, database.postgres.connect() as session:
        selection = DocumentSelection(await session.schema(), {})
        async with other.transaction():
            await other.execute("TRUNCATE documents")
            await other.execute(FILL.replace("20", "30"))
            found = asyncio.ensure_future(_hits(session, selection))
            async with asyncio.timeout(60):
                while not (await database.fetch(waiting))[0][0]:
                    await asyncio.sleep(0.01)
        # By the snapshot of before, the table would be empty.
        assert len(await found) == 30


async def _hits(session: PostgresSession, selection: DocumentSelection) -> list[Hit]:
    return [hit async for page in session.rank(selection, "Bau", wanted=2) for hit in page]


async def test_a_whole_list_has_odd_ids_and_ends_when_it_is_closed(database: Database) -> None:
    await database.execute(*TABLES["unique ids and an index"])
    odd = ["a\tb", "a\nb", "a\\b", "\\N", "\\n", "\\.", "a\rb\b\f\v", "ä\u2028", "'\"$1", "", " "]
    await database.load("documents", ("document_id", "content"), [(one, "Bau's \\n $1") for one in odd])
    async with database.postgres.connect() as session:
        selection = DocumentSelection(await session.schema(), {"document_id": odd})
        pages = session.rank(selection, "Bau's \\n $1")
        assert [hit.id async for page in pages for hit in page] == sorted(odd, key=str.encode)
        assert await session._connection.fetchval("SHOW statement_timeout") == "5min"
        await database.execute(FILL.replace("20", "50000"))
        selection = DocumentSelection(await session.schema(), {})
        async with aclosing(session.rank(selection, "Bau")) as hits:
            first = await anext(hits)
        assert len(first) < 50_000
    async with asyncio.timeout(60):
        while await database.readers():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("filters", [{}, {"title": ["T1", "T2"]}])
async def test_marks_of_the_hits_themselves_count_as_those_of_joined_rows(
    database: Database, filters: dict[str, list[str]]
) -> None:
    await database.execute(
        "CREATE TABLE documents"
        f" (document_id text PRIMARY KEY, content text, title text, deleted text, {VECTOR})",
        "INSERT INTO documents (document_id, content, title, deleted) SELECT 'd' || n, repeat('Bau ', n % 4),"
        " 'T' || n % 5, CASE n % 3 WHEN 0 THEN 'yes' WHEN 1 THEN 'no' END FROM generate_series(1, 60) n",
    )
    async with database.postgres.connect() as session:
        found = []
        for change in ("SELECT", "ALTER TABLE documents DROP CONSTRAINT documents_pkey"):
            await database.execute(change)
            selection = DocumentSelection(await session.schema(), filters)
            pages = session.rank(selection, "Bau", deleted=True)
            marked = sorted([hit.id async for page in pages for hit in page])
            hits = [hit async for page in session.rank(selection, "Bau") for hit in page]
            found.append((hits, marked))
            assert sql.joins_tables(selection) == (len(found) > 1)
    alone, joined = found
    assert alone == joined
    # Of the numbers up to 60, those that are no multiple of 4 have the word; one in three of them is marked.
    assert (len(alone[0]), len(alone[1])) == ((30, 15) if not filters else (12, 6))
