"""The worker: follows the checkpoints as a table and takes part in every running attempt."""

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from functools import partial

from shardline_common.errors import (
    FailureCode,
    JobFailed,
    ObjectMissing,
    ServiceUnavailable,
    ShardlineError,
    TopicMissing,
    UsageError,
)
from shardline_common.job.names import CHECKPOINTS
from shardline_common.job.state import JobState, State, latest_states
from shardline_common.ports.broker import Broker
from shardline_common.ports.clock import Clock
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.retry import retry_forever
from shardline_common.runtime.tasks import first_of
from shardline_common.telemetry.logs import log_context
from shardline_common.telemetry.metrics import Metrics
from shardline_common.telemetry.tracing import continued
from shardline_consumer.attempt_consumer import JobConsumer, Resources
from shardline_consumer.commit import Landing
from shardline_consumer.filters.clara import Rejection
from shardline_consumer.finish import Finisher, fail
from shardline_consumer.spool.file import SpoolError

_log = logging.getLogger(__name__)
_TABLE_SECONDS = 1.0
_WORKING = frozenset({State.RUNNING, State.COMPLETING})


@dataclass(frozen=True, slots=True)
class WorkerParts:
    """What a worker is made of."""

    broker: Broker
    store: ObjectStore
    clock: Clock
    metrics: Metrics
    resources: Resources
    finish_seconds: float = 2.0


class Attempt:
    """This worker's part in one attempt: its group member, and a hand in the finish."""

    def __init__(self, parts: WorkerParts, state: JobState) -> None:
        self.state = state
        self._parts = parts
        self._progress = asyncio.Event()
        landing = Landing(parts.store, parts.clock, parts.metrics, state.spec, state.attempt)
        self._consumer = partial(JobConsumer, parts.broker, landing, parts.resources, self._progress)
        self._finisher = Finisher(parts.store, parts.clock, state)

    def follow(self, state: JobState) -> None:
        """Take in a newer state of the same attempt."""
        if state.state is not self.state.state:
            self._progress.set()
        self.state = state

    async def run(self) -> None:
        """Work until the attempt is decided, or until cancelled.

        Raises:
            SpoolError: this worker cannot work.
        """
        self._parts.metrics.begin_landing(self.state.spec.job_id, Rejection)
        consumer = asyncio.create_task(self._consume(), name=f"consume {self.state.spec.job_id}")
        finish = asyncio.create_task(self._finish(), name=f"finish {self.state.spec.job_id}")
        try:
            await asyncio.wait((consumer, finish), return_when=asyncio.FIRST_COMPLETED)
            if consumer.done():
                await consumer
            await finish
        except Exception as error:
            if _ends_the_worker(error):
                raise
            _log.exception("a bug in Shardline")
            about = f"{type(error).__name__}: {error}"
            await self._fail(JobFailed(FailureCode.INTERNAL, about, hint="report it, with the worker's log"))
        finally:
            for task in (consumer, finish):
                task.cancel()
            await asyncio.gather(consumer, finish, return_exceptions=True)
            # However it ends: the last series of a job must not outlive it here.
            self._parts.metrics.forget_job(self.state.spec.job_id)

    async def _consume(self) -> None:
        while True:
            failure: JobFailed | None = None
            try:
                await self._consumer().run()
            except* JobFailed as group:
                failure = first_of(group, JobFailed)
            except* SpoolError:
                raise
            except* (ServiceUnavailable, ObjectMissing) as group:
                # An object that was there a moment ago: the job is being deleted, which is no failure of it.
                error = first_of(group, ShardlineError)
                # A job that was whole long ago has no topic any more: there is only the finish left to do.
                usual = isinstance(error, TopicMissing) and self.state.state is State.COMPLETING
                _log.log(logging.INFO if usual else logging.WARNING, "%s; joining again", error)
            if failure is not None:
                await self._fail(failure)
                return
            await self._parts.clock.sleep(1.0)

    async def _fail(self, error: JobFailed) -> None:
        _log.error("the attempt failed: %s: %s", error.code, error)
        record = partial(fail, self._parts.store, self.state, error, self._parts.clock)
        try:
            await retry_forever(record, self._parts.clock, "write the outcome")
        except ObjectMissing as gone:
            _log.warning("cannot be failed: %s", gone)
        self._progress.set()

    async def _finish(self) -> None:
        while True:
            try:
                if await self._finisher.try_finish(self.state):
                    return
            except ServiceUnavailable as error:
                _log.warning("not finished yet: %s", error)
            except JobFailed as error:
                await self._fail(error)
                return
            except ObjectMissing as error:
                # Deleted under our feet, by `delete` or by hand: there is nothing left to finish.
                _log.warning("cannot be finished: %s", error)
                return
            await self._next_look()

    async def _next_look(self) -> None:
        self._progress.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._parts.finish_seconds):
                await self._progress.wait()


async def _guarded(attempt: Attempt) -> None:
    state = attempt.state
    with log_context(job=state.spec.job_id, attempt=state.attempt), continued(state.traceparent):
        try:
            await attempt.run()
        except Exception as error:
            if _ends_the_worker(error):
                raise
            _log.exception("the attempt cannot even be failed; left alone")


def _ends_the_worker(error: Exception) -> bool:
    # Without a spool, or with a wrong setting, no job can be worked on; all else ends only its own job.
    ends = (SpoolError, UsageError)
    return isinstance(error, ends) or (isinstance(error, ExceptionGroup) and error.subgroup(ends) is not None)


class Worker:
    """Runs one Attempt for every job that is running or completing."""

    def __init__(self, parts: WorkerParts) -> None:
        self._parts = parts
        self._attempts: dict[str, tuple[int, Attempt, asyncio.Task[None]]] = {}
        self._decided: dict[str, int] = {}
        self.ready = asyncio.Event()

    async def run(self) -> None:
        """Follow the table until cancelled.

        Raises:
            SpoolError: this worker cannot work (in an ExceptionGroup).
        """
        while True:
            try:
                async with asyncio.TaskGroup() as tasks:
                    await self._follow(tasks)
            except* ServiceUnavailable as group:
                if group.split(SpoolError)[0] is not None:
                    raise
                self.ready.clear()
                self._attempts.clear()
                _log.warning("the checkpoints cannot be read: %s", first_of(group, ServiceUnavailable))
            await self._parts.clock.sleep(1.0)

    async def _follow(self, tasks: asyncio.TaskGroup) -> None:
        async with self._parts.broker.table_reader(CHECKPOINTS) as table:
            for state in latest_states(await table.catch_up(deadline=120.0)).values():
                self._take(state, tasks)
            self.ready.set()
            while True:
                for state in latest_states(await table.poll(timeout=_TABLE_SECONDS)).values():
                    self._take(state, tasks)
                self._drop_finished(tasks)

    def _take(self, state: JobState, tasks: asyncio.TaskGroup) -> None:
        job_id = state.spec.job_id
        number, attempt, task = self._attempts.get(job_id, (0, None, None))
        if attempt is not None and task is not None:
            if state.state in _WORKING and number == state.attempt:
                attempt.follow(state)
                return
            task.cancel()
            del self._attempts[job_id]
        if state.state in _WORKING and state.planned and self._decided.get(job_id) != state.attempt:
            attempt = Attempt(self._parts, state)
            task = tasks.create_task(_guarded(attempt), name=f"attempt {job_id}")
            self._attempts[job_id] = (state.attempt, attempt, task)

    def _drop_finished(self, tasks: asyncio.TaskGroup) -> None:
        for job_id, (number, attempt, task) in tuple(self._attempts.items()):
            if not task.done():
                continue
            del self._attempts[job_id]
            if task.cancelled():
                # Not by us, who forget first whom they cancel: a client let its own cancel out.
                _log.error("%s: a bug in Shardline: the attempt was cancelled; begun again", job_id)
                self._take(attempt.state, tasks)
            else:
                self._decided[job_id] = number
