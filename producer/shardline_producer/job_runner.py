"""One job from its acceptance to the removal of its topic, on the producer that owns it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

from shardline_common.errors import JobConflict, JobFailed, explain
from shardline_common.job.dead_letters import message_dead_letter
from shardline_common.job.names import (
    CHECKPOINTS,
    DEAD_LETTERS,
    Layout,
    transactional_id,
)
from shardline_common.job.outcome import Outcome, cancelled, decide, failed
from shardline_common.job.spec import JobSpec, Request
from shardline_common.job.state import JobState, checkpoint
from shardline_common.job.submission import submission_of
from shardline_common.job.trace_headers import traceparent_of
from shardline_common.ports.broker import Record, TransactionalWriter
from shardline_common.runtime.clock import stamp
from shardline_common.runtime.failpoints import failpoint
from shardline_common.runtime.retry import retry_forever
from shardline_common.runtime.task_group import no_foreign_cancel
from shardline_common.telemetry.logs import log_context
from shardline_common.telemetry.tracing import continue_trace, current_traceparent, span
from shardline_producer import state_changes
from shardline_producer.acceptance import accept, state_from_store
from shardline_producer.actions import Action, next_action
from shardline_producer.attempt import AttemptRun
from shardline_producer.cleanup import DatasetDeletion, apply_deletion
from shardline_producer.context import ProducerContext
from shardline_producer.notifications.outbox import NotificationOutbox
from shardline_producer.remains import Remains
from shardline_producer.request_queue import QueuedRequest, RequestQueue

_log = logging.getLogger(__name__)


class JobRunner:
    """Runs one job. Implements `JobStateStore` for its attempts.

    `state` is the state that was read or committed last; None before acceptance. A change is applied to the
    state that is committed at that time, because another producer may have changed it.
    """

    def __init__(
        self, context: ProducerContext, partition: int, spec: JobSpec, state: JobState | None
    ) -> None:
        self.spec = spec
        self.state = state
        self._context = context
        self._partition = partition
        self._remains = Remains(context, spec, partition)
        self._requests = RequestQueue()
        self._outbox = NotificationOutbox(
            context.receiver, context.store, context.clock, spec, context.errors
        )
        self._attempt: tuple[AttemptRun, asyncio.Task[Outcome | None]] | None = None
        # For `end_by`.
        self._handling: QueuedRequest | None = None
        self._failed_after_completion = False

    def request(self, request: Request, record: Record) -> None:
        """Queue a request. A request that the committed state covers is dropped later."""
        self._requests.put(request, record)

    async def run(self, submission: Record | None) -> None:
        """Accept the job if it is new, then act until there is nothing to do."""
        try:
            if self.state is None and not await self._accept(submission):
                return
            with continue_trace(self._current_state().traceparent):
                while await self._act():
                    pass
        finally:
            # A second cancel may interrupt the stop of the attempt. Stop the deliveries in any case.
            try:
                await self._stop_attempt()
            finally:
                await self._outbox.stop()

    async def _act(self) -> bool:
        """Take one action. False when there is none."""
        state = self._current_state()
        self._outbox.start(state.pending_notifications)
        if self._attempt is not None and (self._attempt[1].done() or not state.active):
            # Commit its end before a request is handled. The state is not active when the attempt has read
            # that another producer ended it.
            await self._run_attempt(until_end=True)
            return True
        waiting = self._requests.waiting(state.request_offset)
        if state.active and self._attempt is None:
            self._start_attempt(state)
        action = next_action(state, [item.request for item in waiting], self._outbox.status)
        match action:
            case Action.RUN_ATTEMPT:
                await self._run_attempt()
            case Action.REMOVE_TOPIC:
                await self._remove_topic(state.attempt)
            case Action.RECORD_DELIVERIES:
                await self._update(lambda _: None)
            case Action.WAIT_FOR_DELIVERIES:
                await self._wait()
            case Action.STOP:
                return False
            case _:
                self._handling = waiting[0]
                await self._handle_request(action, waiting[0])
                self._handling = None
        return True

    def _current_state(self) -> JobState:
        if self.state is None:
            raise AssertionError("a runner acts on accepted jobs only")
        return self.state

    async def _accept(self, submission: Record | None) -> bool:
        """Create the acceptance record and the first checkpoint. False when the id belongs to another job."""
        context, job_id = self._context, self.spec.job_id
        headers, offset = (submission.headers, submission.offset) if submission else ((), -1)
        with continue_trace(traceparent_of(headers)), span("accept"):
            try:
                accept_job = partial(accept, context.store, self.spec, context.clock, submission_of(headers))
                acceptance = await retry_forever(accept_job, context.clock, f"accept {job_id}")
            except JobConflict as error:
                await self._refuse(submission, "job_conflict", explain(error))
                return False
            except JobFailed as error:
                # Without an acceptance record there is no attempt that could fail.
                await self._refuse(submission, "store_inconsistent", explain(error))
                return False
            load = partial(state_from_store, context.store, acceptance, offset)
            try:
                self.state = await retry_forever(load, context.clock, f"load the state of {job_id}")
            except JobFailed as error:
                # Whether an attempt is decided cannot be known from a record that cannot be read.
                await self._refuse(submission, error.code.value, explain(error))
                return False
            self.state.traceparent = current_traceparent()
            await self._update(lambda _: None)
            _log.info("accepted")
        return True

    def _start_attempt(self, state: JobState) -> None:
        with log_context(attempt=state.attempt):
            attempt = AttemptRun(self._context, state, self)
            task = asyncio.create_task(attempt.run(), name=f"attempt {self.spec.job_id} {state.attempt}")
        self._attempt = attempt, task

    async def _run_attempt(self, *, until_end: bool = False) -> None:
        """Wait until the attempt ends, and commit its end. A request ends the wait, unless `until_end`."""
        if self._attempt is None:
            raise AssertionError("an active job has an attempt")
        attempt, task = self._attempt
        arrival = asyncio.create_task(self._requests.arrival())
        try:
            waited = (task,) if until_end else (task, arrival)
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        finally:
            arrival.cancel()
        if not task.done():
            return
        await self._stop_attempt()
        outcome = task.result()
        if outcome is None:
            # Another producer ended it. The state that the attempt read has the outcome.
            return
        with log_context(attempt=outcome.attempt):
            failpoint("webhook.before_checkpoint")
            await attempt.publish_progress()
            await self._commit_outcome(outcome, empty=attempt.empty)

    async def _stop_attempt(self) -> None:
        if self._attempt is None:
            return
        task, self._attempt = self._attempt[1], None
        task.cancel()
        try:
            await asyncio.gather(task, return_exceptions=True)
        finally:
            # Also when another producer takes over the job: otherwise both would report its metrics.
            self._context.metrics.remove_job(self.spec.job_id)

    async def _handle_request(self, action: Action, queued: QueuedRequest) -> None:
        """Handle the oldest request by the action that `next_action` chose."""
        request, record, state = queued.request, queued.record, self._current_state()
        if self._attempt is not None and state.blocked:
            await self._stop_attempt()
        if self._attempt is not None:
            with log_context(attempt=state.attempt):
                await self._handle_during_attempt(*self._attempt, action, queued)
            return
        if action is Action.DELETE_DATASET:
            context, versions = self._context, request.versions
            deletion = DatasetDeletion(context.broker, context.store, state, versions=versions)
            kept = await retry_forever(deletion.run, context.clock, f"delete {self.spec.job_id}")
            await self._remains.remove_slices(state.attempt)
            await self._outbox.stop()
            change = partial(apply_deletion, kept, versions=versions)
            await self._update(change, handled=record.offset)
        elif action is Action.CANCEL_BLOCKED:
            await self._cancel_blocked(queued)
        elif action is Action.OPEN_ATTEMPT:
            # Within its grace time the topic still exists, and nothing would remove it later.
            await self._remains.remove_topic(state.attempt)
            await self._update(partial(state_changes.apply_retry, record.offset), handled=record.offset)
        else:
            hint = f"cannot {request.action} a job that is {state.state}"
            await self._refuse(record, "refused_request", hint)
            await self._update(lambda _: None, handled=record.offset)

    async def _cancel_blocked(self, queued: QueuedRequest) -> None:
        # The completed attempt is decided. A further one, which nothing works on, is decided as cancelled.
        context, state = self._context, self._current_state()
        await self._remains.remove_topic(state.attempt)
        following = replace(state, attempt=state.attempt + 1)
        outcome = cancelled(following, queued.request.requested_by, context.clock)
        deciding = partial(decide, context.store, Layout.of(self.spec), outcome, context.clock)
        outcome = await retry_forever(deciding, context.clock, "write the outcome")
        change = partial(state_changes.apply_cancelled, outcome, notify=self._outbox.enabled)
        await self._update(change, handled=queued.record.offset)

    async def _handle_during_attempt(
        self, attempt: AttemptRun, task: asyncio.Task[Outcome | None], action: Action, queued: QueuedRequest
    ) -> None:
        """Handle the oldest request while an attempt runs.

        It is handled only if the attempt is still the current one, and a retry only if the attempt has not
        ended. Otherwise the next action is chosen again by the state after the attempt.
        """
        request, record = queued.request, queued.record
        cancel = partial(attempt.cancel, request.requested_by)
        check = cancel if action is Action.CANCEL_ATTEMPT else attempt.is_current
        what = f"{request.action} {self.spec.job_id}"
        is_current = await retry_forever(check, self._context.clock, what)
        ended = task.done() and action is Action.REFUSE_REQUEST
        if ended or not is_current or request.action == "delete":
            # An error from here on is one of the attempt.
            self._handling = None
            await self._run_attempt(until_end=True)
            return
        if action is Action.REFUSE_REQUEST:
            await self._refuse(record, "not_retriable", "the job is active; cancel it first")
        # The attempt's next checkpoint has it. A request that was refused must not be handled again after a
        # crash, when the attempt may have ended.
        attempt.request_handled(record.offset)
        self._requests.mark_handled()

    async def _remove_topic(self, attempt: int) -> None:
        # The grace time lets late readers finish. A request ends it early.
        clock = self._context.clock
        ends = clock.monotonic() + self._context.policy.topic_grace
        while (left := ends - clock.monotonic()) > 0:
            await self._wait(left)
            if self._requests.waiting(self._current_state().request_offset):
                return
            if not self._outbox.delivered.isdisjoint(self._current_state().pending_notifications):
                await self._update(lambda _: None)
        await self._remains.remove_topic(attempt)
        await self._remains.remove_staged(self._current_state().state)
        await self._update(partial(state_changes.apply_topic_removal, attempt))

    async def _wait(self, seconds: float | None = None) -> None:
        """Wait for a request or the end of a delivery, at most `seconds`."""
        arrival = asyncio.create_task(self._requests.arrival())
        try:
            waited = (arrival, *self._outbox.deliveries)
            await asyncio.wait(waited, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            arrival.cancel()

    async def _refuse(self, record: Record | None, reason: str, hint: str) -> None:
        # None: the job was submitted before, and is only taken over.
        if record is None:
            return
        _log.warning("%s: %s", reason, hint)
        self._context.metrics.message_refused()
        dead_letters = [message_dead_letter(record, reason, hint)]
        publish = partial(self._context.broker.publish, DEAD_LETTERS, dead_letters)
        await retry_forever(publish, self._context.clock, "publish a dead letter")

    async def _update(self, change: Callable[[JobState], None], *, handled: int = -1) -> None:
        """Apply a change to the committed state, record deliveries and handled requests, and commit it.

        Args:
            change: changes the state in place.
            handled: the offset of the request that the change handles; -1 for none.
        """

        async def commit() -> None:
            async with self.fence_and_load() as (writer, committed):
                # A copy: a state whose commit fails is not the job's state.
                state = replace(committed, pending_notifications=list(committed.pending_notifications))
                change(state)
                delivered = self._outbox.delivered
                state.pending_notifications = [
                    attempt for attempt in state.pending_notifications if attempt not in delivered
                ]
                offsets = (state.request_offset, self._requests.last_handled_offset, handled)
                state.request_offset = max(offsets)
                state.updated_at = stamp(self._context.clock)
                async with writer.transaction() as transaction:
                    await transaction.send(CHECKPOINTS, [checkpoint(state)])
                self.state = state

        await retry_forever(commit, self._context.clock, f"checkpoint {self.spec.job_id}")

    async def record_blocked(self, attempt: int, error: JobFailed) -> None:
        """Implements `JobStateStore.record_blocked`."""
        message = explain(error)
        state = self._current_state()
        if (state.code, state.message) != (error.code.value, message):
            _log.error("the attempt cannot end: %s: %s", error.code, message)
            await self._update(partial(state_changes.apply_blocked, attempt, error.code.value, message))

    async def end_by(self, failure: JobFailed, submission: Record | None, *, last_try: bool) -> bool:
        """End what an unexpected error has interrupted, after `run` has raised it.

        1. A job that is not accepted: refuse its submission, at the last try. 2. A request that was being
        handled: refuse it, at the last try. 3. Else a running attempt: decide it as failed. If it is decided
        as completed, its status names the failure from the second time on.

        Returns False when the job is not accepted.
        """
        # 1.
        if self.state is None:
            if last_try and submission is not None:
                await self._refuse(submission, failure.code.value, explain(failure))
            return not last_try
        # 2.
        if (queued := self._handling) is not None:
            if last_try:
                await self._refuse(queued.record, failure.code.value, explain(failure))
                await self._update(lambda _: None, handled=queued.record.offset)
                self._handling = None
            return True
        # 3. Another producer may have ended it.
        job_id, clock = self.spec.job_id, self._context.clock
        state = await retry_forever(self.load_state, clock, f"load the state of {job_id}")
        if state.active:
            await self._fail_attempt(state, failure)
        return True

    async def _fail_attempt(self, state: JobState, failure: JobFailed) -> None:
        outcome = failed(state, failure, self._context.clock)
        deciding = partial(decide, self._context.store, Layout.of(self.spec), outcome, self._context.clock)
        try:
            with no_foreign_cancel():
                outcome = await retry_forever(deciding, self._context.clock, "write the outcome")
        except Exception as error:  # noqa: BLE001 - without a record the checkpoint alone decides
            _log.error("the outcome is not recorded: %s", error)
        if outcome.ending != "completed":
            await self._commit_outcome(outcome, empty=False)
        elif self._failed_after_completion:
            await self.record_blocked(state.attempt, failure)
        else:
            self._failed_after_completion = True

    async def _commit_outcome(self, outcome: Outcome, *, empty: bool) -> None:
        await self._update(
            partial(state_changes.apply_outcome, outcome, empty=empty, notify=self._outbox.enabled)
        )
        self._context.metrics.attempt_ended(outcome.ending)
        _log.info("the attempt is %s", outcome.ending)

    @asynccontextmanager
    async def fence_and_load(self) -> AsyncIterator[tuple[TransactionalWriter, JobState]]:
        """Implements `JobStateStore.fence_and_load`."""
        async with self._context.broker.transactional(transactional_id(self.spec.job_id)) as writer:
            yield writer, await self.load_state()

    async def load_state(self) -> JobState:
        """Implements `JobStateStore.load_state`. Returns `state` when none is committed yet."""
        key = self.spec.job_id.encode()
        async with self._context.broker.table_reader(CHECKPOINTS, [self._partition]) as table:
            records = await table.catch_up(deadline=self._context.policy.catch_up_seconds)
        own = [record for record in records if record.key == key and record.value is not None]
        self.state = JobState.of(own[-1]) if own else self._current_state()
        return self.state
