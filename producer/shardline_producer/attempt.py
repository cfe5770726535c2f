"""One attempt of a job: it waits for a slot, plans, creates the topic, sends, and waits for its outcome."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from typing import TypeAlias

from shardline_common.dataset.events import Event, event_message
from shardline_common.dataset.stage_events import StageEvent, stage_message
from shardline_common.errors import (
    FailureCode,
    JobFailed,
    ObjectMissing,
    ServiceUnavailable,
    StoreUnavailable,
    UsageError,
)
from shardline_common.job.names import CHECKPOINTS, EVENTS, Layout, attempt_topic
from shardline_common.job.outcome import Outcome, cancelled, decide, failed, read_outcome
from shardline_common.job.plan import read_plan
from shardline_common.job.state import JobState, State, checkpoint
from shardline_common.ports.broker import TransactionalWriter
from shardline_common.runtime.clock import stamp
from shardline_common.runtime.retry import retry_forever
from shardline_common.runtime.task_group import no_foreign_cancel
from shardline_common.runtime.waits import log_failure, log_wait
from shardline_common.telemetry.logs import ENDS_JOB
from shardline_common.telemetry.metrics import JobSnapshot
from shardline_producer import resume
from shardline_producer.backlog import Backlog
from shardline_producer.context import ProducerContext
from shardline_producer.job_state_store import JobStateStore
from shardline_producer.lag_age import LagAge
from shardline_producer.pipeline import Pipeline, measure_source_wait
from shardline_producer.plan import plan_job
from shardline_producer.plan_pages import StoredPlanPages
from shardline_producer.publication import Publication
from shardline_producer.retry_policy import AttemptRetryPolicy
from shardline_producer.slice_follower import SliceFollower
from shardline_producer.stage_watch import StageWatch
from shardline_producer.topics import attempt_topic_spec, ensure_attempt_topic

_log = logging.getLogger(__name__)
_TOPIC_CHECK_SECONDS = 10.0
# Each head costs a request, and the producer of a slice reads its own every `progress_seconds`.
_FOLLOWED = 5
_Step: TypeAlias = Callable[[TransactionalWriter, JobState], Awaitable[None]]


class AttemptRun:
    """Runs one attempt until it has an outcome.

    After a pause of this process, another producer may have ended the attempt, or even deleted the job. So
    the checkpoint is read before an outcome is written.
    """

    def __init__(self, context: ProducerContext, state: JobState, states: JobStateStore) -> None:
        self._context = context
        self._state = state
        self._states = states
        self._superseded = False
        self._unrecorded: Outcome | None = None
        self._layout = Layout.of(state.spec)
        self._topic = attempt_topic(state.spec.job_id, state.attempt)
        self._backlog = Backlog(context.broker, context.store, state, context.policy.topic_bytes)
        self._lag_age = LagAge()
        self._wake = asyncio.Event()
        self._topic_checked_at = self._progressed_at = context.clock.monotonic()
        self._last_progress: tuple[int, int, StageEvent | None] = (0, 0, None)
        self._stages = StageWatch(context, state)
        self._publication = Publication(context, state.spec, states)
        # How many ranges the plan has, once that is known and they are more than one.
        self._ranges = 0
        self._refresh_at = 0.0

    @property
    def empty(self) -> bool:
        """Whether the dataset has no row, as far as it is known."""
        stage = self._stages.latest
        rows = stage.counts.rows if stage and stage.counts else self._backlog.committed.rows
        return rows == 0

    def events(self) -> list[Event]:
        """The progress of each partition, as last read from the chains."""
        spec, at = self._state.spec, stamp(self._context.clock)
        heads = filter(None, self._backlog.heads)
        return [Event.of(spec.job_id, self._state.attempt, head, at) for head in heads]

    async def publish_progress(self) -> None:
        """Publish the last progress and stage: a killed worker has not published its last events."""
        try:
            with no_foreign_cancel():
                events = [event_message(event) for event in self.events()]
                if self._stages.latest is not None:
                    events.append(stage_message(self._stages.latest))
                await self._context.broker.publish(EVENTS, events)
        except Exception as error:  # noqa: BLE001 - events are hints: they must not delay the end
            _log.warning("the last progress is not published: %s", error)

    async def run(self) -> Outcome | None:
        """Work until the attempt has an outcome, and if it is completed, until the dataset is published.

        Returns None when another producer has ended the attempt; the job's state has the outcome then.
        """
        job_id = self._state.spec.job_id
        self._context.metrics.begin_producing(job_id)
        work = asyncio.create_task(self._work(), name=f"produce {job_id}")
        watch = asyncio.create_task(self._wait_for_outcome(), name=f"watch {job_id}")
        try:
            with self._context.decisions.listening(job_id, self._wake.set), self._context.watches.added(self):
                await asyncio.wait((work, watch), return_when=asyncio.FIRST_COMPLETED)
                if work.done():
                    await work
                return await watch
        finally:
            for task in (work, watch):
                task.cancel()
            await asyncio.gather(work, watch, return_exceptions=True)

    async def cancel(self, requested_by: str | None) -> bool:
        """Decide the attempt as cancelled, unless it is decided. False when another producer has ended it.

        Raises:
            BrokerUnavailable, StoreUnavailable: try again.
        """
        return await self._decide(cancelled(self._state, requested_by, self._context.clock))

    def request_handled(self, offset: int) -> None:
        """Let the next checkpoint cover the requests of dataset.jobs up to this offset."""
        self._state.request_offset = max(self._state.request_offset, offset)

    async def is_current(self) -> bool:
        """Whether this attempt is still the active one in the committed state. Raises BrokerUnavailable."""
        return self._check_current(await self._states.load_state())

    def _check_current(self, state: JobState) -> bool:
        if state.active and state.attempt == self._state.attempt:
            return True
        _log.info("another producer ended the attempt")
        self._superseded = True
        self._wake.set()
        return False

    async def _decide(self, outcome: Outcome) -> bool:
        if not await self.is_current():
            return False
        try:
            with no_foreign_cancel():
                await decide(self._context.store, self._layout, outcome, self._context.clock)
        except ServiceUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the record cannot be written
            # Without a record the checkpoint alone decides. Otherwise neither a failure nor a cancel could
            # end an attempt whose record the store refuses.
            _log.error("the outcome is not recorded: %s", error)
            self._unrecorded = outcome
        self._wake.set()
        self._context.decisions.notify(self._state.spec.job_id)
        return True

    async def _fail(self, error: JobFailed) -> None:
        outcome = failed(self._state, error, self._context.clock)
        _log.error("the attempt failed: %s: %s", error.code, error, extra=ENDS_JOB)
        await retry_forever(partial(self._decide, outcome), self._context.clock, "write the outcome")

    async def _work(self) -> None:
        """Produce in a slot. Failures of services are retried; a failure of the job becomes its outcome.

        An attempt with slices plans in a slot, and follows its slices without one: each of them has its own.
        Any other error ends the attempt by the guard of the job.
        """
        context = self._context
        policy = AttemptRetryPolicy(
            context.broker, context.clock, context.policy.source_seconds, self._states.fence_and_load
        )
        async with context.slots:
            await self._run_step(policy, self._produce)
            if not self._ranges:
                # The attempt occupies its slot until it is decided.
                await asyncio.Event().wait()
        await self._run_step(policy, self._follow_slices)
        await asyncio.Event().wait()

    async def _run_step(self, policy: AttemptRetryPolicy, step: _Step) -> None:
        try:
            while not await self._try_step(policy, step):
                pass
        except JobFailed as error:
            await self._fail(error)
        except UsageError as error:
            # Clients are made when a source is opened: a setting of this process is wrong.
            await self._fail(JobFailed(FailureCode.SOURCE_INVALID, str(error), hint=error.hint))

    async def _try_step(self, policy: AttemptRetryPolicy, step: _Step) -> bool:
        try:
            async with self._states.fence_and_load() as (writer, state):
                if self._check_current(state):
                    self._state = self._backlog.state = state
                    await step(writer, state)
                return True
        except ServiceUnavailable as error:
            log_failure(_log, error, "%s; continuing from the last checkpoint", error)
            last = error
            with log_wait("the next try", lambda: last):
                # A job with slices has no cursor of its own.
                await policy.pause(error, self._state.cursor or (self._state.source_count,))
            return False

    async def _produce(self, writer: TransactionalWriter, state: JobState) -> None:
        """Produce the rest of the attempt, from its committed state on.

        1. Open the source. 2. Read or make the plan. 3. Create the topic and commit the job as running.
        4. Send the documents, unless producers send slices of them.
        """
        context, spec = self._context, state.spec
        if state.state not in (State.QUEUED, State.RUNNING):
            return
        # 1.
        layout = self._layout
        pages = StoredPlanPages(context.store, layout.plan_pages, context.clock, layout.rankings)
        source = context.open_source(spec, pages)
        open_dataset, fetch = context.open_dataset, context.fetch_file
        # 2. The plan of a planned job is in the store: reading it must not end the measured wait.
        if state.planned:
            if state.state is State.RUNNING:
                context.metrics.checkpointed(spec.job_id, datetime.fromisoformat(state.updated_at))
            plan = await plan_job(spec, source, context.store, context.clock, open_dataset, fetch)
        else:
            with measure_source_wait(context.metrics, spec.job_id):
                plan = await plan_job(spec, source, context.store, context.clock, open_dataset, fetch)
        # 3.
        if state.planned:
            if not await context.broker.partitions(self._topic):
                raise self._topic_lost()
        else:
            wanted = attempt_topic_spec(spec, state.attempt, context.policy.topic_bytes)
            await ensure_attempt_topic(context.broker, wanted)
            await self._backlog.refresh()
            state.columns, state.notes = plan.columns, plan.notes
            resume.continue_chains(state, self._backlog.heads)
            state.state, state.planned = State.RUNNING, True
            state.updated_at = stamp(context.clock)
            async with writer.transaction() as transaction:
                await transaction.send(CHECKPOINTS, [checkpoint(state)])
            context.metrics.checkpointed(spec.job_id, context.clock.now())
            self._topic_checked_at = context.clock.monotonic()
        # 4.
        if len(plan.slices) > 1:
            self._ranges = len(plan.slices)
            return
        await Pipeline(context, writer, self._backlog, state, source, plan).run()

    async def _follow_slices(self, writer: TransactionalWriter, state: JobState) -> None:
        if state.state is State.RUNNING:
            await SliceFollower(self._context, writer, state, self._ranges).run()

    def _topic_lost(self) -> JobFailed:
        return JobFailed(
            FailureCode.TOPIC_LOST,
            f"the topic {self._topic} was deleted while the job ran",
            hint="retry the job: what the chain holds is kept, the rest is read again",
        )

    async def _wait_for_outcome(self) -> Outcome | None:
        while not self._superseded:
            # Before the check: what happens during it is checked again.
            self._wake.clear()
            try:
                outcome = await self._check_outcome()
            except ServiceUnavailable as error:
                log_failure(_log, error, "the attempt cannot be watched: %s", error)
                if isinstance(error, StoreUnavailable):
                    self._context.metrics.store_error(self._state.spec.job_id)
                if self._backlog.initialized:
                    # With the heads that were read last: the lag grows while the store cannot be read.
                    self._report()
            except JobFailed as error:
                # A chain cannot be read, for example because a record was changed.
                await self._fail(error)
            else:
                if outcome is not None:
                    return outcome
            if self._unrecorded is not None:
                return self._unrecorded
            try:
                async with asyncio.timeout(self._watch_seconds()):
                    await self._wake.wait()
            except TimeoutError:
                continue
        return None

    @property
    def sends(self) -> bool:
        """Whether the attempt has been planned, so that what its workers do is of interest."""
        return self._state.planned

    def _watch_seconds(self) -> float:
        """How long to wait for the next look. The pipeline may wait for room, which a look makes."""
        seconds = self._context.policy.progress_seconds
        return seconds if self._backlog.filled >= 1 else seconds * self._context.watches.factor(self)

    async def _check_outcome(self) -> Outcome | None:
        """The outcome, if it is decided and published. Otherwise refresh and report the progress."""
        store = self._context.store
        try:
            outcome = await read_outcome(store, self._layout, self._state.attempt)
        except JobFailed as error:
            # The record was changed. No other outcome can replace it.
            await self._states.record_blocked(self._state.attempt, error)
            return None
        if outcome is None:
            if self._state.planned:
                if self._refresh_is_due():
                    await self._backlog.refresh()
                if self._landed:
                    await self._stages.look()
                self._report()
                await self._check_topic_and_plan()
            return None
        if outcome.ending == "completed" and not await self._publication.is_done(outcome, self.is_current):
            return None
        try:
            with no_foreign_cancel():
                await self._backlog.refresh_all()
                if outcome.ending == "completed":
                    await self._stages.look(last=True)
            self._report()
        except ServiceUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - the outcome stands: only the last metrics are missing
            name = error.code if isinstance(error, JobFailed) else type(error).__name__
            _log.warning("the last progress is not known: %s: %s", name, error)
        return outcome

    def _refresh_is_due(self) -> bool:
        """Whether to read the chains now: each time, but rarely while slices read theirs."""
        now, following = self._context.clock.monotonic(), self._ranges and self._state.state is State.RUNNING
        if following and now < self._refresh_at:
            return False
        self._refresh_at = now + _FOLLOWED * self._context.policy.progress_seconds
        return True

    async def _check_topic_and_plan(self) -> None:
        now, partitions = self._context.clock.monotonic(), self._context.broker.partitions
        if now - self._topic_checked_at < _TOPIC_CHECK_SECONDS:
            return
        self._topic_checked_at = now
        # Without a plan a worker decides nothing, because it takes the dataset for deleted.
        try:
            await read_plan(self._context.store, self._layout)
        except ObjectMissing as error:
            if await self.is_current():
                await self._fail(JobFailed(FailureCode.OBJECT_LOST, str(error), hint="submit a new job"))
            return
        completing = self._state.state is State.COMPLETING
        if completing and await self._publication.outcome_lost(self._state.attempt):
            return
        # While nothing is sent, a deleted topic causes no error. Once all is committed, it is not needed.
        if self._landed:
            return
        if await partitions(self._topic):
            return
        # A producer that was paused through the job's end finds no topic either: that does not fail the job.
        if await self.is_current() and not await partitions(self._topic):
            await self._fail(self._topic_lost())

    @property
    def _landed(self) -> bool:
        """Whether all messages have been sent and are in the chains."""
        completing = self._state.state is State.COMPLETING
        return completing and self._backlog.chained >= self._state.produced

    def _report(self) -> None:
        state, backlog, now = self._state, self._backlog, self._context.clock.monotonic()
        produced, committed, chained = state.produced, backlog.committed, backlog.chained
        progress = (produced, chained, self._stages.latest)
        if progress != self._last_progress:
            self._last_progress, self._progressed_at = progress, now
        snapshot = JobSnapshot(
            lag=backlog.lag,
            lag_seconds=self._lag_age.update(now, produced, chained),
            backlog=backlog.filled,
            slowest=backlog.slowest,
            documents={
                "produced": produced,
                "kept": committed.rows,
                "rejected": sum(committed.rejected.values()),
                "dead": sum(committed.dead.values()),
            },
            ratio=state.progress * min(1.0, chained / produced if produced else 1.0),
        )
        self._context.metrics.stalled(state.spec.job_id, now - self._progressed_at)
        self._context.metrics.progress(state.spec.job_id, self._stages.measure(snapshot))
