"""`python -m tests.benchmarks.ranked_first_lines`: the first line of a stream, by the kind of the search.

All documents are hits of each kind; their texts are in PostgreSQL. Beside the seconds to the first line
stands what a search cannot do without: the time in which the store alone sends its list.
"""

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

from rich.console import Console
from rich.table import Table

from shardline.services.row_stream import StreamCounts, row_batches
from shardline.services.wiring.sources import source_factory
from shardline_common.job.spec import Query
from shardline_common.settings.load import load_settings
from shardline_producer.sources.uds3.chroma.ranker import ChromaRanker
from shardline_producer.sources.uds3.neo4j.ranker import Neo4jRanker
from shardline_producer.sources.uds3.store_ports import Hit, Ranker
from tests.benchmarks.hybrid import StoreAddresses, started_stores
from tests.chroma_data import ChromaData
from tests.embedding_stub import FixedEmbedder, embedding_service
from tests.make import job
from tests.stores import cypher_async

_TEXT = "Satz"
_DIMENSION = 384
_NODES = 1000
_BATCH = 100
_TOPS = (10, 1000)
_FILL = (
    "DROP TABLE IF EXISTS documents",
    "CREATE TABLE documents (document_id text PRIMARY KEY, search_vector tsvector, content text)",
    (
        "INSERT INTO documents SELECT 'd' || n, to_tsvector('german', 'satz'), repeat('Ein Satz. ', 200)"
        " FROM generate_series(1, {}) AS n"
    ),
    "CREATE INDEX ON documents USING gin (search_vector)",
    "VACUUM ANALYZE documents",
)


async def _vectors(data: ChromaData, count: int) -> list[float]:
    """Fill a collection with random vectors. Returns that of the query."""
    drawn = random.Random(7)
    await data.create()
    for start in range(1, count + 1, _NODES):
        numbers = range(start, min(start + _NODES, count + 1))
        await data.add({f"d{n}": [round(drawn.gauss(0, 1), 4) for _ in range(_DIMENSION)] for n in numbers})
    return [round(drawn.gauss(0, 1), 4) for _ in range(_DIMENSION)]


async def figures(folder: Path, addresses: StoreAddresses, count: int, runs: int) -> Table:
    """The least seconds of several runs."""
    database, chroma, graph, _ = addresses
    await database.execute(*(statement.format(count) for statement in _FILL))
    data = ChromaData(chroma)
    vector = await _vectors(data, count)
    for start in range(1, count + 1, _NODES):
        nodes = [f"d{n}" for n in range(start, min(start + _NODES, count + 1))]
        fill = "UNWIND $nodes AS node CREATE (:Document {document_id: node, content: 'Ein Satz'})"
        await cypher_async(graph, fill, nodes=nodes)
    await cypher_async(graph, "CREATE FULLTEXT INDEX texts FOR (n:Document) ON EACH [n.content]")
    await cypher_async(graph, "CALL db.awaitIndexes(600)")
    rankers: dict[str, Ranker] = {
        "vector": ChromaRanker(data.options, FixedEmbedder(*vector)),
        "graph": Neo4jRanker(graph),
    }
    table = Table(title=f"a stream of {count:,} documents, all of them hits")
    for column in ("search", "first line", "CPU until then", "the list alone: first hit", "all hits"):
        table.add_column(column, justify="left" if column == "search" else "right")
    async with embedding_service({_TEXT: vector}) as url:
        stores = database.env | {
            "EMBEDDING_URL": url,
            "CHROMA_HOST": "127.0.0.1",
            "CHROMA_PORT": str(chroma.port),
            "CHROMA_COLLECTION": data.name,
            "NEO4J_URI": graph.uri,
            "NEO4J_USER": graph.user or "",
            "NEO4J_PASSWORD": graph.password or "",
        }
        for kinds in (["keyword"], ["vector"], ["graph"], ["vector", "graph", "keyword"]):
            env = _needed(stores, kinds)
            for top_k in _TOPS:
                lines = [await _first_line(folder, env, kinds, top_k) for _ in range(runs)]
                first, cpu = min(lines)
                alone = ["", ""]
                if kinds[0] in rankers and len(kinds) == 1 and top_k == _TOPS[0]:
                    found = [
                        await _alone(rankers[kinds[0]].rank(Query(text=_TEXT), None)) for _ in range(runs)
                    ]
                    alone = [f"{min(one):.2f} s" for one in zip(*found, strict=True)]
                table.add_row(f"{' + '.join(kinds)}, top {top_k:,}", f"{first:.2f} s", f"{cpu:.2f} s", *alone)
    return table


def _needed(stores: dict[str, str], kinds: list[str]) -> dict[str, str]:
    """The settings of the stores that are searched: the marks of another one are read by every search."""
    prefixes = {"vector": ("CHROMA", "EMBEDDING"), "graph": ("NEO4J",), "keyword": ()}
    wanted = ("POSTGRES", *(prefix for kind in kinds for prefix in prefixes[kind]))
    return {name: value for name, value in stores.items() if name.startswith(wanted)}


async def _first_line(folder: Path, env: dict[str, str], kinds: list[str], top_k: int) -> tuple[float, float]:
    """Seconds, and CPU-seconds of this process, to the first line."""
    query = {"text": _TEXT, "search_types": kinds, "top_k": top_k}
    spec = job(source={"type": "uds3"}, query=query, quality={"min_score": 0})
    settings = load_settings(environ=env, folder=folder).settings
    source = source_factory(settings, folder, confined=True, remote=None)
    started, cpu = time.perf_counter(), time.process_time()
    async with aclosing(row_batches(spec, source, _BATCH, StreamCounts())) as batches:
        async for batch in batches:
            if batch:
                return time.perf_counter() - started, time.process_time() - cpu
    raise AssertionError("no line")


async def _alone(pages: AsyncGenerator[list[Hit], None]) -> tuple[float, float]:
    """Seconds to the first and to the last hit of a list."""
    started, first = time.perf_counter(), 0.0
    async with aclosing(pages):
        async for _ in pages:
            first = first or time.perf_counter() - started
    return first, time.perf_counter() - started


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.ranked_first_lines")
    parser.add_argument("--documents", type=int, default=50_000)
    parser.add_argument("--runs", type=int, default=3)
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="shardline-first-") as name,
        started_stores(Path(name)) as addresses,
    ):
        Console(width=110).print(asyncio.run(figures(Path(name), addresses, asked.documents, asked.runs)))


if __name__ == "__main__":
    main()
