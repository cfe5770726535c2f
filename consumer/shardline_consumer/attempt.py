"""A worker's part in one attempt: it consumes the attempt's topic, and finishes the attempt at its end."""

import asyncio
import contextlib
import logging
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from shardline_common.dataset.chain import ChainRecord
from shardline_common.dataset.left_alone import LeftAlone, left_alone_message
from shardline_common.errors import (
    BrokerUnavailable,
    FailureCode,
    JobFailed,
    ObjectMissing,
    ServiceUnavailable,
    ShardlineError,
    SpoolError,
    TopicMissing,
    UsageError,
    explain,
    leaf_of,
)
from shardline_common.job.filter_loading import FiltersDiffer
from shardline_common.job.filters import is_curated
from shardline_common.job.names import EVENTS
from shardline_common.job.plan import Plan, read_plan
from shardline_common.job.state import JobState, State
from shardline_common.ports.clock import Clock
from shardline_common.runtime.clock import stamp
from shardline_common.runtime.retry import retry_forever
from shardline_common.runtime.task_group import UnrequestedCancel, cancel_requested, no_foreign_cancel
from shardline_common.runtime.tasks import first_of
from shardline_common.runtime.unexpected import Restarts, contains_only, internal_failure
from shardline_common.runtime.waits import log_failure
from shardline_common.telemetry.logs import ENDS_JOB, log_context
from shardline_common.telemetry.tracing import continue_trace
from shardline_consumer.attempt_consumer import AttemptConsumer
from shardline_consumer.commit import SegmentSink
from shardline_consumer.context import WorkerContext
from shardline_consumer.curation.opening import open_curator
from shardline_consumer.filters.clara import Rejection
from shardline_consumer.finish import Finisher, fail_attempt

if TYPE_CHECKING:
    from shardline_consumer.assembly.stages import Assembly
    from shardline_consumer.curation.curator import Curator

_log = logging.getLogger(__name__)
_REJOIN_SECONDS = 1.0
_AGAIN_SECONDS = 30.0
_TRIES = 3
_LOST_SECONDS = 30.0


class WorkerAttempt:
    """Consumes and finishes one attempt. `state` is the newest state that `update` received."""

    def __init__(self, context: WorkerContext, state: JobState) -> None:
        self.state = state
        self._context = context
        self._progress = asyncio.Event()
        self._errors = context.errors
        self._restarts = Restarts(context.clock)
        self._sink = SegmentSink(context, state.spec, state.attempt)
        self._owned = set[int]()
        self._assembly: Assembly | None = None
        if state.spec.assembled:
            # It imports all that decides, which a stream does not need.
            from shardline_consumer.assembly import stages  # noqa: PLC0415

            self._assembly = stages.Assembly(self._sink, self._owned)
        self._finisher = Finisher(context.store, context.clock, state, context.sign, self._assembly)

    @property
    def sends(self) -> bool:
        """Whether the attempt is planned: a worker takes part in no other."""
        return True

    def update(self, state: JobState) -> None:
        """Replace the state by a newer one of the same attempt."""
        if state.state is not self.state.state:
            self._progress.set()
        self.state = state

    async def run(self) -> None:
        """Work until the attempt is decided, or until cancelled. An error of the attempt becomes its outcome.

        Raises:
            SpoolError, UsageError: this worker cannot work on any job.
            JobFailed: the failure cannot be recorded, and this process has no other job.
        """
        state = self.state
        with log_context(job=state.spec.job_id, attempt=state.attempt), continue_trace(state.traceparent):
            while True:
                try:
                    with no_foreign_cancel():
                        await self._run()
                except Exception as error:
                    if _is_fatal(error):
                        raise
                    if not await self._handle(error):
                        return
                else:
                    return

    async def _handle(self, error: Exception) -> bool:
        """Handle an error of `_run`: fail the attempt, or start again. False: the attempt is decided."""
        if contains_only(error, ServiceUnavailable):
            log_failure(_log, error, "%s; starting again", leaf_of(error))
            await self._context.clock.sleep(_REJOIN_SECONDS)
            return True
        if contains_only(error, UnrequestedCancel) and await self._restarts.allowed():
            self._errors.log(error, "the attempt was cancelled from inside, and is started again")
            return True
        # A JobFailed gets here when it could not be recorded.
        failure = internal_failure(error, "the worker")
        if failure is not error:
            self._errors.log(error, "the job fails")
        for tries in range(1, _TRIES + 1):
            try:
                with no_foreign_cancel():
                    await self._fail(failure)
            except Exception as again:  # noqa: BLE001 - it must not end the other jobs
                message = f"this failure of the attempt is not recorded: {explain(failure)}"
                if isinstance(again, JobFailed):
                    _log.error("%s: %s", message, again)
                else:
                    self._errors.log(again, message)
            else:
                return False
            if tries < _TRIES:
                await self._context.clock.sleep(_REJOIN_SECONDS)
        if self._context.single_job:
            raise failure
        await self._context.clock.sleep(_AGAIN_SECONDS)
        return True

    def _committed(self, record: ChainRecord) -> None:
        # Each look costs requests. Before the last segment of this worker's partitions none can succeed.
        self._finisher.segment_committed(record)
        if not self._finisher.lacks(self.state, self._owned):
            self._progress.set()

    async def _run(self) -> None:
        spec = self.state.spec
        if not is_curated(spec):
            await self._work(None)
            return
        plan = await self._read_plan()
        fetch, folder = self._context.fetch_file, self._context.spool
        try:
            async with open_curator(spec, plan, fetch, folder) as curator:
                await self._work(curator)
        except FiltersDiffer as error:
            await self._leave_alone(error)

    async def _read_plan(self) -> Plan:
        """The plan of the job. A job that is being deleted has none: its next checkpoint ends this wait."""
        while True:
            try:
                return await read_plan(self._context.store, self._sink.layout)
            except ObjectMissing as error:
                _log.info("not begun yet: %s", error)
                await self._context.clock.sleep(_REJOIN_SECONDS)

    async def _leave_alone(self, error: FiltersDiffer) -> None:
        """Take no part in the job, and say so, until it has ended or another attempt begins."""
        if self._context.single_job:
            raise UsageError(str(error), hint=error.hint)
        context, job_id = self._context, self.state.spec.job_id
        context.metrics.left_alone(job_id)
        try:
            while True:
                _log.error("this worker leaves the job alone: %s; %s", error, error.hint)
                left = LeftAlone(job_id, self.state.attempt, f"{error}; {error.hint}", stamp(context.clock))
                try:
                    await context.broker.publish(EVENTS, [left_alone_message(left)])
                except BrokerUnavailable as failed:
                    log_failure(_log, failed, "this is not published: %s", failed)
                await context.clock.sleep(_AGAIN_SECONDS)
        finally:
            context.metrics.remove_job(job_id)

    async def _work(self, curator: "Curator | None") -> None:
        metrics, job_id = self._context.metrics, self.state.spec.job_id
        reasons = [reason.value for reason in Rejection]
        metrics.begin_consuming(job_id, reasons if curator is None else curator.reasons)
        self._sink = replace(self._sink, curator=curator)
        consume = asyncio.create_task(self._consume(), name=f"consume {job_id}")
        finish = asyncio.create_task(self._finish(), name=f"finish {job_id}")
        try:
            watches, decisions = self._context.watches, self._context.decisions
            with decisions.listening(job_id, self._progress.set), watches.added(self):
                await asyncio.wait((consume, finish), return_when=asyncio.FIRST_COMPLETED)
                if consume.done():
                    await consume
                await finish
        finally:
            for task in (consume, finish):
                task.cancel()
            try:
                await asyncio.gather(consume, finish, return_exceptions=True)
            finally:
                # Even after a second cancel: otherwise the job's series stay in /metrics after its work.
                metrics.remove_job(job_id)
                if self._assembly is not None:
                    await self._assembly.close()

    async def _consume(self) -> None:
        missing = _MissingObject(self._context.clock)
        while True:
            failure: JobFailed | None = None
            try:
                await AttemptConsumer(self._sink, self._progress, self._owned, self._committed).run()
            except* JobFailed as group:
                failure = first_of(group, JobFailed)
            except* SpoolError:
                raise
            except* (ServiceUnavailable, ObjectMissing) as group:
                # ObjectMissing: a listed object is gone, so the job is being deleted. That does not fail it.
                error = first_of(group, ShardlineError)
                if isinstance(error, ObjectMissing):
                    failure = missing.failure(error)
                # A job whose documents are all committed may have no topic: only the finish is left to do.
                expected = isinstance(error, TopicMissing) and self.state.state is State.COMPLETING
                if expected:
                    # Nobody gets a partition without it. What has landed is assembled by whoever finds that.
                    self._owned.update(range(self.state.spec.total_partitions))
                    self._progress.set()
                if isinstance(error, ServiceUnavailable) and not expected:
                    log_failure(_log, error, "%s; joining again", error)
                else:
                    _log.info("%s; joining again", error)
            if failure is not None:
                await self._fail(failure)
                return
            if cancel_requested():
                # A client has raised an error instead of the cancel.
                raise asyncio.CancelledError
            await self._context.clock.sleep(_REJOIN_SECONDS)

    async def _fail(self, error: JobFailed) -> None:
        _log.error("%s: %s", error.code, error, extra=ENDS_JOB)
        decide = partial(fail_attempt, self._context.store, self.state, error, self._context.clock)
        try:
            outcome = await retry_forever(decide, self._context.clock, "write the outcome")
            if outcome.ending == "completed":
                _log.error("the attempt is completed, but its dataset cannot be published")
        except ObjectMissing as gone:
            if self._context.single_job:
                # Nobody deletes the dataset of a run.
                raise error from gone
            _log.warning("the outcome is not written, because the dataset was deleted: %s", gone)
        self._progress.set()
        self._context.decisions.notify(self.state.spec.job_id)

    async def _finish(self) -> None:
        missing = _MissingObject(self._context.clock)
        while True:
            # Before the try: a segment that is committed during it leads to another one.
            self._progress.clear()
            try:
                if await self._finisher.try_finish(self.state):
                    self._context.decisions.notify(self.state.spec.job_id)
                    return
            except ServiceUnavailable as error:
                log_failure(_log, error, "not finished yet: %s", error)
            except JobFailed as error:
                await self._fail(error)
                return
            except ObjectMissing as error:
                # If the dataset is being deleted, the next checkpoint ends this task.
                if (lost := missing.failure(error)) is not None:
                    await self._fail(lost)
                    return
                _log.info("not finished yet: %s", error)
            seconds = self._context.finish_seconds * self._context.watches.factor(self)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._progress.wait()


class _MissingObject:
    """Tells an object that a store does not find for a moment from one that is lost."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since = self._last = -_LOST_SECONDS * 2

    def failure(self, error: ObjectMissing) -> JobFailed | None:
        """The failure, if an object has been missing for 30 seconds; None before that."""
        now = self._clock.monotonic()
        if now - self._last > _LOST_SECONDS:
            self._since = now
        self._last = now
        if now - self._since < _LOST_SECONDS:
            return None
        hint = "restore it and retry the job, or submit a new job"
        return JobFailed(FailureCode.OBJECT_LOST, str(error), hint=hint)


def _is_fatal(error: Exception) -> bool:
    # Without a spool, or with a wrong setting, no job can be worked on. Other errors end only their job.
    fatal = (SpoolError, UsageError)
    return isinstance(error, fatal) or (
        isinstance(error, ExceptionGroup) and error.subgroup(fatal) is not None
    )
