"""Source → topic: documents and checkpoint in one transaction, from wherever the state stands."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from functools import partial

from shardline_common.errors import FailureCode, JobFailed, SourceUnavailable
from shardline_common.job.columns import Columns
from shardline_common.job.names import CHECKPOINTS, attempt_topic
from shardline_common.job.plan import Plan
from shardline_common.job.state import JobState, State
from shardline_common.ports.broker import Message, TransactionalWriter
from shardline_common.ports.clock import Clock
from shardline_common.runtime.clock import stamp
from shardline_common.runtime.failpoints import failpoint
from shardline_common.runtime.tasks import leaf_errors
from shardline_common.runtime.threads import run_in_thread
from shardline_common.telemetry.metrics import Metrics
from shardline_common.telemetry.tracing import current, headers_of, span
from shardline_producer.backlog import Backlog
from shardline_producer.encoder import Encoder, end_markers
from shardline_producer.sources.source import Source, SourceItem

_READ_AHEAD = 2
_SLICE_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a job may read: documents per second, 0 for no limit."""

    rate: float = 0.0

    @property
    def slice(self) -> int:
        """Documents of one transaction under this pace; 0 for as many as the source gives at once."""
        return max(1, int(self.rate * _SLICE_SECONDS)) if self.rate else 0


@dataclass(frozen=True, slots=True)
class Tools:
    """What the pipeline needs beside the job."""

    writer: TransactionalWriter
    clock: Clock
    metrics: Metrics
    backlog: Backlog
    pace: Pace


class Pipeline:
    """Sends what is left of one attempt. The state is the last committed one and is moved on in place."""

    def __init__(self, tools: Tools, state: JobState, source: Source, plan: Plan) -> None:
        self._tools = tools
        self._state = state
        self._source = source
        self._plan = plan
        self._topic = attempt_topic(state.spec.job_id, state.attempt)
        self._encoder = Encoder(state.spec, Columns.from_json(plan.columns), state.partitions)

    async def run(self) -> None:
        """Send everything, then the end markers; afterwards the state is `completing`.

        Raises:
            JobFailed: the source failed, or there are more dead letters than the job allows.
            BrokerUnavailable: start anew from the last checkpoint.
        """
        batches: asyncio.Queue[list[SourceItem] | None] = asyncio.Queue(maxsize=_READ_AHEAD)
        with leaf_errors():
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read(batches))
                await self._send_all(batches)

    async def _read(self, batches: asyncio.Queue[list[SourceItem] | None]) -> None:
        job_id, metrics = self._state.spec.job_id, self._tools.metrics
        started = time.perf_counter()
        with asking(metrics, job_id):
            async with aclosing(self._source.read(self._plan.frozen, self._state.cursor)) as stream:
                async for batch in stream:
                    metrics.source_batch(job_id, time.perf_counter() - started)
                    for part in _sliced(batch, self._tools.pace.slice):
                        await batches.put(part)
                    metrics.source_asked(job_id)
                    started = time.perf_counter()
        await batches.put(None)

    async def _send_all(self, batches: asyncio.Queue[list[SourceItem] | None]) -> None:
        due = self._tools.clock.monotonic()
        while (batch := await batches.get()) is not None:
            await self._tools.backlog.wait_for_room()
            with span("batch", documents=len(batch), first=batch[0].position[-1]):
                await self._send(batch)
            if self._tools.pace.rate:
                now = self._tools.clock.monotonic()
                due = max(due, now) + len(batch) / self._tools.pace.rate
                await self._tools.clock.sleep(due - now)
        self._state.state = State.COMPLETING
        self._state.progress = 1.0
        with span("end"):
            await self._commit(end_markers(self._state.partitions, headers_of(current())))

    async def _send(self, batch: list[SourceItem]) -> None:
        state, metrics = self._state, self._tools.metrics
        dead = state.dead
        encoded = await run_in_thread(partial(self._encoder.encode, batch))
        state.cursor = batch[-1].position
        state.source_count = state.cursor[-1]
        state.progress = self._source.progress(self._plan.frozen, state.cursor)
        await self._commit(encoded.messages)
        sent, dead = len(encoded.messages), state.dead - dead
        metrics.produced(state.spec.job_id, sent, dropped=encoded.dropped, dead=dead)
        self._check_dead(state, encoded.last_dead)

    def _check_dead(self, state: JobState, last: str) -> None:
        allowed = state.spec.quality.max_dead_letters
        if allowed is not None and state.dead > allowed:
            raise JobFailed(
                FailureCode.TOO_MANY_DEAD_LETTERS,
                f"{state.dead} dead letters, the job allows {allowed}; the last was {last}",
                hint="see `shardline dead-letters list`; mend the source or raise quality.max_dead_letters",
            )

    async def _commit(self, messages: list[Message]) -> None:
        started = time.perf_counter()
        state = self._state
        state.updated_at = stamp(self._tools.clock)
        failpoint("producer.before_begin")
        async with self._tools.writer.transaction() as transaction:
            if messages:
                await transaction.send(self._topic, messages)
            failpoint("producer.after_publish")
            await transaction.send(CHECKPOINTS, [checkpoint(state)])
            failpoint("producer.after_checkpoint")
        failpoint("producer.after_commit")
        self._tools.metrics.transaction(state.spec.job_id, time.perf_counter() - started)
        if state.state is State.RUNNING:
            self._tools.metrics.checkpointed(state.spec.job_id, self._tools.clock.now())
        else:
            self._tools.metrics.all_sent(state.spec.job_id)


@contextmanager
def asking(metrics: Metrics, job: str) -> Iterator[None]:
    """The source is asked. Its own failures are part of one wait; any other end is the end of the wait."""
    metrics.source_asked(job)
    try:
        yield
    except SourceUnavailable:
        raise
    except BaseException:
        metrics.source_answered(job)
        raise
    metrics.source_answered(job)


def checkpoint(state: JobState) -> Message:
    """The state as a message of the checkpoints topic."""
    return Message(state.spec.job_id.encode(), state.encode(), headers=headers_of(state.traceparent))


def _sliced(batch: list[SourceItem], size: int) -> list[list[SourceItem]]:
    return [batch[start : start + size] for start in range(0, len(batch), size)] if size else [batch]
