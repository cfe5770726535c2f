"""A job's runner between two steps: cancelled twice, and asked while its attempt ends."""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from shardline_common.errors import ObjectExists
from shardline_common.job.messages import Position
from shardline_common.job.names import CHECKPOINTS, DEAD_LETTERS, Layout
from shardline_common.job.outcome import Outcome, decide
from shardline_common.job.spec import JobSpec, Request
from shardline_common.job.state import JobState, checkpoint, latest_states
from shardline_common.memory.broker import MemoryBroker
from shardline_common.memory.store import MemoryStore
from shardline_common.ports.broker import Record, TableReader
from shardline_common.runtime import create_or_read
from shardline_common.runtime.clock import SystemClock, stamp
from shardline_common.telemetry.logs import context_fields
from shardline_common.telemetry.metrics import Metrics
from shardline_producer.context import ProducerContext, ProducerPolicy
from shardline_producer.job_runner import JobRunner
from shardline_producer.notifications.outbox import Receiver
from shardline_producer.sources.source import Frozen, Part, SourceItem
from shardline_producer.topics import ensure_system_topics
from tests.make import job
from tests.simulation.simulated_source import MemorySource, documents

SPEC = job()
# Without the grace time, the runner of an ended job may have returned before a request.
POLICY = ProducerPolicy(progress_seconds=0.02, topic_grace=60.0)
RETRY = Request(job_id=SPEC.job_id, action="retry")


class EndlessSource(MemorySource):
    """Gives its items and then nothing more, and takes a moment to close."""

    async def read(
        self, frozen: Frozen, after: Position | None, part: Part | None = None
    ) -> AsyncGenerator[list[SourceItem], None]:
        """Batches without an end."""
        try:
            async for batch in super().read(frozen, after, part):
                yield batch
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.2)


class PausingSource(EndlessSource):
    """Gives its items one by one, the second one when `go_on` is set."""

    def __init__(self) -> None:
        super().__init__(documents(3), random.Random(1))
        self.go_on = asyncio.Event()

    async def read(
        self, frozen: Frozen, after: Position | None, part: Part | None = None
    ) -> AsyncGenerator[list[SourceItem], None]:
        """Batches of one item."""
        async for batch in super().read(frozen, after, part):
            for item in batch:
                yield [item]
                await self.go_on.wait()


class SilentReceiver:
    """Implements `Receiver`: it accepts nothing. `open` counts the deliveries under way."""

    def __init__(self) -> None:
        self.open = 0

    async def deliver(self, message_id: str, body: bytes) -> None:
        """Wait."""
        assert (message_id, bool(body)) == ("test_1", True)
        self.open += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.open -= 1


class PausableBroker(MemoryBroker):
    """Keeps readers of a table waiting once `pause` is set; `paused` says that one waits."""

    def __init__(self) -> None:
        super().__init__()
        self.pause, self.paused, self.resume = False, asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def table_reader(
        self, topic: str, partitions: Sequence[int] | None = None
    ) -> AsyncIterator[TableReader]:
        """A reader. What it returns after the pause was read before it."""
        async with super().table_reader(topic, partitions) as table:
            read = table.catch_up

            async def catch_up(*, deadline: float) -> Sequence[Record]:
                found = await read(deadline=deadline)
                if self.pause:
                    self.paused.set()
                    await self.resume.wait()
                return found

            table.catch_up = catch_up  # type: ignore[method-assign]
            yield table


class RunnerHarness:
    """A runner of one job whose attempt reads without an end."""

    def __init__(
        self,
        receiver: Receiver | None = None,
        refused: str | None = None,
        source: MemorySource | None = None,
    ) -> None:
        """Make the context. The store refuses every create of a key with `refused` in it, and has none."""

        def fault(when: str, operation: str, key: str) -> None:
            if (when, operation) == ("before", "create") and refused is not None and refused in key:
                raise ObjectExists(f"{key} exists")

        self.broker, self.store, self.metrics = PausableBroker(), MemoryStore(fault), Metrics()
        source = source or EndlessSource(documents(3), random.Random(1))
        self.context = ProducerContext(
            self.broker,
            self.store,
            SystemClock(),
            self.metrics,
            lambda _spec, _pages: source,
            POLICY,
            asyncio.Semaphore(1),
            receiver,
        )

    async def start(self, spec: JobSpec, attempt: int, pending: list[int]) -> JobRunner:
        """Commit the job as it was left, and give its runner."""
        await ensure_system_topics(self.broker, 1)
        now = stamp(SystemClock())
        state = JobState(spec, attempt=attempt, updated_at=now, pending_notifications=pending)
        await self.broker.publish(CHECKPOINTS, [checkpoint(state)])
        return JobRunner(self.context, 0, spec, state)

    async def fail(self, attempt: int) -> None:
        """Decide an attempt as failed, as a worker does."""
        outcome = Outcome(attempt, "failed", "2026-11-26T03:00:00.000Z", "", "0", "source_changed", "why")
        await decide(self.store, Layout.of(SPEC), outcome)

    @property
    def reports(self) -> bool:
        """Whether the job's progress is among the metrics."""
        lag = self.metrics.registry.get_sample_value("shardline_lag_documents", {"dataset_job": SPEC.job_id})
        return lag is not None


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not what():
            await asyncio.sleep(0.01)


async def test_a_run_cancelled_twice_leaves_neither_deliveries_nor_metrics() -> None:
    # Losing the broker cancels a job twice: once for its partition, once for the group of all tasks.
    receiver = SilentReceiver()
    harness = RunnerHarness(receiver)
    await harness.fail(1)
    runner = await harness.start(SPEC, 2, [1])
    task = asyncio.create_task(runner.run(None))
    await until(lambda: harness.reports and receiver.open == 1)
    task.cancel()
    await asyncio.sleep(0.05)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert receiver.open == 0
    assert not harness.reports


async def test_a_retry_during_the_end_of_an_attempt_opens_the_next_one() -> None:
    harness = RunnerHarness()
    runner = await harness.start(SPEC, 1, [])
    task = asyncio.create_task(runner.run(None))
    await until(lambda: harness.reports)
    harness.broker.pause = True
    runner.request(RETRY, Record(0, 5, b"test", RETRY.body()))
    await until(harness.broker.paused.is_set)
    await harness.fail(1)
    await until(lambda: "attempt test 1" not in {one.get_name() for one in asyncio.all_tasks()})
    harness.broker.pause = False
    harness.broker.resume.set()
    await until(lambda: runner.state is not None and runner.state.attempt == 2)
    task.cancel()
    await asyncio.wait((task,))


async def test_the_line_of_a_refused_retry_names_the_attempt() -> None:
    harness, seen = RunnerHarness(), list[object]()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "not_retriable" in record.getMessage():
                seen.append(context_fields().get("attempt"))

    runner = await harness.start(SPEC, 3, [])
    task = asyncio.create_task(runner.run(None))
    handler = Handler()
    logging.getLogger("shardline_producer.job_runner").addHandler(handler)
    try:
        await until(lambda: harness.reports)
        runner.request(RETRY, Record(0, 5, b"test", RETRY.body()))
        await until(lambda: bool(seen))
    finally:
        logging.getLogger("shardline_producer.job_runner").removeHandler(handler)
        task.cancel()
        await asyncio.wait((task,))
    assert seen == [3]


async def test_a_refused_request_is_in_the_next_checkpoint_of_the_attempt() -> None:
    # After a crash it must not be handled again, when the attempt may have ended and a retry opens the next.
    source = PausingSource()
    harness = RunnerHarness(source=source)
    runner = await harness.start(SPEC, 1, [])
    task = asyncio.create_task(runner.run(None))
    await until(lambda: harness.reports)
    runner.request(RETRY, Record(0, 5, b"test", RETRY.body()))
    async with harness.broker.table_reader(DEAD_LETTERS) as refused:
        async with asyncio.timeout(20):
            while not await refused.poll(timeout=0.05):
                pass
    source.go_on.set()
    async with asyncio.timeout(20), harness.broker.table_reader(CHECKPOINTS) as table:
        while True:
            states = latest_states(await table.poll(timeout=0.05)).values()
            if any(state.produced > 1 for state in states):
                break
    task.cancel()
    await asyncio.wait((task,))
    assert [state.request_offset for state in states] == [5]


async def test_a_request_whose_change_was_interrupted_is_handled_again() -> None:
    # A client may let a cancel of its own out; the coordinator then starts the runner again.
    harness = RunnerHarness()
    await harness.fail(1)
    runner = await harness.start(SPEC, 1, [])
    task = asyncio.create_task(runner.run(None))
    await until(lambda: runner.state is not None and not runner.state.active)
    harness.broker.pause = True
    runner.request(RETRY, Record(0, 7, SPEC.job_id.encode(), RETRY.body()))
    await until(harness.broker.paused.is_set)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    harness.broker.pause = False
    harness.broker.resume.set()
    again = asyncio.create_task(runner.run(None))
    await until(lambda: runner.state is not None and runner.state.attempt == 2)
    again.cancel()
    await asyncio.gather(again, return_exceptions=True)
    assert runner.state is not None
    assert runner.state.request_offset == 7


async def test_a_cancel_whose_outcome_the_store_refuses_ends_the_attempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(create_or_read, "_LIMIT_SECONDS", 0.1)
    harness = RunnerHarness(refused="outcome")
    runner = await harness.start(SPEC, 1, [])
    task = asyncio.create_task(runner.run(None))
    await until(lambda: harness.reports)
    cancel = Request(job_id=SPEC.job_id, action="cancel")
    runner.request(cancel, Record(0, 5, SPEC.job_id.encode(), cancel.body()))
    await until(lambda: runner.state is not None and not runner.state.active)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert runner.state is not None
    assert (runner.state.state, runner.state.attempt) == ("cancelled", 1)


async def test_a_job_whose_acceptance_the_store_refuses_is_a_dead_letter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(create_or_read, "_LIMIT_SECONDS", 0.1)
    harness = RunnerHarness(refused="_jobs/")
    await ensure_system_topics(harness.broker, 1)
    runner = JobRunner(harness.context, 0, SPEC, None)
    await runner.run(Record(0, 5, SPEC.job_id.encode(), SPEC.body()))
    assert runner.state is None
    async with harness.broker.table_reader(DEAD_LETTERS) as table:
        found = await table.catch_up(deadline=10)
    assert [b"store_inconsistent" in (letter.value or b"") for letter in found] == [True]
