"""Hybrid search with PostgreSQL as the one who knows what is deleted."""

from collections.abc import Sequence
from typing import Any

import pytest

from shardline_common.errors import JobFailed, SourceUnavailable
from shardline_producer.sources.source import Document, SourceItem
from shardline_producer.sources.uds3.planned_store import Stores
from shardline_producer.sources.uds3.postgres import sql
from shardline_producer.sources.uds3.postgres.connection import Postgres
from shardline_producer.sources.uds3.store_ports import Body
from tests.databases import Database
from tests.reading import dead, documents, names, opened, read, uds3_job
from tests.uds3 import Listed, Shelf, insert, make_uds3

WEIGHTS = {"vector": 0.5, "keyword": 0.5}


async def filled(database: Database) -> None:
    """a, b, c hold the word, c most often; x is deleted; y has its body elsewhere; z is no row."""
    await make_uds3(database)
    for name, times in (("a", 1), ("b", 2), ("c", 3), ("x", 9)):
        await insert(database, "documents", {"document_id": name, "content": "Recht " * times})
    await database.execute("UPDATE documents SET processing_status = 'archived' WHERE document_id = 'x'")
    await insert(
        database, "uds3_master_documents", {"document_id": "y", "couchdb_refs": {"db": {"doc_id": "7"}}}
    )
    await insert(database, "documents_metadata", {"document_id": "a", "rechtsgebiet": "bau", "title": "A"})


def stores(database: Database, ids: str, fields: Sequence[str] = ()) -> Stores:
    shelf = Shelf({name: Body(f"body {name}", {"title": "beside", "kind": "k"}) for name in "xyz"})
    return Stores(database.postgres, {"vector": Listed("vector", ids, fields)}, [shelf])


async def searched(found: Stores, **query: Any) -> list[SourceItem]:
    _, items = await read(found, query={"text": "Recht", "weights": WEIGHTS} | query)
    return items


async def test_lists_are_fused_over_what_is_not_deleted(database: Database) -> None:
    await filled(database)
    items = await searched(stores(database, "xazyb"))
    by_id = {one.id: one for one in documents(items)}
    # x is in both lists and counts in neither: a is first of the vector's.
    ranks = {"vector": "azyb", "keyword": "cba"}
    expected = {
        name: sum(0.5 / (61 + ranks[kind].index(name)) for kind in ranks if name in ranks[kind])
        for name in "abcyz"
    }
    assert names(items) == sorted(expected, key=lambda name: (-expected[name], name))
    assert {name: one.relevance for name, one in by_id.items()} == pytest.approx(expected, abs=1e-17)
    assert by_id["a"].text == "Recht "
    assert (by_id["y"].text, by_id["z"].text) == ("body y", "body z")
    assert by_id["z"].metadata == {"title": "beside", "kind": "k"}
    assert by_id["a"].metadata["title"] == "A"


async def test_filters_on_fields_of_the_tables_are_checked_there(database: Database) -> None:
    await filled(database)
    found = stores(database, "zcba", fields=["kind"])
    assert names(await searched(found, filters={"domain": "bau"})) == ["a"]
    ranker = found.others["vector"]
    assert isinstance(ranker, Listed)
    assert ranker.asked[-1].filters == {}
    only = {"search_types": ["vector"], "filters": {"kind": "k", "title": None}}
    assert names(await searched(found, **only)) == ["c", "b"]
    assert ranker.asked[-1].filters == {"kind": "k"}
    with pytest.raises(JobFailed, match="the keyword search has no field 'kind'"):
        await searched(found, filters={"kind": "k"})


async def test_what_goes_away_behind_the_plan_is_a_dead_letter(database: Database) -> None:
    await filled(database)
    found = stores(database, "abcyz")
    spec = uds3_job(query={"text": "Recht", "weights": WEIGHTS})
    source = opened(found, spec)
    frozen = await source.freeze()
    await database.execute(
        "DELETE FROM documents WHERE document_id = 'a'",
        "DELETE FROM documents_metadata WHERE document_id = 'a'",
        "UPDATE documents SET processing_status = 'failed' WHERE document_id = 'b'",
    )
    items = [item async for batch in source.read(frozen, None) for item in batch]
    assert dead(items) == {"a": "vanished", "b": "vanished"}
    assert sorted(names(items)) == ["a", "b", "c", "y", "z"]
    half = [item async for batch in source.read(frozen, items[1].position) for item in batch]
    assert names(half) == names(items)[2:]


async def test_without_postgresql_nobody_knows_what_is_deleted_so_it_is_waited_for(
    database: Database,
) -> None:
    away = Postgres(database.options.__class__("127.0.0.1", 1, "u", "p", "d"))
    found = Stores(away, {"vector": Listed("vector", "ab")})
    for degrade in (False, True):
        with pytest.raises(SourceUnavailable, match="is away"):
            await read(
                found, source={"type": "uds3", "degrade": degrade}, query={"text": "x", "weights": WEIGHTS}
            )


async def test_a_body_of_a_store_stands_in_for_rows_without_a_content(database: Database) -> None:
    await make_uds3(database, content=False)
    ids = [f"d{n:03d}" for n in range(130)]
    await database.load("documents", ("document_id", "classification"), [(one, "law") for one in ids])
    shelf = Shelf({one: Body(f"body {one}", {"title": "T"}) for one in ids[1:]})
    _, items = await read(Stores(database.postgres, bodies=[shelf]))
    assert names(items) == ids
    assert dead(items) == {"d000": "no_content"}
    last = items[-1].content
    assert isinstance(last, Document)
    assert last.text == "body d129"
    assert last.metadata == {"title": "T", "domain": "law", "classification": "law"}
    assert shelf.largest == 50


async def test_a_page_of_hits_is_looked_up_by_key_and_no_table_read_whole_for_it(database: Database) -> None:
    await make_uds3(database, content=False)
    ids = [f"d{number * 7919 % 30_000:05d}" for number in range(30_000)]
    for table in ("documents", "documents_metadata", "uds3_master_documents"):
        await database.load(table, ("document_id",), [(one,) for one in ids])
    await database.execute(
        "UPDATE documents SET processing_status = 'failed' WHERE document_id < 'd01'", "ANALYZE"
    )
    async with database.postgres.connect() as session:
        selection = sql.Selection(await session.schema(), {})
        hits = [*ids[:1000], "nowhere"]
        gate = await session.gate(selection, hits)
    assert gate == {one: (one != "nowhere", one >= "d01") for one in hits}
    statement = sql.gate(selection, hits)
    plan = "\n".join(row[0] for row in await database.fetch("EXPLAIN " + statement.text, *statement.values))
    assert plan.count("Index") >= 3
    assert "Seq Scan" not in plan
    # Keys in the order of the index find its pages where the keys before left them.
    assert statement.values[0] == sorted(hits)
