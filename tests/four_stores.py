"""One corpus over PostgreSQL, ChromaDB, Neo4j and CouchDB, as an installation of UDS3 grows over the years.

Each document is somewhere else, its body as well, and some are marked deleted, each in another store.
`FourStores` fills them, and tells what a search must find: from each store's whole list, asked in the
test's own words, with fractions in place of floating point.
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
from tests.uds3 import make_uds3
from tests.vectors import Vectors, load_vectors

# With this question no two of the distances lie so near to each other, and to a border of their
# rounding, that the last bits of a vector, which ChromaDB does not promise, could change their order.
QUESTION = 5
# One word of it, since the keyword search wants all words in a document; in the sample another.
IN_CORPUS, IN_SAMPLE = "Zulassung", "Baugenehmigung"
WEIGHTS = {"vector": Fraction(1, 2), "graph": Fraction(1, 4), "keyword": Fraction(1, 4)}
# The full-text index of all documents takes longer to fill than all else here; those that only the
# keyword search can find are therefore every twentieth.
_ONE_OF = 20
_BATCH = 100


@dataclass(frozen=True)
class Place:
    """Which stores have a document, where its body is, and the letters of those that mark it deleted."""

    id: str
    tables: bool
    chroma: bool
    graph: bool
    body: str
    deleted: str = ""


# In which stores, where the body is, which stores mark it deleted (a letter for each).
_MARKED = {
    3: (True, True, True, "tables", "p"),
    13: (False, True, False, "couch", "v"),
    23: (False, False, True, "couch", "g"),
    33: (True, True, True, "couch", "c"),
    36: (True, True, True, "couch", "pvgc"),
    # All have these two, and only one store knows that they are deleted: that is enough.
    5: (True, True, True, "tables", "g"),
    6: (True, True, True, "tables", "v"),
}


def place_of(number: int, identity: str) -> Place:
    """Where document `number` of those with a vector is."""
    if marked := _MARKED.get(number % 40):
        return Place(identity, *marked)
    if number % 11 == 0:
        return Place(identity, False, True, True, "chroma" if number % 2 else "couch")
    bodies = ("couch", "reference", *["tables"] * 5)
    return Place(identity, True, number % 9 > 0, number % 8 > 0, bodies[number % 7])


@dataclass
class FourStores:
    """The stores, filled. `texts` are the bodies; `edges` lie between documents of the graph."""

    database: Database
    graph: Neo4jOptions
    chroma: ChromaData
    couch: CouchData
    vectors: Vectors
    text: str
    places: dict[str, Place]
    texts: dict[str, str]
    edges: list[tuple[str, str]] = field(default_factory=list)

    def gone(self, store: str) -> set[str]:
        """The documents that a store marks deleted."""
        return {one.id for one in self.places.values() if store in one.deleted}

    async def keyword(self) -> list[str]:
        """PostgreSQL's own ranking of all rows, deleted or not."""
        query = (
            "SELECT document_id, ts_rank_cd(search_vector, q, 32)::float8 FROM documents,"
            " plainto_tsquery('german', $1) q WHERE search_vector @@ q"
        )
        return _ranked({row[0]: -row[1] for row in await self.database.fetch(query, self.text)})

    def nearest(self) -> list[str]:
        """All documents of ChromaDB that it does not mark deleted, by the cosine of the nearest chunk."""
        found = {}
        for number, far in enumerate(self.vectors.cosine_distances(QUESTION)):
            place = self.places[self.vectors.ids[number]]
            if place.chroma and "v" not in place.deleted:
                found[place.id] = round(min(far, 2.0 - far) if number % 3 == 0 else far, 6)
        return _ranked(found)

    async def related(self) -> list[str]:
        """What Neo4j's index finds, then what is one edge away from it, without what the graph marks."""
        statement = (
            "CALL db.index.fulltext.queryNodes('texts', $words) YIELD node, score "
            "RETURN coalesce(node.document_id, node.id) AS id, score"
        )
        rows = await cypher_async(self.graph, statement, words=self.text)
        gone = self.gone("g")
        direct = _ranked({row["id"]: -row["score"] for row in rows if row["id"] not in gone})
        hits, near = set(direct), set[str]()
        for start, end in self.edges:
            near |= {end} if start in hits else set()
            near |= {start} if end in hits else set()
        return direct + sorted(near - hits - gone, key=str.encode)

    async def fused(self) -> dict[str, Fraction]:
        """Every document that no searched store marks deleted with its score, the best first, ties by id."""
        found = {"keyword": await self.keyword(), "vector": self.nearest(), "graph": await self.related()}
        scores: dict[str, Fraction] = {}
        gone = self.gone("p") | self.gone("v") | self.gone("g")
        for name, ids in found.items():
            live = [one for one in ids if one not in gone]
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
    """The stores with the corpus in them, and the settings of a process that searches them."""
    vectors = load_vectors()
    text = IN_CORPUS if SHARED.exists() else IN_SAMPLE
    documents = lines(corpus_file(folder))
    with_vector = set(vectors.ids)
    places = {one: place_of(number, one) for number, one in enumerate(vectors.ids)}
    for document in [one for one in documents if one["document_id"] not in with_vector][::_ONE_OF]:
        identity = document["document_id"]
        places[identity] = Place(identity, True, False, False, "tables")
    chosen = [document for document in documents if document["document_id"] in places]
    texts = {one["document_id"]: one["content"] for one in chosen}
    stores = FourStores(
        database, graph, ChromaData(chroma, "cosine"), CouchData(couch), vectors, text, places, texts
    )
    async with asyncio.TaskGroup() as tasks:
        for fill in (
            _fill_bodies(stores),
            _fill_tables(stores, chosen),
            _fill_vectors(stores),
            _fill_graph(stores),
        ):
            tasks.create_task(fill)
    async with embedding_service({text: vectors.query_embeddings[QUESTION].astype(float).tolist()}) as url:
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
    for place in stores.places.values():
        if place.body in ("couch", "reference"):
            name = place.id if place.body == "couch" else _reference(place.id)
            marks = {"metadata": {"deleted": True}} if "c" in place.deleted else {}
            bodies.append({"_id": name, "content": stores.texts[place.id]} | marks)
    await stores.couch.create()
    for start in range(0, len(bodies), _BATCH):
        await stores.couch.post("/_bulk_docs", {"docs": bodies[start : start + _BATCH]})


def _reference(identity: str) -> str:
    return "file:" + identity


async def _fill_tables(stores: FourStores, documents: Sequence[Mapping[str, Any]]) -> None:
    await make_uds3(stores.database)
    rows, titles, references = [], [], []
    states = ("archived", "failed", "deleted")
    for number, document in enumerate(documents):
        place = stores.places[document["document_id"]]
        if not place.tables:
            continue
        state = states[number % 3] if "p" in place.deleted else "completed"
        content = document["content"] if place.body == "tables" else None
        rows.append((place.id, document.get("document_type"), content, state))
        titles.append((place.id, document.get("title"), document.get("document_type")))
        if place.body == "reference":
            references.append((place.id, json.dumps({stores.couch.name: {"doc_id": _reference(place.id)}})))
    load = stores.database.load
    await load("documents", ("document_id", "classification", "content", "processing_status"), rows)
    await load("documents_metadata", ("document_id", "title", "document_type"), titles)
    await load("uds3_master_documents", ("document_id", "couchdb_refs"), references)
    # The planner must know how large the tables are, as it does where they have grown for a while.
    await stores.database.execute("ANALYZE")


async def _fill_vectors(stores: FourStores) -> None:
    records: dict[str, list[float]] = {}
    metadatas: dict[str, dict[str, Any]] = {}
    texts: dict[str, str] = {}
    embeddings = stores.vectors.embeddings.astype(float).tolist()
    for number, (identity, vector) in enumerate(zip(stores.vectors.ids, embeddings, strict=True)):
        place = stores.places[identity]
        if not place.chroma:
            continue
        marks = {"is_deleted": True} if "v" in place.deleted else {}
        name = f"{identity}::chunk::0" if number % 2 else identity
        records[name], metadatas[name] = vector, {"document_id": identity} | marks
        # Where CouchDB says that a document is deleted, its old text is still here.
        if place.body == "chroma" or "c" in place.deleted:
            texts[name] = stores.texts[identity]
        if number % 3 == 0:
            # A second chunk, turned away from the first.
            second = f"{identity}::chunk::1"
            records[second], metadatas[second] = [-value for value in vector], {"kind": "chunk"} | marks
    await stores.chroma.create()
    await stores.chroma.add(records, metadatas, texts)


async def _fill_graph(stores: FourStores) -> None:
    known = [place for place in stores.places.values() if place.graph]
    nodes: list[dict[str, Any]] = [
        {"id" if number % 3 == 0 else "document_id": place.id, "content": stores.texts[place.id]}
        | ({"deleted": True} if "g" in place.deleted else {})
        for number, place in enumerate(known)
    ]
    stores.edges = [(known[n].id, known[n + 17].id) for n in range(0, len(known) - 17, 3)]
    fill = "UNWIND $nodes AS node CREATE (n:Document) SET n = node RETURN elementId(n) AS element"
    elements: list[str] = []
    for start in range(0, len(nodes), _BATCH):
        rows = await cypher_async(stores.graph, fill, nodes=nodes[start : start + _BATCH])
        elements += [row["element"] for row in rows]
    await cypher_async(stores.graph, "CREATE FULLTEXT INDEX texts FOR (n:Document) ON EACH [n.content]")
    await cypher_async(stores.graph, "CALL db.awaitIndexes(60)")
    element_of = dict(zip((place.id for place in known), elements, strict=True))
    link = (
        "UNWIND $edges AS edge MATCH (a) WHERE elementId(a) = edge[0] "
        "MATCH (b) WHERE elementId(b) = edge[1] CREATE (a)-[:CITES]->(b)"
    )
    await cypher_async(stores.graph, link, edges=[[element_of[one] for one in edge] for edge in stores.edges])
