"""What is exported is true when it is scraped, and a job's series end with the job."""

import asyncio
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest
from starlette.types import Receive, Scope, Send

from shardline.gateway.middleware import GatewayMiddleware, MiddlewarePolicy
from shardline.services.client import Client
from shardline.services.sample import write_sample
from shardline.services.wiring.sources import source_factory
from shardline_common.dataset.chain import Totals
from shardline_common.errors import SourceUnavailable, StoreUnavailable
from shardline_common.job.spec import JobSpec
from shardline_common.memory.broker import MemoryBroker
from shardline_common.memory.store import MemoryStore
from shardline_common.runtime.clock import SystemClock
from shardline_common.settings.load import Settings
from shardline_common.telemetry.metrics import CATALOGUE, JobSnapshot, Metrics
from shardline_consumer.spool.folder import register_spool_gauges
from shardline_consumer.worker import Worker
from shardline_producer.context import Pace, ProducerContext, ProducerPolicy
from shardline_producer.coordinator import JobCoordinator
from shardline_producer.lag_age import LagAge
from shardline_producer.pipeline import measure_source_wait
from shardline_producer.sources.planned import PlannedSource
from shardline_producer.sources.source import PlanPages
from shardline_producer.topics import ensure_system_topics
from tests.gateway.server import ScriptedStore, sample_documents
from tests.make import job, worker_context

STANDING = JobSnapshot(7, 3.0, 0.5, (2, 4), {"produced": 10, "kept": 2}, 0.25)


def text(metrics: Metrics) -> str:
    """What a scrape sees."""
    metrics.refresh()
    return generate_latest(metrics.registry).decode()


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    text(metrics)
    return metrics.registry.get_sample_value(f"shardline_{name}", labels)


async def test_a_job_leaves_no_series_behind() -> None:
    metrics = Metrics()
    metrics.begin_producing("one")
    metrics.begin_consuming("one", ["empty"])
    metrics.progress("one", STANDING)
    metrics.checkpointed("one", datetime.now(UTC))
    metrics.source_requested("one")
    metrics.segment_committed("one", Totals(rows=1, bytes=100, rejected={"empty": 1}, dead={"no_content": 1}))
    held = {name for name, item in CATALOGUE.items() if item.per_job}
    found = set(re.findall(r'shardline_(\w+)\{[^}]*dataset_job="one"', text(metrics)))
    assert len({re.sub("_(bucket|sum|count|created)$", "", name) for name in found} & held) >= 15
    metrics.remove_job("one")
    assert 'dataset_job="one"' not in text(metrics)


async def test_counters_begin_at_zero_so_that_the_first_increase_counts() -> None:
    metrics = Metrics()
    metrics.begin_consuming("one", ["empty"])
    assert value(metrics, "documents_written_total", dataset_job="one") == 0
    assert value(metrics, "documents_rejected_total", dataset_job="one", reason="empty") == 0
    metrics.follow_jobs(list)
    assert value(metrics, "attempts_ended_total", ending="failed") == 0
    assert value(metrics, "dead_letters_sent_total", of="message") == 0


async def test_a_standing_is_told_whole() -> None:
    metrics = Metrics()
    metrics.progress("one", STANDING)
    shown = {
        "lag_documents": 7,
        "lag_seconds": 3,
        "backlog_ratio": 0.5,
        "slowest_partition": 2,
        "slowest_partition_lag_documents": 4,
        "job_progress_ratio": 0.25,
    }
    assert {name: value(metrics, name, dataset_job="one") for name in shown} == shown
    assert value(metrics, "job_documents", dataset_job="one", stage="kept") == 2


async def test_the_age_of_a_checkpoint_ends_with_the_last_one() -> None:
    metrics, at = Metrics(), datetime(2026, 11, 26, 4, 0, tzinfo=UTC)
    metrics.all_sent("one")
    metrics.checkpointed("one", at)
    assert value(metrics, "checkpoint_timestamp_seconds", dataset_job="one") == at.timestamp()
    metrics.all_sent("one")
    assert value(metrics, "checkpoint_timestamp_seconds", dataset_job="one") is None
    metrics.remove_job("one")


async def test_shards_are_counted_by_size_and_empty_segments_are_none() -> None:
    metrics = Metrics()
    metrics.segment_committed("one", Totals(rows=3, bytes=70_000))
    metrics.segment_committed("one", Totals(rejected={"empty": 3}))
    assert value(metrics, "shard_bytes_count", dataset_job="one") == 1
    assert value(metrics, "shard_bytes_bucket", dataset_job="one", le="65536.0") == 0
    assert value(metrics, "shard_bytes_bucket", dataset_job="one", le="131072.0") == 1


async def waited(metrics: Metrics) -> float:
    """The wait for the source of job one, a moment later."""
    await asyncio.sleep(0.01)
    return value(metrics, "source_wait_seconds", dataset_job="one") or 0.0


async def test_the_wait_for_a_source_goes_on_through_its_failures() -> None:
    metrics = Metrics()
    seen = [0.0]
    for _ in range(3):
        with pytest.raises(SourceUnavailable), measure_source_wait(metrics, "one"):
            raise SourceUnavailable("away")
        seen.append(await waited(metrics))
    assert seen == sorted(set(seen))
    with measure_source_wait(metrics, "one"):
        assert seen[-1] < await waited(metrics)
        metrics.source_batch("one", 0.1)
        assert await waited(metrics) == 0


@pytest.mark.parametrize("error", [StoreUnavailable("away"), asyncio.CancelledError()])
async def test_what_is_not_the_sources_fault_is_no_wait_for_it(error: BaseException) -> None:
    metrics = Metrics()
    with pytest.raises(type(error)), measure_source_wait(metrics, "one"):
        raise error
    assert await waited(metrics) == 0


def test_age_is_that_of_what_the_chains_have_not_reached() -> None:
    age = LagAge()
    assert age.update(10.0, 0, 0) == 0
    assert age.update(11.0, 100, 0) == 0
    assert age.update(15.0, 200, 99) == 4
    assert age.update(16.0, 200, 100) == 1
    assert age.update(20.0, 300, 100) == 5
    assert age.update(21.0, 300, 300) == 0
    assert age.update(22.0, 300, 300) == 0
    assert age.update(30.0, 301, 300) == 0


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=2000))
def test_age_stays_small_and_within_what_was_seen(steps: list[tuple[int, int]]) -> None:
    age, produced, chained, since = LagAge(), 0, 0, 0
    for now, (more, landed) in enumerate(steps):
        if produced == chained:
            since = now
        produced += more
        chained = min(produced, chained + landed)
        found = age.update(float(now), produced, chained)
        assert 0 <= found <= now - since
        assert (found == 0.0) or produced > chained
    assert len(age._samples) <= 513


def test_age_of_a_long_lag_is_kept_in_few_samples() -> None:
    age = LagAge()
    for now in range(5000):
        assert age.update(float(now), now + 1, 0) == now
    assert len(age._samples) <= 513
    # Which sample stands for what the chains have reached is known to a few.
    assert abs(age.update(5000.0, 5001, 2500) - 2500) < 50


async def test_the_spool_is_measured_at_each_scrape(tmp_path: Path) -> None:
    metrics = Metrics()
    register_spool_gauges(metrics, tmp_path, 1 << 20)
    assert value(metrics, "spool_limit_bytes") == 1 << 20
    assert value(metrics, "spool_written_bytes") == 0
    (tmp_path / "segment").write_bytes(b"x" * 5000)
    assert value(metrics, "spool_written_bytes") == 5000
    assert (value(metrics, "spool_disk_free_bytes") or 0) > 0
    (tmp_path / "segment").unlink()
    tmp_path.rmdir()
    assert value(metrics, "spool_written_bytes") == value(metrics, "spool_disk_free_bytes") == 0


async def test_a_request_is_counted_under_its_route_and_never_under_its_path() -> None:
    class Route:
        path = "/api/datasets/{dataset_id}"

    async def app(scope: Scope, _: Receive, send: Send) -> None:
        if scope["path"].endswith("known"):
            scope["route"] = Route
        if not scope["path"].endswith("gone"):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    async def nothing(*_: Any) -> Any:
        return {"type": "http.request", "body": b""}

    metrics = Metrics()
    middleware = GatewayMiddleware(app, MiddlewarePolicy(100), metrics.requested)
    for path in ("/known", "/made-up", "/gone"):
        await middleware({"type": "http", "method": "GET", "path": path, "headers": []}, nothing, nothing)
    assert value(metrics, "gateway_answer_seconds_count", route=Route.path) == 1
    assert value(metrics, "gateway_answer_seconds_count", route="none") == 1
    assert value(metrics, "gateway_requests_total", status="0") == 1
    assert "made-up" not in text(metrics)


@pytest.mark.slow
async def test_a_source_that_fails_again_and_again_is_one_wait() -> None:
    broker, store, clock, metrics = MemoryBroker(), MemoryStore(), SystemClock(), Metrics()
    await ensure_system_topics(broker, 1)
    documents = sample_documents(600)

    def open_source(spec: JobSpec, parts: PlanPages) -> PlannedSource:
        return PlannedSource(spec, ScriptedStore(spec, documents), parts)

    policy = ProducerPolicy(progress_seconds=0.02)
    owner = JobCoordinator(
        ProducerContext(broker, store, clock, metrics, open_source, policy, asyncio.Semaphore(1))
    )
    await Client(broker, 1).submit(job(source={"type": "uds3"}, query={"text": "broken"}))
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(owner.run())
        # The pauses between tries grow: 0.4, 0.8, 1.6 s. A wait as long as this went through several.
        while (value(metrics, "source_wait_seconds", dataset_job="test") or 0.0) < 2.0:
            await asyncio.sleep(0.05)
        assert (value(metrics, "job_documents", dataset_job="test", stage="produced") or 0.0) < len(documents)
        running.cancel()


async def test_lag_grows_while_the_store_is_away(tmp_path: Path) -> None:
    away = False

    def fault(_when: str, _operation: str, _key: str) -> None:
        if away:
            raise StoreUnavailable("away")

    write_sample(tmp_path / "sample.jsonl", 2000)
    broker, store, metrics = MemoryBroker(), MemoryStore(fault), Metrics()
    await ensure_system_topics(broker, 1)
    source = source_factory(Settings(), tmp_path, confined=True, remote=None)
    policy = ProducerPolicy(progress_seconds=0.02, pace=Pace(400.0))
    owner = JobCoordinator(
        ProducerContext(broker, store, SystemClock(), metrics, source, policy, asyncio.Semaphore(1))
    )
    await Client(broker, 1).submit(job(source={"type": "files", "paths": ["sample.jsonl"]}))

    async def until(name: str, most: float) -> None:
        while (value(metrics, name, dataset_job="test") or 0.0) <= most:
            await asyncio.sleep(0.02)

    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(owner.run())
        await until("lag_documents", 0)
        away = True
        await until("store_errors_total", 0)
        await until("lag_documents", value(metrics, "lag_documents", dataset_job="test") or 0.0)
        running.cancel()


async def test_who_loses_a_job_stops_telling_of_it(tmp_path: Path) -> None:
    # A producer that another one relieved, and a worker beside one that was quicker to the end.
    write_sample(tmp_path / "sample.jsonl", 400)
    broker, store, clock = MemoryBroker(), MemoryStore(), SystemClock()
    await ensure_system_topics(broker, 1)
    made, landed = Metrics(), Metrics()
    source = source_factory(Settings(), tmp_path, confined=True, remote=None)
    policy = ProducerPolicy(progress_seconds=0.02, pace=Pace(100.0))
    owner = JobCoordinator(ProducerContext(broker, store, clock, made, source, policy, asyncio.Semaphore(1)))
    worker = Worker(worker_context(broker, store, tmp_path, metrics=landed, finish_seconds=0.1))
    spec = job(source={"type": "files", "paths": ["sample.jsonl"]}, output={"shard_bytes": 65_536})
    await Client(broker, 1).submit(spec)
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(owner.run()), tasks.create_task(worker.run())]
        told = 'shardline_lag_documents{dataset_job="test"}'
        while told not in text(made) or not value(landed, "documents_consumed_total", dataset_job="test"):
            await asyncio.sleep(0.02)
        for task in running:
            task.cancel()
    assert 'dataset_job="' not in text(made)
    assert 'dataset_job="' not in text(landed)
