"""The watcher's list of jobs, between two reads of the topics."""

import asyncio

from shardline.gateway.job_watcher import JobWatcher
from shardline_common.job.names import CHECKPOINTS
from shardline_common.job.state import JobState, State, checkpoint
from shardline_common.memory.broker import MemoryBroker
from shardline_common.runtime.clock import SystemClock
from shardline_producer.topics import ensure_system_topics
from tests.make import job


async def test_a_job_is_listed_once_while_it_is_accepted() -> None:
    broker, spec = MemoryBroker(), job()
    watcher = JobWatcher(broker, 1, SystemClock())
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(watcher.run())
        while watcher.unavailable_reason:
            await asyncio.sleep(0)
        await watcher.submit(spec)
        await broker.publish(CHECKPOINTS, [checkpoint(JobState(spec, state=State.RUNNING))])
        while (views := watcher.jobs())[-1].state.state is not State.RUNNING:
            assert [view.state.spec.job_id for view in views] == [spec.job_id]
            await asyncio.sleep(0)
        # The table is read in steps: from the first one on the job is a known one.
        for _ in range(1000):
            assert [view.state.spec.job_id for view in watcher.jobs()] == [spec.job_id]
            await asyncio.sleep(0.0001)
        running.cancel()


async def test_the_id_of_a_deleted_job_can_be_submitted_again() -> None:
    # As with an Idempotency-Key of a dataset that was purged since.
    broker, spec = MemoryBroker(), job()
    await ensure_system_topics(broker, 1)
    await broker.publish(CHECKPOINTS, [checkpoint(JobState(spec, state=State.DELETED))])
    watcher = JobWatcher(broker, 1, SystemClock())
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(watcher.run())
        while watcher.unavailable_reason:
            await asyncio.sleep(0)
        assert (await watcher.submit(spec)).state.state is State.QUEUED
        running.cancel()
