"""One trace from submit to _SUCCESS over real Kafka, in one process and in many that are killed."""

import asyncio
import json
import secrets
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shardline.services.client import Client
from shardline.services.job_view import JobView
from shardline.services.wiring.sources import source_factory
from shardline_common.job.messages import END
from shardline_common.job.names import CHECKPOINTS, JOBS, attempt_topic
from shardline_common.job.state import State
from shardline_common.job.trace_headers import traceparent_of
from shardline_common.kafka.broker import open_kafka
from shardline_common.kafka.options import KafkaOptions
from shardline_common.memory.store import MemoryStore
from shardline_common.ports.broker import Broker, Record
from shardline_common.runtime.clock import SystemClock
from shardline_common.settings.load import Settings
from shardline_common.telemetry.metrics import Metrics
from shardline_common.telemetry.otel import OtelTracer
from shardline_common.telemetry.tracing import span, use_tracer
from shardline_consumer.worker import Worker
from shardline_producer.context import ProducerContext, ProducerPolicy
from shardline_producer.coordinator import JobCoordinator
from tests.e2e.system import Process, System, running_system
from tests.faults.oracle import SHORT, judge_sample
from tests.make import worker_context
from tests.sampled import Sampled
from tests.services import S3
from tests.support.collector import Collector, collecting

STEPS = {"submit", "accept", "plan", "batch", "end", "segment", "put", "chain", "finish"}


def trace_of(found: ReadableSpan) -> str:
    """The id of a span's trace."""
    assert found.context is not None
    return f"{found.context.trace_id:032x}"


async def until(client: Client, *wanted: State) -> JobView:
    """Wait until the only job is in one of these states, and return its view."""
    async with asyncio.timeout(90), aclosing(client.follow(0.1)) as tables:
        async for table in tables:
            if (views := table.jobs()) and views[0].state.state in wanted:
                return views[0]
    raise AssertionError("unreachable")


async def all_records(broker: Broker, topic: str) -> Sequence[Record]:
    """Read all records of a topic."""
    async with broker.table_reader(topic) as table:
        return await table.catch_up(deadline=30)


async def test_one_trace_from_submit_to_success(tmp_path: Path, kafka: str, sampled: Sampled) -> None:
    exporter, spec = InMemorySpanExporter(), sampled.job("sample")
    options = KafkaOptions(kafka, prefix=f"t{secrets.token_hex(4)}.")
    async with open_kafka(options) as broker:
        client, store, clock, metrics = Client(broker, 1), MemoryStore(), SystemClock(), Metrics()
        source = source_factory(Settings(), sampled.folder, confined=True, remote=None)
        limits = ProducerPolicy(topic_grace=60, progress_seconds=0.1)
        producer = ProducerContext(broker, store, clock, metrics, source, limits, asyncio.Semaphore(1))
        worker = worker_context(broker, store, tmp_path, clock=clock, metrics=metrics)
        with use_tracer(OtelTracer(SimpleSpanProcessor(exporter), "test")):
            await client.submit(spec)
            # The same job submitted again in another trace is still the same job, in the first trace.
            with span("another"):
                await client.submit(spec)
            work = [asyncio.ensure_future(JobCoordinator(producer).run())]
            await until(client, State.COMPLETING)
            # Before the worker starts, so that no record has been deleted.
            documents = await all_records(broker, attempt_topic("sample", 1))
            work.append(asyncio.ensure_future(Worker(worker).run()))
            view = await until(client, State.COMPLETED, State.FAILED)
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
        assert view.state.state == "completed", view.to_json()
        found = exporter.get_finished_spans()
        first = trace_of(next(each for each in found if each.name == "submit"))
        assert {each.name for each in found if trace_of(each) == first} == STEPS
        assert {each.name for each in found if trace_of(each) != first} == {"submit", "another"}
        jobs = [traceparent_of(record.headers) for record in await all_records(broker, JOBS)]
        assert [(text or "").split("-")[1] == first for text in jobs] == [True, False]
        states = await all_records(broker, CHECKPOINTS)
        assert {(traceparent_of(record.headers) or "").split("-")[1] for record in states} == {first}
        marked = [record for record in documents if record.headers]
        assert [(record.value or b"")[0] for record in marked] == [END] * spec.total_partitions
        assert {(traceparent_of(record.headers) or "").split("-")[1] for record in marked} == {first}


def submit(system: System, body: str) -> None:
    """Run `shardline submit` in its own process."""
    (system.folder / "job.json").write_text(body)
    command = [sys.executable, "-m", "shardline", "submit", "job.json"]
    done = subprocess.run(
        command, env=system.env(), cwd=system.folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


async def killed(process: Process) -> None:
    """Wait until the process was killed by its failpoint."""
    async with asyncio.timeout(180):
        while process.popen.poll() is None:
            await asyncio.sleep(0.05)
    assert process.popen.returncode == -signal.SIGKILL, process.log_text()


async def test_killed_processes_and_their_successors_share_a_trace(
    tmp_path: Path, kafka: str, seaweed: S3, sampled: Sampled
) -> None:
    with collecting() as collector:
        env = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20of-the-test",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "SHARDLINE_SOURCE_RATE": "1000",
        }
        async with running_system(tmp_path, kafka, seaweed, sampled.folder, **env, **SHORT) as system:
            spec = sampled.job("sample")
            submit(system, spec.model_dump_json())
            worker = system.start("worker", SHARDLINE_FAILPOINTS="worker.after_chain=kill@20")
            await worker.until_ready()
            await killed(system.start("producer", SHARDLINE_FAILPOINTS="producer.after_commit=kill@6"))
            system.start("producer")
            await killed(worker)
            last = system.start("worker")
            view = await system.finished("sample")
            assert view.state.state == "completed", view.to_json()
            await judge_sample(system, sampled, spec)
            for process in system.processes:
                if process.popen.poll() is None:
                    process.end()
    judge_trace(collector)
    committed = next(line for line in lines_of(last) if line["event"] == "segment committed")
    assert (committed["job"], committed["attempt"]) == ("sample", 1)
    assert committed["partition"] in (0, 1)
    assert committed["trace_id"] == collector.spans[0].trace_id


def judge_trace(collector: Collector) -> None:
    """Check that all spans are in one trace, made by two producers and two workers."""
    assert collector.authorizations == {"Bearer of-the-test"}
    spans = collector.spans
    assert {each.name for each in spans} == STEPS
    assert len({each.trace_id for each in spans}) == 1
    makers = {(each.service, each.instance) for each in spans}
    assert Counter(service for service, _ in makers) == {
        "shardline-cli": 1,
        "shardline-producer": 2,
        "shardline-worker": 2,
    }
    assert {each.attributes["shardline.job"] for each in spans} == {"sample"}


def lines_of(process: Process) -> list[dict[str, object]]:
    """Return the log lines of a process, each parsed as JSON."""
    return [json.loads(line) for line in process.log_text().splitlines()]
