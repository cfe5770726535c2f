"""UDS3's master table on a PostgreSQL server, as migration 001 makes it, and archived documents."""

from collections.abc import Mapping
from typing import Any

import pytest

from shardline.services.preview import preview
from shardline_producer.sources.uds3.planned_store import ConfiguredStores
from shardline_producer.sources.uds3.store_ports import DocumentBody
from shardline_producer.sources.uds3.tombstones import is_deleted
from tests.databases import Database
from tests.source_items import documents_of, item_ids
from tests.uds3_data import DictBodyStore, insert, make_uds3
from tests.uds3_reading import open_source, plan_and_read, uds3_job

# The parts of database/migrations/001_create_uds3_master_documents.sql that a reader sees.
MIGRATION_001 = """
CREATE TYPE processing_status_type AS ENUM ('pending', 'processing', 'completed', 'failed', 'archived');
CREATE TYPE document_category_type AS ENUM ('image', 'document', 'unknown');
CREATE TABLE uds3_master_documents (
  document_id VARCHAR(255) PRIMARY KEY, uuid UUID UNIQUE DEFAULT gen_random_uuid(),
  file_path VARCHAR(500) NOT NULL, original_filename TEXT, file_size_bytes BIGINT, file_hash_sha256 CHAR(64),
  mime_type VARCHAR(100), created_at TIMESTAMP WITH TIME ZONE DEFAULT CURRENT_TIMESTAMP,
  processing_status processing_status_type DEFAULT 'pending',
  document_category document_category_type DEFAULT 'unknown', confidence_score REAL DEFAULT 0.0,
  couchdb_refs JSONB DEFAULT '{}', search_vector tsvector, metadata_json JSONB DEFAULT '{}'
);
CREATE FUNCTION update_master_documents_search_vector() RETURNS TRIGGER AS $$
BEGIN
    NEW.search_vector :=
        setweight(to_tsvector('english', COALESCE(NEW.original_filename, '')), 'A') ||
        setweight(to_tsvector('english', COALESCE(NEW.metadata_json->>'title', '')), 'A');
    RETURN NEW;
END;
$$ LANGUAGE plpgsql;
CREATE TRIGGER trg_update_search_vector BEFORE INSERT OR UPDATE ON uds3_master_documents
    FOR EACH ROW EXECUTE FUNCTION update_master_documents_search_vector();
"""
FIELDS: Mapping[str, dict[str, Any]] = {
    "all": {"title": "Building law", "domain": "baurecht", "document_type": "Gesetz"},
    "area": {"title": "Roofs", "rechtsgebiet": "baurecht", "document_type": "Satzung"},
    "null": {"title": None, "domain": "", "document_type": 5},
    "list": {"title": ["a"]},
    "none": {},
}


async def make_master(database: Database, rows: Mapping[str, dict[str, Any]]) -> ConfiguredStores:
    await database.execute(MIGRATION_001)
    master = [
        {"document_id": name, "file_path": f"/in/{name}.pdf", "original_filename": f"{name}.pdf"}
        | {"metadata_json": fields, "processing_status": "completed"}
        for name, fields in rows.items()
    ]
    await insert(database, "uds3_master_documents", *master)
    bodies = DictBodyStore({name: DocumentBody("law " * 200) for name in rows})
    return ConfiguredStores(database.postgres, body_stores=[bodies])


async def test_fields_of_metadata_json_are_shown_filtered_and_scored(database: Database) -> None:
    stores = await make_master(database, FIELDS)
    plan, items = await plan_and_read(stores)
    assert list(plan.columns)[:3] == ["title", "domain", "document_type"]
    shown = {
        one.id: [one.metadata.get(name) for name in ("title", "domain", "document_type")]
        for one in documents_of(items)
    }
    assert shown == {
        "all": ["Building law", "baurecht", "Gesetz"],
        "area": ["Roofs", "baurecht", "Satzung"],
        "list": [["a"], None, None],
        "none": [None, None, None],
        "null": [None, None, 5],
    }
    for filters, expected in (
        ({"domain": "baurecht"}, ["all", "area"]),
        ({"title": {"gte": "R"}}, ["area"]),
        ({"title": None}, ["none", "null"]),
        ({"document_type": ["Gesetz", 5]}, ["all", "null"]),
    ):
        _, found = await plan_and_read(stores, query={"filters": filters})
        assert item_ids(found) == expected, filters
    looked = await preview(uds3_job(), lambda spec, _: open_source(stores, spec), documents=100, seconds=60)
    assert [one.document_id for one in looked.sample.rows] == ["all", "area"]
    assert looked.sample.present == {"title": 3, "domain": 2, "document_type": 3}
    first = looked.sample.documents[0]
    assert first.score_parts == {"length": 0.3, "metadata": 0.3, "relevance": 0.0}
    assert first.quality_score == sum(first.score_parts.values())


async def test_the_columns_of_other_tables_come_before_metadata_json(database: Database) -> None:
    await make_uds3(database)
    await insert(database, "documents", {"document_id": "a", "content": "x", "classification": "c"})
    await insert(database, "documents_metadata", {"document_id": "a", "title": "own"})
    fields = {"title": "json", "domain": "json", "document_type": "json"}
    await insert(database, "uds3_master_documents", {"document_id": "a", "metadata_json": fields})
    _, items = await plan_and_read(ConfiguredStores(database.postgres))
    [found] = documents_of(items)
    assert [found.metadata[name] for name in ("title", "domain", "document_type")] == ["own", "c", "json"]


# As UDS3's archive manager writes and restores them.
ARCHIVED: Mapping[str, dict[str, Any]] = {
    "flag": {"archived": True},
    "text": {"archived": "Yes"},
    "time": {"archived_at": "2025-01-01T00:00:00"},
    "both": {"archived": True, "archived_at": "2025-01-01T00:00:00"},
}
LIVE: Mapping[str, dict[str, Any]] = {
    "restored": {"archived": False, "archived_at": "2025-01-01T00:00:00"},
    "never": {"archived": None, "archived_at": None},
    "empty": {"archived_at": ""},
    "other": {"archive_id": "7"},
}
DELETED: Mapping[str, dict[str, Any]] = {
    "deleted": {"deleted": True},
    "failed": {"processing_status": "FAILED"},
    "at": {"deleted_at": "2025-01-01"},
}


def test_the_rule_of_archived_documents_is_the_same_for_every_store() -> None:
    for rows, expected in ((ARCHIVED, True), (LIVE, False), (DELETED, True)):
        assert all(is_deleted(fields) is expected for fields in rows.values())
    assert not any(is_deleted(fields, include_archived=True) for fields in ARCHIVED.values())
    assert all(is_deleted(fields, include_archived=True) for fields in DELETED.values())


@pytest.mark.parametrize("place", ["columns", "metadata_json"])
async def test_archived_documents_are_left_out_unless_a_setting_includes_them(
    database: Database, place: str
) -> None:
    rows = {**ARCHIVED, **LIVE, **DELETED}
    if place == "metadata_json":
        stores = await make_master(database, rows)
    else:
        await database.execute(
            "CREATE TABLE documents (document_id text PRIMARY KEY, content text, archived text,"
            " archived_at text, archive_id text, deleted boolean, deleted_at text, processing_status text)"
        )
        named = ({"document_id": name, "content": "x", **fields} for name, fields in rows.items())
        await insert(database, "documents", *named)
        stores = ConfiguredStores(database.postgres)
    _, items = await plan_and_read(stores)
    assert item_ids(items) == sorted(LIVE)
    included = ConfiguredStores(database.postgres, body_stores=stores.body_stores, include_archived=True)
    _, items = await plan_and_read(included)
    assert item_ids(items) == sorted([*LIVE, *ARCHIVED])
