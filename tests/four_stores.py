"""One corpus over PostgreSQL, ChromaDB, Neo4j and CouchDB, as an installation of UDS3 grows over the years.

Documents and their bodies are in different stores, and different stores mark some of them as deleted.
`FourStores` computes what a search must find: from the whole list of each store, by queries of its own,
with fractions instead of floating point.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from shardline_producer.sources.uds3.neo4j.options import Neo4jOptions
from tests.chroma_data import ChromaData
from tests.corpus import SHARED, corpus_file, lines
from tests.couch_data import CouchData
from tests.databases import Database
from tests.embedding_stub import embedding_service
from tests.stores import Address, cypher_async
from tests.uds3_data import make_uds3
from tests.vectors import Vectors, load_vectors

# ChromaDB may return vectors with other last bits. For this query no two distances are so close to each
# other, or to a rounding boundary, that this could change their order.
QUERY_NUMBER = 5
# The keyword search finds documents with all words of the text. So the text is one word, which the corpus
# has; the sample needs another.
IN_CORPUS, IN_SAMPLE = "Zulassung", "Baugenehmigung"
WEIGHTS = {"vector": Fraction(1, 2), "graph": Fraction(1, 4), "keyword": Fraction(1, 4)}
# Filling the full-text index takes longest. So only every twentieth of the documents that only the keyword
# search can find is loaded.
_KEYWORD_STEP = 20
_BATCH = 100


@dataclass(frozen=True)
class DocumentPlacement:
    """Which stores have a document, which has its body, and which mark it deleted (a letter for each).

    The letters: p PostgreSQL, v ChromaDB, g Neo4j, c CouchDB.
    """

    id: str
    tables: bool
    chroma: bool
    graph: bool
    body: str
    deleted: str = ""


# The placements of documents that are deleted, by their number modulo 40.
_DELETED = {
    3: (True, True, True, "tables", "p"),
    13: (False, True, False, "couch", "v"),
    23: (False, False, True, "couch", "g"),
    33: (True, True, True, "couch", "c"),
    36: (True, True, True, "couch", "pvgc"),
    # Three stores have these, and one tombstone is enough.
    5: (True, True, True, "tables", "g"),
    6: (True, True, True, "tables", "v"),
}


def placement_of(number: int, identity: str) -> DocumentPlacement:
    """The placement of document `number` of those with a vector."""
    if deleted := _DELETED.get(number % 40):
        return DocumentPlacement(identity, *deleted)
    if number % 11 == 0:
        return DocumentPlacement(identity, False, True, True, "chroma" if number % 2 else "couch")
    bodies = ("couch", "reference", *["tables"] * 5)
    return DocumentPlacement(identity, True, number % 9 > 0, number % 8 > 0, bodies[number % 7])


@dataclass
class FourStores:
    """The filled stores. `texts`: the bodies, by id; `edges`: between documents of the graph."""

    database: Database
    graph: Neo4jOptions
    chroma: ChromaData
    couch: CouchData
    vectors: Vectors
    text: str
    placements: dict[str, DocumentPlacement]
    texts: dict[str, str]
    edges: list[tuple[str, str]] = field(default_factory=list)

    def deleted_in(self, store: str) -> set[str]:
        """The documents that a store marks deleted, by its letter."""
        return {one.id for one in self.placements.values() if store in one.deleted}

    async def keyword(self) -> list[str]:
        """The ranking of all rows by PostgreSQL, deleted or not."""
        query = (
            "SELECT document_id, ts_rank_cd(search_vector, q, 32)::float8 FROM documents,"
            " plainto_tsquery('german', $1) q WHERE search_vector @@ q"
        )
        return _ranked({row[0]: -row[1] for row in await self.database.fetch(query, self.text)})

    def nearest(self) -> list[str]:
        """All documents of ChromaDB that it does not mark deleted, by the cosine of the nearest chunk."""
        found = {}
        for number, distance in enumerate(self.vectors.cosine_distances(QUERY_NUMBER)):
            placement = self.placements[self.vectors.ids[number]]
            if placement.chroma and "v" not in placement.deleted:
                # Every third document has a second, opposite chunk.
                nearest = min(distance, 2.0 - distance) if number % 3 == 0 else distance
                found[placement.id] = round(nearest, 6)
        return _ranked(found)

    async def related(self) -> list[str]:
        """The hits of Neo4j's index, then the documents one edge away, without deleted ones."""
        statement = (
            "CALL db.index.fulltext.queryNodes('texts', $words) YIELD node, score "
            "RETURN coalesce(node.document_id, node.id) AS id, score"
        )
        rows = await cypher_async(self.graph, statement, words=self.text)
        deleted = self.deleted_in("g")
        direct = _ranked({row["id"]: -row["score"] for row in rows if row["id"] not in deleted})
        hits, near = set(direct), set[str]()
        for start, end in self.edges:
            near |= {end} if start in hits else set()
            near |= {start} if end in hits else set()
        return direct + sorted(near - hits - deleted, key=str.encode)

    async def fused(self) -> dict[str, Fraction]:
        """The scores of all documents that no store marks deleted, the best first, ties by id."""
        found = {"keyword": await self.keyword(), "vector": self.nearest(), "graph": await self.related()}
        scores: dict[str, Fraction] = {}
        deleted = set[str]().union(*map(self.deleted_in, "pvgc"))
        for name, ids in found.items():
            live = [one for one in ids if one not in deleted]
            assert len(live) > 20, name
            for rank, identity in enumerate(live, 1):
                scores[identity] = scores.get(identity, Fraction(0)) + WEIGHTS[name] / (60 + rank)
        return dict(sorted(scores.items(), key=lambda pair: (-pair[1], pair[0].encode())))


def _ranked(scores: Mapping[str, float]) -> list[str]:
    return sorted(scores, key=lambda one: (scores[one], one.encode()))


@asynccontextmanager
async def four_stores(
    folder: Path, database: Database, chroma: Address, graph: Neo4jOptions, couch: Address
) -> AsyncIterator[tuple[FourStores, dict[str, str]]]:
    """Fill the stores with the corpus. Yields them, and the environment of a process that searches them."""
    vectors = load_vectors()
    text = IN_CORPUS if SHARED.exists() else IN_SAMPLE
    documents = lines(corpus_file(folder))
    with_vector = set(vectors.ids)
    placements = {one: placement_of(number, one) for number, one in enumerate(vectors.ids)}
    for document in [one for one in documents if one["document_id"] not in with_vector][::_KEYWORD_STEP]:
        identity = document["document_id"]
        placements[identity] = DocumentPlacement(identity, True, False, False, "tables")
    chosen = [document for document in documents if document["document_id"] in placements]
    texts = {one["document_id"]: one["content"] for one in chosen}
    stores = FourStores(
        database, graph, ChromaData(chroma, "cosine"), CouchData(couch), vectors, text, placements, texts
    )
    async with asyncio.TaskGroup() as tasks:
        for fill in (
            _fill_bodies(stores),
            _fill_tables(stores, chosen),
            _fill_vectors(stores),
            _fill_graph(stores),
        ):
            tasks.create_task(fill)
    async with embedding_service(
        {text: vectors.query_embeddings[QUERY_NUMBER].astype(float).tolist()}
    ) as url:
        yield stores, _settings(stores, chroma, couch) | {"EMBEDDING_URL": url}


def _settings(stores: FourStores, chroma: Address, couch: Address) -> dict[str, str]:
    graph = stores.graph
    named = {"NEO4J_DATABASE": graph.database} if graph.database else {}
    return (
        stores.database.env
        | named
        | {
            "CHROMA_HOST": urlsplit(chroma.url).hostname or "",
            "CHROMA_PORT": str(chroma.port),
            "CHROMA_COLLECTION": stores.chroma.name,
            "NEO4J_URI": graph.uri,
            "NEO4J_USER": graph.user or "",
            "NEO4J_PASSWORD": graph.password or "",
            "COUCH_URL": couch.url,
            "COUCH_USER": couch.user,
            "COUCH_PASSWORD": couch.password,
            "COUCH_DATABASE": stores.couch.name,
        }
    )


async def _fill_bodies(stores: FourStores) -> None:
    bodies = []
    for placement in stores.placements.values():
        if placement.body in ("couch", "reference"):
            name = placement.id if placement.body == "couch" else _reference(placement.id)
            marks = {"metadata": {"deleted": True}} if "c" in placement.deleted else {}
            bodies.append({"_id": name, "content": stores.texts[placement.id]} | marks)
    await stores.couch.create()
    for start in range(0, len(bodies), _BATCH):
        await stores.couch.post("/_bulk_docs", {"docs": bodies[start : start + _BATCH]})


def _reference(identity: str) -> str:
    return "file:" + identity


async def _fill_tables(stores: FourStores, documents: Sequence[Mapping[str, Any]]) -> None:
    await make_uds3(stores.database)
    rows, titles, references = [], [], []
    statuses = ("archived", "failed", "deleted")
    for number, document in enumerate(documents):
        placement = stores.placements[document["document_id"]]
        if not placement.tables:
            continue
        status = statuses[number % 3] if "p" in placement.deleted else "completed"
        content = document["content"] if placement.body == "tables" else None
        rows.append((placement.id, document.get("document_type"), content, status))
        titles.append((placement.id, document.get("title"), document.get("document_type")))
        if placement.body == "reference":
            references.append(
                (placement.id, json.dumps({stores.couch.name: {"doc_id": _reference(placement.id)}}))
            )
    load = stores.database.load
    await load("documents", ("document_id", "classification", "content", "processing_status"), rows)
    await load("documents_metadata", ("document_id", "title", "document_type"), titles)
    await load("uds3_master_documents", ("document_id", "couchdb_refs"), references)
    # The planner needs the sizes of the tables. A real installation has them from autovacuum.
    await stores.database.execute("ANALYZE")


async def _fill_vectors(stores: FourStores) -> None:
    records: dict[str, list[float]] = {}
    metadatas: dict[str, dict[str, Any]] = {}
    texts: dict[str, str] = {}
    embeddings = stores.vectors.embeddings.astype(float).tolist()
    for number, (identity, vector) in enumerate(zip(stores.vectors.ids, embeddings, strict=True)):
        placement = stores.placements[identity]
        if not placement.chroma:
            continue
        marks = {"is_deleted": True} if "v" in placement.deleted else {}
        name = f"{identity}::chunk::0" if number % 2 else identity
        records[name], metadatas[name] = vector, {"document_id": identity} | marks
        # The old texts of documents that CouchDB marks deleted are still in ChromaDB.
        if placement.body == "chroma" or "c" in placement.deleted:
            texts[name] = stores.texts[identity]
        if number % 3 == 0:
            # A second chunk, opposite to the first.
            second = f"{identity}::chunk::1"
            records[second], metadatas[second] = [-value for value in vector], {"kind": "chunk"} | marks
            if "\n" in texts.get(name, ""):
                # The text in two chunks, which a line break joins.
                texts[name], _, texts[second] = texts[name].partition("\n")
            elif name in texts:
                # The same chunk twice: its text counts once.
                texts[second], metadatas[second]["chunk_index"] = texts[name], 0
    await stores.chroma.create()
    await stores.chroma.add(records, metadatas, texts)


async def _fill_graph(stores: FourStores) -> None:
    known = [placement for placement in stores.placements.values() if placement.graph]
    nodes: list[dict[str, Any]] = [
        {"id" if number % 3 == 0 else "document_id": placement.id, "content": stores.texts[placement.id]}
        | ({"deleted": True} if "g" in placement.deleted else {})
        for number, placement in enumerate(known)
    ]
    stores.edges = [(known[n].id, known[n + 17].id) for n in range(0, len(known) - 17, 3)]
    fill = "UNWIND $nodes AS node CREATE (n:Document) SET n = node RETURN elementId(n) AS element"
    elements: list[str] = []
    for start in range(0, len(nodes), _BATCH):
        rows = await cypher_async(stores.graph, fill, nodes=nodes[start : start + _BATCH])
        elements += [row["element"] for row in rows]
    await cypher_async(stores.graph, "CREATE FULLTEXT INDEX texts FOR (n:Document) ON EACH [n.content]")
    await cypher_async(stores.graph, "CALL db.awaitIndexes(60)")
    element_of = dict(zip((placement.id for placement in known), elements, strict=True))
    link = (
        "UNWIND $edges AS edge MATCH (a) WHERE elementId(a) = edge[0] "
        "MATCH (b) WHERE elementId(b) = edge[1] CREATE (a)-[:CITES]->(b)"
    )
    await cypher_async(stores.graph, link, edges=[[element_of[one] for one in edge] for edge in stores.edges])
