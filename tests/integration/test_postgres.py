"""UDS3 on a PostgreSQL server: scans, full-text search, and variants of the tables."""

import tracemalloc
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
import pytest

from shardline_common.errors import JobFailed
from shardline_common.job.names import Layout
from shardline_common.memory.store import MemoryStore
from shardline_producer.plan import make_plan
from shardline_producer.sources.source import InvalidDocument
from shardline_producer.sources.uds3.planned_store import ConfiguredStores
from shardline_producer.sources.uds3.postgres.connection import Postgres
from tests.corpus import corpus_file, lines
from tests.databases import Database, own_database
from tests.make import job
from tests.source_items import dead_letter_reasons, documents_of, item_ids
from tests.uds3_data import insert, load_corpus, make_uds3
from tests.uds3_reading import open_source, plan_and_read, run_and_read_rows, scan_items, uds3_job

PROVEN = {
    "postgresql": {
        "level": "proven",
        "how": "each page was listed in one snapshot, to the end that the server sends",
    }
}


@pytest.mark.corpus
async def test_a_scan_gives_the_same_rows_as_a_file_of_the_documents(
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
    by_file = await run_and_read_rows(
        job(source={"type": "files", "paths": ["laws.jsonl.zst"]}, **shape), database, tmp_path, MemoryStore()
    )
    store = MemoryStore()
    spec = uds3_job(**shape)
    by_table = await run_and_read_rows(spec, database, tmp_path, store)
    assert len(by_table) == len(by_file) > 1000
    assert {row["source"] for row in by_table} == {"uds3_search"}
    expected = {row["document_id"]: row | {"source": "uds3_search"} for row in by_file}
    assert all(row == expected[row["document_id"]] for row in by_table)
    parts = [info.key async for info in store.list(Layout.of(spec).plan_pages)]
    assert 2 < len(parts) < 12
    manifest = orjson.loads(await store.get(Layout.of(spec).manifest))
    assert manifest["source"] == {"type": "uds3", "count": len(corpus), "completeness": PROVEN}
    assert list(manifest["schema"]["columns"]) == columns


async def test_the_declared_columns_are_the_tables_columns(database: Database) -> None:
    await make_uds3(database)
    plan, items = await plan_and_read(ConfiguredStores(database.postgres))
    assert items == []
    assert list(plan.columns) == [
        *("title", "domain", "document_type", "rechtsgebiet", "behoerde", "file_path", "classification"),
        *("content_length", "legal_terms_count", "created_at", "quality_score", "processing_status"),
        *("uuid", "original_filename", "mime_type"),
    ]
    assert (plan.columns["content_length"], plan.columns["quality_score"]) == ("int", "float")


async def test_the_domain_is_the_legal_area_or_the_classification(database: Database) -> None:
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
    found = {one.id: one.metadata for one in documents_of(await scan_items(database))}
    assert [found[name].get("domain") for name in "abc"] == ["area", "class", None]
    assert found["a"]["title"] == "T"
    assert found["a"]["created_at"] == "2020"
    assert found["a"]["metadata_json"] == {"k": [1]}
    assert item_ids(await scan_items(database, filters={"domain": "class"})) == ["b"]


async def test_ids_are_in_byte_order_under_any_collation(postgres_server: Database) -> None:
    ids = ["a", "B", "ä", "Z", "a-1", "a1", "A", "é", "z", "ß", "10", "9", "\U0001f600", "\uffff"]
    found = []
    for locale in ("icu", "libc"):
        async with own_database(postgres_server, locale) as database:
            await load_corpus(database, [{"document_id": one, "content": one} for one in ids])
            found.append(item_ids(await scan_items(database)))
    assert found[0] == found[1] == sorted(ids, key=str.encode)


async def test_a_keyword_search_has_the_ranking_of_postgresql(database: Database, tmp_path: Path) -> None:
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
    plan, items = await plan_and_read(ConfiguredStores(database.postgres), query=search)
    assert item_ids(items) == expected
    configs = plan.notes["search_config"]
    assert configs["documents"] == "german (trigger documents_search of public.documents)"
    assert configs["uds3_master_documents"].startswith("english (assumed")
    notes = {"searches": ["keyword"], "left_out": [], "degraded": []}
    assert plan.notes == notes | {"search_config": configs}
    assert [one.relevance for one in documents_of(items)] == [
        0.5 / (60 + rank) for rank in range(1, len(items) + 1)
    ]
    for most in (1, 7, len(expected)):
        assert item_ids(await scan_items(database, **search, top_k=most)) == expected[:most]
    texts = {one["document_id"]: one["content"] for one in corpus}
    assert all(one.text == texts[one.id] for one in documents_of(items))
    _, normal = await plan_and_read(
        ConfiguredStores(database.postgres), query=search, quality={"relevance": "normalized"}
    )
    assert [one.relevance for one in documents_of(normal)][:2] == [1.0, 61 / 62]


async def test_left_out_searches_are_in_manifest_warnings_and_card(
    database: Database, tmp_path: Path
) -> None:
    await make_uds3(database)
    rows = [(f"d{n}", "Recht " * (300 + n)) for n in range(3)]
    await database.load("documents", ("document_id", "content"), rows)
    spec = uds3_job(query={"text": "Recht"}, quality={"min_score": 0.45, "keep_rejected": True})
    store = MemoryStore()
    assert await run_and_read_rows(spec, database, tmp_path, store) == []
    layout = Layout.of(spec)
    manifest = orjson.loads(await store.get(layout.manifest))
    notes = {"searches": ["keyword"], "left_out": ["vector", "graph"], "degraded": []}
    configs = {"search_config": manifest["source"]["search_config"]}
    found = {"type": "uds3", "count": 3, "completeness": PROVEN}
    assert manifest["source"] == found | notes | configs
    assert manifest["warnings"] == ["empty", "left_out"]
    assert (
        "left out, which no store or table here can do: vector, graph."
        in (await store.get(layout.card)).decode()
    )
    rejected: list[dict[str, Any]] = []
    async for info in store.list(layout.root + "rejected/"):
        rejected += map(orjson.loads, (await store.get(info.key)).splitlines())
    # The raw relevance is rounded to six decimals, as Clara's, also in rejected documents.
    assert sorted(one["scores"]["relevance"] for one in rejected) == [0.004762, 0.004839, 0.004918]
    kept = uds3_job(job_id="kept", query={"text": "Recht"}, quality={"min_score": 0.4})
    assert {row["relevance_score"] for row in await run_and_read_rows(kept, database, tmp_path, store)} == {
        *(0.004762, 0.004839, 0.004918)
    }


async def test_each_table_is_searched_with_its_own_configuration(database: Database) -> None:
    await make_uds3(database)
    await insert(database, "documents", {"document_id": "d", "content": "Die Häuser der Gemeinden"})
    await insert(database, "uds3_master_documents", {"document_id": "m", "original_filename": "houses.pdf"})
    await database.execute(
        "UPDATE uds3_master_documents SET search_vector = to_tsvector('english', 'houses')"
    )

    async def found(text: str) -> list[str]:
        return item_ids(await scan_items(database, text=text, search_types=["keyword"]))

    assert await found("Haus") == ["d"]
    assert await found("house") == ["m"]


async def test_a_table_without_a_search_vector_is_searched(database: Database) -> None:
    await load_corpus(
        database, [{"document_id": f"d{n}", "content": "Baurecht " * n + "Dach"} for n in range(4)]
    )
    found = await scan_items(database, text="Baurecht", search_types=["keyword"])
    assert sorted(item_ids(found)) == ["d1", "d2", "d3"]


async def test_several_metadata_rows_make_one_document(database: Database) -> None:
    await make_uds3(database)
    await database.execute("ALTER TABLE documents_metadata DROP CONSTRAINT documents_metadata_pkey")
    await insert(database, "documents", {"document_id": "a", "content": "law"})
    rows = [{"document_id": "a", "title": title} for title in ("Z", "B")]
    await insert(database, "documents_metadata", *rows)
    found = documents_of(await scan_items(database))
    assert [(one.id, one.metadata["title"]) for one in found] == [("a", "B")]
    assert item_ids(await scan_items(database, text="law", search_types=["keyword"])) == ["a"]


async def test_tables_and_views_can_be_chosen_and_unknown_names_fail(database: Database) -> None:
    await make_uds3(database)
    await insert(database, "documents", {"document_id": "a", "content": "x"})
    await insert(database, "uds3_master_documents", {"document_id": "m"})
    await database.execute("CREATE VIEW chosen AS SELECT document_id, content FROM documents")

    async def over(table: str) -> list[str]:
        _, items = await plan_and_read(ConfiguredStores(Postgres(replace(database.options, table=table))))
        return item_ids(items)

    assert await over("chosen") == ["a"]
    assert await over("uds3_master_documents") == ["m"]
    with pytest.raises(JobFailed, match="no table nowhere"):
        await over("nowhere")
    with pytest.raises(JobFailed, match=r"no field 'colour'; it has behoerde, .*title"):
        await scan_items(database, filters={"colour": "red"})
    with pytest.raises(JobFailed, match="PostgreSQL, which is not configured"):
        await plan_and_read(ConfiguredStores())


async def test_a_text_over_the_limit_is_not_transferred(database: Database) -> None:
    huge = "ä" * (10 << 20)
    await load_corpus(
        database, [{"document_id": name, "content": text} for name, text in (("a", huge), ("b", "x"))]
    )
    spec = uds3_job(max_document_bytes=65_536)
    source = open_source(ConfiguredStores(database.postgres), spec)
    plan = await make_plan(spec, source)
    tracemalloc.start()
    try:
        items = [item async for batch in source.read(plan.frozen, None) for item in batch]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    first = items[0].content
    assert isinstance(first, InvalidDocument)
    raw = huge.encode()
    assert (first.dead_letter.reason, first.dead_letter.size) == ("too_large", len(raw))
    assert first.dead_letter.sha256 == sha256(raw).hexdigest()
    assert raw.startswith(first.dead_letter.original)
    assert item_ids(items) == ["a", "b"]
    assert peak < 4 << 20


async def test_without_any_store_of_texts_planning_fails(database: Database) -> None:
    await make_uds3(database, content=False)
    with pytest.raises(JobFailed, match="no table has a column content, and no store of bodies"):
        await scan_items(database)


async def test_a_document_without_a_body_is_a_dead_letter(database: Database) -> None:
    await make_uds3(database)
    await insert(database, "documents", {"document_id": "a"}, {"document_id": "b", "content": ""})
    items = await scan_items(database)
    assert dead_letter_reasons(items) == {"a": "no_content"}
    assert [one.text for one in documents_of(items)] == [""]


async def test_invalid_ids_are_dead_letters(database: Database) -> None:
    ids = ["", "new\nline", "x" * 2000, "good"]
    await load_corpus(database, [{"document_id": one, "content": "x"} for one in ids])
    items = await scan_items(database)
    assert sorted(dead_letter_reasons(items).values()) == ["bad_id"] * 3
    assert [one.id for one in documents_of(items)] == ["good"]
