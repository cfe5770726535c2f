"""One attempt of a job: queue, plan, topic, pipeline, and the watch for its outcome."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from functools import partial

from shardline_common.dataset.events import Event
from shardline_common.errors import (
    FailureCode,
    JobFailed,
    ObjectMissing,
    ServiceUnavailable,
    StoreUnavailable,
)
from shardline_common.job.names import CHECKPOINTS, Layout, attempt_topic
from shardline_common.job.outcome import Outcome, cancelled, decide, failed, read_outcome
from shardline_common.job.plan import Plan
from shardline_common.job.state import JobState, PartitionState, State
from shardline_common.ports.broker import TransactionalWriter
from shardline_common.runtime.clock import stamp
from shardline_common.runtime.retry import retry_forever
from shardline_common.telemetry.metrics import JobSnapshot
from shardline_producer.backlog import Backlog
from shardline_producer.context import ProducerParts
from shardline_producer.lag_age import Age
from shardline_producer.pipeline import Pipeline, Tools, asking, checkpoint
from shardline_producer.plan import plan_job
from shardline_producer.plan_pages import StoredPlanPages
from shardline_producer.retry_policy import Patience
from shardline_producer.sources.source import Source
from shardline_producer.topics import attempt_topic_spec, ensure_attempt_topic

_log = logging.getLogger(__name__)
_TOPIC_LOOK_SECONDS = 10.0

Claim = Callable[[], AbstractAsyncContextManager[tuple[TransactionalWriter, JobState]]]
Recall = Callable[[], Awaitable[JobState]]
"""Reads the job's last committed state, and fences nobody."""


class AttemptRun:
    """Runs one attempt until an outcome stands.

    Whoever slept may find that others ended the attempt meanwhile, and even deleted the job. So before
    an outcome is written the checkpoints are asked whether the attempt still counts.
    """

    def __init__(self, parts: ProducerParts, state: JobState, claim: Claim, recall: Recall) -> None:
        self._parts = parts
        self._state = state
        self._claim = claim
        self._recall = recall
        self._over = False
        self._layout = Layout.of(state.spec)
        self._topic = attempt_topic(state.spec.job_id, state.attempt)
        self._backlog = Backlog(parts.broker, parts.store, state, parts.limits.topic_bytes)
        self._age = Age()
        self._wake = asyncio.Event()
        self._topic_seen = self._moved_at = parts.clock.monotonic()
        self._moved = (0, 0)

    @property
    def empty(self) -> bool:
        """Whether the chains hold no row."""
        return self._backlog.held.rows == 0

    def events(self) -> list[Event]:
        """What each partition's chain holds, as last read."""
        spec, at = self._state.spec, stamp(self._parts.clock)
        tips = filter(None, self._backlog.tips)
        return [Event.of(spec.job_id, self._state.attempt, tip, at) for tip in tips]

    async def run(self) -> Outcome | None:
        """Work until an outcome stands; a completed one also has its `_SUCCESS`. None: it is long over."""
        self._parts.metrics.begin_producing(self._state.spec.job_id)
        work = asyncio.create_task(self._work(), name=f"produce {self._state.spec.job_id}")
        watch = asyncio.create_task(self._watch(), name=f"watch {self._state.spec.job_id}")
        try:
            await asyncio.wait((work, watch), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                await work
            return await watch
        finally:
            for task in (work, watch):
                task.cancel()
            await asyncio.gather(work, watch, return_exceptions=True)

    async def cancel(self, requested_by: str | None) -> bool:
        """Decide the attempt as cancelled, unless another outcome stands; False where it is long over."""
        return await self._decide(cancelled(self._state, requested_by, self._parts.clock))

    async def counts(self) -> bool:
        """Ask the checkpoints whether the attempt goes on."""
        return self._counts(await self._recall())

    async def _decide(self, outcome: Outcome) -> bool:
        if not await self.counts():
            return False
        await decide(self._parts.store, self._layout, outcome)
        self._wake.set()
        return True

    def _counts(self, state: JobState) -> bool:
        """Whether the attempt goes on, as the job's state has it; else this run ends."""
        if state.active and state.attempt == self._state.attempt:
            return True
        _log.info("the attempt was ended by others")
        self._over = True
        self._wake.set()
        return False

    async def _fail(self, error: JobFailed) -> None:
        outcome = failed(self._state, error, self._parts.clock)
        _log.error("the attempt failed: %s: %s", error.code, error)
        await retry_forever(partial(self._decide, outcome), self._parts.clock, "write the outcome")

    async def _work(self) -> None:
        async with self._parts.slots:
            try:
                await self._produce_through_faults()
            except JobFailed as error:
                await self._fail(error)
            except Exception as error:  # noqa: BLE001 - one job's bug must not end the others
                _log.exception("a bug in Shardline")
                await self._fail(JobFailed(FailureCode.INTERNAL, f"{type(error).__name__}: {error}"))
            # The slot is held until the outcome stands: an attempt counts until it is decided.
            await asyncio.Event().wait()

    async def _produce_through_faults(self) -> None:
        parts = self._parts
        patience = Patience(parts.broker, parts.clock, parts.limits.source_seconds)
        while True:
            try:
                async with self._claim() as (writer, state):
                    if self._counts(state):
                        self._state = self._backlog.state = state
                        await self._produce(writer, state)
                    return
            except ServiceUnavailable as error:
                _log.warning("%s; going on from the last checkpoint", error)
                await patience.spend(error, self._state.cursor)

    async def _produce(self, writer: TransactionalWriter, state: JobState) -> None:
        if state.state not in (State.QUEUED, State.RUNNING):
            return
        parts = StoredPlanPages(self._parts.store, self._layout.plan_parts)
        source = self._parts.open_source(state.spec, parts)
        plan = await self._plan(state, source)
        if not state.planned:
            await self._prepare(writer, state, plan)
        elif not await self._parts.broker.partitions(self._topic):
            raise self._topic_lost()
        tools = Tools(writer, self._parts.clock, self._parts.metrics, self._backlog, self._parts.limits.pace)
        await Pipeline(tools, state, source, plan).run()

    async def _plan(self, state: JobState, source: Source) -> Plan:
        planning = partial(plan_job, state.spec, source, self._parts.store)
        if state.planned:
            # The plan stands in the store: the source is not asked, and a wait for it goes on.
            if state.state is State.RUNNING:
                self._parts.metrics.checkpointed(state.spec.job_id, datetime.fromisoformat(state.updated_at))
            return await planning()
        with asking(self._parts.metrics, state.spec.job_id):
            return await planning()

    def _topic_lost(self) -> JobFailed:
        return JobFailed(
            FailureCode.TOPIC_LOST,
            f"the topic {self._topic} was deleted while the job ran",
            hint="retry the job: what the chain holds is kept, the rest is read again",
        )

    async def _prepare(self, writer: TransactionalWriter, state: JobState, plan: Plan) -> None:
        wanted = attempt_topic_spec(state.spec, state.attempt, self._parts.limits.topic_bytes)
        await ensure_attempt_topic(self._parts.broker, wanted)
        await self._backlog.look()
        state.columns, state.notes = plan.columns, plan.notes
        self._continue_the_chain(state)
        state.state, state.planned = State.RUNNING, True
        state.updated_at = stamp(self._parts.clock)
        async with writer.transaction() as transaction:
            await transaction.send(CHECKPOINTS, [checkpoint(state)])
        self._parts.metrics.checkpointed(state.spec.job_id, self._parts.clock.now())
        self._topic_seen = self._parts.clock.monotonic()

    def _continue_the_chain(self, state: JobState) -> None:
        tips = self._backlog.tips
        state.partitions = [
            PartitionState(
                sequence=tip.next,
                hash_sum=tip.upto.hash_sum,
                bytes=tip.upto.scanned_bytes,
                dead=sum(tip.upto.dead.values()),
                resume_after=tip.position,
            )
            if tip
            else PartitionState()
            for tip in tips
        ]
        # The lowest position of all partitions; one that holds nothing yet starts at the beginning.
        positions = [tip.position for tip in tips if tip is not None]
        state.cursor = min(positions) if len(positions) == len(tips) else None
        state.source_count = state.cursor[-1] if state.cursor else 0

    async def _watch(self) -> Outcome | None:
        while not self._over:
            try:
                outcome = await self._look()
            except ServiceUnavailable as error:
                _log.warning("the attempt cannot be looked at: %s", error)
                if isinstance(error, StoreUnavailable):
                    self._parts.metrics.store_error(self._state.spec.job_id)
                if self._backlog.seen:
                    # What the chains held when they were last read: while the store is away lag grows.
                    self._report()
            else:
                if outcome is not None:
                    return outcome
            self._wake.clear()
            try:
                async with asyncio.timeout(self._parts.limits.progress_seconds):
                    await self._wake.wait()
            except TimeoutError:
                continue
        return None

    async def _look(self) -> Outcome | None:
        outcome = await read_outcome(self._parts.store, self._layout, self._state.attempt)
        if outcome is not None and (outcome.ending != "completed" or await self._published()):
            await self._backlog.look_at_all()
            self._report()
            return outcome
        if outcome is None and self._state.planned:
            await self._backlog.look()
            self._report()
            await self._look_for_topic()
        return None

    async def _published(self) -> bool:
        try:
            await self._parts.store.get(self._layout.success)
        except ObjectMissing:
            return False
        return True

    async def _look_for_topic(self) -> None:
        now = self._parts.clock.monotonic()
        if now - self._topic_seen < _TOPIC_LOOK_SECONDS:
            return
        self._topic_seen = now
        if await self._parts.broker.partitions(self._topic):
            return
        # A producer that slept through the job's end finds no topic either: that is no failure of the job.
        if await self.counts() and not await self._parts.broker.partitions(self._topic):
            await self._fail(self._topic_lost())

    def _report(self) -> None:
        state, now = self._state, self._parts.clock.monotonic()
        moved = (state.produced, self._backlog.chained)
        if moved != self._moved:
            self._moved, self._moved_at = moved, now
        self._parts.metrics.stalled(state.spec.job_id, now - self._moved_at)
        self._parts.metrics.progress(state.spec.job_id, self._standing(now))

    def _standing(self, now: float) -> JobSnapshot:
        backlog, produced = self._backlog, self._state.produced
        held = backlog.held
        documents = {
            "produced": produced,
            "kept": held.rows,
            "rejected": sum(held.rejected.values()),
            "dead": sum(held.dead.values()),
        }
        return JobSnapshot(
            lag=backlog.lag,
            lag_seconds=self._age.look(now, produced, backlog.chained),
            backlog=backlog.filled,
            slowest=backlog.slowest,
            documents=documents,
            ratio=self._state.progress * min(1.0, backlog.chained / produced if produced else 1.0),
        )
