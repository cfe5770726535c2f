"""One schedule: a job, processes that are killed and started, a faulty network; and the oracle's verdict."""

import asyncio
import logging
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import shardline_common
import shardline_consumer
import shardline_producer
from shardline_common.errors import FailureCode
from shardline_common.job.names import CHECKPOINTS, JOBS, Layout, parse_attempt_topic
from shardline_common.job.segment_limits import SegmentLimits, max_spool_bytes
from shardline_common.job.spec import JobSpec, Request
from shardline_common.job.state import JobState, State, latest_slices, latest_states
from shardline_common.ports.broker import Message, Record
from shardline_common.telemetry.metrics import Metrics
from shardline_consumer.context import WorkerContext
from shardline_consumer.spool.budget import SpoolBudget
from shardline_consumer.worker import Worker
from shardline_producer.context import Pace, ProducerContext, ProducerPolicy
from shardline_producer.coordinator import JobCoordinator
from shardline_producer.topics import ensure_system_topics
from tests.simulation.judge import Judge
from tests.simulation.loop import Deadlock, SimClock, simulate
from tests.simulation.ports import NetBroker, NetReceiver, NetStore
from tests.simulation.scenario import scenario
from tests.simulation.simulated_source import FaultySource
from tests.simulation.world import Harm, Process, World

_DEADLINE = 200.0
_TROUBLE = 12.0
_SWEPT = 12.0
_LANDED = 60.0
_STRIKES = 0.3
_SIDECARS = 4 << 20
_RETRIED = {
    "foreign card early": {FailureCode.OUTPUT_NOT_EMPTY},
    "foreign card late": {FailureCode.OUTPUT_NOT_EMPTY},
    "foreign drop lists": {FailureCode.NOT_REPRODUCIBLE, FailureCode.OUTPUT_NOT_EMPTY},
    "lost topic": {FailureCode.TOPIC_LOST},
}
"""With what codes a job may fail by its fate, so that a retry completes it."""
_LOGGED = [package.__name__ for package in (shardline_common, shardline_producer, shardline_consumer)]


@dataclass
class Verdict:
    """The result of a schedule. `problems` is empty when all guarantees held."""

    seed: int
    problems: list[str] = field(default_factory=list)
    state: str = ""
    digest: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    trace: int = 0


class Processes:
    """The processes of a schedule."""

    def __init__(self, world: World, spool: Path, *, notifying: bool) -> None:
        self.world = world
        self.notifying = notifying
        self._spool = spool
        self._clock = SimClock()
        self.processes: list[Process] = []

    def start(self, kind: str) -> Process:
        """Start a producer or a worker."""
        world = self.world
        process = Process(world, f"{kind}-{world.number()}")
        main = self._owner(process).run if kind == "producer" else self._worker(process).run
        process.task = asyncio.ensure_future(self._guarded(process, main))
        self.processes.append(process)
        return process

    async def _guarded(self, process: Process, main: Callable[[], Awaitable[None]]) -> None:
        try:
            await main()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - a problem of the schedule
            self.world.problems.append(f"{process.name} ended by itself: {error!r}")

    def running(self, kind: str) -> list[Process]:
        """Processes of a kind that run."""
        return [process for process in self.processes if process.name.startswith(kind) and process.running]

    def _owner(self, process: Process) -> JobCoordinator:
        limits = ProducerPolicy(
            topic_bytes=1,
            topic_grace=0.5,
            progress_seconds=0.5,
            catch_up_seconds=5.0,
            sweep_seconds=4.0,
            publish_seconds=2.0,
            # About a batch of the source, so that faults come between many transactions.
            transaction_bytes=1 << 13,
            pace=Pace(self.world.dice.choice((0.0, 12.0, 5.0))),
            follow_slices=self.world.scenario.spec.slices > 1,
        )
        source = FaultySource(self.world)
        slots = asyncio.Semaphore(2)
        return JobCoordinator(
            ProducerContext(
                NetBroker(process),
                NetStore(process),
                self._clock,
                Metrics(),
                lambda _spec, _parts: source,
                limits,
                slots,
                NetReceiver(process) if self.notifying else None,
            )
        )

    def _worker(self, process: Process) -> Worker:
        folder = self._spool / process.name
        folder.mkdir()
        segment = max_spool_bytes(self.world.scenario.spec)
        # Sidecars of all segments are read at once.
        sidecars = _SIDECARS if self.world.scenario.spec.assembled else 0
        budget = SpoolBudget(segment * self.world.dice.choice((1, 1, 3, 100)) + sidecars)
        return Worker(
            WorkerContext(
                broker=NetBroker(process),
                store=NetStore(process),
                clock=self._clock,
                metrics=Metrics(),
                spool=folder,
                budget=budget,
                uploads=asyncio.Semaphore(self.world.dice.choice((1, 4))),
                finish_seconds=0.5,
                decide_memory=1,
            )
        )


class FaultInjector:
    """The faults in the first seconds of a schedule."""

    def __init__(self, cast: Processes, spec: JobSpec) -> None:
        self._cast = cast
        self._world = cast.world
        self._spec = spec

    async def make(self) -> None:
        """Inject faults, then end them with a producer and a worker that run."""
        dice = self._world.dice
        acts: tuple[tuple[Callable[[], object], int], ...] = (
            (partial(self._lose, "worker", Process.kill), 6),
            (partial(self._lose, "producer", Process.kill), 3),
            (partial(self._lose, "worker", Process.end), 2),
            (partial(self._lose, "producer", Process.end), 1),
            (self._stop, 5),
            (partial(self._outage, "store"), 2),
            (partial(self._outage, "broker"), 2),
            (partial(self._cast.start, "worker"), 2),
            (partial(self._ask, "cancel"), 1),
            (partial(self._ask, "retry"), 1),
            (self._restart, 2),
        )
        if self._spec.assembled:
            await self._await_moment(dice.choice(("at once", "landed", "half decided", "half assembled")))
        until = self._world.now + _TROUBLE
        while self._world.now < until:
            await asyncio.sleep(dice.expovariate(1.2))
            if self._spec.assembled:
                self._world.count(f"fault while {self._world.stage}")
            dice.choices([act for act, _ in acts], [weight for _, weight in acts])[0]()
            for kind in ("producer", "worker"):
                if not self._cast.running(kind):
                    self._cast.start(kind)
            if dice.random() < _STRIKES:
                self._world.strike("foreign card early", "lost object", "lost topic")
        self._world.heal()

    async def _await_moment(self, moment: str) -> None:
        """Wait with the faults for a later stage. Workers that are in the middle of one are killed."""
        layout = Layout.of(self._spec)
        first = {"half decided": layout.steps, "half assembled": layout.shard_records}.get(moment)
        waits = {"queued", "landing"} if moment != "at once" else set[str]()
        if first is not None:
            waits |= {"deciding", "assembling"}
        while self._world.stage in waits and self._world.now < _LANDED:
            if first is not None and any(key.startswith(first) for key in self._world.store._objects):
                self._world.count(f"killed when {moment}")
                for worker in self._cast.running("worker"):
                    worker.kill()
                self._cast.start("worker")
                return
            await asyncio.sleep(0.05)

    def _lose(self, kind: str, how: Callable[[Process], None]) -> None:
        if victims := self._cast.running(kind):
            how(self._world.dice.choice(victims))
            if self._world.dice.random() < 0.5:
                self._cast.start(kind)

    def _stop(self) -> None:
        kind = self._world.dice.choice(("worker", "producer"))
        if victims := self._cast.running(kind):
            self._world.dice.choice(victims).stop(self._world.dice.uniform(0.5, 9.0))
            # Another producer takes the job over, and the first one wakes with a transaction to send.
            if kind == "producer" and len(victims) == 1:
                self._cast.start(kind)

    def _outage(self, server: str) -> None:
        self._world.count(f"outage {server}")
        self._world.down_until[server] = self._world.now + self._world.dice.uniform(0.1, 4.0)

    def _restart(self) -> None:
        self._ask("cancel")
        asyncio.get_running_loop().call_later(self._world.dice.uniform(0.0, 3.0), self._ask, "retry")

    def _ask(self, action: str) -> None:
        self._world.count(action)
        request = Request.model_validate({"job_id": self._spec.job_id, "action": action})
        message = Message(self._spec.job_id.encode(), request.body())
        self._world.broker.commit([(JOBS, [message])])


def run_schedule(
    seed: int,
    *,
    calm: bool = False,
    notifying: bool = False,
    slices: int = 1,
    assembled: bool = False,
    fate: str | None = None,
) -> Verdict:
    """Run the schedule of a seed and judge it.

    `calm`: without faults. `notifying`: with a webhook, which makes it another schedule. `slices`: into how
    many slices its source is cut; then two producers start. `assembled`: of an assembled job. `fate`: another
    one than the seed's.
    """
    content = scenario(seed, slices, assembled=assembled)
    if calm or fate is not None:
        content = replace(content, fate=fate or "")
    with (
        tempfile.TemporaryDirectory(prefix="sim-", dir=_memory_folder()) as spool,
        patch.object(SegmentLimits, "of", content.limits),
        logged_errors() as logged,
    ):
        verdict = Verdict(seed)
        try:
            cast = partial(Processes, spool=Path(spool), notifying=notifying)
            simulate(seed, lambda dice: _play(World(dice, content), verdict, cast, calm=calm))
        except Deadlock:
            verdict.problems.append("deadlock: nothing can happen any more")
        verdict.problems += [text for text in logged if "a bug in Shardline" in text]
        return verdict


async def _play(
    world: World, verdict: Verdict, start_processes: Callable[[World], Processes], *, calm: bool
) -> None:
    dice, spec = world.dice, world.scenario.spec
    if not calm:
        world.harm = Harm(*(dice.choice((0.0, 0.01, 0.05, 0.15)) for _ in range(3)))
    await ensure_system_topics(world.broker, 2)
    cast = start_processes(world)
    for kind in ("producer", "worker", *dice.choices(("producer", "worker"), (1, 3), k=dice.randint(0, 2))):
        cast.start(kind)
    while len(cast.running("producer")) < min(2, spec.slices):
        cast.start("producer")
    await world.broker.publish(JOBS, [Message(spec.job_id.encode(), spec.body())])
    if not calm:
        await FaultInjector(cast, spec).make()
    try:
        async with asyncio.timeout(_DEADLINE):
            state = await _ended(world)
    except TimeoutError:
        found = _states(world).get(spec.job_id)
        where = f"{found.state}, attempt {found.attempt}: {found.message}" if found else "not accepted"
        world.problems.append(f"not done after {world.now:.0f} s: {where}")
    else:
        verdict.state = state.state.value
        verdict.digest = await Judge(world, state).run()
        left = [name for name in await world.broker.topics() if parse_attempt_topic(name)]
        left += [f"slice {number}" for _, number in latest_slices(_checkpoints(world))]
        if left:
            world.problems.append(f"topics or slices left over: {left}")
        if cast.notifying:
            _judge_notifications(world, state)
    for process in cast.processes:
        process.end()
    verdict.problems += world.problems
    verdict.counts = {**world.counts, **world.scenario.features(), verdict.state: 1}
    verdict.seconds, verdict.trace = world.now, world.trace


def _states(world: World) -> dict[str, JobState]:
    return latest_states(_checkpoints(world))


def _checkpoints(world: World) -> list[Record]:
    return [record for log in world.broker.topic(CHECKPOINTS).logs for record in log.records]


async def _ended(world: World) -> JobState:
    """The job's last state, once it has lasted for so long that late topics are swept.

    Whoever watches the job retries one that was cancelled, unless it is to stay so, and one that failed by
    its fate, or for the first time because it had to; then they remove a foreign object first. They retry or
    cancel a job that cannot be published.
    """
    content, asked, since = world.scenario, False, 0.0
    reached: tuple[int, State] | None = None
    must_fail = content.failures
    while True:
        await asyncio.sleep(0.5)
        state = _states(world).get(content.spec.job_id)
        if state is None or not (state.topic_removed or state.blocked):
            continue
        if reached != (state.attempt, state.state):
            reached, since = (state.attempt, state.state), world.now
            action = ""
            if state.state is State.CANCELLED and not content.stays_cancelled:
                action = "retry"
            elif state.state is State.FAILED and (state.code in _RETRIED.get(content.fate, ()) or must_fail):
                must_fail = frozenset() if state.code in must_fail else must_fail
                action = "retry"
            elif state.blocked and content.fate:
                action = "cancel" if content.stays_cancelled else "retry"
            asked = action != ""
            if state.state is State.COMPLETED:
                world.strike("late rows")
            if asked:
                await _ask_as_watcher(world, state, action)
        elif not asked and world.now - since >= _SWEPT:
            return state


async def _ask_as_watcher(world: World, state: JobState, action: str) -> None:
    if not state.blocked:
        world.remove_foreign(lists=state.state is State.FAILED)
    world.count(f"{action} by the watcher")
    request = Request.model_validate({"job_id": state.spec.job_id, "action": action})
    await world.broker.publish(JOBS, [Message(state.spec.job_id.encode(), request.body())])


def _judge_notifications(world: World, state: JobState) -> None:
    """Every end was notified, and no notification is pending.

    An attempt whose dataset could not be published has not ended when another attempt follows it.
    """
    layout, objects = Layout.of(state.spec), world.store._objects
    ended = [
        attempt
        for attempt in range(1, state.attempt + 1)
        if attempt == state.attempt or b'"completed"' not in objects[layout.outcome(attempt)]
    ]
    wanted = {f"{state.spec.job_id}_{attempt}" for attempt in ended}
    world.counts["notified"] = len(world.delivered)
    if world.delivered.keys() != wanted:
        world.problems.append(f"delivered were {sorted(world.delivered)}, not {sorted(wanted)}")
    if state.pending_notifications:
        world.problems.append(f"still pending: {state.pending_notifications}")


def _memory_folder() -> str | None:
    folder = Path("/dev/shm")  # noqa: S108 - spool files of a second's life
    return str(folder) if folder.is_dir() else None


@contextmanager
def logged_errors() -> Iterator[list[str]]:
    """What is logged as an error."""
    found: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(self.format(record))

    handler = Keep(logging.ERROR)
    loggers = [logging.getLogger(name) for name in _LOGGED]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.ERROR)
        logger.propagate = False
    try:
        yield found
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate
