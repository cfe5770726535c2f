"""Polls of the memory broker that wait for several records of a partition."""

import asyncio
from collections.abc import Sequence

from shardline_common.memory.broker import MemoryBroker
from shardline_common.ports.broker import GroupListener, Message, TopicSpec


async def test_a_poll_returns_partitions_with_enough_records_and_all_when_it_is_quiet() -> None:
    broker = MemoryBroker(fewest=3, quiet=0.01)
    await broker.create_topic(TopicSpec("t", 3))

    async def assigned(partitions: Sequence[int]) -> None:
        for partition in partitions:
            reader.seek(partition, -1)

    async def revoked(_: Sequence[int]) -> None:
        return

    def written(number: int, count: int) -> list[Message]:
        return [Message(b"k", b"v", number)] * count

    async with broker.group_reader("t", "g", GroupListener(assigned, revoked)) as reader:
        assert not await reader.poll(None, timeout=0, max_records=1)
        await broker.publish("t", written(0, 3) + written(1, 2))
        found = await reader.poll(None, timeout=20, max_records=100)
        assert {number: len(records) for number, records in found.items()} == {0: 3}
        # What another partition gets does not hold back the rest for ever.
        waiting = asyncio.create_task(reader.poll((1, 2), timeout=20, max_records=100))
        await broker.publish("t", written(0, 1))
        assert {number: len(records) for number, records in (await waiting).items()} == {1: 2}
        assert set(await reader.poll(None, timeout=20, max_records=100)) == {0}
