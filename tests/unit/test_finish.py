"""Whoever comes late to a job that was deleted meanwhile leaves nothing behind."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from common.chain import EMPTY_SHA256, Chain, ChainRecord, Totals
from common.clock import SystemClock
from common.errors import ObjectMissing, StoreUnavailable
from common.jobstate import JobState, PartitionState, Plan, State
from common.layout import Layout
from common.memory_broker import MemoryBroker
from common.memory_store import MemoryStore
from common.metrics import Metrics
from common.ports import TransactionalWriter
from common.settings import Settings
from consumer.finish import Finisher
from producer import attempt
from producer.attempt import AttemptRun
from producer.parts import Limits, ProducerParts
from shardline.wiring import source_factory
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


async def test_a_late_finisher_decides_nothing_of_what_was_deleted() -> None:
    store = losing_the_first_outcome()
    state = await landed(store)
    finisher = Finisher(store, CLOCK, state)
    with pytest.raises(StoreUnavailable):
        await finisher.try_finish(state)
    await delete(store)
    assert not await finisher.try_finish(state)
    assert await keys(store) == []


async def test_nor_of_a_job_without_documents() -> None:
    store = losing_the_first_outcome()
    await store.create(LAYOUT.plan, Plan([], {}).encode())
    state = JobState(SPEC, state=State.COMPLETING, planned=True, partitions=[PartitionState()] * 2)
    finisher = Finisher(store, CLOCK, state)
    with pytest.raises(StoreUnavailable):
        await finisher.try_finish(state)
    await delete(store)
    with pytest.raises(ObjectMissing):
        await finisher.try_finish(state)
    assert await keys(store) == []


async def test_the_same_finisher_decides_what_was_not_deleted() -> None:
    store = losing_the_first_outcome()
    state = await landed(store)
    finisher = Finisher(store, CLOCK, state)
    with pytest.raises(StoreUnavailable):
        await finisher.try_finish(state)
    assert await finisher.try_finish(state)
    assert LAYOUT.success in await keys(store)


async def test_the_end_of_a_chain_is_seen_anew() -> None:
    store = MemoryStore()
    await landed(store)
    chain = Chain(store, LAYOUT, 1)
    first, last = record(1, 0, 3), record(1, 3, 6)
    assert [await chain.tip(known) for known in (None, first, last)] == [last] * 3
    await store.delete([LAYOUT.link(1, 3)])
    assert [await chain.tip(known) for known in (None, first)] == [first] * 2
    await delete(store)
    assert [await chain.tip(known) for known in (None, first, last)] == [None] * 3


@pytest.mark.parametrize("ended", [State.DELETED, State.CANCELLED])
async def test_a_late_producer_fails_nothing_that_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: State
) -> None:
    assert await decided_without_topic(tmp_path, monkeypatch, ended) == []


async def test_a_topic_that_is_gone_fails_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await decided_without_topic(tmp_path, monkeypatch, State.RUNNING) == [LAYOUT.outcome(1)]


async def decided_without_topic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, committed: State
) -> list[str]:
    """What a producer writes that takes the job for completing, and finds no topic and this checkpoint."""
    monkeypatch.setattr(attempt, "_TOPIC_LOOK_SECONDS", 0.0)
    store, broker, claimed = MemoryStore(), MemoryBroker(), asyncio.Event()
    state = JobState(SPEC, state=State.COMPLETING, planned=True, partitions=[PartitionState(6)] * 2)

    @asynccontextmanager
    async def claim() -> AsyncIterator[tuple[TransactionalWriter, JobState]]:
        async with broker.transactional("test") as writer:
            yield writer, JobState(SPEC, state=committed, planned=True, partitions=state.partitions)
        claimed.set()

    source = source_factory(Settings(), tmp_path, confined=True, remote=None)
    parts = ProducerParts(
        broker, store, CLOCK, Metrics(), source, Limits(progress_seconds=0.01), asyncio.Semaphore(0)
    )
    run = asyncio.create_task(AttemptRun(parts, state, claim).run())
    async with asyncio.timeout(20):
        await claimed.wait()
    run.cancel()
    with suppress(asyncio.CancelledError):
        await run
    return await keys(store)
