"""Whole embedded jobs in virtual time, with a port that raises: how they end."""

import asyncio
import logging
import random
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from shardline.services import embedded
from shardline.services.embedded import EmbeddedRun
from shardline_common.dataset.verify import Verifier
from shardline_common.errors import ShardlineError
from shardline_common.job.messages import Position
from shardline_common.job.names import Layout
from shardline_common.job.spec import JobSpec
from shardline_common.memory.broker import MemoryBroker
from shardline_common.memory.log import MemoryTopic
from shardline_common.memory.store import MemoryStore
from shardline_common.ports.broker import Broker
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.task_group import cancel_requested
from shardline_common.telemetry.metrics import Metrics
from shardline_consumer.spool.file import SpoolFile
from shardline_consumer.worker import Worker
from shardline_producer.context import ProducerPolicy
from shardline_producer.coordinator import JobCoordinator
from shardline_producer.notifications.outbox import Receiver
from shardline_producer.sources.documents import DeadLetterReason, dead_letter
from shardline_producer.sources.source import (
    Document,
    Frozen,
    InvalidDocument,
    Part,
    PlanPages,
    Source,
    SourceItem,
)
from shardline_producer.topics import attempt_topic_spec
from tests.make import job
from tests.simulation.faulty_ports import Call, Switchboard, faulty
from tests.simulation.loop import SimClock, SimLoop, taking_turns
from tests.simulation.simulated_source import MemorySource

SPEC = job(
    job_id="end",
    name="end",
    partitions=2,
    output={"shard_bytes": 1024},
    quality={"keep_rejected": True, "min_score": 0.5},
    max_document_bytes=1024,
)
ASSEMBLED = job(
    job_id="end",
    name="end",
    partitions=2,
    output={"shard_bytes": 1024, "shards": {"count": 2}, "splits": {"train": 0.5, "test": 0.5}},
    dedup={"exact": True},
    sample={"rows": 3},
    quality={"keep_rejected": True, "min_score": 0.5, "duplicate_ids": "first"},
    max_document_bytes=1024,
)
LAYOUT = Layout.of(SPEC)
# In virtual seconds. Waits of a job are repeated every 30 seconds at most.
LIMIT = 900.0
SPOOL = 1 << 24


def _items() -> list[SourceItem]:
    full = {"title": "t", "domain": "d", "document_type": "x"}
    contents: list[Document | InvalidDocument] = [
        Document(f"doc-{number}", "w " * 200, full) if number % 3 else Document(f"doc-{number}", "p", {})
        for number in range(1, 13)
    ]
    contents.insert(
        5, InvalidDocument("x:6", dead_letter(DeadLetterReason.INVALID_JSON, "x:6", b"{", "00", 1))
    )
    return [SourceItem((0, number, number), content, 100) for number, content in enumerate(contents, 1)]


class PagedSource(MemorySource):
    """Keeps a page beside its plan, and gives its items in batches of three, with pauses between them."""

    def __init__(self, pages: PlanPages, pause: float) -> None:
        super().__init__(_items(), random.Random(1))
        self._pages = pages
        self._pause = pause

    async def freeze(self) -> list[dict[str, Any]]:
        """The identity of what is read, and a page."""
        await self._pages.create_or_get("000000000000.json", b"{}")
        return await super().freeze()

    async def read(
        self, frozen: Frozen, after: Position | None, part: Part | None = None
    ) -> AsyncGenerator[list[SourceItem], None]:
        """Batches behind a position."""
        assert frozen[0]["items"] == len(self._items)
        for name in await self._pages.names(""):
            await self._pages.get(name)
        assert part is None
        start = after[-1] if after else 0
        while start < len(self._items):
            await asyncio.sleep(self._pause)
            yield list(self._items[start : start + 3])
            start += 3


class NullReceiver:
    """Accepts every notification."""

    async def deliver(self, message_id: str, body: bytes) -> None:
        """Accept it."""


@dataclass
class Ending:
    """How a run ended.

    `state` is the job's last state, or the class of the error that the run raised. `left` are the names of
    tasks that still run behind it. `steps` are those of the loop until the run ended. `tracebacks` counts
    those of each error; `unhandled` are those that nobody awaited.
    """

    state: str
    code: str | None = None
    message: str = ""
    digest: str = ""
    problems: Sequence[str] = ()
    left: Sequence[str] = ()
    seconds: float = 0.0
    steps: int = 0
    tracebacks: Counter[str] = field(default_factory=Counter)
    unhandled: Sequence[str] = ()


class _CountingLoop(SimLoop):
    """Calls `on_step` with the number of each of its steps."""

    def __init__(self, on_step: Callable[[int], object]) -> None:
        self.steps = 0
        self._on_step = on_step
        super().__init__(random.Random(1))

    def _run_once(self) -> None:
        self.steps += 1
        self._on_step(self.steps)
        super()._run_once()


def run_with(
    board: Switchboard,
    *,
    slow: bool = False,
    store: MemoryStore | None = None,
    spec: JobSpec = SPEC,
    cancel_at: Sequence[int] = (),
    spool_bytes: int = SPOOL,
) -> Ending:
    """Run a job on faulty ports, in virtual time, and check the dataset of a completed one.

    With `slow` the source takes seconds, the topic of the attempt exists before, and is trimmed and swept.
    `cancel_at` are the steps of the loop before which the run is cancelled.
    """
    running: list[asyncio.Task[Ending]] = []

    def on_step(number: int) -> None:
        if number in cancel_at and running:
            running[0].cancel()

    loop = _CountingLoop(on_step)
    random.seed(1)
    unhandled: list[str] = []
    loop.set_exception_handler(lambda _, context: unhandled.append(str(context)))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        lines = stack.enter_context(logged())
        stack.enter_context(taking_turns())
        _make_faulty(stack, board, slow=slow)
        try:
            asyncio.set_event_loop(loop)
            store = MemoryStore() if store is None else store
            work = _run(board, folder, spec, store, spool_bytes, slow=slow)
            running.append(loop.create_task(work))
            ending = loop.run_until_complete(running[0])
            ending.left = [task.get_name() for task in asyncio.all_tasks(loop)]
            ending.seconds = loop.now
        finally:
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(asyncio.sleep(1))
            loop.run_until_complete(loop.shutdown_asyncgens())
            asyncio.set_event_loop(None)
            loop.close()
    ending.unhandled = unhandled
    ending.tracebacks = Counter(str(line.exc_info[1]) for line in lines if line.exc_info is not None)
    return ending


async def _run(
    board: Switchboard, folder: Path, spec: JobSpec, store: MemoryStore, spool_bytes: int, *, slow: bool
) -> Ending:
    run = EmbeddedRun(
        faulty(store, ObjectStore, board, "run"),
        SimClock(),
        Metrics(),
        lambda _, pages: _open_source(board, pages, 2.0 if slow else 0.0),
        ProducerPolicy(sweep_seconds=3.0 if slow else 300.0),
        spool_bytes,
        spool_dir=folder,
        receiver=faulty(NullReceiver(), Receiver, board, "producer"),
    )
    try:
        async with asyncio.timeout(LIMIT):
            result = await run.run(spec, lambda _: None)
    except ShardlineError as error:
        return Ending(type(error).__name__, getattr(error, "code", None), str(error))
    except TimeoutError:
        return Ending("it does not end")
    except asyncio.CancelledError:
        return Ending("cancelled" if cancel_requested() else "cancelled from inside")
    except BaseException as error:  # noqa: BLE001 - the test names it
        return Ending("raised", None, repr(error))
    state = result.view.state
    loop = asyncio.get_running_loop()
    steps = loop.steps if isinstance(loop, _CountingLoop) else 0
    ending = Ending(state.state.value, state.code, state.message or "", steps=steps)
    if ending.state == "completed":
        report = await Verifier(MemoryStore.copy_of(store), Layout.of(spec).root).run()
        ending.digest, ending.problems = report.digest, report.problems
    return ending


def _open_source(board: Switchboard, pages: PlanPages, pause: float) -> Any:
    board.pass_by(Call("producer", "OpenSource", "call"))
    source = PagedSource(faulty(pages, PlanPages, board, "producer"), pause)
    return faulty(source, Source, board, "producer")


class _UsedBroker(MemoryBroker):
    """Has the topic of the attempt already."""

    def __init__(self, fewest: int = 1) -> None:
        super().__init__(fewest)
        wanted = attempt_topic_spec(SPEC, 1, 1 << 20)
        self._topics[wanted.name] = MemoryTopic(wanted)


def _make_faulty(stack: ExitStack, board: Switchboard, *, slow: bool) -> None:
    """Let each part of an embedded run use faulty ports of its own."""

    def parts(make: Callable[[Any], Any], role: str) -> Callable[[Any], Any]:
        def made(context: Any) -> Any:
            store = context.store._inner
            broker = context.broker._inner
            return make(
                replace(
                    context,
                    store=faulty(store, ObjectStore, board, role),
                    broker=faulty(broker, Broker, board, role),
                )
            )

        return made

    stack.enter_context(patch.object(embedded, "JobCoordinator", parts(JobCoordinator, "producer")))
    stack.enter_context(patch.object(embedded, "Worker", parts(Worker, "worker")))
    broker = _UsedBroker if slow else MemoryBroker
    stack.enter_context(
        patch.object(embedded, "MemoryBroker", lambda *fewest: faulty(broker(*fewest), Broker, board, "run"))
    )
    for name, method in spool_methods():
        stack.enter_context(patch.object(SpoolFile, name, _faulty_method(board, name, method)))


def spool_methods() -> Iterator[tuple[str, Any]]:
    """The methods of a spool file that write or remove."""
    for name, method in vars(SpoolFile).items():
        if name == "__init__" or (callable(method) and not name.startswith("_")):
            yield name, method


def _faulty_method(board: Switchboard, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def called(*args: Any) -> None:
        if name == "discard":
            # First, because a file that stays open would be a fault of the test.
            method(*args)
        board.pass_by(Call("worker", "SpoolFile", name))
        if name != "discard":
            method(*args)

    return called


@contextmanager
def logged() -> Iterator[list[logging.LogRecord]]:
    """Collect the lines of the level error."""
    lines: list[logging.LogRecord] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record)

    handler = Handler(logging.ERROR)
    logging.getLogger().addHandler(handler)
    try:
        yield lines
    finally:
        logging.getLogger().removeHandler(handler)
