"""Producers and a worker in the test's process, which share a broker, and a store in memory."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from shardline.services.client import Client
from shardline.services.job_view import JobView
from shardline_common.dataset.verify import Report, Verifier
from shardline_common.job.filter_loading import FetchFile
from shardline_common.job.messages import Position
from shardline_common.job.names import CHECKPOINTS, Layout
from shardline_common.job.spec import JobSpec
from shardline_common.job.state import JobState, latest_slices
from shardline_common.memory.broker import MemoryBroker
from shardline_common.memory.store import MemoryStore
from shardline_common.ports.broker import Broker
from shardline_common.runtime.clock import SystemClock
from shardline_common.telemetry.metrics import Metrics
from shardline_consumer.context import WorkerContext
from shardline_consumer.spool.budget import SpoolBudget
from shardline_consumer.worker import Worker
from shardline_producer.context import ProducerContext, ProducerPolicy
from shardline_producer.coordinator import JobCoordinator
from shardline_producer.sources.source import Frozen, Part, SourceItem
from shardline_producer.topics import ensure_system_topics
from tests.make import job
from tests.simulation.simulated_source import MemorySource

PARTITIONS = 4


def sliced_job(slices: int = 3, **changes: Any) -> JobSpec:
    """A job with slices, and small segments."""
    body = {"slices": slices, "partitions": 2, "output": {"shard_bytes": 8192}, "quality": {"min_score": 0}}
    return job(**(body | changes))


class GatedSource(MemorySource):
    """Holds each range behind its first batches until `gate` is set, and tells which ranges were begun.

    `gate` None: holds nothing. `broken` raises what it returns for a range, or does nothing.
    """

    def __init__(self, items: Sequence[SourceItem], gate: asyncio.Event | None = None) -> None:
        super().__init__(items, random.Random(7))
        self.gate = gate
        self.begun: list[int] = []
        self.broken: Callable[[int], None] = lambda _: None

    async def read(
        self, frozen: Frozen, after: Position | None, part: Part | None = None
    ) -> AsyncGenerator[list[SourceItem], None]:
        """Batches behind a position."""
        first = part["first"] if part else 0
        self.begun.append(first)
        batches = 0
        async for batch in super().read(frozen, after, part):
            self.broken(first)
            yield batch
            batches += 1
            if batches == 2 and self.gate is not None:
                await self.gate.wait()


@dataclass
class Producer:
    """One producer."""

    name: str
    task: asyncio.Task[None]
    metrics: Metrics

    def metric(self, name: str) -> float:
        """The sum of the series of one of its metrics."""
        samples = (sample for family in self.metrics.registry.collect() for sample in family.samples)
        return sum(sample.value for sample in samples if sample.name == f"shardline_{name}")

    async def stop(self) -> None:
        """Stop it."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@dataclass
class SliceSystem:
    """The system of one test. `client` is a user's.

    `brokers`: the connections of the producers, in turn; by default all share that of the client.
    """

    source: MemorySource
    spool: Path
    broker: Broker = field(default_factory=MemoryBroker)
    brokers: Sequence[Broker] = ()
    store: MemoryStore = field(default_factory=MemoryStore)
    producers: list[Producer] = field(default_factory=list)
    slots: int = 4
    fetch_file: FetchFile | None = None

    @property
    def client(self) -> Client:
        """A client."""
        return Client(self.broker, PARTITIONS)

    def start(self) -> Producer:
        """Start a producer."""
        metrics = Metrics()
        number = len(self.producers)
        context = ProducerContext(
            self.brokers[number % len(self.brokers)] if self.brokers else self.broker,
            self.store,
            SystemClock(),
            metrics,
            lambda _spec, _pages: self.source,
            ProducerPolicy(progress_seconds=0.05, topic_grace=0.0),
            asyncio.Semaphore(self.slots),
            fetch_file=self.fetch_file,
        )
        name = f"producer {number}"
        producer = Producer(name, asyncio.create_task(JobCoordinator(context).run(), name=name), metrics)
        self.producers.append(producer)
        return producer

    def worker(self) -> Worker:
        """A worker."""
        return Worker(
            WorkerContext(
                broker=self.broker,
                store=self.store,
                clock=SystemClock(),
                metrics=Metrics(),
                spool=self.spool,
                budget=SpoolBudget(1 << 28),
                uploads=asyncio.Semaphore(4),
                finish_seconds=0.1,
                fetch_file=self.fetch_file,
            )
        )

    async def until(self, spec: JobSpec, wanted: Callable[[JobView], bool]) -> JobView:
        """The job's view, once it is as wanted."""
        last: JobView | None = None
        try:
            async with asyncio.timeout(60):
                async for table in self.client.follow(0.05):
                    last = table.find(spec.job_id)
                    if last is not None and wanted(last):
                        return last
        except TimeoutError:
            raise AssertionError(last and last.to_json()) from None
        raise AssertionError("unreachable")

    async def finished(self, spec: JobSpec, state: str = "completed") -> JobView:
        """The job's view, once it has ended and its topic is removed."""
        view = await self.until(spec, lambda view: view.state.topic_removed)
        assert view.state.state == state, view.to_json()
        return view

    async def slices(self, spec: JobSpec) -> dict[int, JobState]:
        """The committed states of the job's slices."""
        async with self.broker.table_reader(CHECKPOINTS) as table:
            records = await table.catch_up(deadline=60)
        return {
            number: state for (job, number), state in latest_slices(records).items() if job == spec.job_id
        }

    async def verified(self, spec: JobSpec) -> Report:
        """The report of `verify`, which found no fault."""
        report = await Verifier(self.store, Layout.of(spec).root).run()
        assert report.ok, report.problems
        return report

    async def ids(self, spec: JobSpec) -> Counter[str]:
        """The ids of all rows, as a glob finds them."""
        found: Counter[str] = Counter()
        async for info in self.store.list(Layout.of(spec).root + "data/"):
            lines = (await self.store.get(info.key)).splitlines()
            found.update(orjson.loads(line)["document_id"] for line in lines)
        return found


@asynccontextmanager
async def running(
    source: MemorySource,
    spool: Path,
    producers: int,
    slots: int = 4,
    brokers: Sequence[Broker] = (),
    fetch_file: FetchFile | None = None,
) -> AsyncIterator[SliceSystem]:
    """A system with some producers and one worker."""
    broker = brokers[0] if brokers else MemoryBroker()
    system = SliceSystem(source, spool, broker, brokers, slots=slots, fetch_file=fetch_file)
    await ensure_system_topics(system.broker, PARTITIONS)
    for _ in range(producers):
        system.start()
    worker = asyncio.create_task(system.worker().run(), name="worker")
    try:
        yield system
    finally:
        worker.cancel()
        for producer in system.producers:
            await producer.stop()
        await asyncio.gather(worker, return_exceptions=True)
