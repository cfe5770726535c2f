"""Fill PostgreSQL, ChromaDB, Neo4j, CouchDB and a file with the sample corpus. `python -m deploy.seed.load`.

The addresses of the stores are Shardline's own settings; `SEED_DOCUMENTS` is the number of documents (2000).
It may be repeated: every write is an upsert, and nothing is removed.
"""

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import neo4j

from deploy.seed.embedding import vector
from shardline.services.sample import sample_document, write_sample
from shardline_common.runtime.task_group import TaskGroup
from shardline_common.settings.load import Settings, load_settings
from shardline_producer.sources.uds3.couch.body_store import basic_auth

_BATCH = 200
_BODY_ELSEWHERE = 4
_CITES = 17
_CHUNK = 2000
_CONFLICT = 412
_TABLES = """
CREATE TABLE IF NOT EXISTS documents (
  document_id text PRIMARY KEY, content text, classification text, created_at date, pages int,
  processing_status text,
  search_vector tsvector GENERATED ALWAYS AS (to_tsvector('german', coalesce(content, ''))) STORED
);
CREATE INDEX IF NOT EXISTS documents_search ON documents USING gin (search_vector);
CREATE TABLE IF NOT EXISTS documents_metadata (
  document_id text PRIMARY KEY, title text, rechtsgebiet text, document_type text
);
"""
_DOCUMENT = (
    "INSERT INTO documents (document_id, content, classification, created_at, pages, processing_status) "
    "VALUES ($1, $2, $3, $4::text::date, $5, 'completed') ON CONFLICT (document_id) DO NOTHING"
)
_METADATA = (
    "INSERT INTO documents_metadata (document_id, title, rechtsgebiet, document_type) "
    "VALUES ($1, $2, $3, $4) ON CONFLICT (document_id) DO NOTHING"
)
_GRAPH = (
    "CREATE CONSTRAINT document IF NOT EXISTS FOR (n:Document) REQUIRE n.document_id IS UNIQUE",
    "CREATE FULLTEXT INDEX documents IF NOT EXISTS FOR (n:Document) ON EACH [n.content]",
)
_NODES = "UNWIND $nodes AS node MERGE (n:Document {document_id: node.document_id}) SET n = node"
_EDGES = (
    "UNWIND $edges AS edge MATCH (a:Document {document_id: edge[0]}), (b:Document {document_id: edge[1]}) "
    "MERGE (a)-[:CITES]->(b)"
)

Documents = Sequence[Mapping[str, Any]]


async def fill(settings: Settings, documents: Documents) -> None:
    """Fill all four stores.

    Raises:
        ExceptionGroup: the errors of the stores' clients.
    """
    async with TaskGroup() as tasks:
        tasks.create_task(_postgres(settings, documents))
        tasks.create_task(_chroma(settings, documents))
        tasks.create_task(_neo4j(settings, documents))
        tasks.create_task(_couch(settings, documents))


def _elsewhere(documents: Documents) -> Documents:
    """The documents whose text is only in CouchDB."""
    return documents[::_BODY_ELSEWHERE]


async def _postgres(settings: Settings, documents: Documents) -> None:
    password = settings.postgres_password
    connection = await asyncpg.connect(
        host=settings.postgres_host,
        port=settings.postgres_port,
        user=settings.postgres_user,
        password=password.get_secret_value() if password else None,
        database=settings.postgres_database,
    )
    elsewhere = {one["document_id"] for one in _elsewhere(documents)}
    try:
        await connection.execute(_TABLES)
        await connection.executemany(_DOCUMENT, [_main_row(one, elsewhere) for one in documents])
        await connection.executemany(_METADATA, [_metadata_row(one) for one in documents])
        # The planner needs statistics of the tables.
        await connection.execute("ANALYZE documents, documents_metadata")
    finally:
        await connection.close()


def _main_row(document: Mapping[str, Any], elsewhere: set[str]) -> tuple[Any, ...]:
    content = None if document["document_id"] in elsewhere else document["content"]
    kind, created, pages = document.get("document_type"), document["created_at"], document["pages"]
    return (document["document_id"], content, kind, created, pages)


def _metadata_row(document: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(document.get(name) for name in ("document_id", "title", "domain", "document_type"))


async def _chroma(settings: Settings, documents: Documents) -> None:
    tenant = f"http://{settings.chroma_host}:{settings.chroma_port}/api/v2/tenants/{settings.chroma_tenant}"
    folder = f"{tenant}/databases/{settings.chroma_database}/collections"
    async with aiohttp.ClientSession(raise_for_status=True) as session:
        body: dict[str, Any] = {"name": settings.chroma_collection, "get_or_create": True}
        body["configuration"] = {"hnsw": {"space": "cosine"}}
        async with session.post(folder, json=body) as response:
            collection = (await response.json())["id"]
        for batch in _batches([one for one in documents if one["content"].strip()]):
            async with session.post(f"{folder}/{collection}/upsert", json=_records(batch)):
                pass


def _records(documents: Documents) -> dict[str, Any]:
    texts = [one["content"][:_CHUNK] for one in documents]
    return {
        "ids": [f"{one['document_id']}::chunk::0" for one in documents],
        "embeddings": [vector(text) for text in texts],
        "metadatas": [{"document_id": one["document_id"]} for one in documents],
        "documents": texts,
    }


async def _neo4j(settings: Settings, documents: Documents) -> None:
    password = settings.neo4j_password
    auth = (settings.neo4j_user or "neo4j", password.get_secret_value() if password else "")
    names = ("document_id", "title", "content")
    nodes = [{name: one[name] for name in names if name in one} for one in documents]
    pairs = zip(documents, documents[_CITES:], strict=False)
    edges = [[one["document_id"], other["document_id"]] for one, other in pairs]
    async with (
        neo4j.AsyncGraphDatabase.driver(settings.neo4j_uri or "", auth=auth) as driver,
        driver.session(database=settings.neo4j_database) as session,
    ):
        for statement in _GRAPH:
            await (await session.run(statement)).consume()
        for batch in _batches(nodes):
            await (await session.run(_NODES, nodes=batch)).consume()
        await (await session.run(_EDGES, edges=edges)).consume()
        await (await session.run("CALL db.awaitIndexes(60)")).consume()


async def _couch(settings: Settings, documents: Documents) -> None:
    password = settings.couch_password
    login = basic_auth(settings.couch_user or "", password.get_secret_value() if password else "")
    url = f"{settings.couch_url}/{settings.couch_database}"
    async with aiohttp.ClientSession(headers=login) as session:
        async with session.put(url) as response:
            if response.status != _CONFLICT:
                response.raise_for_status()
        for batch in _batches(_elsewhere(documents)):
            bodies = [{"_id": one["document_id"], "content": one["content"]} for one in batch]
            # An existing document is a conflict in the list of the response, and is kept.
            async with session.post(f"{url}/_bulk_docs", json={"docs": bodies}) as response:
                response.raise_for_status()


def _batches(values: Sequence[Any]) -> list[Sequence[Any]]:
    return [values[start : start + _BATCH] for start in range(0, len(values), _BATCH)]


def seed(settings: Settings, count: int, file: Path) -> None:
    """Write `count` documents of the sample into the stores, and as JSON lines into the file."""
    asyncio.run(fill(settings, [sample_document(number) for number in range(count)]))
    write_sample(file, count)


def main() -> None:
    """Seed the stores that the settings name."""
    settings = load_settings().settings
    count, file = int(os.environ.get("SEED_DOCUMENTS", "2000")), settings.files_root / "sample.jsonl.zst"
    seed(settings, count, file)
    sys.stdout.write(f"{count} documents are in PostgreSQL, ChromaDB, Neo4j, CouchDB and {file}\n")


if __name__ == "__main__":
    main()
