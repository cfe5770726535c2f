"""The gateway as a real process with a producer and a worker, on a scripted source.

`python -m tests.gateway.server FOLDER`; the settings come from the environment. The words of the search
script the source: `broken` fails in the middle, `slow` waits before each batch, `endless` never ends, `away`
cannot be reached, `silent` yields nothing and does not end, `held` yields one batch and continues when a file
named like the job's id exists in the server's working directory.
"""

import asyncio
import logging
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from shardline.gateway.dataset_reader import DatasetReader
from shardline.gateway.server import SourceAccess, run_gateway
from shardline.gateway.users import security_policy
from shardline.services.sample import sample_document
from shardline.services.wiring import CLOCK
from shardline.services.wiring.producer import job_slots, producer_policy
from shardline_common.errors import SourceUnavailable
from shardline_common.job.findings import Findings, Level
from shardline_common.job.spec import JobSpec
from shardline_common.memory.broker import MemoryBroker
from shardline_common.runtime.lifecycle import run_until_stopped
from shardline_common.settings.load import Settings, load_settings
from shardline_common.storage.directory import DirectoryStore
from shardline_common.telemetry.logs import log_to_stderr
from shardline_common.telemetry.metrics import Metrics
from shardline_consumer.spool.folder import spool_folder
from shardline_consumer.worker import Worker
from shardline_producer.context import ProducerContext
from shardline_producer.coordinator import JobCoordinator
from shardline_producer.sources.memory_database import MemoryDatabase
from shardline_producer.sources.planned import PlannedSource
from shardline_producer.sources.planned_store import Description, Entry
from shardline_producer.sources.query_filters import check_filters
from shardline_producer.sources.source import Document, InvalidDocument, PlanPages
from tests.make import worker_context

_log = logging.getLogger("tests.source")
_FIELDS = {
    "title": "string",
    "domain": "string",
    "document_type": "string",
    "pages": "int",
    "created_at": "string",
}
_BREAKS_AT = 500
_SMALL_BATCH, _SLOW_SECONDS = 20, 0.3
# Long, so that a slow machine does not cut a stop short.
_GRACE_SECONDS = 60.0


def sample_documents(count: int) -> dict[str, Document]:
    """Return documents of the sample, by id."""
    documents = {}
    for number in range(count):
        value = sample_document(number)
        identity, text = value["document_id"], value["content"]
        metadata = {name: value[name] for name in _FIELDS if name in value}
        documents[identity] = Document(identity, text, metadata)
    return documents


class ScriptedStore:
    """Implements `PlannedStore` in memory, scripted by the words of the search."""

    why_whole = None

    def __init__(self, spec: JobSpec, documents: dict[str, Document]) -> None:
        text = spec.query.text or ""
        self._words = set(text.split())
        self._release = Path(spec.job_id)
        self._inner = MemoryDatabase(spec, documents, _FIELDS)
        self._filters = spec.query.filters
        self._given = 0
        # A position in the source, so that a producer that takes the job over fails there too.
        self._breaks_at = sorted(documents)[_BREAKS_AT] if len(documents) > _BREAKS_AT else ""

    async def describe(self) -> Description:
        """A scan without ranking: the words script the source and match no document."""
        if "away" in self._words:
            raise SourceUnavailable("the test's database is away", hint="start it")
        check_filters(self._filters, list(_FIELDS))
        return Description({}, ranked=False, columns=_FIELDS)

    async def entries(
        self,
        _: Mapping[str, Any],
        after: Entry | None,
        limit: int | None,
        findings: Findings,
    ) -> AsyncGenerator[list[Entry], None]:
        """Yield entries by id; `endless` never stops."""
        findings.note("scripted", Level.PROVEN, "the list is in memory")
        if "endless" in self._words:
            start = int(after.id) + 1 if after else 0
            end = start + (limit or 1000)
            for begin in range(start, end, 1000):
                yield [Entry(f"{number:012d}", 0.01) for number in range(begin, min(end, begin + 1000))]
            return
        ids = sorted(self._inner.documents)
        found = [Entry(one, 0.01) for one in ids if after is None or one > after.id][:limit]
        for begin in range(0, len(found), 1000):
            yield found[begin : begin + 1000]

    async def check_standing(self, _: Mapping[str, Any]) -> None:
        """It always stands."""

    @asynccontextmanager
    async def fetcher(self, _: Mapping[str, Any]) -> AsyncIterator["ScriptedStore"]:
        """Log when the source is opened and closed."""
        _log.info("source opened")
        try:
            yield self
        finally:
            _log.info("source closed after %d documents", self._given)

    async def fetch(self, entries: Sequence[Entry]) -> list[Document | InvalidDocument]:
        """Fetch documents as scripted."""
        if "silent" in self._words:
            await asyncio.Event().wait()
        if "slow" in self._words:
            await asyncio.sleep(_SLOW_SECONDS)
        while "held" in self._words and self._given and not self._release.exists():
            await asyncio.sleep(0.05)
        if self._words & {"slow", "held"}:
            entries = entries[:_SMALL_BATCH]
        if "broken" in self._words and entries[-1].id >= self._breaks_at:
            raise SourceUnavailable("the test's database went away in the middle")
        self._given += len(entries)
        if "endless" in self._words:
            return [Document(entry.id, "Ein Satz. " * 200, {"title": entry.id}) for entry in entries]
        return await self._inner.fetch(entries)


def main() -> None:
    """Serve until stopped by a signal."""
    settings = load_settings().settings
    log_to_stderr(settings.log_level, settings.log_format, settings.secrets())
    folder = Path(sys.argv[1])
    asyncio.run(run_until_stopped(lambda: _serve(settings, folder), _GRACE_SECONDS))


async def _serve(settings: Settings, folder: Path) -> None:
    documents = sample_documents(int(os.environ.get("TEST_DOCUMENTS", "3000")))

    def open_source(spec: JobSpec, pages: PlanPages) -> PlannedSource:
        return PlannedSource(spec, ScriptedStore(spec, documents), pages)

    broker, store, metrics = MemoryBroker(), DirectoryStore(folder / "store"), Metrics()
    producer = ProducerContext(
        broker, store, CLOCK, metrics, open_source, producer_policy(settings), job_slots(settings)
    )
    with spool_folder(settings.spool_dir) as spool:
        worker = Worker(worker_context(broker, store, spool, clock=CLOCK, metrics=metrics))
        datasets = DatasetReader(store, settings.spool_dir)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(JobCoordinator(producer).run())
            tasks.create_task(worker.run())
            searches = frozenset(os.environ.get("TEST_SEARCHES", "vector,graph,keyword").split(","))
            access = SourceAccess(open_source, _present, searches)  # type: ignore[arg-type]
            await run_gateway(settings, security_policy(settings), broker, datasets, access)


async def _present() -> None:
    if "TEST_AWAY" in os.environ:
        raise SourceUnavailable("the test's database is away")


if __name__ == "__main__":
    main()
