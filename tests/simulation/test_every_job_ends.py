"""Whatever a port raises, and wherever a run is cancelled, the job ends and nothing is left."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from shardline_common.errors import (
    BrokerUnavailable,
    JobInvalid,
    ObjectMissing,
    ServiceUnavailable,
    SourceUnavailable,
    SpoolError,
    StoreUnavailable,
)
from shardline_common.job.dead_letters import DeadLetterRecord
from shardline_common.job.names import CHECKPOINTS, DEAD_LETTERS, JOBS
from shardline_common.job.segment_limits import SegmentLimits
from shardline_common.job.spec import Request
from shardline_common.job.state import JobState, State, checkpoint
from shardline_common.memory.broker import MemoryBroker
from shardline_common.memory.store import MemoryStore
from shardline_common.ports.broker import Message, Record
from shardline_common.ports.store import ObjectStore
from shardline_common.telemetry.metrics import Metrics
from shardline_consumer.context import WorkerContext
from shardline_consumer.worker import Worker
from shardline_producer import coordinator
from shardline_producer.context import ProducerContext, ProducerPolicy
from shardline_producer.coordinator import JobCoordinator
from shardline_producer.job_guard import JobGuard
from shardline_producer.job_runner import JobRunner
from shardline_producer.sources.source import Source
from shardline_producer.topics import ensure_system_topics
from tests.make import job, worker_context
from tests.simulation.endings import ASSEMBLED, LAYOUT, LIMIT, SPEC, Ending, run_with
from tests.simulation.faulty_ports import Call, Fault, Switchboard, all_calls, faulty
from tests.simulation.loop import SimClock, simulate

Make = Callable[[], BaseException]
_UNAVAILABLE: Mapping[str, type[ServiceUnavailable]] = {
    "ObjectStore": StoreUnavailable,
    "PlanPages": StoreUnavailable,
    "Source": SourceUnavailable,
    "OpenSource": SourceUnavailable,
    "SpoolFile": SpoolError,
    "Receiver": ServiceUnavailable,
}
# Health checks, the deletion of a dataset, and jobs with slices call them, and no run here does.
_NOT_CALLED = {
    ("Source", "cut"),
    *(("Broker", "check"), ("Broker", "failing")),
    *(("ObjectStore", "delete"), ("ObjectStore", "purge")),
}


def bug() -> BaseException:
    return RuntimeError("planted")


def disk() -> BaseException:
    return OSError(5, "planted")


def cancel() -> BaseException:
    return asyncio.CancelledError()


def faults_of(call: Call, calls: int) -> Iterator[Fault]:
    """The faults of one method: at its first, second and last call, once and for ever."""
    if call.moment != "before":
        yield Fault(call, calls, cancel if call.moment == "end" else bug)
        return
    yield Fault(call, calls, bug)
    yield Fault(call, 1, bug, lasts=True)
    yield Fault(call, 1, lambda: _UNAVAILABLE.get(call.port, BrokerUnavailable)("planted"))
    yield Fault(call, 1, disk)
    yield Fault(call, 1, cancel)
    yield Fault(call, calls, cancel, lasts=True)
    if calls > 2:
        yield Fault(call, 2, bug, lasts=True)


def wrong_in(ending: Ending, expected: str) -> str:
    """What is wrong with the end of a run; empty when nothing is."""
    if ending.left or ending.unhandled:
        return f"left behind: {ending.left} {ending.unhandled}"
    if any(count > 1 for count in ending.tracebacks.values()):
        return f"logged more than once: {ending.tracebacks}"
    if ending.state == "completed":
        return "" if ending.digest == expected and not ending.problems else f"damaged: {ending.problems}"
    if ending.state in ("failed", "completing"):
        return "" if ending.code and ending.message else f"without a reason: {ending}"
    # The run cannot work without its spool, and says so.
    return "" if ending.state == "SpoolError" and ending.message else f"{ending}"


def calls_of(*, slow: bool) -> tuple[Mapping[Call, int], str]:
    """The calls of a run without a fault, and its digest."""
    board = Switchboard()
    ending = run_with(board, slow=slow)
    assert (ending.state, ending.problems, wrong_in(ending, ending.digest)) == ("completed", [], "")
    return board.counts, ending.digest


@pytest.fixture(scope="module")
def calm() -> tuple[Mapping[Call, int], str]:
    return calls_of(slow=False)


@pytest.fixture(scope="module")
def slow() -> tuple[Mapping[Call, int], str]:
    return calls_of(slow=True)


def test_an_assembled_job_ends_whatever_the_spool() -> None:
    whole, store = run_with(Switchboard(), spec=ASSEMBLED, store=(made := MemoryStore())), made._objects
    sidecars = sum(len(body) for key, body in store.items() if "/_state/records/" in key)
    shard = max(len(body) for key, body in store.items() if "/data/" in key)
    endings = {}
    # A segment needs less than the sidecars here. A shard is in the spool twice.
    with patch.object(SegmentLimits, "of", lambda _: SegmentLimits(1024, 4096, 12)):
        for more in (-1, shard, 2 * shard, 4 * shard):
            endings[more] = run_with(Switchboard(), spec=ASSEMBLED, spool_bytes=sidecars + more)
    assert [(one.state, one.code) for one in endings.values()] == [
        *[("failed", "spool")] * 2,
        *[("completed", None)] * 2,
    ]
    assert {one.digest for one in endings.values() if one.state == "completed"} == {whole.digest}


def test_a_run_calls_every_method_of_every_port(
    calm: tuple[Mapping[Call, int], str], slow: tuple[Mapping[Call, int], str]
) -> None:
    called = {(call.port, call.method) for call in (*calm[0], *slow[0])}
    assert set(all_calls()) - called == _NOT_CALLED


def wrong_ends(calls: Mapping[Call, int], expected: str, *, slow: bool = False) -> dict[str, str]:
    """What is wrong with the ends of the runs of each of these calls' faults."""
    found = {}
    for call, count in sorted(calls.items()):
        for fault in faults_of(call, count):
            board = Switchboard(fault)
            ending = run_with(board, slow=slow)
            wrong = wrong_in(ending, expected) or ("" if board.raised else "it was not raised")
            if wrong:
                how = "for ever" if fault.lasts else "once"
                found[f"{call}, call {fault.number}, {fault.error()!r} {how}"] = wrong
    return found


@pytest.mark.parametrize("role", ["producer", "worker", "run"])
def test_a_job_ends_whatever_a_port_raises(calm: tuple[Mapping[Call, int], str], role: str) -> None:
    calls, expected = calm
    assert wrong_ends({call: count for call, count in calls.items() if call.role == role}, expected) == {}


def test_a_slow_job_ends_whatever_a_port_raises(
    calm: tuple[Mapping[Call, int], str], slow: tuple[Mapping[Call, int], str]
) -> None:
    calls, expected = slow
    more = {call: count for call, count in calls.items() if call not in calm[0]}
    assert wrong_ends(more, expected, slow=True) == {}


def missing() -> BaseException:
    return ObjectMissing("planted")


@pytest.mark.parametrize("lasts", [False, True], ids=["once", "for ever"])
def test_a_job_ends_when_the_store_does_not_find_an_object(
    calm: tuple[Mapping[Call, int], str], lasts: bool
) -> None:
    calls, expected = calm
    found = {}
    for role, method in (("worker", "get"), ("worker", "stream"), ("producer", "get")):
        call = Call(role, "ObjectStore", method)
        # The first read of a producer is that of a job that is not accepted yet.
        for number in range(2, calls[call] + 1):
            wrong = wrong_in(run_with(Switchboard(Fault(call, number, missing, lasts))), expected)
            if wrong:
                found[f"{call}, call {number}"] = wrong
    assert found == {}


def wrong_cancels(board: Callable[[], Switchboard], steps: Iterable[int]) -> dict[str, str]:
    """What is wrong with runs that are cancelled before these steps, once, and again at the next steps."""
    found = {}
    for step in steps:
        for cancels in ((step,), (step, step + 1, step + 3)):
            ending = run_with(board(), cancel_at=cancels)
            if ending.state != "cancelled" or ending.left or ending.unhandled or ending.seconds > LIMIT / 2:
                found[f"cancelled at {cancels}"] = f"{ending}"
    return found


def test_a_cancel_at_any_step_ends_a_run() -> None:
    steps = run_with(Switchboard()).steps
    assert wrong_cancels(Switchboard, range(2, steps - 1, 7)) == {}


@pytest.mark.parametrize(
    "call",
    [
        Call("producer", "Transaction", "send"),
        Call("worker", "ObjectStore", "create"),
    ],
    ids=str,
)
def test_a_cancel_at_any_step_ends_a_run_that_fails(call: Call) -> None:
    def board() -> Switchboard:
        return Switchboard(Fault(call, 2, bug, lasts=True))

    steps = run_with(board()).steps
    assert wrong_cancels(board, range(2, steps - 1, max(1, steps // 25))) == {}


async def deleted(fault: Fault) -> tuple[State, list[str]]:
    """The state of a failed job behind a request to delete it, and the reasons of refusals."""
    broker, store, board = MemoryBroker(), MemoryStore(), Switchboard(fault)
    await ensure_system_topics(broker, 1)
    await store.create(LAYOUT.plan, b"{}")
    state = JobState(SPEC, state=State.FAILED, topic_removed=True)
    await broker.publish(CHECKPOINTS, [checkpoint(state)])
    context = ProducerContext(
        broker=broker,
        store=faulty(store, ObjectStore, board, "producer"),
        clock=SimClock(),
        metrics=Metrics(),
        open_source=lambda *_: faulty(None, Source, board, "producer"),
        policy=ProducerPolicy(),
        slots=asyncio.Semaphore(1),
    )
    runner = JobRunner(context, 0, SPEC, state)
    request = Request(job_id=SPEC.job_id, action="delete")
    runner.request(request, Record(0, 5, SPEC.job_id.encode(), request.body()))
    async with asyncio.timeout(LIMIT):
        await JobGuard(context, runner).run(None)
    assert board.raised
    async with broker.table_reader(DEAD_LETTERS) as table:
        letters = await table.catch_up(deadline=60)
    assert runner.state is not None
    assert runner.state.request_offset == 5
    return runner.state.state, [DeadLetterRecord.decode(letter).reason for letter in letters]


@pytest.mark.parametrize("error", [bug, disk, cancel, lambda: StoreUnavailable("planted")])
def test_a_delete_is_tried_again_and_ends(error: Make) -> None:
    call = Call("producer", "ObjectStore", "purge")
    assert simulate(1, lambda _: deleted(Fault(call, 1, error))) == (State.DELETED, [])


@pytest.mark.parametrize("error", [bug, disk, cancel])
def test_a_delete_that_always_fails_is_refused(error: Make) -> None:
    call = Call("producer", "ObjectStore", "purge")
    assert simulate(1, lambda _: deleted(Fault(call, 1, error, lasts=True))) == (State.FAILED, ["internal"])


def test_a_sweep_that_fails_ends_no_job() -> None:
    fault = Fault(Call("producer", "Broker", "topics"), 1, bug, lasts=True)
    board = Switchboard(fault)
    assert run_with(board, slow=True).state == "completed"
    assert board.raised > 1


async def refusals_of(*messages: Message) -> list[str]:
    """The reasons for which a producer refuses messages, once it has handled as many."""
    broker, store = MemoryBroker(), MemoryStore()
    await ensure_system_topics(broker, 1)
    await broker.publish(JOBS, messages)
    context = ProducerContext(
        broker=broker,
        store=store,
        clock=SimClock(),
        metrics=Metrics(),
        open_source=lambda *_: faulty(None, Source, Switchboard(), "producer"),
        policy=ProducerPolicy(),
        slots=asyncio.Semaphore(1),
    )
    producer = asyncio.create_task(JobCoordinator(context).run())
    reasons: list[str] = []
    async with asyncio.timeout(LIMIT), broker.table_reader(DEAD_LETTERS) as table:
        while len(reasons) < len(messages):
            reasons += [DeadLetterRecord.decode(letter).reason for letter in await table.poll(timeout=5.0)]
    producer.cancel()
    await asyncio.wait([producer])
    assert producer.cancelled()
    return reasons


def test_a_message_that_cannot_be_handled_ends_no_producer(monkeypatch: pytest.MonkeyPatch) -> None:
    def parse(body: bytes) -> object:
        raise JobInvalid("no job") if body == b"invalid" else bug()

    monkeypatch.setattr(coordinator, "parse_message", parse)
    messages = [Message(b"a", b"poison"), Message(b"b", b"invalid"), Message(b"c", b"poison")]
    assert simulate(1, lambda _: refusals_of(*messages)) == ["internal", "invalid_job", "internal"]


def test_a_checkpoint_that_cannot_be_handled_ends_no_worker(tmp_path: Path) -> None:
    async def taken(_: object) -> list[str]:
        broker = MemoryBroker()
        await ensure_system_topics(broker, 1)
        jobs: list[str] = []

        def attempt(_: WorkerContext, state: JobState) -> Any:
            jobs.append(state.spec.job_id)
            raise bug()

        worker = Worker(worker_context(broker, MemoryStore(), tmp_path, clock=SimClock()))
        with patch("shardline_consumer.worker.WorkerAttempt", attempt):
            task = asyncio.create_task(worker.run())
            for name in ("one", "two"):
                state = JobState(job(job_id=name), state=State.RUNNING, planned=True)
                await broker.publish(CHECKPOINTS, [checkpoint(state)])
                async with asyncio.timeout(LIMIT):
                    while name not in jobs:
                        await asyncio.sleep(1)
            assert not task.done()
            task.cancel()
            await asyncio.wait([task])
        return jobs

    assert simulate(1, taken) == ["one", "two"]
