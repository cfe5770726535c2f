"""The worker: reads the checkpoints as a table and takes part in every running attempt."""

import asyncio
import logging

from shardline_common.errors import JobFailed, ServiceUnavailable, SpoolError, UsageError, leaf_of
from shardline_common.job.names import CHECKPOINTS
from shardline_common.job.state import JobState, State, latest_states
from shardline_common.runtime.task_group import TaskGroup, no_foreign_cancel
from shardline_common.runtime.unexpected import (
    Restarts,
    contains_only,
    internal_failure,
)
from shardline_common.runtime.waits import log_failure
from shardline_consumer.attempt import WorkerAttempt
from shardline_consumer.context import WorkerContext

_log = logging.getLogger(__name__)
_POLL_SECONDS = 1.0
_RETRY_SECONDS = 1.0
_CATCH_UP_SECONDS = 120.0
_WORKING = frozenset({State.RUNNING, State.COMPLETING})


class Worker:
    """Runs a WorkerAttempt for every job that is running or completing.

    `ready` is set while the table of checkpoints has been read to its end.
    """

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._attempts: dict[str, tuple[int, WorkerAttempt, asyncio.Task[None]]] = {}
        self._decided: dict[str, int] = {}
        self._errors = context.errors
        self.ready = asyncio.Event()

    async def run(self) -> None:
        """Work until cancelled. Errors of the broker are retried, and unexpected ones three times in a row.

        Raises:
            SpoolError, UsageError: this worker cannot work (in an ExceptionGroup).
            JobFailed: the fourth unexpected error in a row, which is none of a job; or the failure of a job
                that cannot be recorded (in a group), if it is the only job of this process.
        """
        restarts = Restarts(self._context.clock)
        while True:
            try:
                with no_foreign_cancel():
                    async with TaskGroup() as tasks:
                        await self._follow(tasks)
            except Exception as error:
                if _contains(error, (SpoolError, UsageError, JobFailed)):
                    raise
                self.ready.clear()
                self._attempts.clear()
                if contains_only(error, ServiceUnavailable):
                    log_failure(_log, error, "the checkpoints cannot be read: %s", leaf_of(error))
                else:
                    self._errors.log(error, "the worker starts again")
                    if not await restarts.allowed():
                        raise internal_failure(error, "the worker") from error
            await self._context.clock.sleep(_RETRY_SECONDS)

    async def _follow(self, tasks: TaskGroup) -> None:
        async with self._context.broker.table_reader(CHECKPOINTS) as table:
            for state in latest_states(await table.catch_up(deadline=_CATCH_UP_SECONDS)).values():
                self._apply_guarded(state, tasks)
            self.ready.set()
            while True:
                for state in latest_states(await table.poll(timeout=_POLL_SECONDS)).values():
                    self._apply_guarded(state, tasks)
                self._remove_finished()

    def _apply_guarded(self, state: JobState, tasks: TaskGroup) -> None:
        try:
            self._apply(state, tasks)
        except Exception as error:  # noqa: BLE001 - it would end all jobs, and come again at the next start
            self._errors.log(error, f"this worker does not take part in the job {state.spec.job_id}")

    def _apply(self, state: JobState, tasks: TaskGroup) -> None:
        """Start, update or stop the job's WorkerAttempt according to the newest state."""
        job_id = state.spec.job_id
        number, attempt, task = self._attempts.get(job_id, (0, None, None))
        if attempt is not None and task is not None:
            if state.state in _WORKING and number == state.attempt:
                attempt.update(state)
                return
            task.cancel()
            del self._attempts[job_id]
        if state.state in _WORKING and state.planned and self._decided.get(job_id) != state.attempt:
            attempt = WorkerAttempt(self._context, state)
            task = tasks.create_task(attempt.run(), name=f"attempt {job_id}")
            self._attempts[job_id] = (state.attempt, attempt, task)

    def _remove_finished(self) -> None:
        for job_id, (number, _, task) in tuple(self._attempts.items()):
            if not task.done():
                continue
            del self._attempts[job_id]
            self._decided[job_id] = number


def _contains(error: Exception, kinds: tuple[type[Exception], ...]) -> bool:
    if isinstance(error, ExceptionGroup):
        return error.subgroup(kinds) is not None
    return isinstance(error, kinds)
