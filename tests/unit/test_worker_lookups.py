"""A worker that cannot learn whether its topic exists, or cannot publish its progress, goes on."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shardline_common.dataset.chain import Chain
from shardline_common.errors import BrokerUnavailable, TopicMissing
from shardline_common.job.names import EVENTS, Layout, attempt_topic
from shardline_common.memory.broker import MemoryBroker
from shardline_common.memory.store import MemoryStore
from shardline_common.ports.broker import Message, TopicSpec
from shardline_consumer.attempt_consumer import AttemptConsumer
from shardline_consumer.commit import SegmentSink
from tests.make import document, end, job, worker_context

SPEC = job(partitions=1)
TOPIC = attempt_topic(SPEC.job_id, 1)
SECONDS = 30.0


class Away(MemoryBroker):
    """A broker whose look-ups and events fail while it is `away`."""

    away = True
    looks = 0

    async def partitions(self, name: str) -> int:
        """Fail while it is away."""
        self.looks += 1
        if self.away:
            raise BrokerUnavailable("a broker did not answer in time")
        return await super().partitions(name)

    async def publish(self, topic: str, messages: Sequence[Message]) -> None:
        """Fail for events while it is away."""
        if self.away and topic == EVENTS:
            raise BrokerUnavailable("a broker did not answer in time")
        await super().publish(topic, messages)


@asynccontextmanager
async def consuming(
    monkeypatch: pytest.MonkeyPatch, broker: Away, store: MemoryStore, folder: Path
) -> AsyncIterator[asyncio.Task[None]]:
    monkeypatch.setattr("shardline_consumer.attempt_consumer._TOPIC_CHECK_SECONDS", 0.0)
    monkeypatch.setattr("shardline_consumer.attempt_consumer._POLL_SECONDS", 0.01)
    await broker.create_topic(TopicSpec(TOPIC, 1))
    sink = SegmentSink(worker_context(broker, store, folder), SPEC, 1)
    work = asyncio.create_task(AttemptConsumer(sink, asyncio.Event(), set(), lambda _: None).run())
    try:
        async with asyncio.timeout(SECONDS):
            yield work
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def test_a_failed_look_up_ends_no_consumer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broker = Away()
    async with consuming(monkeypatch, broker, MemoryStore(), tmp_path) as work:
        while broker.looks < 5:
            await asyncio.wait([work], timeout=0.01)
            assert not work.done(), work
        broker.away = False
        await broker.delete_topic(TOPIC)
        with pytest.raises(ExceptionGroup) as raised:
            await work
        assert raised.value.subgroup(TopicMissing)


async def test_progress_that_cannot_be_published_ends_no_consumer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broker, store = Away(), MemoryStore()
    async with consuming(monkeypatch, broker, store, tmp_path) as work:
        records = [document(0), document(1)]
        records.append(end(records))
        await broker.publish(TOPIC, [Message(one.key or b"", one.value, 0) for one in records])
        chain = Chain(store, Layout.of(SPEC), 0)
        while await chain.head() is None:
            await asyncio.wait([work], timeout=0.01)
            assert not work.done(), work
        before = broker.looks
        while broker.looks < before + 2:
            await asyncio.wait([work], timeout=0.01)
            assert not work.done(), work
