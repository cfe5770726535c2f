"""`shardline run`: the same producer and worker on an in-memory broker, in one process."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from shardline.services.client import Client, JobView
from shardline_common.errors import UsageError
from shardline_common.job.dead_letters import DeadLetterRecord
from shardline_common.job.names import DEAD_LETTERS, EVENTS, Layout
from shardline_common.job.outcome import latest_attempt
from shardline_common.job.spec import JobSpec, Request
from shardline_common.job.state import RETRIABLE
from shardline_common.memory.broker import MemoryBroker
from shardline_common.ports.broker import TopicSpec
from shardline_common.ports.clock import Clock
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.tasks import leaf_errors
from shardline_common.runtime.threads import set_thread_pool
from shardline_common.storage.directory import HIDDEN
from shardline_common.telemetry.metrics import Metrics
from shardline_consumer.context import WorkerContext
from shardline_consumer.spool.budget import SpoolBudget
from shardline_consumer.spool.folder import spool_folder
from shardline_consumer.worker import Worker
from shardline_producer.context import ProducerContext, ProducerPolicy
from shardline_producer.coordinator import JobCoordinator
from shardline_producer.notifications.outbox import Receiver
from shardline_producer.sources.source import OpenSource
from shardline_producer.topics import ensure_system_topics

_PARTITIONS = 1
_WATCH_SECONDS = 0.2
# Nobody reads these for days here: what is kept of them must not grow with the dataset.
_BOUNDED = (
    TopicSpec(EVENTS, _PARTITIONS, {"retention.bytes": str(1 << 20)}),
    TopicSpec(DEAD_LETTERS, _PARTITIONS, {"cleanup.policy": "compact", "retention.bytes": str(1 << 20)}),
)


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended: the job's last view, and the latest dead letters (about a MiB of them)."""

    view: JobView
    letters: list[DeadLetterRecord]


@dataclass(frozen=True, slots=True)
class EmbeddedRun:
    """One job, one process: where it lands, what it reads, and how much room it may take."""

    store: ObjectStore
    clock: Clock
    metrics: Metrics
    open_source: OpenSource
    policy: ProducerPolicy
    spool_bytes: int
    uploads: int = 4
    spool_dir: Path = Path(tempfile.gettempdir())
    receiver: Receiver | None = None

    async def run(self, spec: JobSpec, on_progress: Callable[[JobView], None]) -> RunResult:
        """Run the job to its end; what an earlier, killed run landed is kept and continued.

        A job that failed or was cancelled before is retried.
        """
        set_thread_pool()
        ended_before, _ = await latest_attempt(self.store, Layout.of(spec))
        broker = MemoryBroker()
        for topic in _BOUNDED:
            await broker.create_topic(topic)
        await ensure_system_topics(broker, _PARTITIONS)
        client = Client(broker, _PARTITIONS)
        with spool_folder(self.spool_dir) as spool, leaf_errors():
            async with asyncio.TaskGroup() as tasks:
                running = [
                    tasks.create_task(self._owner(broker).run(), name="producer"),
                    tasks.create_task(self._worker(broker, spool).run(), name="worker"),
                ]
                view = await _see_through(client, spec, ended_before, on_progress)
                letters = await client.dead_letters()
                for task in running:
                    task.cancel()
        return RunResult(view, sorted(letters.values(), key=lambda letter: letter.position))

    def _owner(self, broker: MemoryBroker) -> JobCoordinator:
        # The topic goes with the process: no grace time for it.
        policy = replace(self.policy, topic_grace=0.0)
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
            )
        )

    def _worker(self, broker: MemoryBroker, spool: Path) -> Worker:
        return Worker(
            WorkerContext(
                broker=broker,
                store=self.store,
                clock=self.clock,
                metrics=self.metrics,
                spool=spool,
                budget=SpoolBudget(self.spool_bytes),
                uploads=asyncio.Semaphore(self.uploads),
                keep_originals=False,
                finish_seconds=0.2,
            )
        )


@contextmanager
def locked_output(output: str) -> Iterator[None]:
    """Keep a second run out of a local output. On S3 create-only puts keep two runs apart.

    Raises:
        UsageError: another run writes there.
    """
    if output.startswith("s3://") or os.name != "posix":
        yield
        return
    import fcntl  # noqa: PLC0415 - not on Windows

    folder = Path(output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".shardline-lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # What a killed run was writing when it died.
            shutil.rmtree(folder / HIDDEN, ignore_errors=True)
            yield
    except BlockingIOError:
        hint = "wait for it to end, or choose another --output"
        raise UsageError(f"another run is writing to {output}", hint=hint) from None
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise UsageError(f"{output} cannot be written: {error.strerror}") from None


async def _see_through(
    client: Client, spec: JobSpec, ended_before: int, on_progress: Callable[[JobView], None]
) -> JobView:
    await client.submit(spec)
    retried = False
    async with aclosing(client.follow(_WATCH_SECONDS)) as tables:
        async for table in tables:
            view = next((view for view in table.jobs() if view.state.spec.job_id == spec.job_id), None)
            if view is None:
                continue
            on_progress(view)
            again = view.state.state in RETRIABLE and view.state.attempt <= ended_before
            if again and not retried:
                retried = True
                await client.request(Request(job_id=spec.job_id, action="retry"))
            elif not (view.state.active or again or view.state.pending_notifications):
                return view
    raise AssertionError("the table never ends")
