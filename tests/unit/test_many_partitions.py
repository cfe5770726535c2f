"""A job with a thousand partitions does not hold up other jobs, nor the event loop."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardline.services.client import Client
from shardline_common.dataset import heads
from shardline_common.dataset.chain import EMPTY_SHA256, Chain, ChainRecord, Totals
from shardline_common.job.names import Layout
from shardline_common.job.plan import Plan
from shardline_common.job.spec import JobSpec
from shardline_common.job.state import JobState, PartitionState, State
from shardline_common.memory.broker import MemoryBroker
from shardline_common.memory.store import MemoryStore
from shardline_common.ports.store import ObjectInfo
from shardline_common.runtime.clock import SystemClock
from shardline_common.telemetry.metrics import Metrics
from shardline_consumer.finish import Finisher
from shardline_consumer.spool.budget import SpoolBudget
from shardline_consumer.worker import Worker
from shardline_producer.backlog import Backlog
from shardline_producer.context import ProducerContext, ProducerPolicy
from shardline_producer.coordinator import JobCoordinator
from shardline_producer.sources.source import PlanPages, Source
from shardline_producer.topics import ensure_system_topics
from tests.make import job, worker_context
from tests.simulation.simulated_source import MemorySource, documents
from tests.support.secured_system import at_work
from tests.unit.test_job_runner import EndlessSource

PARTITIONS = 1024
SPEC = job(partitions=PARTITIONS)
LAYOUT = Layout.of(SPEC)


class CountingStore(MemoryStore):
    """Counts the lists, and the reads that are under way at once."""

    def __init__(self) -> None:
        super().__init__()
        self.most = self._now = self.lists = 0

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        self.lists += 1
        async for info in super().list(prefix, start_after=start_after):
            yield info

    async def get(self, key: str) -> bytes:
        self._now += 1
        self.most = max(self.most, self._now)
        try:
            await asyncio.sleep(0)
            return await super().get(key)
        finally:
            self._now -= 1


async def chained(store: MemoryStore) -> None:
    """One segment in each chain of SPEC."""
    totals = Totals(rejected={"empty": 3})
    for number in range(PARTITIONS):
        record = ChainRecord("train", number, 0, 3, None, None, EMPTY_SHA256, totals, totals, (0, 3, 3), 1, 4)
        await Chain(store, LAYOUT, number).append(record)
    await store.create(LAYOUT.plan, Plan([], {}).encode())


async def test_the_ends_of_a_thousand_chains_are_read_a_few_at_a_time() -> None:
    store = CountingStore()
    await chained(store)
    state = JobState(
        SPEC,
        state=State.COMPLETING,
        planned=True,
        source_count=3 * PARTITIONS,
        partitions=[PartitionState(3) for _ in range(PARTITIONS)],
    )
    backlog = Backlog(MemoryBroker(), store, state, 1 << 30)
    await backlog.refresh_all()
    assert all(head is not None and head.next == 3 for head in backlog.heads)
    assert (1 < store.most <= 32, store.lists) == (True, 1)
    store.most = store.lists = 0
    assert await Finisher(store, SystemClock(), state).try_finish(state)
    assert (1 < store.most <= 32, store.lists < 20) == (True, True)


async def test_commits_in_order_list_each_chain_about_once() -> None:
    count = 64
    spec, store = job(partitions=count), CountingStore()
    layout, totals = Layout.of(spec), Totals(rejected={"empty": 3})
    state = JobState(
        spec,
        state=State.COMPLETING,
        planned=True,
        source_count=3 * count,
        partitions=[PartitionState(3) for _ in range(count)],
    )
    await store.create(layout.plan, Plan([], {}).encode())
    finisher = Finisher(store, SystemClock(), state)
    for number in range(count):
        assert not await finisher.try_finish(state)
        place = (number, 0, 3, None, None, EMPTY_SHA256, totals, totals, (0, 3, 3), 1, 4)
        await Chain(store, layout, number).append(ChainRecord("train", *place))
    assert store.lists <= count + 1
    assert await finisher.try_finish(state)


def record_of(partition: int, first: int, upto: Totals) -> ChainRecord:
    place = (first, first + 1, None, None)
    segment = Totals(rejected={"empty": 1}, segments=1)
    total = upto.plus(segment)
    return ChainRecord("train", partition, *place, EMPTY_SHA256, segment, total, (0, 1, 1), 1, first + 1)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.integers(0, 3), st.integers(1, 3), st.data())
async def test_heads_are_those_of_each_chain(
    lengths: list[int], at_once: int, keys: int, data: st.DataObject
) -> None:
    store = MemoryStore()
    # Not of a chain: somebody's own files.
    for name in ("notes", "1", "000001"):
        await store.create(f"{LAYOUT.chains}{name}/a.txt", b"")
    chains: list[list[ChainRecord]] = []
    for partition, length in enumerate(lengths):
        chain, upto = list[ChainRecord](), Totals()
        for first in range(length):
            chain.append(await Chain(store, LAYOUT, partition).append(record_of(partition, first, upto)))
            upto = chain[-1].upto
        chains.append(chain)
    known = [data.draw(st.sampled_from([None, *chain])) for chain in chains]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heads, "READS_AT_ONCE", max(1, at_once))
        patch.setattr(heads, "_MAX_KEYS_PER_PARTITION", keys)
        found = await heads.read_heads(store, LAYOUT, known)
        expected = [await Chain(store, LAYOUT, number).head() for number in range(len(lengths))]
        assert found == expected
        part = range(*sorted(data.draw(st.tuples(*[st.integers(0, len(lengths))] * 2))))
        some = known[part.start : part.stop]
        assert await heads.read_heads(store, LAYOUT, some, part, at_once) == expected[part.start : part.stop]


async def test_short_chains_are_listed_together_and_long_ones_one_by_one() -> None:
    spec, store = job(partitions=4), CountingStore()
    layout, known = Layout.of(spec), list[ChainRecord | None]([None] * 4)
    for first in range(25):
        for number in range(4):
            upto = record.upto if (record := known[number]) else Totals()
            known[number] = await Chain(store, layout, number).append(record_of(number, first, upto))
        store.lists = 0
        assert await heads.read_heads(store, layout, known) == known
        # A listing of all has more than a page where chains are long.
        assert store.lists == (1 if first < 20 else 4)


async def test_another_job_completes_beside_one_with_many_partitions(tmp_path: Path) -> None:
    # Eight segments fit into the spool. The source of the large job sends a few documents and then nothing,
    # so its partitions hold what they have reserved.
    big = job(job_id="big", partitions=256)
    small = job(job_id="small", partitions=3)
    store, broker, clock = MemoryStore(), MemoryBroker(), SystemClock()

    def open_source(spec: JobSpec, _: PlanPages) -> Source:
        kind = EndlessSource if spec.job_id == "big" else MemorySource
        return kind(documents(600), random.Random(1))

    await ensure_system_topics(broker, 1)
    policy = ProducerPolicy(progress_seconds=0.05, topic_grace=0.0)
    producer = ProducerContext(broker, store, clock, Metrics(), open_source, policy, asyncio.Semaphore(2))
    budget = SpoolBudget(8 * (big.output.shard_bytes + big.max_document_bytes))
    worker = Worker(worker_context(broker, store, tmp_path, budget=budget))
    client = Client(broker, 1)
    async with at_work(JobCoordinator(producer).run, worker.run):
        await client.submit(big)
        async with asyncio.timeout(60):
            while budget.used < budget._limit // 2:
                await asyncio.sleep(0.01)
            await client.submit(small)
            while not await ended(client, "small"):
                await asyncio.sleep(0.05)
    assert await store.get(Layout.of(small).success)


async def ended(client: Client, job_id: str) -> bool:
    views = (await client.job_table()).jobs()
    return any(view.state.spec.job_id == job_id and not view.state.active for view in views)


async def test_a_job_takes_more_at_once_only_when_nobody_waits() -> None:
    budget = SpoolBudget(10)
    await budget.reserve(4, "a")
    assert budget.reserve_now(6, "a")
    assert not budget.reserve_now(1, "a")
    waiting = asyncio.create_task(budget.reserve(8, "b"))
    await asyncio.sleep(0)
    budget.release(6, "a")
    # There is room for it, and the other job must not be overtaken.
    assert not budget.reserve_now(1, "a")
    budget.release(4, "a")
    await waiting
    assert budget.used == 8


async def test_the_job_that_holds_least_reserves_next() -> None:
    budget, order = SpoolBudget(10), list[str]()

    async def reserve(job_id: str, size: int = 3) -> None:
        await budget.reserve(size, job_id)
        order.append(job_id)

    waiting = [asyncio.create_task(reserve(name)) for name in ("a", "a", "a", "a", "b", "c", "b")]
    await asyncio.sleep(0)
    assert order == ["a", "a", "a"]
    for name in ("a", "a", "b", "c", "b"):
        budget.release(3, name)
        await asyncio.sleep(0)
    await asyncio.gather(*waiting)
    assert order == ["a", "a", "a", "b", "c", "b", "a"]


async def test_a_job_leaves_room_for_the_next() -> None:
    budget = SpoolBudget(10)
    first = [asyncio.create_task(budget.reserve(2, "a")) for _ in range(9)]
    await asyncio.sleep(0)
    assert budget.used == 8
    await asyncio.wait_for(budget.reserve(2, "b"), 5)
    assert budget.used == 10
    for task in first[4:]:
        task.cancel()
    await asyncio.gather(*first, return_exceptions=True)
    for _ in range(4):
        budget.release(2, "a")
    budget.release(2, "b")
    assert budget.used == 0


async def test_a_cancelled_reservation_frees_its_turn() -> None:
    budget = SpoolBudget(10)
    await budget.reserve(8, "a")
    large, small = (asyncio.create_task(budget.reserve(size, "b")) for size in (5, 2))
    await asyncio.sleep(0)
    assert not small.done()
    large.cancel()
    await asyncio.wait_for(small, 5)
    assert budget.used == 10
