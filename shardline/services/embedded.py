"""A whole job in one process: the producer and the worker of Kafka jobs, on an in-memory broker."""

import asyncio
import tempfile
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from shardline.services.client import Client, JobTable
from shardline.services.job_view import JobView
from shardline.services.refusals import Refusals
from shardline_common.dataset.events import EventTotals
from shardline_common.dataset.finished import OpenDataset
from shardline_common.dataset.publish import Sign
from shardline_common.errors import JobFailed, ShardlineError, explain
from shardline_common.job.dead_letters import DeadLetterRecord
from shardline_common.job.filter_loading import FetchFile
from shardline_common.job.names import CHECKPOINTS, DEAD_LETTERS, EVENTS, Layout
from shardline_common.job.outcome import latest_attempt
from shardline_common.job.spec import JobSpec, Request
from shardline_common.job.state import JobState, State
from shardline_common.memory.broker import MemoryBroker
from shardline_common.ports.broker import TopicSpec
from shardline_common.ports.clock import Clock
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.decisions import Decisions
from shardline_common.runtime.retry import retry_forever
from shardline_common.runtime.task_group import TaskGroup, no_foreign_cancel
from shardline_common.runtime.tasks import leaf_errors
from shardline_common.runtime.unexpected import UnexpectedErrors, internal_failure
from shardline_common.runtime.waits import LoggedSemaphore
from shardline_common.telemetry.metrics import Metrics
from shardline_consumer.context import WorkerContext
from shardline_consumer.spool.budget import SpoolBudget
from shardline_consumer.spool.folder import spool_folder, spool_limit
from shardline_consumer.worker import Worker
from shardline_producer.acceptance import accept
from shardline_producer.context import ProducerContext, ProducerPolicy
from shardline_producer.coordinator import JobCoordinator
from shardline_producer.notifications.outbox import Receiver
from shardline_producer.sources.source import OpenSource
from shardline_producer.topics import ensure_system_topics

_PARTITIONS = 1
_WATCH_SECONDS = 0.2
# The topic is in memory. What is in the chains is trimmed from it so often: in a second it grows by 60 MB.
_TRIM_SECONDS = 0.2
# Larger ones save round trips to a broker, of which there is none.
_TRANSACTION_BYTES = 1 << 20
# With many partitions a transaction has few documents for each: to take these costs as much as to take more.
_FEW_PARTITIONS, _FEWEST_RECORDS = 16, 16
# These topics are in memory: their size must not grow with the dataset.
_BOUNDED = (
    TopicSpec(EVENTS, _PARTITIONS, {"retention.bytes": str(1 << 20)}),
    TopicSpec(DEAD_LETTERS, _PARTITIONS, {"cleanup.policy": "compact", "retention.bytes": str(1 << 20)}),
)


@dataclass(frozen=True, slots=True)
class EmbeddedResult:
    """The last view of an ended job, and its latest dead letters (about 1 MiB of them)."""

    view: JobView
    dead_letters: list[DeadLetterRecord]


@dataclass(frozen=True, slots=True)
class EmbeddedRun:
    """Runs jobs into one store.

    `spool_bytes` limits the open segments, which leave `spool_reserve` bytes of the disk of `spool_dir` free.
    `uploads` limits the puts at once. `decide_memory` and `decide_threads`: the bytes and threads that the
    decision about an assembled dataset may take. `open_dataset` opens the datasets that a job compares with;
    None: it reads none. `fetch_file` copies the files that filters name; None: it reads none.
    """

    store: ObjectStore
    clock: Clock
    metrics: Metrics
    open_source: OpenSource
    policy: ProducerPolicy
    spool_bytes: int
    uploads: int = 4
    spool_dir: Path = Path(tempfile.gettempdir())
    spool_reserve: int = 0
    decide_memory: int = 512 << 20
    decide_threads: int = 1
    open_dataset: OpenDataset | None = None
    fetch_file: FetchFile | None = None
    receiver: Receiver | None = None
    sign: Sign | None = None
    errors: UnexpectedErrors = field(default_factory=UnexpectedErrors)

    async def run(self, spec: JobSpec, on_view: Callable[[JobView], None]) -> EmbeddedResult:
        """Run the job to its end, and call `on_view` with each state and about five times a second.

        Segments that an earlier, killed run committed are kept, and the job continues behind them. A job
        that failed or was cancelled before is retried. When this call is cancelled, or `on_view` raises,
        producer and worker are stopped first. An error that nobody has foreseen ends the job as failed
        (`internal`).

        Raises:
            JobConflict: the job id belongs to another job.
            JobFailed: the state of the job in the store cannot be read.
            SpoolError: the spool folder cannot be written, or its disk has no more than the reserve free.
            Exception: what `on_view` raises.
        """
        views = _Views(on_view)
        try:
            with no_foreign_cancel(), leaf_errors():
                return await self._run(spec, views)
        except Exception as error:
            if views.error is not None:
                # As it is, not in a group.
                raise views.error from None
            if isinstance(error, ShardlineError) and not (isinstance(error, JobFailed) and views.started):
                raise
            if not isinstance(error, JobFailed):
                self.errors.log(error, "the run ends")
            return views.failed(spec, internal_failure(error, "this run"))

    async def _run(self, spec: JobSpec, on_view: "_Views") -> EmbeddedResult:
        find = partial(latest_attempt, self.store, Layout.of(spec))
        ended_before, _ = await retry_forever(find, self.clock, f"find the attempts of {spec.job_id}")
        # Before the pipeline starts: its producer would refuse another job's id in a dead letter.
        await retry_forever(
            partial(accept, self.store, spec, self.clock), self.clock, f"accept {spec.job_id}"
        )
        on_view.started, on_view.ended_before = True, ended_before
        broker = MemoryBroker(_FEWEST_RECORDS if spec.total_partitions > _FEW_PARTITIONS else 1)
        decisions = Decisions()
        await retry_forever(partial(_create_topics, broker), self.clock, "create the topics")
        with spool_folder(self.spool_dir) as spool:
            limit = spool_limit(self.spool_dir, self.spool_bytes, self.spool_reserve)
            async with TaskGroup() as tasks:
                running = [
                    tasks.create_task(self._coordinator(broker, decisions, spec).run(), name="producer"),
                    tasks.create_task(self._worker(broker, decisions, spool, limit).run(), name="worker"),
                ]
                follow = partial(_follow_to_end, broker, decisions, spec, ended_before, on_view)
                view = await retry_forever(follow, self.clock, f"follow {spec.job_id}", lasting=True)
                read = Client(broker, _PARTITIONS).dead_letters
                dead_letters = await retry_forever(read, self.clock, "read the dead letters")
                for task in running:
                    task.cancel()
        return EmbeddedResult(view, sorted(dead_letters.values(), key=lambda item: item.position))

    def _coordinator(self, broker: MemoryBroker, decisions: Decisions, spec: JobSpec) -> JobCoordinator:
        # No grace time: no other process reads the topic.
        policy = replace(
            self.policy,
            topic_grace=0.0,
            single_job=True,
            follow_slices=spec.slices > 1,
            blocks=True,
            progress_seconds=min(self.policy.progress_seconds, _TRIM_SECONDS),
            transaction_seconds=0.0,
            transaction_bytes=min(self.policy.transaction_bytes, _TRANSACTION_BYTES),
        )
        return JobCoordinator(
            ProducerContext(
                broker=broker,
                store=self.store,
                clock=self.clock,
                metrics=self.metrics,
                open_source=self.open_source,
                policy=policy,
                slots=asyncio.Semaphore(1),
                receiver=self.receiver,
                sign=self.sign,
                errors=self.errors,
                decisions=decisions,
                open_dataset=self.open_dataset,
                fetch_file=self.fetch_file,
            )
        )

    def _worker(self, broker: MemoryBroker, decisions: Decisions, spool: Path, limit: int) -> Worker:
        return Worker(
            WorkerContext(
                broker=broker,
                store=self.store,
                clock=self.clock,
                metrics=self.metrics,
                spool=spool,
                budget=SpoolBudget(limit),
                uploads=LoggedSemaphore(self.uploads, "an upload to end (SHARDLINE_UPLOADS)"),
                decide_memory=self.decide_memory,
                decide_threads=self.decide_threads,
                open_dataset=self.open_dataset,
                fetch_file=self.fetch_file,
                keep_originals=False,
                sign=self.sign,
                single_job=True,
                errors=self.errors,
                decisions=decisions,
            )
        )


async def _create_topics(broker: MemoryBroker) -> None:
    for topic in _BOUNDED:
        await broker.create_topic(topic)
    await ensure_system_topics(broker, _PARTITIONS)


class _Views:
    """Calls `on_view`, and keeps the last view and the error of a call.

    `started`: producer and worker have started. `ended_before`: the last attempt that had ended before.
    """

    def __init__(self, on_view: Callable[[JobView], None]) -> None:
        self._on_view = on_view
        self._last: JobView | None = None
        self.error: BaseException | None = None
        self.started = False
        self.ended_before = 0

    def __call__(self, view: JobView) -> None:
        self._last = view = replace(view, by_reading=True)
        try:
            self._on_view(view)
        except BaseException as error:
            self.error = error
            raise

    def failed(self, spec: JobSpec, failure: JobFailed) -> EmbeddedResult:
        """The result of a run that an unexpected error has ended. A job that has ended stays as it is."""
        last = self._last or JobView(JobState(spec), EventTotals())
        if last.state.settled and last.state.attempt > self.ended_before:
            return EmbeddedResult(last, [])
        state = replace(last.state, state=State.FAILED, code=failure.code.value, message=explain(failure))
        return EmbeddedResult(replace(last, state=state), [])


async def _follow_to_end(
    broker: MemoryBroker,
    decisions: Decisions,
    spec: JobSpec,
    ended_before: int,
    on_view: Callable[[JobView], None],
) -> JobView:
    client = Client(broker, _PARTITIONS)
    await client.submit(spec)
    retried = False
    async with (
        Refusals(broker, spec) as refusals,
        aclosing(_views_of(broker, decisions, spec.job_id)) as views,
    ):
        async for view in views:
            if view is None:
                await refusals.check()
                continue
            on_view(view)
            again = view.state.retriable and view.state.attempt <= ended_before
            if again and not retried:
                retried = True
                await client.request(Request(job_id=spec.job_id, action="retry"))
            elif view.state.settled and not (again or view.state.pending_notifications):
                return view
    raise AssertionError("follow never ends")


async def _views_of(
    broker: MemoryBroker, decisions: Decisions, job_id: str
) -> AsyncGenerator[JobView | None, None]:
    """The view of a job at each change; while it runs, five times a second, until it is decided. No end."""
    table, decided = JobTable(), asyncio.Event()
    with decisions.listening(job_id, decided.set):
        async with broker.table_reader(CHECKPOINTS) as checkpoints, broker.table_reader(EVENTS) as events:
            while True:
                # It returns at once when there are records, and else at the next change in the broker.
                table.apply_checkpoints(await checkpoints.poll(timeout=_WATCH_SECONDS))
                table.apply_events(await events.catch_up(deadline=_WATCH_SECONDS))
                view = table.find(job_id)
                yield view
                if view is not None and view.state.state is State.RUNNING and not decided.is_set():
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_WATCH_SECONDS):
                            await decided.wait()
