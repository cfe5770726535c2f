"""The slices that a producer runs: those whose checkpoints are in its partitions."""

import asyncio
import logging
from collections.abc import Callable, Collection

from shardline_common.errors import BrokerUnavailable
from shardline_common.job.names import CHECKPOINTS
from shardline_common.job.state import JobState, latest_slices
from shardline_common.runtime.task_group import TaskGroup
from shardline_common.runtime.waits import log_failure
from shardline_common.telemetry.logs import log_context
from shardline_producer.context import ProducerContext
from shardline_producer.job_guard import JobGuard
from shardline_producer.slice_run import WORKING, SliceRunner

_log = logging.getLogger(__name__)
_POLL_SECONDS = 0.5
_CATCH_UP_SECONDS = 120.0
_AGAIN_SECONDS = 1.0


class SliceCoordinator:
    """Follows the checkpoints of the assigned partitions, and runs a SliceRunner for each active slice.

    `owns` says whether a job is run by this process too: then its metrics stay at the end of a slice.
    """

    def __init__(self, context: ProducerContext, owns: Callable[[str], bool]) -> None:
        self._context = context
        self._owns = owns
        self._assigned: frozenset[int] = frozenset()
        self._changed = asyncio.Event()
        self._tasks: dict[tuple[str, int], tuple[JobState, asyncio.Task[None]]] = {}

    def assign(self, partitions: Collection[int]) -> None:
        """Follow these partitions, and stop the slices of all others."""
        if frozenset(partitions) == self._assigned:
            return
        self._assigned = frozenset(partitions)
        self._changed.set()
        for key, (state, task) in tuple(self._tasks.items()):
            if state.home not in self._assigned:
                task.cancel()
                del self._tasks[key]

    async def run(self, tasks: TaskGroup) -> None:
        """Work until cancelled. `tasks` runs the slices."""
        self._tasks.clear()
        while True:
            self._changed.clear()
            try:
                if self._assigned:
                    await self._follow(tasks)
                else:
                    await self._changed.wait()
            except BrokerUnavailable as error:
                log_failure(_log, error, "the slices cannot be followed: %s", error)
                await self._context.clock.sleep(_AGAIN_SECONDS)

    async def _follow(self, tasks: TaskGroup) -> None:
        """Follow the assigned partitions until the assignment changes."""
        partitions = sorted(self._assigned)
        async with self._context.broker.table_reader(CHECKPOINTS, partitions) as table:
            records = await table.catch_up(deadline=_CATCH_UP_SECONDS)
            while not self._changed.is_set():
                for state in latest_slices(records).values():
                    self._start(tasks, state)
                records = await table.poll(timeout=_POLL_SECONDS)

    def _start(self, tasks: TaskGroup, state: JobState) -> None:
        """Run a slice that has work, unless it runs. One of an earlier attempt is stopped."""
        if state.slice is None or state.home not in self._assigned:
            return
        key = state.spec.job_id, state.slice
        if key in self._tasks:
            known, task = self._tasks[key]
            if known.attempt >= state.attempt and not task.done():
                return
            task.cancel()
            del self._tasks[key]
        if state.state in WORKING:
            name = f"slice {state.spec.job_id}/{state.slice}"
            self._tasks[key] = state, tasks.create_task(self._run(state), name=name)

    async def _run(self, state: JobState) -> None:
        job_id = state.spec.job_id
        try:
            with log_context(job=job_id):
                await JobGuard(self._context, SliceRunner(self._context, state)).run(None)
        finally:
            current = asyncio.current_task()
            others = (
                task
                for (other, _), (_, task) in self._tasks.items()
                if other == job_id and task is not current and not task.done()
            )
            if not self._owns(job_id) and not any(others):
                self._context.metrics.remove_job(job_id)
