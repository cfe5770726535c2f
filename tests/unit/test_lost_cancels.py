"""A worker or a producer ends when its cancel comes while one of its tasks fails."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from shardline_common.errors import BrokerUnavailable
from shardline_common.job.state import JobState, State
from shardline_common.memory.broker import MemoryBroker
from shardline_common.memory.store import MemoryStore
from shardline_common.runtime.clock import SystemClock
from shardline_common.telemetry.metrics import Metrics
from shardline_consumer.attempt import WorkerAttempt
from shardline_consumer.context import WorkerContext
from shardline_consumer.spool.budget import SpoolBudget
from shardline_consumer.worker import Worker
from shardline_producer.context import ProducerContext, ProducerPolicy
from shardline_producer.coordinator import JobCoordinator
from shardline_producer.topics import ensure_system_topics
from tests.make import job

Make = Callable[[Path], Coroutine[Any, Any, None]]


async def fail_when_cancelled(*_: object) -> None:
    """Fail in a task of a group while the group is cancelled, as clients do."""

    async def fail() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise BrokerUnavailable("the client was closed") from None

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(fail())


def worker_context(spool: Path) -> WorkerContext:
    return WorkerContext(
        broker=MemoryBroker(),
        store=MemoryStore(),
        clock=SystemClock(),
        metrics=Metrics(),
        spool=spool,
        budget=SpoolBudget(1 << 20),
        uploads=asyncio.Semaphore(1),
        keep_originals=False,
    )


def worker(spool: Path) -> Coroutine[Any, Any, None]:
    return Worker(worker_context(spool)).run()


def worker_attempt(spool: Path) -> Coroutine[Any, Any, None]:
    return WorkerAttempt(worker_context(spool), JobState(job(), state=State.RUNNING, planned=True)).run()


async def producer(_: Path) -> None:
    def no_source(*_: object) -> Any:
        raise AssertionError("no job is submitted")

    broker, slots = MemoryBroker(), asyncio.Semaphore(1)
    await ensure_system_topics(broker, 1)
    context = ProducerContext(
        broker, MemoryStore(), SystemClock(), Metrics(), no_source, ProducerPolicy(), slots
    )
    await JobCoordinator(context).run()


@pytest.mark.parametrize("make", [worker, worker_attempt, producer])
async def test_a_cancel_is_not_lost_in_a_failing_group(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "shardline_consumer.attempt_consumer.AttemptConsumer.run",
        "shardline_consumer.worker.Worker._follow",
        "shardline_producer.coordinator.JobCoordinator._sweep",
    ):
        monkeypatch.setattr(name, fail_when_cancelled)
    task = asyncio.create_task(make(tmp_path))
    for _ in range(20):
        await asyncio.sleep(0)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=5)
    ended = task in done
    # Otherwise the test's loop would wait for it.
    while not task.done():
        task.cancel()
        await asyncio.sleep(0)
    assert ended
