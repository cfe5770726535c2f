"""UDS3 on a PostgreSQL server: tables that change while a job reads them, and what is said of the proof."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from shardline_common.errors import JobFailed
from shardline_common.job.findings import Findings
from shardline_producer.sources.source import SourceItem
from shardline_producer.sources.uds3.planned_store import ConfiguredStores
from shardline_producer.sources.uds3.postgres.sql import DocumentSelection
from tests.databases import Database, own_database
from tests.source_items import dead_letter_reasons, item_ids
from tests.uds3_reading import (
    over,
    planned,
)

ROWS = 1_200  # more than the first page of a plan


async def make_numbered(database: Database) -> None:
    """Two partitions of documents, and a table beside them."""
    await database.execute(
        "CREATE TABLE documents (document_id text PRIMARY KEY, content text) "
        " PARTITION BY RANGE (document_id)",
        "CREATE TABLE low PARTITION OF documents FOR VALUES FROM ('d0000') TO ('d0600')",
        "CREATE TABLE high PARTITION OF documents FOR VALUES FROM ('d0600') TO ('d9999')",
        "CREATE TABLE documents_metadata (document_id text PRIMARY KEY, title text)",
    )
    rows = [(f"d{n:04d}", "law") for n in range(ROWS)]
    await database.load("documents", ("document_id", "content"), rows)
    await database.load("documents_metadata", ("document_id", "title"), rows[:20])


CHANGES: Sequence[tuple[Sequence[str], str]] = [
    (["ALTER TABLE documents ADD COLUMN is_deleted boolean"], "documents has a new column is_deleted"),
    (["ALTER TABLE documents_metadata ADD COLUMN deleted_at text"], "documents_metadata has a new column"),
    (
        ["CREATE TABLE uds3_master_documents (document_id text, processing_status text)"],
        "uds3_master_documents has a new column processing_status",
    ),
    (["ALTER TABLE documents ALTER content TYPE varchar(9)"], "column content of table documents was"),
    (["TRUNCATE documents"], "documents was emptied"),
    (["DELETE FROM documents_metadata"], "documents_metadata was emptied"),
    (["ALTER TABLE documents DETACH PARTITION low"], "low is no longer a part of what is read"),
    (["ALTER TABLE documents RENAME TO other"], "was dropped or renamed|has changed since planning"),
    (
        [
            "ALTER TABLE documents RENAME TO other",
            "CREATE TABLE documents AS SELECT * FROM other WHERE document_id > 'd0500'",
        ],
        "documents was dropped and made again",
    ),
    (["DROP TABLE documents_metadata"], "was dropped or renamed|has changed since planning"),
]


async def test_tables_that_changed_while_the_job_reads_fail_it(postgres_server: Database) -> None:
    async with own_database(postgres_server) as template:
        await make_numbered(template)
        copy = replace(template, name=f"{template.name}_copy")
        for change, message in CHANGES:
            await postgres_server.execute(f"CREATE DATABASE {copy.name} TEMPLATE {template.name}")
            await check_change(copy, change, message)
            await postgres_server.execute(f"DROP DATABASE {copy.name} WITH (FORCE)")


async def check_change(database: Database, change: Sequence[str], message: str, **query: Any) -> None:
    source, plan = await planned(ConfiguredStores(database.postgres), **query)
    reading = aiter(source.read(plan.frozen, None))
    count = len(await anext(reading))
    await database.execute(*change)
    with pytest.raises(JobFailed, match=message) as caught:
        count = await count_items(reading, count)
    assert caught.value.code == "source_changed", change
    assert count < ROWS, change


async def test_columns_are_checked_also_when_the_whole_plan_is_listed(database: Database) -> None:
    await make_numbered(database)
    for change, message in (*CHANGES[:4], CHANGES[5]):
        await check_change(database, change, message, top_k=900)


async def count_items(reading: AsyncIterator[list[SourceItem]], count: int) -> int:
    async for batch in reading:
        count += len(batch)
    return count


async def test_changes_that_keep_the_rows_do_not_fail_the_job(database: Database) -> None:
    await make_numbered(database)
    changes = iter(
        [
            "VACUUM FULL documents",
            "DELETE FROM documents WHERE document_id = 'd0999'",
            "ALTER TABLE documents ADD COLUMN pages int",
            "CREATE TABLE newest PARTITION OF documents FOR VALUES FROM ('e') TO ('f')",
            "CREATE UNIQUE INDEX ON documents (document_id)",
        ]
    )
    source, plan = await planned(ConfiguredStores(database.postgres))
    items = []
    async for batch in source.read(plan.frozen, None):
        items += batch
        if (change := next(changes, None)) is not None:
            await database.execute(change)
    assert len(items) == ROWS
    assert dead_letter_reasons(items) == {"d0999": "vanished"}
    assert source.findings(plan.frozen).to_json() == {"completeness": {"postgresql": PROVEN}}


PROVEN = {"level": "proven", "how": "each page was listed in one snapshot, to the end that the server sends"}


async def test_a_wave_of_vanished_documents_asks_for_the_tables(database: Database) -> None:
    await make_numbered(database)
    await database.execute("CREATE VIEW chosen AS SELECT * FROM documents")
    for change, message in (
        ("TRUNCATE low", "low was truncated or rewritten"),
        ("DELETE FROM documents", "was emptied"),
    ):
        source, plan = await planned(over(database, "chosen"), text="law", search_types=["keyword"])
        await database.execute(change)
        with pytest.raises(JobFailed, match=message) as caught:
            _ = [batch async for batch in source.read(plan.frozen, None)]
        assert caught.value.code == "source_changed"


async def test_a_page_behind_a_table_that_was_emptied_is_not_the_end(database: Database) -> None:
    await make_numbered(database)
    for statement, message in (
        ("TRUNCATE low", "public.low was truncated"),
        ("DELETE FROM documents", "documents was emptied"),
        ("DELETE FROM documents", "chosen was emptied"),
        (
            "CREATE OR REPLACE VIEW chosen AS SELECT * FROM documents WHERE document_id < 'd0600'",
            "view public.chosen was given another definition",
        ),
    ):
        await database.execute(
            "INSERT INTO documents SELECT 'd0' || 595 + n FROM generate_series(0, 9) n"
            " ON CONFLICT DO NOTHING",
            "CREATE OR REPLACE VIEW chosen AS SELECT * FROM documents",
            "ALTER TABLE documents RENAME TO other" if "chosen" in message else "SELECT",
        )
        table = "chosen" if "chosen" in message else None
        change = statement.replace("FROM documents", "FROM other") if table else statement
        postgres = over(database, table).postgres
        assert postgres is not None
        async with postgres.connect() as session:
            selection = DocumentSelection(await session.schema(), {})
            (last, _), *_ = await session.page(selection, None, 1, Findings())
            await database.execute(change)
            with pytest.raises(JobFailed, match=message) as caught:
                await session.page(selection, last, 10, Findings())
            assert caught.value.code == "source_changed"
        if table:
            await database.execute("ALTER TABLE other RENAME TO documents")


async def test_what_cannot_be_proven_is_said(database: Database) -> None:
    await database.execute(
        "CREATE TABLE documents (document_id text, content text)",
        "INSERT INTO documents VALUES ('a', 'x'), ('b', 'x'), ('b', 'y')",
        "CREATE VIEW plain AS SELECT DISTINCT ON (document_id) * FROM documents",
        "CREATE MATERIALIZED VIEW stored AS SELECT * FROM plain",
        "CREATE FUNCTION picked() RETURNS SETOF text LANGUAGE sql AS $$SELECT 'a'$$",
        "CREATE VIEW computed AS SELECT d.* FROM plain d JOIN picked() s ON s = document_id",
        "CREATE EXTENSION file_fdw",
        "CREATE SERVER files FOREIGN DATA WRAPPER file_fdw",
        "CREATE FOREIGN TABLE far (document_id text, content text) SERVER files"
        " OPTIONS (program 'echo z:x', delimiter ':')",
        "CREATE VIEW over_far AS SELECT * FROM plain UNION ALL SELECT * FROM far",
    )
    for table, ids, level, how in (
        ("documents", "ab", "counted", "some ids of documents are in several rows, of which one is read"),
        ("plain", "ab", "proven", "each page was listed in one snapshot"),
        ("stored", "ab", "counted", "the materialized view public.stored has the rows of its last REFRESH"),
        ("computed", "a", "unproven", "the view public.computed reads rows of a function"),
        ("far", "z", "unproven", "public.far is a foreign table, whose server may hide rows"),
        ("over_far", "abz", "unproven", "public.far is a foreign table, whose server may hide rows"),
    ):
        for query in ({}, {"filters": {"document_id": list(ids)}}):
            source, plan = await planned(over(database, table), **query)
            items = [item async for batch in source.read(plan.frozen, None) for item in batch]
            assert item_ids(items) == list(ids)
            found = source.findings(plan.frozen).to_json()["completeness"]["postgresql"]
            assert (found["level"], found["how"][: len(how)]) == (level, how)
