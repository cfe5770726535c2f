"""A scan of PostgreSQL leaves out what any configured store marks deleted, and counts it by store."""

from collections.abc import AsyncGenerator
from typing import Any

import pytest

from shardline_common.errors import JobFailed, SourceUnavailable
from shardline_common.job.findings import Findings
from shardline_common.job.plan import Plan
from shardline_producer.plan import make_plan
from shardline_producer.sources import planned
from shardline_producer.sources.source import SourceItem
from shardline_producer.sources.uds3.couch.body_store import CouchBodyStore, CouchOptions
from shardline_producer.sources.uds3.planned_store import ConfiguredStores, Uds3Store
from tests.couch_data import CouchData
from tests.databases import Database
from tests.integration.test_couch import attachment, couch_options, filled
from tests.source_items import dead_letter_reasons, documents_of, item_ids
from tests.stores import Address
from tests.uds3_data import ListRanker, insert, make_uds3
from tests.uds3_reading import open_source, uds3_job

IDS = [f"d{number:02d}" for number in range(12)]


@pytest.fixture
async def tables(database: Database) -> Database:
    """Twelve documents with a text; the tables mark d11."""
    await make_uds3(database)
    await insert(database, "documents", *({"document_id": name, "content": f"law {name}"} for name in IDS))
    await database.execute("UPDATE documents SET processing_status = 'failed' WHERE document_id = 'd11'")
    return database


async def read(found: ConfiguredStores, **changes: Any) -> tuple[Plan, list[SourceItem], Findings]:
    spec = uds3_job(**changes)
    source = open_source(found, spec)
    plan = await make_plan(spec, source)
    items = [item async for batch in source.read(plan.frozen, None) for item in batch]
    return plan, items, source.findings(plan.frozen)


def ranked(found: ConfiguredStores) -> tuple[ListRanker, ListRanker]:
    vector, graph = found.rankers["vector"], found.rankers["graph"]
    assert isinstance(vector, ListRanker)
    assert isinstance(graph, ListRanker)
    return vector, graph


def with_rankers(database: Database) -> ConfiguredStores:
    vector, graph = ListRanker("vector", IDS), ListRanker("graph", IDS)
    vector.deleted, graph.deleted = ["d01", "d02", "d11", "nowhere"], ["d02", "d03", "d04"]
    return ConfiguredStores(database.postgres, {"vector": vector, "graph": graph})


async def test_marks_of_every_store_count_in_a_scan(tables: Database) -> None:
    _, items, findings = await read(with_rankers(tables))
    assert item_ids(items) == [name for name in IDS if name not in ("d01", "d02", "d03", "d04", "d11")]
    # A document that several stores mark counts once, for the first of them.
    assert findings.deleted == {"postgresql": 1, "chromadb": 2, "neo4j": 2}


@pytest.mark.parametrize("size", [1, 2, 3, 5])
async def test_what_is_left_out_is_counted_once_over_plan_pages(
    tables: Database, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(planned, "_FIRST_PAGE", size)
    monkeypatch.setattr(planned, "_LARGEST_PAGE", size)
    _, items, findings = await read(with_rankers(tables))
    assert len(items) == 7
    assert findings.deleted == {"postgresql": 1, "chromadb": 2, "neo4j": 2}
    _, items, findings = await read(with_rankers(tables), query={"top_k": 2})
    # d01 to d04 are before the second document.
    assert (item_ids(items), findings.deleted) == (["d00", "d05"], {"chromadb": 2, "neo4j": 2})


async def test_a_scan_waits_for_a_store_of_marks_or_degrades(tables: Database) -> None:
    found = with_rankers(tables)
    ranked(found)[1].down = SourceUnavailable("Neo4j is down")
    with pytest.raises(SourceUnavailable, match="Neo4j is down"):
        await read(found)
    plan, items, findings = await read(found, source={"type": "uds3", "degrade": True})
    assert (len(items), plan.notes) == (9, {"degraded": ["graph"]})
    assert "neo4j" not in findings.deleted
    assert findings.to_json()["completeness"]["neo4j"] == {
        "level": "unproven",
        "how": "it was down when the job was planned: its marks of deletion are not known",
    }


async def test_a_plan_of_an_older_version_has_no_marks(tables: Database) -> None:
    spec = uds3_job()
    source = open_source(with_rankers(tables), spec)
    frozen = await source.freeze()
    frozen[0]["facts"] = {name: frozen[0]["facts"][name] for name in ("schema", "archived")}
    assert len([item async for batch in source.read(frozen, None) for item in batch]) == 11


@pytest.fixture
async def bodies(couch: Address) -> CouchData:
    """CouchDB marks d01 to d05: at the top, in its metadata, deleted, by another id, and by reference."""
    data = await filled(
        couch,
        {"_id": "d00", "content": "live"},
        {"_id": "d01", "content": "x", "deleted": True},
        {"_id": "d02", "content": "x", "metadata": {"processing_status": "archived"}},
        {"_id": "d03", "content": "x"},
        {
            "_id": "u4",
            "_attachments": attachment(b"x"),
            "metadata": {"document_id": "d04", "deleted_at": "2024"},
        },
        {"_id": "u5", "content": "x", "is_deleted": 1},
        {"_id": "u6", "content": "x", "deleted": True, "metadata": {"document_id": "d06"}},
        {"_id": "v6", "content": "renewed", "metadata": {"document_id": "d06"}},
        {"_id": "d07", "content": "x", "deleted_at": 0},
    )
    await data.delete("d03")
    return data


async def test_a_mark_of_couchdb_counts_although_postgresql_has_the_text(
    tables: Database, couch: Address, bodies: CouchData
) -> None:
    references = {bodies.name: {"doc_id": "u5"}}
    await insert(tables, "uds3_master_documents", {"document_id": "d05", "couchdb_refs": references})
    found = ConfiguredStores(tables.postgres, {}, [CouchBodyStore(couch_options(couch, bodies.name))])
    _, items, findings = await read(found)
    assert item_ids(items) == ["d00", "d06", "d07", "d08", "d09", "d10"]
    assert dead_letter_reasons(items) == {}
    assert {one.id: one.text for one in documents_of(items)}["d06"] == "law d06"
    assert findings.deleted == {"postgresql": 1, "couchdb": 5}
    assert findings.to_json()["completeness"]["couchdb"] == {
        "level": "proven",
        "how": "two lists of the documents, _all_docs and _changes, agree",
    }


@pytest.mark.parametrize("indexed", [False, True])
async def test_a_mark_that_comes_after_the_plan_is_a_dead_letter(
    tables: Database, couch: Address, bodies: CouchData, indexed: bool
) -> None:
    if indexed:
        await bodies.post("/_index", {"index": {"fields": ["metadata.document_id"]}, "type": "json"})
    spec = uds3_job()
    for reader in ("the same process", "another process"):
        found = ConfiguredStores(tables.postgres, {}, [CouchBodyStore(couch_options(couch, bodies.name))])
        source = open_source(found, spec)
        frozen = await source.freeze()
        store = Uds3Store(spec, found)
        listed = [
            one async for page in store.entries(frozen[0]["facts"], None, 100, Findings()) for one in page
        ]
        if reader == "another process":
            store = Uds3Store(
                spec,
                ConfiguredStores(tables.postgres, {}, [CouchBodyStore(couch_options(couch, bodies.name))]),
            )
        else:
            await bodies.update("d00", deleted=True)
            await bodies.update("d07", deleted_at="now")
            await bodies.update("v6", deleted="yes")
            listed_before = listed
        async with store.fetcher(frozen[0]["facts"]) as fetcher:
            contents = await fetcher.fetch(listed_before)
        kinds = {
            entry.id: type(content).__name__ for entry, content in zip(listed_before, contents, strict=True)
        }
        assert [name for name, kind in kinds.items() if kind != "Document"] == ["d00", "d06", "d07"], reader


async def test_couchdb_that_is_down_or_missing_is_noticed_at_planning(
    tables: Database, couch: Address
) -> None:
    missing = ConfiguredStores(tables.postgres, {}, [CouchBodyStore(couch_options(couch, "nowhere"))])
    with pytest.raises(JobFailed, match="no database 'nowhere'"):
        await read(missing)
    nobody = CouchOptions(couch_options(Address("http://127.0.0.1:1"), "x").http, "x")
    found = ConfiguredStores(tables.postgres, {}, [CouchBodyStore(nobody)])
    with pytest.raises(SourceUnavailable, match="cannot be read"):
        await read(found)
    plan, items, findings = await read(found, source={"type": "uds3", "degrade": True})
    assert (len(items), plan.notes) == (11, {"degraded": ["couchdb"]})
    assert findings.to_json()["completeness"]["couchdb"]["level"] == "unproven"


async def test_marks_of_couchdb_count_in_a_search(
    tables: Database, couch: Address, bodies: CouchData
) -> None:
    graph = ListRanker("graph", ["d00", "d01", "d08", "d11"])
    graph.deleted = ["d08", "d09"]
    found = ConfiguredStores(
        tables.postgres, {"graph": graph}, [CouchBodyStore(couch_options(couch, bodies.name))]
    )
    query = {"text": "law", "search_types": ["keyword", "graph"]}
    plan, items, findings = await read(found, query=query)
    assert sorted(item_ids(items)) == ["d00", "d05", "d06", "d07", "d10"]
    assert findings.deleted == {"postgresql": 1, "neo4j": 2, "couchdb": 4}
    assert plan.notes["left_out"] == []


async def test_a_database_of_couchdb_that_was_made_anew_has_changed(
    tables: Database, couch: Address, bodies: CouchData
) -> None:
    found = ConfiguredStores(tables.postgres, {}, [CouchBodyStore(couch_options(couch, bodies.name))])
    spec = uds3_job()
    store = Uds3Store(spec, found)
    facts = (await store.describe()).facts
    await store.check_standing(facts)
    await bodies.drop()
    with pytest.raises(JobFailed, match="no database"):
        await store.check_standing(facts)
    await bodies.create()
    with pytest.raises(
        JobFailed, match=r"couchdb is not as it was when the job was planned: .*empty"
    ) as failed:
        await store.check_standing(facts)
    assert failed.value.code == "source_changed"
    await bodies.post("/_bulk_docs", {"docs": [{"_id": "other"}]})
    with pytest.raises(JobFailed, match="changes"):
        await store.check_standing(facts)


class Slow(ListRanker):
    """A ranker whose marks fail in their middle."""

    async def deleted_ids(self) -> AsyncGenerator[list[str], None]:
        yield ["d01"]
        raise SourceUnavailable("failed in the middle")


async def test_an_error_in_the_middle_of_marks_fails_the_listing(tables: Database) -> None:
    found = ConfiguredStores(tables.postgres, {"vector": Slow("vector", IDS)})
    with pytest.raises(SourceUnavailable, match="failed in the middle"):
        await read(found)


async def test_what_the_tables_mark_is_counted_with_filters_too(tables: Database) -> None:
    await tables.execute("UPDATE documents SET classification = 'bau' WHERE document_id >= 'd08'")
    _, items, findings = await read(with_rankers(tables), query={"filters": {"classification": "bau"}})
    assert (item_ids(items), findings.deleted) == (["d08", "d09", "d10"], {"postgresql": 1})


async def test_rows_with_one_id_are_live_when_one_of_them_is(database: Database) -> None:
    await database.execute(
        "CREATE TABLE documents (document_id text, content text, kind text, deleted boolean)"
    )
    for name, marks in (("a", [True, False]), ("b", [True, True]), ("c", [False])):
        await insert(
            database,
            "documents",
            *({"document_id": name, "content": "law", "kind": "k", "deleted": mark} for mark in marks),
        )
    _, items, findings = await read(ConfiguredStores(database.postgres), query={"filters": {"kind": "k"}})
    assert ([one for one in item_ids(items) if one == "b"], findings.deleted) == ([], {"postgresql": 1})
