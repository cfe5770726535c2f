"""Whole jobs in the test's process, on the in-memory store."""

from pathlib import Path
from typing import Any, NamedTuple

from shardline.services.embedded import EmbeddedResult, EmbeddedRun
from shardline.services.job_view import JobView
from shardline.services.wiring.sources import source_factory
from shardline.services.wiring.stores import dataset_opener
from shardline_common.dataset.verify import Report, Verifier
from shardline_common.job.names import Layout
from shardline_common.job.spec import JobSpec
from shardline_common.memory.store import MemoryStore
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.clock import SystemClock
from shardline_common.settings.load import Settings
from shardline_common.storage.s3 import S3Client
from shardline_common.telemetry.metrics import Metrics
from shardline_producer.context import ProducerPolicy
from shardline_producer.sources.source import OpenSource
from tests.make import job

DOCUMENTS = 1200


def small_job(**changes: Any) -> JobSpec:
    """A job over sample.jsonl with three partitions and small segments."""
    body = {
        "source": {"type": "files", "paths": ["sample.jsonl"]},
        "output": {"shard_bytes": 65_536},
        "partitions": 3,
    }
    return job(**(body | changes))


async def run_embedded(
    spec: JobSpec,
    store: ObjectStore,
    folder: Path,
    metrics: Metrics | None = None,
    remote: S3Client | None = None,
    settings: Settings | None = None,
    source_seconds: float = 900.0,
) -> JobView:
    """Run a job in this process; returns its view at the end."""
    source = source_factory(settings or Settings(), folder, confined=True, remote=remote)
    limits = ProducerPolicy(progress_seconds=0.05, source_seconds=source_seconds)
    opener = dataset_opener(settings or Settings(), folders=True)
    embedded = EmbeddedRun(
        store, SystemClock(), metrics or Metrics(), source, limits, 1 << 28, open_dataset=opener
    )
    return (await embedded.run(spec, lambda _: None)).view


class VerifiedRun(NamedTuple):
    """A run that was completed, what `verify` says about its dataset, and the store of it."""

    result: EmbeddedResult
    report: Report
    store: MemoryStore


async def run_from(
    spec: JobSpec, open_source: OpenSource, spool: Path, metrics: Metrics | None = None
) -> VerifiedRun:
    """Run a job over a source of the test, in blocks, and verify its dataset."""
    store, policy = MemoryStore(), ProducerPolicy(blocks=True)
    embedded = EmbeddedRun(
        store, SystemClock(), metrics or Metrics(), open_source, policy, 1 << 28, spool_dir=spool
    )
    result = await embedded.run(spec, lambda _: None)
    assert result.view.state.state == "completed", result.view.to_json()
    report = await verify(spec, store)
    assert report.ok, report.problems
    return VerifiedRun(result, report, store)


async def verify(spec: JobSpec, store: MemoryStore) -> Report:
    """Verify the dataset of a job."""
    return await Verifier(store, Layout.of(spec).root).run()


async def completed(spec: JobSpec, store: MemoryStore, folder: Path) -> Report:
    """Run a job over all DOCUMENTS, and verify its dataset."""
    view = await run_embedded(spec, store, folder)
    assert view.state.state == "completed", view.to_json()
    report = await verify(spec, store)
    assert report.ok, report.problems
    assert report.rows + sum(report.rejected.values()) + sum(report.dead_letters.values()) == DOCUMENTS
    return report


async def first_key(store: MemoryStore, prefix: str) -> str:
    """The first key with a prefix."""
    async for info in store.list(prefix):
        return info.key
    raise AssertionError(prefix)
