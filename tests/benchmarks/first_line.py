"""The first line of a keyword search, with and without a full-text index; part of `make bench-gateway`."""

import tempfile
import time
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from deploy.dev.postgres import PASSWORD, USER
from deploy.dev.service import HOST
from shardline.services.row_stream import StreamCounts, row_batches
from shardline.services.wiring.sources import source_factory
from tests.databases import Database, local_postgres
from tests.make import job

TOP = 1000
_BATCH = 100
_FILL = (
    "CREATE TABLE documents (document_id text PRIMARY KEY, content text)",
    # 2 KB of words of which one in three is its own, and each document has `haus`.
    (
        "INSERT INTO documents SELECT 'd' || n, 'haus ' || (SELECT string_agg((ARRAY['bau', 'recht', 'grund',"
        " 'dach', 'plan', 'amt'])[1 + (i * n) % 6] || CASE WHEN i % 3 = 0 THEN i::text ELSE '' END, ' ')"
        " FROM generate_series(1, 330) i) FROM generate_series(1, {}) n"
    ),
)
_VECTOR = (
    (
        "ALTER TABLE documents ADD COLUMN search_vector tsvector GENERATED ALWAYS AS (setweight(to_tsvector("
        "'german', document_id), 'A') || setweight(to_tsvector('german', content), 'B')) STORED"
    ),
    "CREATE INDEX ON documents USING gin (search_vector)",
    "VACUUM ANALYZE documents",
)


@dataclass(frozen=True)
class FirstLine:
    """Seconds to the first line of a stream, and to its last one; a minimum of some runs."""

    first: float
    last: float

    def row(self) -> list[str]:
        """The figures as cells of a table."""
        return [f"{self.first:.2f} s", f"{self.last:.2f} s"]


async def first_lines(folder: Path, indexed: int, plain: int) -> list[list[str]]:
    """Measure a search of which every document is a hit: rows of the table.

    Args:
        folder: for the server.
        indexed: the number of documents of the table with an index.
        plain: that of the table without one, which takes long.
    """
    rows = []
    with local_postgres(folder) as server:
        for count, setup, runs in ((plain, (), 1), (indexed, _VECTOR, 3)):
            database = Database(HOST, server.ports["sql"], USER, PASSWORD)
            fill = [statement.format(count) for statement in _FILL]
            await database.execute("DROP TABLE IF EXISTS documents", *fill, *setup)
            figures = [await _first_line(database) for _ in range(runs)]
            name = "with an index" if setup else "without search_vector and index"
            rows.append([name, f"{count:,}", *min(figures, key=lambda one: one.first).row()])
    return rows


async def _first_line(database: Database) -> FirstLine:
    query = {"text": "haus", "top_k": TOP, "search_types": ["keyword"]}
    spec = job(source={"type": "uds3"}, query=query, quality={"min_score": 0})
    with tempfile.TemporaryDirectory() as folder:
        source = source_factory(database.settings, Path(folder), confined=True, remote=None)
        started, first = time.perf_counter(), 0.0
        async with aclosing(row_batches(spec, source, _BATCH, StreamCounts())) as batches:
            async for batch in batches:
                if batch and not first:
                    first = time.perf_counter() - started
        return FirstLine(first, time.perf_counter() - started)
