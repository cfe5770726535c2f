"""One slice of an attempt, on the producer that owns the partition of its checkpoint."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shardline_common.errors import (
    FailureCode,
    JobFailed,
    ObjectMissing,
    ServiceUnavailable,
    StoreUnavailable,
    UsageError,
    explain,
)
from shardline_common.job.names import CHECKPOINTS, Layout
from shardline_common.job.outcome import read_outcome
from shardline_common.job.plan import Plan, read_plan
from shardline_common.job.state import JobState, State, checkpoint
from shardline_common.ports.broker import Record, TransactionalWriter
from shardline_common.runtime.clock import stamp
from shardline_common.runtime.retry import retry_forever
from shardline_common.runtime.waits import log_failure, log_wait
from shardline_common.telemetry.logs import log_context
from shardline_common.telemetry.tracing import continue_trace
from shardline_producer import resume
from shardline_producer.backlog import Backlog
from shardline_producer.context import ProducerContext
from shardline_producer.pipeline import Pipeline
from shardline_producer.plan_pages import StoredPlanPages
from shardline_producer.retry_policy import AttemptRetryPolicy
from shardline_producer.slice_states import fence_and_load

_log = logging.getLogger(__name__)
WORKING = frozenset({State.QUEUED, State.RUNNING})


class SliceEnded(Exception):
    """The slice belongs to another attempt, or is removed."""


class SliceRunner:
    """Sends one slice of an attempt, up to its end markers.

    The owner of the job opens the slice and decides the attempt. A failure is committed to the checkpoint of
    the slice, where the owner reads it. Once the attempt has an outcome, the slice stops where it is.
    """

    def __init__(self, context: ProducerContext, state: JobState) -> None:
        if state.slice is None or state.home is None:
            raise AssertionError("the state of a slice was read from its checkpoint")
        self._context = context
        self._state = state
        self._attempt = state.attempt
        self._number = state.slice
        self._home = state.home
        self._layout = Layout.of(state.spec)
        self._backlog = Backlog(context.broker, context.store, state, context.policy.topic_bytes)

    @property
    def job_id(self) -> str:
        """The job."""
        return self._state.spec.job_id

    async def run(self, submission: Record | None = None) -> None:  # noqa: ARG002 - as JobRunner
        """Send the rest of the slice. Returns at its end, or when the attempt has an outcome."""
        state = self._state
        with log_context(attempt=self._attempt, slice=self._number), continue_trace(state.traceparent):
            self._context.metrics.begin_producing(self.job_id)
            work = asyncio.create_task(self._work(), name=f"produce {self.job_id}/{self._number}")
            watch = asyncio.create_task(self._watch(), name=f"watch {self.job_id}/{self._number}")
            try:
                await asyncio.wait((work, watch), return_when=asyncio.FIRST_COMPLETED)
                for task in (work, watch):
                    if task.done():
                        await task
            finally:
                for task in (work, watch):
                    task.cancel()
                await asyncio.gather(work, watch, return_exceptions=True)

    async def end_by(
        self,
        failure: JobFailed,
        submission: Record | None,  # noqa: ARG002 - as JobRunner
        *,
        last_try: bool,  # noqa: ARG002 - as JobRunner
    ) -> bool:
        """End the slice after an unexpected error. Returns False: there is nothing left to run."""
        await self._fail(failure)
        return False

    async def _work(self) -> None:
        context = self._context
        policy = AttemptRetryPolicy(
            context.broker, context.clock, context.policy.source_seconds, self._fence_and_load
        )
        async with context.slots:
            try:
                while not await self._try_to_send(policy):
                    pass
            except SliceEnded:
                _log.info("the slice is removed, or belongs to another attempt")
            except JobFailed as error:
                await self._fail(error)
            except UsageError as error:
                # Clients are made when a source is opened: a setting of this process is wrong.
                await self._fail(JobFailed(FailureCode.SOURCE_INVALID, str(error), hint=error.hint))

    async def _try_to_send(self, policy: AttemptRetryPolicy) -> bool:
        try:
            async with self._fence_and_load() as (writer, state):
                self._state = self._backlog.state = state
                await self._send(writer, state)
                return True
        except ServiceUnavailable as error:
            log_failure(_log, error, "%s; continuing from the last checkpoint of the slice", error)
            last = error
            with log_wait("the next try", lambda: last):
                await policy.pause(error, self._state.cursor)
            return False

    async def _send(self, writer: TransactionalWriter, state: JobState) -> None:
        """Send the rest of the slice, from its committed state on.

        1. Read the plan. 2. Continue behind the chains, if nothing of this attempt is sent. 3. Send.
        """
        if state.state not in WORKING:
            return
        context, layout = self._context, self._layout
        # 1.
        plan = await self._read_plan()
        pages = StoredPlanPages(context.store, layout.plan_pages, context.clock, layout.rankings)
        source = context.open_source(state.spec, pages)
        # 2.
        if state.state is State.QUEUED:
            await self._backlog.refresh()
            resume.continue_chains(state, self._backlog.heads)
            state.state, state.planned = State.RUNNING, True
            state.updated_at = stamp(context.clock)
            async with writer.transaction() as transaction:
                await transaction.send(CHECKPOINTS, [checkpoint(state)])
            _log.info("the slice is read, from position %s", state.cursor)
        # 3.
        await Pipeline(context, writer, self._backlog, state, source, plan).run()
        _log.info("the slice is sent: %d documents", state.source_count)

    async def _read_plan(self) -> Plan:
        try:
            return await read_plan(self._context.store, self._layout)
        except ObjectMissing:
            # The dataset was deleted while this producer was paused.
            raise SliceEnded from None

    async def _watch(self) -> None:
        """Make room for the pipeline, until the attempt has an outcome."""
        context = self._context
        while True:
            try:
                if await read_outcome(context.store, self._layout, self._attempt) is not None:
                    _log.info("the attempt has an outcome: the slice stops")
                    return
                if self._state.planned:
                    await self._backlog.refresh()
            except ServiceUnavailable as error:
                log_failure(_log, error, "the attempt cannot be watched: %s", error)
                if isinstance(error, StoreUnavailable):
                    context.metrics.store_error(self.job_id)
            except JobFailed as error:
                # A chain or the outcome cannot be read. The owner of the job meets the same, and decides.
                log_failure(_log, error, "the attempt cannot be watched: %s", error)
            await context.clock.sleep(context.policy.progress_seconds)

    async def _fail(self, error: JobFailed) -> None:
        """Commit the failure to the checkpoint of the slice. The owner of the job decides the attempt."""
        _log.error("the slice failed: %s: %s", error.code, error)

        async def commit() -> None:
            async with self._fence_and_load() as (writer, state):
                if state.state not in WORKING:
                    return
                state.state, state.code, state.message = State.FAILED, error.code.value, explain(error)
                state.updated_at = stamp(self._context.clock)
                async with writer.transaction() as transaction:
                    await transaction.send(CHECKPOINTS, [checkpoint(state)])

        try:
            await retry_forever(commit, self._context.clock, f"fail the slice {self._number}")
        except SliceEnded:
            _log.info("the slice is removed, or belongs to another attempt")

    @asynccontextmanager
    async def _fence_and_load(self) -> AsyncIterator[tuple[TransactionalWriter, JobState]]:
        """As `JobStateStore.fence_and_load`, of the slice.

        Raises:
            SliceEnded: the committed state is of another attempt, or there is none.
            BrokerUnavailable: try again.
        """
        context, seconds = self._context, self._context.policy.catch_up_seconds
        opening = fence_and_load(context.broker, self.job_id, self._number, self._home, seconds)
        async with opening as (writer, state):
            if state is None or state.attempt != self._attempt:
                raise SliceEnded
            yield writer, state
