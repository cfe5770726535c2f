"""One job from acceptance to the removal of its topic, on whichever producer owns it now."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

from shardline_common.dataset.events import Event, event_message
from shardline_common.errors import BrokerUnavailable, JobConflict
from shardline_common.job.dead_letters import message_dead_letter
from shardline_common.job.names import CHECKPOINTS, DEAD_LETTERS, EVENTS, attempt_topic, transactional_id
from shardline_common.job.outcome import Outcome
from shardline_common.job.spec import JobSpec, Request
from shardline_common.job.state import RETRIABLE, JobState, State
from shardline_common.ports.broker import Record, TransactionalWriter
from shardline_common.runtime.clock import stamp
from shardline_common.runtime.failpoints import failpoint
from shardline_common.runtime.retry import retry_forever
from shardline_common.telemetry.logs import log_context
from shardline_common.telemetry.tracing import continued, current, span, traceparent_of
from shardline_producer.acceptance import accept, state_from_store
from shardline_producer.attempt import AttemptRun
from shardline_producer.cleanup import delete_dataset
from shardline_producer.context import ProducerParts
from shardline_producer.notifications.outbox import News
from shardline_producer.pipeline import checkpoint
from shardline_producer.requests import Requests

_log = logging.getLogger(__name__)


class JobRunner:
    """Drives one job. `state` is the last one known here; what is written is always built on a fresh one."""

    def __init__(self, parts: ProducerParts, partition: int, spec: JobSpec, state: JobState | None) -> None:
        self.spec = spec
        self.state = state
        self._parts = parts
        self._partition = partition
        self._requests = Requests()
        self._heeded = -1
        self._news = News(parts.receiver, parts.store, parts.clock, spec)

    def request(self, request: Request, record: Record) -> None:
        """Hand over a request; one that the state has taken in already is dropped."""
        self._requests.put(request, record)

    async def run(self, submission: Record | None) -> None:
        """Work until nothing is left to do for now."""
        try:
            await self._run(submission)
        finally:
            await self._news.stop()

    async def _run(self, submission: Record | None) -> None:
        if self.state is None and not await self._accept(submission):
            return
        with continued(self._known().traceparent):
            await self._go_on()

    async def _go_on(self) -> None:
        while True:
            state = self._known()
            self._news.tell(state.owed)
            if state.active:
                with log_context(attempt=state.attempt):
                    await self._run_attempt(state)
            elif (asked := self._requests.next) is not None:
                await self._heed(*asked)
                self._requests.drop()
            elif not state.topic_removed:
                await self._retire()
            elif self._has_told():
                await self._note_told()
            elif self._news.pending:
                await self._stirred()
            else:
                return

    def _known(self) -> JobState:
        if self.state is None:
            raise AssertionError("a runner works on accepted jobs only")
        return self.state

    async def _accept(self, submission: Record | None) -> bool:
        with continued(traceparent_of(submission.headers if submission else ())), span("accept"):
            return await self._accept_now(submission)

    async def _accept_now(self, submission: Record | None) -> bool:
        parts = self._parts
        offset = submission.offset if submission else -1
        try:
            accepting = partial(accept, parts.store, self.spec, parts.clock)
            acceptance = await retry_forever(accepting, parts.clock, f"accept {self.spec.job_id}")
        except JobConflict as error:
            if submission is not None:
                await self._refuse(submission, "job_conflict", f"{error}; {error.hint}")
            return False
        recall = partial(state_from_store, parts.store, acceptance, offset)
        self.state = await retry_forever(recall, parts.clock, f"recall {self.spec.job_id}")
        self.state.traceparent = current()
        await self._change(lambda _: None)
        _log.info("accepted")
        return True

    async def _run_attempt(self, state: JobState) -> None:
        attempt = AttemptRun(self._parts, state, self.claim, self.recall)
        heed = asyncio.create_task(self._heed_while_active(attempt))
        try:
            outcome = await attempt.run()
        finally:
            heed.cancel()
            await asyncio.gather(heed, return_exceptions=True)
            # Also when another producer takes the job: two must not tell of one.
            self._parts.metrics.forget_job(self.spec.job_id)
        if outcome is None:
            return
        failpoint("webhook.before_checkpoint")
        owes = self._news.wanted
        await self._tell_progress(attempt.events())
        await self._change(partial(_conclude, outcome, empty=attempt.empty, owes=owes))
        self._parts.metrics.ended(outcome.ending)
        _log.info("the attempt is %s", outcome.ending)

    async def _tell_progress(self, events: Sequence[Event]) -> None:
        """The last events of workers may be lost with them: who sees the end shall see the whole progress."""
        try:
            await self._parts.broker.publish(EVENTS, [event_message(event) for event in events])
        except BrokerUnavailable as error:
            # Only a hint: it must not hold up the end.
            _log.warning("the last progress is not told: %s", error)

    async def _heed_while_active(self, attempt: AttemptRun) -> None:
        while True:
            request, record = await self._requests.first()
            if self._heeded_before(record):
                self._requests.drop()
                continue
            asking = (
                attempt.counts if request.action == "retry" else partial(attempt.cancel, request.requested_by)
            )
            counts = await retry_forever(asking, self._parts.clock, f"{request.action} {self.spec.job_id}")
            if not counts or request.action == "delete":
                # Is heeded once this run has ended.
                return
            if request.action == "retry":
                await self._refuse(record, "not_retriable", "the job is active; cancel it first")
            self._heeded = record.offset
            self._requests.drop()

    def _heeded_before(self, record: Record) -> bool:
        return record.offset <= max(self._heeded, self._known().request_offset)

    async def _heed(self, request: Request, record: Record) -> None:
        state = self._known()
        if self._heeded_before(record):
            return
        self._heeded = record.offset
        if request.action == "delete":
            # Also once more: a worker that slept through the first may have put one object since.
            removing = partial(delete_dataset, self._parts.broker, self._parts.store, state)
            await retry_forever(removing, self._parts.clock, f"delete {self.spec.job_id}")
            await self._news.stop()
            await self._change(_deleted)
        elif request.action == "retry" and state.state in RETRIABLE:
            # The grace time of the old attempt's topic may not be over: nobody would remove it later.
            await self._delete_topic(state.attempt)
            await self._change(partial(_retried, record.offset))
        else:
            wanted = f"cannot {request.action} a job that is {state.state}"
            await self._refuse(record, "refused_request", wanted)
            await self._change(lambda _: None)

    async def _retire(self) -> None:
        # The grace time lets late readers finish; a request ends it early.
        ends = self._parts.clock.monotonic() + self._parts.limits.topic_grace
        while (left := ends - self._parts.clock.monotonic()) > 0:
            await self._stirred(left)
            if self._requests.next is not None:
                return
            await self._note_told()
        attempt = self._known().attempt
        await self._delete_topic(attempt)
        await self._change(partial(_retired, attempt))

    async def _stirred(self, seconds: float | None = None) -> None:
        """Wait for a request, or for the end of what is being told; at most so long."""
        arrived = asyncio.create_task(self._requests.first())
        try:
            waiting = (arrived, *self._news.pending)
            await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            arrived.cancel()

    def _has_told(self) -> bool:
        return not self._news.told.isdisjoint(self._known().owed)

    async def _note_told(self) -> None:
        if self._has_told():
            await self._change(lambda _: None)

    async def _delete_topic(self, attempt: int) -> None:
        topic = attempt_topic(self.spec.job_id, attempt)
        deleting = partial(self._parts.broker.delete_topic, topic)
        await retry_forever(deleting, self._parts.clock, f"delete topic {topic}")

    async def _refuse(self, record: Record, reason: str, hint: str) -> None:
        _log.warning("%s: %s", reason, hint)
        self._parts.metrics.refused_message()
        publish = partial(
            self._parts.broker.publish, DEAD_LETTERS, [message_dead_letter(record, reason, hint)]
        )
        await retry_forever(publish, self._parts.clock, "publish a dead letter")

    async def _change(self, change: Callable[[JobState], None]) -> None:
        async def commit() -> None:
            async with self.claim() as (writer, state):
                change(state)
                state.owed = [attempt for attempt in state.owed if attempt not in self._news.told]
                state.request_offset = max(state.request_offset, self._heeded)
                state.updated_at = stamp(self._parts.clock)
                async with writer.transaction() as transaction:
                    await transaction.send(CHECKPOINTS, [checkpoint(state)])
                self.state = state

        await retry_forever(commit, self._parts.clock, f"checkpoint {self.spec.job_id}")

    @asynccontextmanager
    async def claim(self) -> AsyncIterator[tuple[TransactionalWriter, JobState]]:
        """Fence all other producers of this job, then read its last committed state.

        Raises:
            BrokerUnavailable: try again.
        """
        async with self._parts.broker.transactional(transactional_id(self.spec.job_id)) as writer:
            yield writer, await self.recall()

    async def recall(self) -> JobState:
        """Read the last committed state; nobody is fenced.

        Raises:
            BrokerUnavailable: try again.
        """
        self.state = await self._read_state() or self._known()
        return self.state

    async def _read_state(self) -> JobState | None:
        key = self.spec.job_id.encode()
        async with self._parts.broker.table_reader(CHECKPOINTS, [self._partition]) as table:
            records = await table.catch_up(deadline=self._parts.limits.catch_up_seconds)
        own = [record for record in records if record.key == key and record.value is not None]
        return JobState.of(own[-1]) if own else None


def _conclude(outcome: Outcome, state: JobState, *, empty: bool, owes: bool) -> None:
    if state.attempt != outcome.attempt or not state.active:
        return
    state.state = State(outcome.ending)
    state.code, state.message = outcome.code, outcome.message
    state.warning = "empty" if empty and outcome.ending == "completed" else None
    if owes:
        state.owed.append(outcome.attempt)


def _retried(offset: int, state: JobState) -> None:
    # Another producer may have heeded the request meanwhile: it asks for one attempt, not for two.
    if state.state in RETRIABLE and state.request_offset < offset:
        state.attempt += 1
        state.state, state.planned, state.topic_removed = State.QUEUED, False, False
        state.code = state.message = state.warning = None


def _deleted(state: JobState) -> None:
    state.state, state.topic_removed = State.DELETED, True
    state.owed = []


def _retired(attempt: int, state: JobState) -> None:
    # Another producer may have begun the next attempt meanwhile.
    if state.attempt == attempt and not state.active:
        state.topic_removed = True
