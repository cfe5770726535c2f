"""Hybrid search with PostgreSQL, which checks the hits of the other stores."""

from collections.abc import Sequence
from typing import Any

import pytest

from shardline_common.errors import JobFailed, SourceUnavailable
from shardline_producer.sources.source import Document, SourceItem
from shardline_producer.sources.uds3.planned_store import ConfiguredStores
from shardline_producer.sources.uds3.postgres import sql
from shardline_producer.sources.uds3.postgres.connection import Postgres
from shardline_producer.sources.uds3.store_ports import DocumentBody
from tests.databases import Database
from tests.source_items import dead_letter_reasons, documents_of, item_ids
from tests.uds3_data import DictBodyStore, ListRanker, insert, make_uds3
from tests.uds3_reading import open_source, plan_and_read, uds3_job

WEIGHTS = {"vector": 0.5, "keyword": 0.5}


async def fill(database: Database) -> None:
    """a, b and c contain the word, c most often; x is deleted; y has its body elsewhere; z has no row."""
    await make_uds3(database)
    for name, times in (("a", 1), ("b", 2), ("c", 3), ("x", 9)):
        await insert(database, "documents", {"document_id": name, "content": "Recht " * times})
    await database.execute("UPDATE documents SET processing_status = 'archived' WHERE document_id = 'x'")
    await insert(
        database, "uds3_master_documents", {"document_id": "y", "couchdb_refs": {"db": {"doc_id": "7"}}}
    )
    await insert(database, "documents_metadata", {"document_id": "a", "rechtsgebiet": "bau", "title": "A"})


def stores(database: Database, ids: str, fields: Sequence[str] = ()) -> ConfiguredStores:
    bodies = DictBodyStore(
        {name: DocumentBody(f"body {name}", {"title": "beside", "kind": "k"}) for name in "xyz"}
    )
    return ConfiguredStores(database.postgres, {"vector": ListRanker("vector", ids, fields)}, [bodies])


async def searched(found: ConfiguredStores, **query: Any) -> list[SourceItem]:
    _, items = await plan_and_read(found, query={"text": "Recht", "weights": WEIGHTS} | query)
    return items


async def test_deleted_documents_take_no_rank_in_the_fusion(database: Database) -> None:
    await fill(database)
    items = await searched(stores(database, "xazyb"))
    by_id = {one.id: one for one in documents_of(items)}
    # x is in both lists and takes no rank in either: a is first in the list of vectors.
    ranks = {"vector": "azyb", "keyword": "cba"}
    expected = {
        name: sum(0.5 / (61 + ranks[kind].index(name)) for kind in ranks if name in ranks[kind])
        for name in "abcyz"
    }
    assert item_ids(items) == sorted(expected, key=lambda name: (-expected[name], name))
    assert {name: one.relevance for name, one in by_id.items()} == pytest.approx(expected, abs=1e-17)
    assert by_id["a"].text == "Recht "
    assert (by_id["y"].text, by_id["z"].text) == ("body y", "body z")
    assert by_id["z"].metadata == {"title": "beside", "kind": "k"}
    assert by_id["a"].metadata["title"] == "A"


async def test_filters_on_table_fields_are_checked_by_postgresql(database: Database) -> None:
    await fill(database)
    found = stores(database, "zcba", fields=["kind"])
    assert item_ids(await searched(found, filters={"domain": "bau"})) == ["a"]
    ranker = found.rankers["vector"]
    assert isinstance(ranker, ListRanker)
    assert ranker.queries[-1].filters == {}
    only = {"search_types": ["vector"], "filters": {"kind": "k", "title": None}}
    assert item_ids(await searched(found, **only)) == ["c", "b"]
    assert ranker.queries[-1].filters == {"kind": "k"}
    with pytest.raises(JobFailed, match="the keyword search has no field 'kind'"):
        await searched(found, filters={"kind": "k"})


async def test_a_document_deleted_after_planning_is_a_dead_letter(database: Database) -> None:
    await fill(database)
    # A table that is emptied as a whole fails the job.
    await insert(database, "documents_metadata", {"document_id": "c", "title": "C"})
    found = stores(database, "abcyz")
    spec = uds3_job(query={"text": "Recht", "weights": WEIGHTS})
    source = open_source(found, spec)
    frozen = await source.freeze()
    await database.execute(
        "DELETE FROM documents WHERE document_id = 'a'",
        "DELETE FROM documents_metadata WHERE document_id = 'a'",
        "UPDATE documents SET processing_status = 'failed' WHERE document_id = 'b'",
    )
    items = [item async for batch in source.read(frozen, None) for item in batch]
    assert dead_letter_reasons(items) == {"a": "vanished", "b": "vanished"}
    assert sorted(item_ids(items)) == ["a", "b", "c", "y", "z"]
    half = [item async for batch in source.read(frozen, items[1].position) for item in batch]
    assert item_ids(half) == item_ids(items)[2:]


async def test_postgresql_down_fails_planning_even_with_degrade(
    database: Database,
) -> None:
    unreachable = Postgres(database.options.__class__("127.0.0.1", 1, "u", "p", "d"))
    found = ConfiguredStores(unreachable, {"vector": ListRanker("vector", "ab")})
    for degrade in (False, True):
        with pytest.raises(SourceUnavailable, match="is unavailable"):
            await plan_and_read(
                found, source={"type": "uds3", "degrade": degrade}, query={"text": "x", "weights": WEIGHTS}
            )


async def test_rows_without_content_take_bodies_from_a_body_store(database: Database) -> None:
    await make_uds3(database, content=False)
    ids = [f"d{n:03d}" for n in range(130)]
    await database.load("documents", ("document_id", "classification"), [(one, "law") for one in ids])
    bodies = DictBodyStore({one: DocumentBody(f"body {one}", {"title": "T"}) for one in ids[1:]})
    _, items = await plan_and_read(ConfiguredStores(database.postgres, body_stores=[bodies]))
    assert item_ids(items) == ids
    assert dead_letter_reasons(items) == {"d000": "no_content"}
    last = items[-1].content
    assert isinstance(last, Document)
    assert last.text == "body d129"
    assert last.metadata == {"title": "T", "domain": "law", "classification": "law"}
    assert bodies.largest == 50


async def test_hits_are_checked_by_index_lookups_without_a_table_scan(database: Database) -> None:
    await make_uds3(database, content=False)
    ids = [f"d{number * 7919 % 30_000:05d}" for number in range(30_000)]
    for table in ("documents", "documents_metadata", "uds3_master_documents"):
        await database.load(table, ("document_id",), [(one,) for one in ids])
    await database.execute(
        "UPDATE documents SET processing_status = 'failed' WHERE document_id < 'd01'", "ANALYZE"
    )
    async with database.postgres.connect() as session:
        selection = sql.DocumentSelection(await session.schema(), {})
        hits = [*ids[:1000], "nowhere"]
        checks = await session.check_hits(selection, hits)
    assert checks == {one: (one != "nowhere", one >= "d01") for one in hits}
    statement = sql.check_hits(selection, hits)
    plan = "\n".join(row[0] for row in await database.fetch("EXPLAIN " + statement.text, *statement.values))
    assert plan.count("Index") >= 3
    assert "Seq Scan" not in plan
    # Keys are looked up in the order of the index, so that neighbours share its pages.
    assert statement.values[0] == sorted(hits)
