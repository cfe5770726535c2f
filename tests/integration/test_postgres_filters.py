"""UDS3 on a PostgreSQL server: filters and tombstones."""

import asyncio
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from shardline_common.errors import JobFailed
from shardline_producer.plan import make_plan
from shardline_producer.sources.query_filters import passes
from shardline_producer.sources.source import Document
from shardline_producer.sources.uds3.planned_store import ConfiguredStores
from shardline_producer.sources.uds3.postgres.connection import Postgres
from tests.databases import Database
from tests.source_items import dead_letter_reasons, documents_of, item_ids
from tests.uds3_data import insert, load_corpus, make_uds3
from tests.uds3_reading import open_source, plan_and_read, scan_items, uds3_job

TOMBSTONES: Mapping[str, dict[str, Any]] = {
    "deleted": {"deleted": True},
    "is_deleted": {"is_deleted": "1"},
    "deleted_at": {"deleted_at": "2020-01-01T00:00:00Z"},
    "failed": {"processing_status": "failed"},
    "archived": {"processing_status": "ARCHIVED"},
}


async def fill_marked(database: Database) -> None:
    await make_uds3(database)
    await database.execute(
        "ALTER TABLE documents ADD deleted boolean, ADD is_deleted text, ADD deleted_at timestamptz"
    )
    await database.execute(
        "ALTER TABLE uds3_master_documents ADD is_deleted boolean DEFAULT FALSE, ADD deleted_at text"
    )
    rows = [{"document_id": name, "content": "law", **fields} for name, fields in TOMBSTONES.items()]
    live = {"document_id": "live", "content": "law", "deleted": False, "processing_status": "completed"}
    await insert(database, "documents", *rows, live, {"document_id": "by-master", "content": "law"})
    await insert(
        database,
        "uds3_master_documents",
        {"document_id": "by-master", "is_deleted": True},
        {"document_id": "live", "deleted_at": "False"},
    )


async def test_deleted_documents_are_never_exported(database: Database) -> None:
    await fill_marked(database)
    assert item_ids(await scan_items(database)) == ["live"]
    assert item_ids(await scan_items(database, filters={"domain": None})) == ["live"]
    only = {"text": "law", "search_types": ["keyword"]}
    assert item_ids(await scan_items(database, **only)) == ["live"]
    _, items = await plan_and_read(ConfiguredStores(database.postgres, include_archived=True))
    assert item_ids(items) == ["archived", "live"]


async def test_a_document_deleted_after_planning_is_a_dead_letter(database: Database) -> None:
    await fill_marked(database)
    spec = uds3_job(query={"text": "law", "search_types": ["keyword"]})
    source = open_source(ConfiguredStores(database.postgres), spec)
    plan = await make_plan(spec, source)
    await database.execute("UPDATE documents SET deleted = TRUE WHERE document_id = 'live'")
    items = [item async for batch in source.read(plan.frozen, None) for item in batch]
    assert dead_letter_reasons(items) == {"live": "vanished"}


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
async def test_a_filter_selects_the_same_documents_as_over_files(
    filtered: tuple[Database, list[Document]], filters: dict[str, Any]
) -> None:
    database, everything = filtered
    spec = uds3_job(query={"filters": filters})
    expected = sorted(one.id for one in everything if passes(one, spec.query.filters))
    assert item_ids(await scan_items(database, filters=filters)) == expected


@pytest.fixture(scope="module")
def filtered(postgres_server: Database) -> Iterator[tuple[Database, list[Document]]]:
    """A table that the tests of this module only read."""
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


async def test_date_columns_compare_with_texts(database: Database) -> None:
    await database.execute(
        "CREATE TABLE documents (document_id text PRIMARY KEY, content text, at timestamptz, day date)"
    )
    rows = [
        {"document_id": f"d{n}", "content": "x", "at": f"2020-01-0{n}", "day": f"2020-01-0{n}"}
        for n in (1, 2, 3)
    ]
    await insert(database, "documents", *rows)
    assert item_ids(await scan_items(database, filters={"day": {"gte": "2020-01-02"}})) == ["d2", "d3"]
    assert item_ids(await scan_items(database, filters={"at": {"lte": "2020-01-02"}})) == ["d1", "d2"]
    assert item_ids(await scan_items(database, filters={"day": "2020-01-03"})) == ["d3"]
    found = documents_of(await scan_items(database))[0].metadata
    assert found == {"at": "2020-01-01T00:00:00+00:00", "day": "2020-01-01"}
    with pytest.raises(JobFailed, match="yesterday"):
        await scan_items(database, filters={"day": {"gte": "the day before yesterday"}})


async def test_an_upper_bound_that_is_a_day_includes_the_day(database: Database) -> None:
    await database.execute(
        "CREATE TABLE documents (document_id text PRIMARY KEY, content text,"
        " created text, local timestamp, at timestamptz, day date)"
    )
    times = (
        "2020-01-01T23:59:59.999999",
        "2020-01-02T00:00:00",
        "2020-01-02T23:59:59.5",
        "2020-01-03T00:00:00",
    )
    rows = [
        {"document_id": f"d{n}", "content": "x", "created": f"{time}Z", "local": time, "at": f"{time}Z"}
        | {"day": time[:10]}
        for n, time in enumerate(times)
    ]
    await insert(database, "documents", *rows)
    for field in ("created", "local", "at", "day"):
        found = await scan_items(database, filters={field: {"gte": "2020-01-02", "lte": "2020-01-02"}})
        assert item_ids(found) == ["d1", "d2"], field
        # The end of a window, in another zone.
        end = {field: {"lte": "2020-01-03T01:59:59.999999+02:00"}}
        assert item_ids(await scan_items(database, filters=end)) == ["d0", "d1", "d2"], field
    # A time of day is not cut on a column of days.
    for filters in ({"day": "2020-01-02T12:00:00"}, {"day": {"gte": "2020-01-03T00:00:01"}}):
        assert not await scan_items(database, filters=filters)


async def test_a_row_of_a_repeated_id_passes_only_if_it_is_the_exported_one(database: Database) -> None:
    await database.execute(
        "CREATE TABLE rows (document_id text, content text, year int)",
        "CREATE VIEW documents AS SELECT * FROM rows",
    )
    years = {"a": (2019, 2020), "b": (2020, 2019), "c": (2020, 2020), "d": (2019,)}
    rows = [
        {"document_id": name, "content": f"{name} {year}", "year": year}
        for name, each in years.items()
        for year in each
    ]
    await insert(database, "rows", *rows)
    shown = {one.id: one.metadata["year"] for one in documents_of(await scan_items(database))}
    for year in (2019, 2020):
        found = documents_of(await scan_items(database, filters={"year": year}))
        assert {one.id: one.metadata["year"] for one in found} == {
            name: one for name, one in shown.items() if one == year
        }
    after = {"year": {"gte": 2019}, "document_id": {"gte": "b"}}
    assert item_ids(await scan_items(database, filters=after)) == ["b", "c", "d"]


async def test_a_field_is_the_first_value_of_the_tables_that_is_not_null(database: Database) -> None:
    await database.execute(
        "CREATE TABLE documents (document_id text PRIMARY KEY, content text, title text, document_type text,"
        " created_at text, pages int, classification text)",
        'CREATE TABLE documents_metadata (document_id text PRIMARY KEY, title varchar(80) COLLATE "POSIX",'
        " document_type text, rechtsgebiet text, pages bigint)",
        "CREATE TABLE uds3_master_documents"
        " (document_id text PRIMARY KEY, created_at timestamptz, pages text)",
    )
    content = {"content": "x" * 600, "document_type": "law"}
    await insert(
        database,
        "documents",
        {"document_id": "both", "title": "main", "pages": 1, "classification": "c", **content},
        {"document_id": "main", "title": "main", "pages": 1, "created_at": "yesterday", **content},
        {"document_id": "none", **content},
    )
    await insert(
        database,
        "documents_metadata",
        {"document_id": "both", "title": "own", "pages": 2, "rechtsgebiet": "baurecht"},
        {"document_id": "none"},
    )
    at = {"created_at": "2020-01-01T00:00:00Z", "pages": "three"}
    await insert(
        database, "uds3_master_documents", *({"document_id": name, **at} for name in ("main", "none"))
    )
    found = {one.id: one.metadata for one in documents_of(await scan_items(database))}
    law = {"document_type": "law"}
    assert found == {
        "both": {"title": "own", "domain": "baurecht", "rechtsgebiet": "baurecht", "pages": 2, **law}
        | {"classification": "c"},
        "main": {"title": "main", "pages": 1, "created_at": "yesterday", **law},
        "none": {"pages": "three", "created_at": "2020-01-01T00:00:00+00:00", **law},
    }
    for filters in (
        *({"title": "main"}, {"title": "own"}, {"title": None}, {"pages": 2}, {"pages": {"lte": 1}}),
        *({"pages": "three"}, {"created_at": {"lte": "2020-01-01"}}, {"created_at": "yesterday"}),
        *({"domain": "baurecht"}, {"domain": None}, {"document_type": ["law"]}),
    ):
        wanted = uds3_job(query={"filters": filters}).query.filters
        expected = [one for one, fields in found.items() if passes(Document(one, "", fields), wanted)]
        assert expected
        assert item_ids(await scan_items(database, filters=filters)) == expected, filters


async def test_tombstone_columns_must_be_readable_and_others_need_not(database: Database) -> None:
    await fill_marked(database)
    reader = f"reader_{secrets.token_hex(4)}"
    await database.execute(
        f"CREATE ROLE {reader} LOGIN PASSWORD 'reader'",
        f"GRANT SELECT (document_id, content, processing_status) ON documents TO {reader}",
    )
    options = replace(database.options, user=reader, password="reader")  # noqa: S106 - of this test
    with pytest.raises(JobFailed, match=r"documents \(deleted, is_deleted, deleted_at\) marks documents"):
        await plan_and_read(ConfiguredStores(Postgres(options)))
    await database.execute(f"GRANT SELECT (deleted, is_deleted, deleted_at) ON documents TO {reader}")
    with pytest.raises(JobFailed, match=r"uds3_master_documents \(is_deleted, deleted_at\) marks documents"):
        await plan_and_read(ConfiguredStores(Postgres(options)))
    await database.execute(
        f"GRANT SELECT (document_id, is_deleted, deleted_at) ON uds3_master_documents TO {reader}"
    )
    plan, items = await plan_and_read(ConfiguredStores(Postgres(options)))
    assert item_ids(items) == ["live"]
    assert list(plan.columns) == ["processing_status"]
    await database.execute(f"DROP OWNED BY {reader}", f"DROP ROLE {reader}")
