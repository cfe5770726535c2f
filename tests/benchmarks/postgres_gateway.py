"""`python -m tests.benchmarks.postgres_gateway FOLDER`: a gateway without jobs, over PostgreSQL.

The settings come from the environment. `filled` makes the database that its streams read.
"""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.dev.postgres import PASSWORD, USER
from deploy.dev.service import HOST
from shardline.gateway.dataset_reader import DatasetReader
from shardline.gateway.server import SourceAccess, run_gateway
from shardline.gateway.users import security_policy
from shardline.services.wiring.sources import source_factory
from shardline_common.memory.broker import MemoryBroker
from shardline_common.runtime.lifecycle import run_until_stopped
from shardline_common.settings.load import Settings, load_settings
from shardline_common.storage.directory import DirectoryStore
from shardline_common.telemetry.logs import log_to_stderr
from tests.databases import Database, local_postgres

_GRACE_SECONDS = 60.0
_FILL = (
    "DROP TABLE IF EXISTS documents",
    (
        "CREATE TABLE documents (document_id text PRIMARY KEY, title text, classification text,"
        " created_at text, search_vector tsvector, content text)"
    ),
    # The search hits every document, and is cheap: what is measured is the gateway.
    (
        "INSERT INTO documents SELECT to_char(n, 'FM000000000000'), to_char(n, 'FM000000000000'), NULL, NULL,"
        " to_tsvector('german', 'satz'), repeat('Ein Satz. ', 200) FROM generate_series(1, {}) AS n"
    ),
    "CREATE INDEX ON documents USING gin (search_vector)",
    "VACUUM ANALYZE documents",
)
WORDS = "Satz"
"""The search that hits every document."""


@contextmanager
def filled(folder: Path, documents: int) -> Iterator[Database]:
    """Run a server with so many documents of 2 KB, all of which a search for WORDS hits."""
    with local_postgres(folder) as server:
        database = Database(HOST, server.ports["sql"], USER, PASSWORD)
        asyncio.run(database.execute(*(statement.format(documents) for statement in _FILL)))
        yield database


def main() -> None:
    """Serve until stopped by a signal."""
    settings = load_settings().settings
    log_to_stderr(settings.log_level, settings.log_format, settings.secrets())
    folder = Path(sys.argv[1])
    asyncio.run(run_until_stopped(lambda: _serve(settings, folder), _GRACE_SECONDS))


async def _serve(settings: Settings, folder: Path) -> None:
    source = source_factory(settings, folder, confined=True, remote=None)
    datasets = DatasetReader(DirectoryStore(folder / "store"), settings.spool_dir)
    access = SourceAccess(source, _present, frozenset({"keyword"}))
    await run_gateway(settings, security_policy(settings), MemoryBroker(), datasets, access)


async def _present() -> None:
    """The database was filled before."""


if __name__ == "__main__":
    main()
