"""Measures a hybrid search over four stores: `python -m tests.benchmarks.hybrid`.

The times are from the start of planning, with new connections, to the first and to the last document.
"""

import asyncio
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from deploy.dev.postgres import PASSWORD as SQL_PASSWORD
from deploy.dev.postgres import USER as SQL_USER
from deploy.dev.stores import NEO4J_USER, PASSWORD, USER, Chroma, Couch, Neo4j
from shardline.services.wiring.sources import source_factory
from shardline_common.settings.load import load_settings
from shardline_common.storage.directory import DirectoryStore
from shardline_producer.plan import make_plan
from shardline_producer.plan_pages import StoredPlanPages
from shardline_producer.sources.uds3.neo4j.options import Neo4jOptions
from tests.databases import Database, local_postgres, own_database
from tests.four_stores import four_stores
from tests.make import job
from tests.services import service_started
from tests.stores import Address, change_password

SEARCHES = ["vector", "graph", "keyword"]
RUNS = 5

StoreAddresses = tuple[Database, Address, Neo4jOptions, Address]
"""PostgreSQL, ChromaDB, Neo4j, CouchDB."""


@contextmanager
def started_stores(folder: Path) -> Iterator[StoreAddresses]:
    """Run the four stores, empty."""
    chroma, couch, graph = Chroma(folder / "chroma"), Couch(folder / "couch"), Neo4j(folder / "neo4j")
    with ExitStack() as stack:
        sql = stack.enter_context(local_postgres(folder / "postgres"))
        for service in (chroma, couch, graph):
            service.folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(service_started(service))
        change_password(graph.uri)
        yield (
            Database("127.0.0.1", sql.ports["sql"], SQL_USER, SQL_PASSWORD),
            Address(f"http://127.0.0.1:{chroma.ports['http']}"),
            Neo4jOptions(graph.uri, NEO4J_USER, PASSWORD),
            Address(couch.url, USER, PASSWORD),
        )


async def search(
    folder: Path, env: dict[str, str], text: str, top_k: int | None, searches: list[str]
) -> tuple[int, float, float]:
    """Search once. Returns the number of documents, and the seconds to the first and to the last."""
    query = {"text": text, "search_types": searches, "top_k": top_k}
    spec = job(job_id="hybrid", name="hybrid", source={"type": "uds3", "hops": 1}, query=query)
    settings = load_settings(environ=env, folder=folder).settings
    started_at, first, count = time.perf_counter(), 0.0, 0
    with tempfile.TemporaryDirectory(dir=folder) as output:
        open_source = source_factory(settings, folder, confined=True, remote=None)
        source = open_source(spec, StoredPlanPages(DirectoryStore(Path(output)), ""))
        plan = await make_plan(spec, source)
        async for batch in source.read(plan.frozen, None):
            first = first or time.perf_counter() - started_at
            count += len(batch)
    return count, first, time.perf_counter() - started_at


async def figures(folder: Path, addresses: StoreAddresses) -> Table:
    """The best of several runs of each search, for its first documents and to its end."""
    table = Table(title="UDS3's search over PostgreSQL, ChromaDB, Neo4j and CouchDB")
    for column in ("what", "documents", "first document", "last document"):
        table.add_column(column, justify="left" if column == "what" else "right")
    server, chroma, graph, couch = addresses
    async with (
        own_database(server) as database,
        four_stores(folder, database, chroma, graph, couch) as (stores, env),
    ):
        for searches in (SEARCHES, *([one] for one in SEARCHES)):
            for top_k in (1000, None):
                runs = [await search(folder, env, stores.text, top_k, searches) for _ in range(RUNS)]
                count, first, last = min(runs, key=lambda run: run[1])
                name = f"{' + '.join(searches)}, {f'top {top_k:,}' if top_k else 'to the end'}"
                table.add_row(name, f"{count:,}", f"{first:.2f} s", f"{last:.2f} s")
    return table


def main() -> None:
    """Print the table."""
    with (
        tempfile.TemporaryDirectory(prefix="shardline-hybrid-") as name,
        started_stores(Path(name)) as addresses,
    ):
        Console(width=110).print(asyncio.run(figures(Path(name), addresses)))


if __name__ == "__main__":
    main()
