"""The broker port's contract: one suite for the in-memory broker and for Kafka."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from uuid import uuid4

import pytest

from common.errors import BrokerUnavailable, Fenced, OffsetOutOfRange, TopicMissing
from common.kafka import open_kafka
from common.kafka_options import KafkaOptions
from common.memory_broker import MemoryBroker
from common.memory_log import partition_for
from common.ports import (
    Broker,
    GroupListener,
    GroupReader,
    Message,
    Record,
    TableReader,
    TopicSpec,
    TransactionalWriter,
)

SECONDS = 30.0
Positions = Callable[[int], int]


@pytest.fixture(params=["memory", "kafka"])
async def broker(request: pytest.FixtureRequest) -> AsyncIterator[Broker]:
    before = asyncio.all_tasks()
    if request.param == "memory":
        yield MemoryBroker()
    else:
        address, prefix = request.getfixturevalue("kafka"), f"{uuid4().hex[:8]}-"
        options = KafkaOptions(address, prefix, session_timeout_ms=6000, request_timeout_ms=5000)
        async with open_kafka(options) as kafka:
            yield kafka
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert [task.get_name() for task in left] == []


def message(key: str, value: bytes | None = b"v", partition: int | None = 0) -> Message:
    return Message(key.encode(), value, partition)


def numbered(first: int, last: int, partition: int = 0) -> list[Message]:
    return [message(f"k{number}", str(number).encode(), partition) for number in range(first, last)]


def values(records: Sequence[Record]) -> list[bytes | None]:
    return [record.value for record in records]


class BodyError(Exception):
    """What a test raises in the body of a transaction."""


async def write(writer: TransactionalWriter, messages: Sequence[Message]) -> None:
    async with writer.transaction() as transaction:
        await transaction.send("t", messages)


async def write_and_fail(
    writer: TransactionalWriter,
    messages: Sequence[Message],
    before: Callable[[], Awaitable[None]] | None = None,
) -> None:
    async with writer.transaction() as transaction:
        await transaction.send("t", messages)
        if before is not None:
            await before()
        raise BodyError


async def table(broker: Broker, topic: str = "t") -> list[bytes | None]:
    """Everything that is committed now."""
    async with broker.table_reader(topic) as reader:
        return values(await reader.catch_up(deadline=SECONDS))


class Member:
    """A group member that starts every partition where `position` says and remembers what it saw."""

    def __init__(self, position: Positions = lambda _: -1) -> None:
        self.position = position
        self.assigned: list[int] = []
        self.revoked: list[int] = []
        self.records: list[Record] = []
        self.reader: GroupReader

    async def on_assigned(self, partitions: Sequence[int]) -> None:
        self.assigned = sorted(partitions)
        for partition in partitions:
            self.reader.seek(partition, self.position(partition))

    async def on_revoked(self, partitions: Sequence[int]) -> None:
        self.revoked += partitions
        self.assigned = []

    async def poll(self) -> None:
        for records in (await self.reader.poll(None, timeout=0.05, max_records=100)).values():
            self.records += records


@asynccontextmanager
async def member(broker: Broker, position: Positions = lambda _: -1) -> AsyncIterator[Member]:
    joined = Member(position)
    listener = GroupListener(joined.on_assigned, joined.on_revoked)
    async with broker.group_reader("t", "g", listener) as joined.reader:
        yield joined


async def poll_until(done: Callable[[], bool], *members: Member) -> None:
    async with asyncio.timeout(SECONDS):
        while not done():
            await asyncio.gather(*(each.poll() for each in members))


async def test_create_describe_delete(broker: Broker) -> None:
    await broker.check()
    assert await broker.describe_topic("t") is None
    assert await broker.partitions("t") == 0
    assert await broker.create_topic(TopicSpec("t", 3, {"max.message.bytes": "2000000"}))
    assert not await broker.create_topic(TopicSpec("t", 5))
    found = await broker.describe_topic("t")
    assert found is not None
    assert (found.name, found.partitions, found.config["max.message.bytes"]) == ("t", 3, "2000000")
    assert await broker.partitions("t") == 3
    assert await broker.topics() == ["t"]
    assert await broker.delete_topic("t")
    assert await broker.describe_topic("t") is None
    assert not await broker.delete_topic("t")


async def test_a_topic_made_again_is_empty(broker: Broker) -> None:
    await broker.create_topic(TopicSpec("t", 1))
    await broker.publish("t", numbered(0, 3))
    await broker.delete_topic("t")
    assert await broker.create_topic(TopicSpec("t", 1))
    assert await table(broker) == []


async def test_publish_keeps_everything_in_order(broker: Broker) -> None:
    await broker.create_topic(TopicSpec("t", 2))
    sent = Message(b"key", None, 1, (("traceparent", b"00-1"), ("empty", b"")))
    await broker.publish("t", [*numbered(0, 500), sent])
    async with broker.table_reader("t") as reader:
        records = await reader.catch_up(deadline=SECONDS)
    first = [record for record in records if record.partition == 0]
    assert values(first) == [str(number).encode() for number in range(500)]
    assert [record.offset for record in first] == list(range(500))
    assert [record for record in records if record.partition == 1] == [
        Record(1, 0, b"key", None, (("traceparent", b"00-1"), ("empty", b"")))
    ]


async def test_a_transaction_shows_only_when_committed_and_then_whole(broker: Broker) -> None:
    for name in ("t", "u"):
        await broker.create_topic(TopicSpec(name, 2))
    async with broker.transactional("id") as writer, broker.table_reader("t") as reader:
        async with writer.transaction() as transaction:
            await transaction.send("t", numbered(0, 100, 0) + numbered(100, 200, 1))
            await transaction.send("u", [message("done")])
            await transaction.send("t", numbered(200, 300, 0))
            assert not await reader.poll(timeout=0.3)
        found = await reader.catch_up(deadline=SECONDS)
        assert values([r for r in found if r.partition == 0]) == [
            str(number).encode() for number in (*range(100), *range(200, 300))
        ]
        assert values([r for r in found if r.partition == 1]) == [
            str(number).encode() for number in range(100, 200)
        ]
    assert await table(broker, "u") == [b"v"]


async def test_a_failed_body_leaves_nothing_and_a_writer_that_refuses(broker: Broker) -> None:
    await broker.create_topic(TopicSpec("t", 1))
    async with broker.transactional("id") as writer:
        with pytest.raises(BodyError):
            await write_and_fail(writer, numbered(0, 3))
        with pytest.raises(BrokerUnavailable):
            await write(writer, numbered(0, 3))
    async with broker.transactional("id") as writer, writer.transaction() as transaction:
        await transaction.send("t", [message("k", b"kept")])
    assert await table(broker) == [b"kept"]


async def test_a_cancelled_body_leaves_nothing(broker: Broker) -> None:
    await broker.create_topic(TopicSpec("t", 1))
    sent = asyncio.Event()

    async def hang() -> None:
        async with broker.transactional("id") as writer, writer.transaction() as transaction:
            await transaction.send("t", numbered(0, 3))
            sent.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hang())
    await sent.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await table(broker) == []


async def test_a_newer_writer_fences_the_older(broker: Broker) -> None:
    await broker.create_topic(TopicSpec("t", 1))
    async with broker.transactional("id") as old:
        async with old.transaction() as transaction:
            await transaction.send("t", [message("k", b"old")])
        async with broker.transactional("id") as new:
            with pytest.raises(Fenced):
                async with old.transaction() as transaction:
                    await transaction.send("t", [message("k", b"zombie")])
            async with new.transaction() as transaction:
                await transaction.send("t", [message("k", b"new")])
    assert await table(broker) == [b"old", b"new"]


async def test_a_newer_writer_aborts_what_the_older_left_open(broker: Broker) -> None:
    await broker.create_topic(TopicSpec("t", 1))

    async def be_zombie() -> None:
        async with broker.transactional("id") as old, old.transaction() as transaction:
            await transaction.send("t", [message("k", b"zombie")])
            async with broker.transactional("id") as new:
                await write(new, [message("k", b"new")])

    with pytest.raises(Fenced):
        await be_zombie()
    assert await table(broker) == [b"new"]


async def test_writers_of_other_ids_do_not_fence(broker: Broker) -> None:
    await broker.create_topic(TopicSpec("t", 1))
    async with (
        broker.transactional("a") as one,
        broker.transactional("b") as two,
        one.transaction() as first,
        two.transaction() as second,
    ):
        await first.send("t", [message("k", b"a")])
        await second.send("t", [message("k", b"b")])
    assert sorted(map(bytes, filter(None, await table(broker)))) == [b"a", b"b"]


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


async def test_catch_up_passes_aborted_tails_and_empty_partitions(broker: Broker) -> None:
    await broker.create_topic(TopicSpec("t", 3))
    async with broker.transactional("id") as writer:
        async with writer.transaction() as transaction:
            await transaction.send("t", numbered(0, 3))
        with pytest.raises(BodyError):
            await write_and_fail(writer, numbered(3, 6) + numbered(3, 6, 1))
    async with broker.table_reader("t") as reader:
        assert values(await reader.catch_up(deadline=SECONDS)) == [b"0", b"1", b"2"]
        assert not await reader.catch_up(deadline=SECONDS)
        await broker.publish("t", [message("k", b"later", 1)])
        assert values(await reader.catch_up(deadline=SECONDS)) == [b"later"]


async def test_catch_up_waits_out_a_transaction_of_another(broker: Broker) -> None:
    await broker.create_topic(TopicSpec("t", 1))
    async with broker.transactional("open") as slow, broker.transactional("fast") as fast:
        async with slow.transaction() as transaction:
            await transaction.send("t", [message("k", b"slow")])
            async with fast.transaction() as other:
                await other.send("t", [message("k", b"fast")])
            caught = asyncio.create_task(table(broker))
            await asyncio.wait([caught], timeout=0.5)
        assert b"fast" in await caught


async def test_catch_up_begins_where_the_log_does(broker: Broker) -> None:
    await broker.create_topic(TopicSpec("t", 2))
    await broker.publish("t", numbered(0, 10) + numbered(0, 5, 1))
    await broker.delete_records("t", {0: 8, 1: 5})
    assert await table(broker) == [b"8", b"9"]


async def test_a_table_may_be_some_partitions(broker: Broker) -> None:
    await broker.create_topic(TopicSpec("t", 3))
    await broker.publish("t", [message("k", str(number).encode(), number) for number in range(3)])
    async with broker.table_reader("t", [1]) as reader:
        assert values(await reader.catch_up(deadline=SECONDS)) == [b"1"]
        assert not await reader.poll(timeout=0.0)


async def test_a_waiting_table_wakes_for_news(broker: Broker) -> None:
    await broker.create_topic(TopicSpec("t", 1))

    async def next_of(reader: TableReader) -> Sequence[Record]:
        return await reader.poll(timeout=SECONDS)

    async with broker.table_reader("t") as reader:
        await reader.catch_up(deadline=SECONDS)
        waiting = asyncio.create_task(next_of(reader))
        await asyncio.sleep(0)
        await broker.publish("t", [message("k", b"news")])
        async with asyncio.timeout(SECONDS / 2):
            assert values(await waiting) == [b"news"]


async def test_missing_topics_are_named_as_such(broker: Broker) -> None:
    listener = GroupListener(Member().on_assigned, Member().on_revoked)
    readers: list[AbstractAsyncContextManager[object]] = [
        broker.table_reader("none"),
        broker.group_reader("none", "g", listener),
    ]
    for reader in readers:
        with pytest.raises(TopicMissing):
            async with reader:
                pass
    with pytest.raises(TopicMissing):
        await broker.delete_records("none", {0: 1})
    async with asyncio.timeout(2 * SECONDS):
        with pytest.raises(TopicMissing):
            await broker.publish("none", [message("k")])
        with pytest.raises(TopicMissing):
            async with broker.transactional("id") as writer, writer.transaction() as transaction:
                await transaction.send("none", [message("k")])


async def test_a_message_of_4_mib_goes_where_the_topic_allows_it(broker: Broker) -> None:
    await broker.create_topic(TopicSpec("t", 1, {"max.message.bytes": str(8 << 20)}))
    large = bytes(4 << 20)
    async with broker.transactional("id") as writer, writer.transaction() as transaction:
        await transaction.send("t", [message("a", b"small"), message("b", large), message("c", b"small")])
    await broker.publish("t", [message("d", large)])
    assert await table(broker) == [b"small", large, b"small", large]


async def test_a_message_over_the_limit_of_the_topic_refuses_the_whole(broker: Broker) -> None:
    await broker.create_topic(TopicSpec("t", 2, {"max.message.bytes": "10000"}))
    with pytest.raises(BrokerUnavailable):
        async with broker.transactional("id") as writer, writer.transaction() as transaction:
            await transaction.send("t", [message("a", b"small", 1), message("b", bytes(20_000))])
    with pytest.raises(BrokerUnavailable):
        await broker.publish("t", [message("b", bytes(20_000))])
    await broker.publish("t", [message("k", b"next")])
    assert await table(broker) == [b"next"]


async def test_keys_without_a_partition_are_placed_alike(broker: Broker) -> None:
    await broker.create_topic(TopicSpec("t", 7))
    keys = [f"schlüssel-{number}".encode() * (number % 5 + 1) for number in range(100)]
    await broker.publish("t", [Message(key, b"published") for key in keys])
    async with broker.transactional("id") as writer, writer.transaction() as transaction:
        await transaction.send("t", [Message(key, b"sent") for key in keys])
    async with broker.table_reader("t") as reader:
        found = await reader.catch_up(deadline=SECONDS)
    places = {(record.key, record.partition) for record in found}
    assert places == {(key, partition_for(key, 7)) for key in keys}
    assert len(found) == 200
