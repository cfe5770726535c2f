"""A process that is late finds its job deleted or ended, and writes nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shardline.services.wiring.sources import source_factory
from shardline_common.dataset.chain import EMPTY_SHA256, Chain, ChainRecord, Totals
from shardline_common.errors import FailureCode, JobFailed, ObjectMissing, StoreUnavailable
from shardline_common.job.names import Layout
from shardline_common.job.outcome import Outcome
from shardline_common.job.plan import Plan
from shardline_common.job.state import JobState, PartitionState, State
from shardline_common.memory.broker import MemoryBroker
from shardline_common.memory.store import MemoryStore
from shardline_common.ports.broker import TransactionalWriter
from shardline_common.ports.store import ObjectInfo
from shardline_common.runtime.clock import SystemClock
from shardline_common.settings.load import Settings
from shardline_common.telemetry.metrics import Metrics
from shardline_consumer.finish import Finisher, fail_attempt
from shardline_producer import attempt
from shardline_producer.attempt import AttemptRun
from shardline_producer.context import ProducerContext, ProducerPolicy
from shardline_producer.state_changes import apply_retry, apply_topic_removal
from tests.make import job

SPEC = job(partitions=2)
LAYOUT = Layout.of(SPEC)
CLOCK = SystemClock()


def record(partition: int, first: int, end: int) -> ChainRecord:
    """A segment whose documents were all rejected."""
    segment, upto = (Totals(rejected={"empty": count}) for count in (end - first, end))
    place = (first, end, None, None)
    return ChainRecord("train", partition, *place, EMPTY_SHA256, segment, upto, (0, end, end), 1, end + 1)


async def landed(store: MemoryStore) -> JobState:
    """A job of which everything is sent and landed, and nothing decided."""
    await store.create(LAYOUT.plan, Plan([], {}).encode())
    for number in range(2):
        for first in (0, 3):
            await Chain(store, LAYOUT, number).append(record(number, first, first + 3))
    return JobState(
        SPEC,
        state=State.COMPLETING,
        planned=True,
        source_count=12,
        partitions=[PartitionState(6), PartitionState(6)],
    )


class Counting(MemoryStore):
    """Counts the requests."""

    requests = 0

    async def get(self, key: str) -> bytes:
        self.requests += 1
        return await super().get(key)

    def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        self.requests += 1
        return super().list(prefix, start_after=start_after)


async def test_a_worker_knows_without_a_request_that_its_segments_are_missing() -> None:
    store = Counting()
    state = await landed(store)
    finisher = Finisher(store, CLOCK, state)
    state.state = State.RUNNING
    assert finisher.lacks(state, {0, 1})
    state.state = State.COMPLETING
    for number, first in ((0, 0), (1, 0), (0, 3)):
        assert finisher.lacks(state, {0, 1})
        finisher.segment_committed(record(number, first, first + 3))
    assert finisher.lacks(state, {0, 1})
    # Another worker has that partition.
    assert not finisher.lacks(state, {0})
    finisher.segment_committed(record(1, 3, 6))
    finisher.segment_committed(record(1, 0, 3))
    assert not finisher.lacks(state, {0, 1})
    assert store.requests == 0
    # What the worker knows is compared with the store.
    assert await finisher.try_finish(state)
    assert store.requests > 0


async def test_what_a_worker_has_committed_is_not_taken_for_the_chain() -> None:
    store = MemoryStore()
    state = await landed(store)
    finisher = Finisher(store, CLOCK, state)
    for number in range(2):
        for first in (0, 3):
            finisher.segment_committed(record(number, first, first + 3))
    await store.delete([LAYOUT.chain_record(1, 3)])
    assert not await finisher.try_finish(state)


async def delete(store: MemoryStore) -> None:
    await store.delete(await keys(store))


async def keys(store: MemoryStore) -> list[str]:
    return [info.key async for info in store.list("")]


def losing_the_first_outcome() -> MemoryStore:
    lost: list[str] = []

    def fault(when: str, operation: str, key: str) -> None:
        if (when, operation) == ("before", "create") and key == LAYOUT.outcome(1) and not lost:
            lost.append(key)
            raise StoreUnavailable("lost")

    return MemoryStore(fault)


async def failed_once(store: MemoryStore, state: JobState) -> Finisher:
    """A finisher that has seen all landed, and whose outcome was lost."""
    finisher = Finisher(store, CLOCK, state)
    with pytest.raises(StoreUnavailable):
        await finisher.try_finish(state)
    return finisher


async def test_a_late_finisher_decides_nothing_of_what_was_deleted() -> None:
    store = losing_the_first_outcome()
    state = await landed(store)
    finisher = await failed_once(store, state)
    await delete(store)
    assert not await finisher.try_finish(state)
    assert await keys(store) == []


async def test_a_late_finisher_decides_nothing_of_a_deleted_job_without_documents() -> None:
    store = losing_the_first_outcome()
    await store.create(LAYOUT.plan, Plan([], {}).encode())
    state = JobState(SPEC, state=State.COMPLETING, planned=True, partitions=[PartitionState()] * 2)
    finisher = await failed_once(store, state)
    await delete(store)
    with pytest.raises(ObjectMissing):
        await finisher.try_finish(state)
    assert await keys(store) == []


async def test_the_same_finisher_decides_what_was_not_deleted() -> None:
    store = losing_the_first_outcome()
    state = await landed(store)
    finisher = await failed_once(store, state)
    assert await finisher.try_finish(state)
    assert LAYOUT.success in await keys(store)


async def test_the_head_of_a_chain_is_read_again() -> None:
    store = MemoryStore()
    await landed(store)
    chain = Chain(store, LAYOUT, 1)
    first, last = record(1, 0, 3), record(1, 3, 6)
    assert [await chain.head(known) for known in (None, first, last)] == [last] * 3
    await store.delete([LAYOUT.chain_record(1, 3)])
    assert [await chain.head(known) for known in (None, first)] == [first] * 2
    await delete(store)
    assert [await chain.head(known) for known in (None, first, last)] == [None] * 3


@pytest.mark.parametrize("ended", [State.DELETED, State.CANCELLED])
async def test_a_late_producer_fails_nothing_that_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: State
) -> None:
    outcome, written = await run_without_topic(tmp_path, monkeypatch, ended)
    assert (outcome, written) == (None, [])


async def test_a_topic_that_is_gone_fails_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome, written = await run_without_topic(tmp_path, monkeypatch, State.COMPLETING)
    assert outcome is not None
    assert (outcome.code, written) == ("topic_lost", [LAYOUT.outcome(1)])


async def run_without_topic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, committed: State
) -> tuple[Outcome | None, list[str]]:
    """How the run of a producer ends that takes the job for completing, and what it has written.

    There is no topic, and `committed` is in the checkpoints. Its slot is free again.
    """
    monkeypatch.setattr(attempt, "_TOPIC_CHECK_SECONDS", 0.0)
    store, broker, slots = MemoryStore(), MemoryBroker(), asyncio.Semaphore(1)
    await store.create(LAYOUT.plan, Plan([], {}).encode())
    async with asyncio.timeout(20):
        outcome = await AttemptRun(
            parts(store, broker, slots, tmp_path), known(), Committed(broker, committed)
        ).run()
    assert not slots.locked()
    return outcome, [key for key in await keys(store) if key != LAYOUT.plan]


def known() -> JobState:
    return JobState(SPEC, state=State.COMPLETING, planned=True, partitions=[PartitionState(6)] * 2)


def parts(
    store: MemoryStore, broker: MemoryBroker, slots: asyncio.Semaphore, folder: Path
) -> ProducerContext:
    source = source_factory(Settings(), folder, confined=True, remote=None)
    return ProducerContext(
        broker, store, CLOCK, Metrics(), source, ProducerPolicy(progress_seconds=0.01), slots
    )


class Committed:
    """Implements `JobStateStore`: the committed state of the job is a given one."""

    def __init__(self, broker: MemoryBroker, committed: State) -> None:
        self._broker = broker
        self._committed = committed

    async def load_state(self) -> JobState:
        return JobState(SPEC, state=self._committed, planned=True, partitions=known().partitions)

    async def record_blocked(self, attempt: int, error: JobFailed) -> None:
        raise AssertionError(attempt, error)

    @asynccontextmanager
    async def fence_and_load(self) -> AsyncIterator[tuple[TransactionalWriter, JobState]]:
        async with self._broker.transactional("test") as writer:
            yield writer, await self.load_state()


@pytest.mark.parametrize(
    ("committed", "written"), [(State.DELETED, []), (State.RUNNING, [LAYOUT.outcome(1)])]
)
async def test_a_late_cancel_decides_nothing_that_has_ended(
    tmp_path: Path, committed: State, written: list[str]
) -> None:
    store, broker = MemoryStore(), MemoryBroker()
    run = AttemptRun(
        parts(store, broker, asyncio.Semaphore(1), tmp_path), known(), Committed(broker, committed)
    )
    await run.cancel("somebody")
    assert await keys(store) == written


async def test_a_late_worker_fails_nothing_that_was_deleted() -> None:
    store = MemoryStore()
    state = await landed(store)
    await delete(store)
    with pytest.raises(ObjectMissing):
        await fail_attempt(store, state, JobFailed(FailureCode.INTERNAL, "late"), CLOCK)
    assert await keys(store) == []


def test_a_late_producer_retires_no_attempt_but_its_own() -> None:
    following = JobState(SPEC, state=State.RUNNING, attempt=2)
    apply_topic_removal(1, following)
    assert not following.topic_removed
    ended = JobState(SPEC, state=State.FAILED, attempt=2)
    apply_topic_removal(1, ended)
    assert not ended.topic_removed
    apply_topic_removal(2, ended)
    assert ended.topic_removed


def test_a_retry_that_was_handled_opens_no_second_attempt() -> None:
    failed_again = JobState(SPEC, state=State.FAILED, attempt=2, request_offset=7)
    apply_retry(7, failed_again)
    assert (failed_again.state, failed_again.attempt) == (State.FAILED, 2)
    apply_retry(8, failed_again)
    assert (failed_again.state, failed_again.attempt) == (State.QUEUED, 3)
