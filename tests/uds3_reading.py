"""Jobs over UDS3 in tests: their source, their items, and their rows."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from shardline.services.embedded import EmbeddedRun
from shardline.services.wiring.sources import source_factory
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
from shardline_producer.sources.source import SourceItem
from shardline_producer.sources.uds3.planned_store import ConfiguredStores, Uds3Store
from shardline_producer.sources.uds3.postgres.connection import Postgres
from tests.databases import Database
from tests.make import job


def uds3_job(**changes: Any) -> JobSpec:
    """A job over UDS3 with these fields."""
    return job(**({"job_id": "uds3", "name": "uds3", "source": {"type": "uds3"}} | changes))


def open_source(stores: ConfiguredStores, spec: JobSpec, store: MemoryStore | None = None) -> PlannedSource:
    """The source of a job; its plan pages are in `store`."""
    return PlannedSource(spec, Uds3Store(spec, stores), StoredPlanPages(store or MemoryStore(), ""))


async def plan_and_read(stores: ConfiguredStores, **changes: Any) -> tuple[Plan, list[SourceItem]]:
    """Plan a job with these fields, and read all its items."""
    spec = uds3_job(**changes)
    source = open_source(stores, spec)
    plan = await make_plan(spec, source)
    return plan, [item async for batch in source.read(plan.frozen, None) for item in batch]


async def planned(stores: ConfiguredStores, **query: Any) -> tuple[PlannedSource, Plan]:
    """The source of a job with this query, and its plan."""
    spec = uds3_job(query=query)
    source = open_source(stores, spec)
    return source, await make_plan(spec, source)


def over(database: Database, table: str | None = None, **changes: Any) -> ConfiguredStores:
    """The stores of a database, with options changed."""
    return ConfiguredStores(Postgres(replace(database.options, table=table, **changes)))


async def scan_items(database: Database, **query: Any) -> list[SourceItem]:
    """All items of a job over PostgreSQL with this query."""
    _, items = await plan_and_read(ConfiguredStores(database.postgres), query=query)
    return items


async def run_and_read_rows(
    spec: JobSpec, database: Database, folder: Path, store: MemoryStore
) -> list[dict[str, Any]]:
    """Run a job in this process, verify its dataset, and read its rows."""
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
