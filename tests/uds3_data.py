"""UDS3 for tests: its tables as its own set-up creates them, and rankers and bodies in memory."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import orjson

from shardline_common.job.spec import Query, SearchType
from shardline_producer.sources.uds3.store_ports import (
    BodyRequest,
    DocumentBody,
    Hit,
    InvalidBody,
    OnDeleted,
)
from tests.databases import Database

SHAPE = """
CREATE TABLE documents (
  document_id text PRIMARY KEY, file_path text, classification text, content_length int,
  legal_terms_count int, created_at text, quality_score double precision, processing_status text
);
CREATE TABLE documents_metadata (
  document_id text PRIMARY KEY, title text, rechtsgebiet text, behoerde text, document_type text
);
CREATE TABLE uds3_master_documents (
  document_id varchar(255) PRIMARY KEY, uuid uuid, file_path text, original_filename text, mime_type text,
  created_at timestamptz, metadata_json jsonb, couchdb_refs jsonb, chromadb_refs jsonb, neo4j_refs jsonb,
  search_vector tsvector
);
"""
VECTOR = """
ALTER TABLE documents ADD COLUMN content text;
ALTER TABLE documents ADD COLUMN search_vector tsvector;
CREATE INDEX ON documents USING gin (search_vector);
CREATE FUNCTION documents_search() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  NEW.search_vector :=
    setweight(to_tsvector('german', coalesce(NEW.document_id, '')), 'A') ||
    setweight(to_tsvector('german', coalesce(NEW.content, '')), 'B') ||
    setweight(to_tsvector('german', coalesce(NEW.classification, '')), 'C');
  RETURN NEW;
END $body$;
CREATE TRIGGER documents_search BEFORE INSERT OR UPDATE ON documents
  FOR EACH ROW EXECUTE FUNCTION documents_search();
"""
_TYPES = {str: "text", int: "bigint", float: "double precision", bool: "boolean"}
_METADATA_COLUMNS = ("title", "document_type")


async def load_corpus(database: Database, documents: Sequence[Mapping[str, Any]]) -> None:
    """Create and fill two tables: title and document_type in documents_metadata, all else in documents."""
    types: dict[str, str] = {}
    for document in documents:
        for name, value in document.items():
            if value is not None and types.get(name) != "double precision":
                types[name] = _TYPES.get(type(value), "jsonb")
    types.pop("document_id")
    main = {name: kind for name, kind in types.items() if name not in _METADATA_COLUMNS}
    metadata = {name: kind for name, kind in types.items() if name in _METADATA_COLUMNS}
    for table, chosen in (("documents", main), ("documents_metadata", metadata)):
        columns = "".join(f", {name} {kind}" for name, kind in chosen.items())
        await database.execute(f"CREATE TABLE {table} (document_id text PRIMARY KEY{columns})")
        rows = [_row(document, chosen) for document in documents]
        await database.load(table, ("document_id", *chosen), rows)


def _row(document: Mapping[str, Any], types: Mapping[str, str]) -> tuple[Any, ...]:
    row = [document["document_id"]]
    for name, kind in types.items():
        value = document.get(name)
        row.append(orjson.dumps(value).decode() if kind == "jsonb" and value is not None else value)
    return tuple(row)


async def make_uds3(database: Database, *, content: bool = True) -> None:
    """Create UDS3's tables, empty: with its full-text search, or without a column content."""
    await database.execute(SHAPE, *([VECTOR] if content else []))


async def insert(database: Database, table: str, *rows: Mapping[str, Any]) -> None:
    """Insert rows of any columns; a dict is inserted as JSON."""
    async with database.admin() as connection:
        await connection.execute("SET datestyle TO 'ISO'")
        for row in rows:
            names = ", ".join(row)
            record = f"json_populate_record(NULL::{table}, $1::json)"
            query = f"INSERT INTO {table} ({names}) SELECT {names} FROM {record}"
            await connection.execute(query, orjson.dumps(row).decode())


class ListRanker:
    """A `Ranker` over a list, two ids a page. `down`, once set, is raised by its reads."""

    def __init__(
        self,
        name: SearchType,
        ids: Sequence[str],
        fields: Sequence[str] = (),
        *,
        reports_deleted: bool = False,
    ) -> None:
        self.name: SearchType = name
        self.ids = ids
        self.deleted: Sequence[str] = ()
        self.down: Exception | None = None
        self.queries: list[Query] = []
        self._fields = fields
        self._reports_deleted = reports_deleted

    async def filter_fields(self) -> Sequence[str]:
        if self.down is not None:
            raise self.down
        return self._fields

    def reports_deleted(self, query: Query) -> bool:
        return self._reports_deleted and not query.filters

    async def rank(
        self, query: Query, on_deleted: OnDeleted | None = None
    ) -> AsyncGenerator[list[Hit], None]:
        self.queries.append(query)
        assert (on_deleted is not None) == self.reports_deleted(query)
        if on_deleted is not None:
            async with aclosing(self.deleted_ids()) as pages:
                async for page in pages:
                    await on_deleted(page)
        for start in range(0, len(self.ids), 2):
            if self.down is not None:
                raise self.down
            yield [Hit(identity, 1.0) for identity in self.ids[start : start + 2]]

    async def deleted_ids(self) -> AsyncGenerator[list[str], None]:
        for start in range(0, len(self.deleted), 2):
            if self.down is not None:
                raise self.down
            yield list(self.deleted[start : start + 2])

    async def check(self) -> str:
        return "a list"


class DictBodyStore:
    """A `BodyStore` over a dict. `largest` is the highest number of requests in one call."""

    def __init__(self, bodies: Mapping[str, DocumentBody | InvalidBody]) -> None:
        self._bodies = bodies
        self.largest = 0

    async def bodies(
        self, requests: Sequence[BodyRequest], max_bytes: int
    ) -> Mapping[str, DocumentBody | InvalidBody]:
        assert max_bytes == 4_194_304
        self.largest = max(self.largest, len(requests))
        return {one.id: self._bodies[one.id] for one in requests if one.id in self._bodies}

    async def check(self) -> str:
        return "a dict"


class FakeTransaction:
    """A transaction of a connection without an effect."""

    async def start(self) -> None:
        """Begin."""

    async def commit(self) -> None:
        """End."""

    async def rollback(self) -> None:
        """End."""
