"""The transactions of the producer: what was read while one was sent is the next one."""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import cycle

from hypothesis import given
from hypothesis import strategies as st

from shardline_common.job.messages import Position
from shardline_common.job.names import attempt_topic
from shardline_common.job.plan import Plan
from shardline_common.job.state import JobState, PartitionState, State
from shardline_common.memory.broker import MemoryBroker
from shardline_common.memory.store import MemoryStore
from shardline_common.ports.broker import Message, Transaction, TransactionalWriter
from shardline_common.runtime.clock import SystemClock
from shardline_common.telemetry.metrics import Metrics
from shardline_producer.backlog import Backlog
from shardline_producer.byte_queue import ByteQueue
from shardline_producer.context import Pace, ProducerContext, ProducerPolicy
from shardline_producer.pipeline import Pipeline
from shardline_producer.sources.source import Frozen, Part, SourceItem
from tests.make import job
from tests.simulation.simulated_source import MemorySource, documents

BATCH = 10


@dataclass
class CountingWriter:
    """Counts the documents of each transaction. Each commit waits for `commit`."""

    begun: asyncio.Event = field(default_factory=asyncio.Event)
    commit: asyncio.Event = field(default_factory=asyncio.Event)
    committed: asyncio.Event = field(default_factory=asyncio.Event)
    sizes: list[int] = field(default_factory=list)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        opened = _Counting()
        self.begun.set()
        yield opened
        await self.commit.wait()
        self.sizes.append(opened.documents)
        self.committed.set()


class _Counting:
    documents = 0

    async def send(self, topic: str, messages: Sequence[Message]) -> None:
        if topic == attempt_topic("j", 1):
            self.documents += len(messages)


class BatchSource(MemorySource):
    """Gives batches of ten: a slow source when what it gave is committed, a fast one during the first one."""

    def __init__(self, count: int, writer: CountingWriter, *, slow: bool) -> None:
        super().__init__(documents(count), random.Random(1))
        self._writer = writer
        self._slow = slow
        self.given = 0

    async def read(
        self, frozen: Frozen, after: Position | None, part: Part | None = None
    ) -> AsyncGenerator[list[SourceItem], None]:
        assert (len(frozen), after, part) == (1, None, None)
        while self.given < len(self._items):
            batch = list(self._items[self.given : self.given + BATCH])
            self._writer.committed.clear()
            self.given += len(batch)
            yield batch
            await (self._writer.committed if self._slow else self._writer.begun).wait()
        if not self._slow:
            self._writer.commit.set()


async def transactions(count: int, *, slow: bool = False, rate: float = 0.0) -> list[int]:
    """The documents of each transaction of a job. A fast source is read to its end before a commit."""
    writer = CountingWriter()
    source = BatchSource(count, writer, slow=slow)
    if slow:
        writer.commit.set()
    store, broker = MemoryStore(), MemoryBroker()
    policy = ProducerPolicy(pace=Pace(rate))
    context = ProducerContext(
        broker, store, SystemClock(), Metrics(), lambda _spec, _pages: source, policy, asyncio.Semaphore()
    )
    state = JobState(job(job_id="j", partitions=2), State.RUNNING, planned=True)
    state.partitions = [PartitionState(), PartitionState()]
    opened: TransactionalWriter = writer
    pipeline = Pipeline(
        context, opened, Backlog(broker, store, state, 1), state, source, Plan(await source.freeze(), {})
    )
    async with asyncio.timeout(20):
        await pipeline.run()
    assert state.produced == count
    return writer.sizes


async def test_what_was_read_during_a_transaction_is_the_next_one() -> None:
    first, *others = await transactions(500)
    # The first documents are not held back for others.
    assert first == BATCH
    assert others == [490, 2]


async def test_documents_of_a_slow_source_are_committed_before_the_next_ones_come() -> None:
    assert await transactions(40, slow=True) == [10, 10, 10, 10, 2]


async def test_a_limit_on_the_rate_is_a_limit_on_the_documents_of_a_transaction() -> None:
    # 20,000 documents a second are 5,000 in each quarter of a second.
    assert await transactions(40, rate=20_000.0) == [10, 10, 10, 10, 2]
    assert await transactions(30, rate=16.0) == [4, 4, 2, 4, 4, 2, 4, 4, 2, 2]


async def test_a_transaction_begins_a_while_after_the_one_before_or_when_enough_was_read() -> None:
    queue: ByteQueue[str] = ByteQueue(10)
    await queue.put("a", 4)
    await queue.wait_until_full(0.01)
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(queue.wait_until_full(3600))
        await queue.put("b", 4)
        for _ in range(3):
            await asyncio.sleep(0)
        assert not waiting.done()
        # There is no room for this one.
        tasks.create_task(queue.put("c", 4))
        await waiting
        assert await queue.take() == ["a", "b"]
        again = tasks.create_task(queue.wait_until_full(3600))
        for _ in range(3):
            await asyncio.sleep(0)
        assert not again.done()
        queue.end()
        await again
    assert await queue.take() == ["c"]
    # Nothing follows.
    await queue.wait_until_full(3600)


@given(
    st.lists(st.integers(0, 30), max_size=40),
    st.integers(1, 50),
    st.lists(st.booleans(), min_size=1, max_size=20),
)
async def test_a_byte_queue_keeps_order_and_limit(sizes: list[int], limit: int, pauses: list[bool]) -> None:
    queue: ByteQueue[tuple[int, int]] = ByteQueue(limit)
    found: list[list[tuple[int, int]]] = []
    pause = cycle(pauses)

    async def put() -> None:
        for number, size in enumerate(sizes):
            await queue.put((number, size), size)
            if next(pause):
                await asyncio.sleep(0)
        queue.end()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(put())
        while taken := await queue.take():
            found.append(taken)
            if next(pause):
                await asyncio.sleep(0)
    assert all(len(taken) == 1 or sum(size for _, size in taken) <= limit for taken in found)
    assert [value for taken in found for value in taken] == list(enumerate(sizes))
    assert await queue.take() == []
