"""Reading UDS3 in tests: a job, its source, what it gives, and whole runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from shardline.services.embedded import EmbeddedRun
from shardline.services.wiring import source_factory
from shardline_common.dataset.verify import Verifier
from shardline_common.job.names import Layout
from shardline_common.job.plan import Plan
from shardline_common.job.spec import JobSpec
from shardline_common.memory.store import MemoryStore
from shardline_common.runtime.clock import SystemClock
from shardline_common.telemetry.metrics import Metrics
from shardline_producer.context import ProducerPolicy
from shardline_producer.plan import make_plan
from shardline_producer.plan_pages import StoredPlanPages
from shardline_producer.sources.planned import PlannedSource
from shardline_producer.sources.source import Document, InvalidDocument, SourceItem
from shardline_producer.sources.uds3.planned_store import ConfiguredStores, Uds3Store
from tests.databases import Database
from tests.make import job


def uds3_job(**changes: Any) -> JobSpec:
    return job(**({"job_id": "uds3", "name": "uds3", "source": {"type": "uds3"}} | changes))


def opened(stores: ConfiguredStores, spec: JobSpec, store: MemoryStore | None = None) -> PlannedSource:
    return PlannedSource(spec, Uds3Store(spec, stores), StoredPlanPages(store or MemoryStore(), ""))


async def read(stores: ConfiguredStores, **changes: Any) -> tuple[Plan, list[SourceItem]]:
    spec = uds3_job(**changes)
    source = opened(stores, spec)
    plan = await make_plan(spec, source)
    return plan, [item async for batch in source.read(plan.frozen, None) for item in batch]


async def scanned(database: Database, **query: Any) -> list[SourceItem]:
    _, items = await read(ConfiguredStores(database.postgres), query=query)
    return items


def names(items: Sequence[SourceItem]) -> list[str]:
    return [item.content.id if isinstance(item.content, Document) else item.content.key for item in items]


def documents(items: Sequence[SourceItem]) -> list[Document]:
    return [item.content for item in items if isinstance(item.content, Document)]


def dead(items: Sequence[SourceItem]) -> dict[str, str]:
    return {
        one.content.key: one.content.dead_letter.reason
        for one in items
        if isinstance(one.content, InvalidDocument)
    }


async def run(spec: JobSpec, database: Database, folder: Path, store: MemoryStore) -> list[dict[str, Any]]:
    """Run a job embedded, prove its dataset, and read its rows."""
    source = source_factory(database.settings, folder, confined=True, remote=None)
    embedded = EmbeddedRun(
        store, SystemClock(), Metrics(), source, ProducerPolicy(progress_seconds=0.05), 1 << 30
    )
    view = (await embedded.run(spec, lambda _: None)).view
    assert view.state.state == "completed", view.to_json()
    report = await Verifier(store, Layout.of(spec).root).run()
    assert report.ok, report.problems
    found: list[dict[str, Any]] = []
    async for info in store.list(Layout.of(spec).root + "data/train/"):
        found += map(orjson.loads, (await store.get(info.key)).splitlines())
    return found
