"""A completed job whose dataset cannot be published: cancel, retry and delete work."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from shardline_common.dataset.chain import EMPTY_SHA256, Chain, ChainRecord, SegmentObjects, Totals
from shardline_common.dataset.verify import Verifier
from shardline_common.job.names import CHECKPOINTS, Layout
from shardline_common.job.outcome import read_outcome
from shardline_common.job.plan import Plan
from shardline_common.job.spec import Request
from shardline_common.job.state import JobState, PartitionState, State, checkpoint
from shardline_common.memory.broker import MemoryBroker
from shardline_common.memory.store import MemoryStore
from shardline_common.ports.broker import Record
from shardline_common.runtime.clock import SystemClock, stamp
from shardline_common.telemetry.metrics import Metrics
from shardline_consumer.finish import Finisher
from shardline_producer.context import ProducerContext, ProducerPolicy
from shardline_producer.job_runner import JobRunner
from shardline_producer.topics import ensure_system_topics
from tests.make import job
from tests.simulation.simulated_source import MemorySource, documents

SPEC = job(partitions=1)
LAYOUT = Layout.of(SPEC)
CLOCK = SystemClock()
POLICY = ProducerPolicy(progress_seconds=0.02, topic_grace=60.0, publish_seconds=0.0)


class Blocked:
    """A job whose attempt 1 is completed, with a foreign README.md in its folder."""

    def __init__(self) -> None:
        self.store, self.broker = MemoryStore(), MemoryBroker()
        context = ProducerContext(
            self.broker,
            self.store,
            CLOCK,
            Metrics(),
            lambda _spec, _pages: MemorySource(documents(3), random.Random(1)),
            POLICY,
            asyncio.Semaphore(1),
        )
        self.state = JobState(
            SPEC,
            state=State.COMPLETING,
            planned=True,
            source_count=3,
            accepted_at=stamp(CLOCK),
            updated_at=stamp(CLOCK),
            partitions=[PartitionState(3)],
        )
        self.runner = JobRunner(context, 0, SPEC, self.state)

    async def prepare(self) -> None:
        await self.store.create(LAYOUT.plan, Plan([], {}).encode())
        totals = Totals(rejected={"empty": 3})
        record = ChainRecord(
            "train", 0, 0, 3, None, None, EMPTY_SHA256, totals, totals, (0, 3, 3), 1, 4, SegmentObjects()
        )
        await Chain(self.store, LAYOUT, 0).append(record)
        assert await self.finisher.try_finish(self.state)
        await self.store.delete([LAYOUT.manifest, LAYOUT.success, LAYOUT.card])
        await self.store.create(LAYOUT.card, b"mine")
        await ensure_system_topics(self.broker, 1)
        await self.broker.publish(CHECKPOINTS, [checkpoint(self.state)])

    @property
    def finisher(self) -> Finisher:
        return Finisher(self.store, CLOCK, self.state)

    def request(self, action: str, offset: int) -> None:
        request = Request.model_validate({"job_id": SPEC.job_id, "action": action, "requested_by": "ada"})
        self.runner.request(request, Record(0, offset, b"test", request.body()))

    async def until(self, state: State, attempt: int) -> JobState:
        async with asyncio.timeout(20):
            while (found := self.runner.state) is None or (found.state, found.attempt) != (state, attempt):
                await asyncio.sleep(0.01)
        return found


@asynccontextmanager
async def blocked_job() -> AsyncIterator[Blocked]:
    """Such a job, with its runner, whose state says why the dataset is not published."""
    blocked = Blocked()
    await blocked.prepare()
    task = asyncio.create_task(blocked.runner.run(None))
    try:
        async with asyncio.timeout(20):
            while blocked.runner.state is None or not blocked.runner.state.blocked:
                await asyncio.sleep(0.01)
        state = blocked.runner.state
        assert (state.state, state.attempt, state.code) == (State.COMPLETING, 1, "output_not_empty")
        assert LAYOUT.card in (state.message or "")
        yield blocked
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_cancel_opens_an_attempt_that_is_cancelled() -> None:
    async with blocked_job() as blocked:
        blocked.request("cancel", 7)
        state = await blocked.until(State.CANCELLED, 2)
        assert (state.message, state.request_offset) == ("cancelled by ada", 7)
        outcome = await read_outcome(blocked.store, LAYOUT, 2)
        assert outcome is not None
        assert outcome.ending == "cancelled"
        # A worker that was paused finds the folder clean. The cancelled job is not published all the same.
        await blocked.store.delete([LAYOUT.card])
        assert await blocked.finisher.try_finish(blocked.state)
        assert LAYOUT.success not in [info.key async for info in blocked.store.list("")]


async def test_a_retry_publishes_once_the_folder_is_clean() -> None:
    async with blocked_job() as blocked:
        await blocked.store.delete([LAYOUT.card])
        # The producer would find out by itself within half a minute.
        blocked.request("retry", 7)
        state = await blocked.until(State.COMPLETING, 2)
        assert (state.code, state.request_offset, state.planned) == (None, 7, True)
        assert await Finisher(blocked.store, CLOCK, state).try_finish(state)
        await blocked.until(State.COMPLETED, 2)
        report = await Verifier(blocked.store, LAYOUT.root).run()
        assert report.ok, report.problems


@pytest.mark.parametrize("name", ["README.md", "manifest.json", "_SUCCESS"])
async def test_a_retry_fails_naming_the_object_that_is_still_there(name: str) -> None:
    async with blocked_job() as blocked:
        await blocked.store.delete([LAYOUT.card, LAYOUT.manifest])
        await blocked.store.create(LAYOUT.root + name, b"mine")
        blocked.request("retry", 7)
        state = await blocked.until(State.COMPLETING, 2)
        assert await Finisher(blocked.store, CLOCK, replace(state)).try_finish(state)
        state = await blocked.until(State.FAILED, 2)
        assert state.code == "output_not_empty"
        assert name in (state.message or "")


async def test_a_delete_removes_the_dataset() -> None:
    async with blocked_job() as blocked:
        blocked.request("delete", 7)
        await blocked.until(State.DELETED, 1)
        assert [info.key async for info in blocked.store.list(LAYOUT.root)] == []
