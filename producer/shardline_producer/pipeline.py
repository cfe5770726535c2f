"""From the source to the topic: documents and checkpoint in one transaction, from the cursor on."""

import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from functools import partial
from itertools import chain

from shardline_common.errors import SourceUnavailable
from shardline_common.job.messages import Position
from shardline_common.job.names import CHECKPOINTS, attempt_topic
from shardline_common.job.plan import Plan
from shardline_common.job.state import JobState, State, checkpoint
from shardline_common.job.trace_headers import trace_headers
from shardline_common.ports.broker import Message, TransactionalWriter
from shardline_common.runtime.clock import stamp
from shardline_common.runtime.failpoints import failpoint
from shardline_common.runtime.slowdown import open_slowdown
from shardline_common.runtime.task_group import TaskGroup
from shardline_common.runtime.tasks import leaf_errors
from shardline_common.runtime.threads import run_in_thread
from shardline_common.runtime.waits import log_wait
from shardline_common.telemetry.metrics import Metrics
from shardline_common.telemetry.tracing import current_traceparent, span
from shardline_producer.backlog import Backlog
from shardline_producer.byte_queue import ByteQueue
from shardline_producer.context import ProducerContext
from shardline_producer.dead_letter_limits import (
    check_beginning,
    check_end,
    check_number,
    mapping_advice,
)
from shardline_producer.encoder import Encoder, end_markers, first_ordinal, sends_blocks
from shardline_producer.sources.source import AnyItem, RenderingSource, Source, SourceItem

# What an item occupies beside its text, about.
_ITEM_BYTES = 1 << 10


class Pipeline:
    """Sends the rest of one attempt, or of one slice of it. `state` is the last committed one.

    It is updated in place. The shares of dead letters, and those at the beginning, are judged over the whole
    job: the pipeline of a slice does not judge them.

    A transaction holds all that was read since the one before began, which is a fifth of a second ago or
    `transaction_bytes`. So the first documents and those of a slow source are not held up, and a fast one
    needs few transactions, each of which costs several requests and a checkpoint.
    """

    def __init__(
        self,
        context: ProducerContext,
        writer: TransactionalWriter,
        backlog: Backlog,
        state: JobState,
        source: Source,
        plan: Plan,
    ) -> None:
        self._context = context
        self._writer = writer
        self._backlog = backlog
        self._state = state
        self._source = source
        self._plan = plan
        self._part = None if state.slice is None else plan.slices[state.slice]
        self._topic = attempt_topic(state.spec.job_id, state.attempt)
        # What may help when all documents are dead letters.
        self._mapping: str | None = None
        first = state.numbers.start
        # A limit on the rate counts documents.
        blocks = context.policy.blocks and sends_blocks(state.spec) and not context.policy.pace.rate
        self._encoder = Encoder(
            state.spec, plan.row_columns, state.partitions, plan.rules, first, state.slice, blocks=blocks
        )
        self._next_begin = 0.0
        # Before the task that reads is started, because the task takes it along.
        self._slowdown = open_slowdown()

    async def run(self) -> None:
        """Send all items, then the end markers. The state is `completing` then.

        Raises:
            JobFailed: the source failed or changed, or there are more dead letters than the job allows.
            SourceUnavailable, BrokerUnavailable: start again from the last checkpoint.
        """
        # A producer that was killed behind the commit of a batch has not checked it, and none may follow.
        check_number(self._state, "")
        batches: ByteQueue[Sequence[AnyItem]] = ByteQueue(self._context.policy.transaction_bytes)
        with leaf_errors():
            async with TaskGroup() as tasks:
                tasks.create_task(self._read(batches))
                await self._send_all(batches)

    async def _read(self, batches: ByteQueue[Sequence[AnyItem]]) -> None:
        job_id, metrics, size = (
            self._state.spec.job_id,
            self._context.metrics,
            self._context.policy.pace.slice,
        )
        started = time.perf_counter()
        with measure_source_wait(metrics, job_id):
            async with aclosing(self._open_source()) as stream:
                async for batch in stream:
                    metrics.source_batch(job_id, time.perf_counter() - started)
                    for start in range(0, len(batch), size or len(batch)):
                        part = batch[start : start + size] if size else batch
                        await batches.put(part, sum(item.size for item in part) + _ITEM_BYTES * len(part))
                    metrics.source_requested(job_id)
                    started = time.perf_counter()
        batches.end()

    def _open_source(self) -> AsyncGenerator[Sequence[AnyItem], None]:
        source, frozen, cursor = self._source, self._plan.frozen, self._position_in_part()
        if isinstance(source, RenderingSource):
            return source.read_rendered(frozen, cursor, self._part, self._encoder.render)
        return source.read(frozen, cursor, self._part)

    def _position_in_part(self) -> Position | None:
        """The cursor as the source knows it: the number of a slice leads the positions of its items."""
        cursor = self._state.cursor
        return cursor if cursor is None or self._state.slice is None else cursor[1:]

    async def _send_all(self, batches: ByteQueue[Sequence[AnyItem]]) -> None:
        state, clock, rate = self._state, self._context.clock, self._context.policy.pace.rate
        due = clock.monotonic()
        while batch := await self._next(batches):
            await self._backlog.wait_for_room()
            first = first_ordinal(batch[0])
            with span("batch", documents=batch[-1].position[-1] - first + 1, first=first):
                await self._send(batch)
            if rate:
                now = clock.monotonic()
                due = max(due, now) + len(batch) / rate
                await clock.sleep(due - now)
        if state.slice is None:
            check_end(state, self._mapping)
        state.state = State.COMPLETING
        state.progress, state.warning = 1.0, None
        state.findings = self._source.findings(self._plan.frozen).to_json()
        with span("end"):
            headers = trace_headers(current_traceparent())
            await self._commit(end_markers(state.partitions, headers, state.numbers.start))

    async def _next(self, batches: ByteQueue[Sequence[AnyItem]]) -> Sequence[AnyItem]:
        """The items that wait; those of a quarter of a second under a limit on the rate. Empty at the end."""
        most = 1 if self._context.policy.pace.rate else None
        with log_wait(f"the source of {self._state.spec.job_id}"):
            if most is None:
                await batches.wait_until_full(self._next_begin - self._context.clock.monotonic())
            found = await batches.take(most)
        self._next_begin = self._context.clock.monotonic() + self._context.policy.transaction_seconds
        return found[0] if len(found) == 1 else list(chain.from_iterable(found))

    async def _send(self, batch: Sequence[AnyItem]) -> None:
        """Send one batch: 1. encode, 2. update the state, 3. commit, 4. check the number of dead letters."""
        state, dead_before, read_before = self._state, self._state.dead, self._state.source_count
        all_dead = state.slice is None and state.dead == state.produced
        # 1. Rendering would block the event loop. To number what is rendered takes less than a thread.
        encode, rendered = partial(self._encoder.encode, batch), isinstance(self._source, RenderingSource)
        encoded = encode() if rendered else await run_in_thread(encode)
        # 2. The checkpoint in the same transaction covers the batch.
        state.cursor = self._encoder.sent_position(batch[-1])
        state.vanished += encoded.vanished
        state.source_count = state.cursor[-1]
        state.first_dead_letter = state.first_dead_letter or encoded.first_dead_letter
        state.progress = self._source.progress(self._plan.frozen, self._position_in_part(), self._part)
        state.warning = self._slowdown.reason
        # 3.
        await self._commit(encoded.messages)
        sent, dead = encoded.sent, state.dead - dead_before
        self._context.metrics.produced(state.spec.job_id, sent, dropped=encoded.dropped, dead=dead)
        # 4.
        check_number(state, encoded.last_dead_letter)
        if all_dead:
            if encoded.first_usable is None and self._mapping is None:
                found = [item.content for item in batch if isinstance(item, SourceItem)]
                self._mapping = await run_in_thread(partial(mapping_advice, state.spec, found))
            check_beginning(state, read_before, encoded.first_usable, self._mapping)

    async def _commit(self, messages: list[Message]) -> None:
        state, metrics = self._state, self._context.metrics
        started = time.perf_counter()
        state.updated_at = stamp(self._context.clock)
        failpoint("producer.before_begin")
        async with self._writer.transaction() as transaction:
            if messages:
                await transaction.send(self._topic, messages)
            failpoint("producer.after_publish")
            await transaction.send(CHECKPOINTS, [checkpoint(state)])
            failpoint("producer.after_checkpoint")
        failpoint("producer.after_commit")
        metrics.transaction(state.spec.job_id, time.perf_counter() - started)
        if state.state is State.RUNNING:
            metrics.checkpointed(state.spec.job_id, self._context.clock.now())
        else:
            metrics.all_sent(state.spec.job_id)


@contextmanager
def measure_source_wait(metrics: Metrics, job: str) -> Iterator[None]:
    """Measure a wait for the source. It continues after SourceUnavailable; any other exit ends it."""
    metrics.source_requested(job)
    try:
        yield
    except SourceUnavailable:
        raise
    except BaseException:
        metrics.source_responded(job)
        raise
    metrics.source_responded(job)
