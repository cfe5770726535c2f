"""The broker port's contract: members of a group."""

import asyncio

import pytest

from shardline_common.errors import OffsetOutOfRange
from shardline_common.ports.broker import Broker, Record, TopicSpec
from tests.contract.members import member, poll_until
from tests.contract.writing import SECONDS, BodyError, message, numbered, values, write_and_fail


async def test_a_group_shares_partitions_and_takes_over(broker: Broker) -> None:
    await broker.create_topic(TopicSpec("t", 4))
    async with member(broker) as stays:
        await poll_until(lambda: stays.assigned == [0, 1, 2, 3], stays)
        async with member(broker) as leaves:
            await poll_until(lambda: len(stays.assigned) == len(leaves.assigned) == 2, stays, leaves)
            assert sorted(stays.assigned + leaves.assigned) == [0, 1, 2, 3]
            assert sorted(stays.revoked) == [0, 1, 2, 3]
            await broker.publish("t", [message("k", str(n).encode(), n) for n in range(4)])
            await poll_until(lambda: len(stays.records) + len(leaves.records) == 4, stays, leaves)
            assert {record.partition for record in leaves.records} == set(leaves.assigned)
        await poll_until(lambda: stays.assigned == [0, 1, 2, 3], stays)
        assert len(stays.revoked) == 6


async def test_a_position_is_what_the_listener_seeks(broker: Broker) -> None:
    await broker.create_topic(TopicSpec("t", 2))
    await broker.publish("t", numbered(0, 10, 0) + numbered(0, 10, 1))
    async with member(broker, lambda partition: -1 if partition else 7) as reader:
        await poll_until(lambda: len(reader.records) == 13, reader)
        assert [r.offset for r in reader.records if r.partition == 0] == [7, 8, 9]
        reader.records.clear()
        reader.reader.seek(1, 8)
        await poll_until(lambda: len(reader.records) == 2, reader)
        assert [(r.partition, r.offset) for r in reader.records] == [(1, 8), (1, 9)]


async def test_a_seek_takes_back_what_a_poll_has_under_way(broker: Broker) -> None:
    await broker.create_topic(TopicSpec("t", 1))
    await broker.publish("t", numbered(0, 10))
    async with member(broker, lambda _: 10) as reader:
        await poll_until(lambda: reader.assigned == [0], reader)
        under_way = asyncio.create_task(reader.reader.poll([0], timeout=1.0, max_records=3))
        await asyncio.sleep(0.2)
        reader.reader.seek(0, 4)
        # Whoever waits there asked before the seek; the records are for who polls next.
        assert not (await under_way).get(0)
        await poll_until(lambda: len(reader.records) == 6, reader)
        assert [record.offset for record in reader.records] == list(range(4, 10))


async def test_a_group_reads_nothing_uncommitted(broker: Broker) -> None:
    await broker.create_topic(TopicSpec("t", 1))
    async with member(broker) as reader, broker.transactional("id") as writer:
        await poll_until(lambda: reader.assigned == [0], reader)

        async def look() -> None:
            for _ in range(5):
                await reader.poll()

        with pytest.raises(BodyError):
            await write_and_fail(writer, numbered(0, 3), look)
        await broker.publish("t", [message("k", b"after")])
        await poll_until(lambda: bool(reader.records), reader)
        assert values(reader.records) == [b"after"]


async def test_only_named_partitions_are_read_and_the_others_are_kept(broker: Broker) -> None:
    await broker.create_topic(TopicSpec("t", 2))
    await broker.publish("t", numbered(0, 10, 0) + numbered(0, 10, 1))
    async with member(broker) as reader:
        found: list[Record] = []
        async with asyncio.timeout(SECONDS):
            while len(found) < 10:
                polled = await reader.reader.poll([1], timeout=0.1, max_records=3)
                assert polled.keys() <= {1}
                assert sum(map(len, polled.values())) <= 3
                found += polled.get(1, ())
        assert await reader.reader.poll((), timeout=0.05, max_records=3) == {}
        await poll_until(lambda: len(reader.records) == 10, reader)
        assert [record.offset for record in reader.records] == list(range(10))


async def test_an_offset_that_is_gone_is_an_error_and_the_reader_goes_on(broker: Broker) -> None:
    await broker.create_topic(TopicSpec("t", 1))
    await broker.publish("t", numbered(0, 10))
    await broker.delete_records("t", {0: 6})
    await broker.delete_records("t", {0: 6})
    await broker.delete_records("t", {0: 2})
    async with member(broker, lambda _: 3) as reader:
        with pytest.raises(OffsetOutOfRange) as raised:
            await poll_until(lambda: False, reader)
        assert raised.value.partitions == (0,)
        reader.reader.seek(0, -1)
        await poll_until(lambda: len(reader.records) == 4, reader)
        assert [record.offset for record in reader.records] == [6, 7, 8, 9]


async def test_commits_are_taken_from_members_only(broker: Broker) -> None:
    await broker.create_topic(TopicSpec("t", 2))
    async with member(broker) as stays:
        await poll_until(lambda: stays.assigned == [0, 1], stays)
        assert await stays.reader.commit({0: 0, 1: 0})
        async with member(broker) as other:
            await poll_until(lambda: bool(other.assigned and stays.assigned), stays, other)
            assert not await stays.reader.commit(dict.fromkeys(other.assigned, 0))
