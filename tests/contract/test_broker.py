"""The broker port's contract: topics, transactions, tables. One suite for the in-memory broker and Kafka."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

from shardline_common.errors import BrokerUnavailable, Fenced, TopicMissing
from shardline_common.memory.log import partition_for
from shardline_common.ports.broker import Broker, GroupListener, Message, Record, TableReader, TopicSpec
from tests.contract.members import Member
from tests.contract.writing import SECONDS, BodyError, message, numbered, table, values, write, write_and_fail

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager


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


async def test_no_operation_fails_while_each_succeeds(broker: Broker) -> None:
    await broker.create_topic(TopicSpec("t", 1))
    async with broker.transactional("id") as writer:
        await write(writer, [message("k", b"v")])
    await broker.publish("t", [message("k", b"w")])
    assert await table(broker) == [b"v", b"w"]
    with pytest.raises(TopicMissing):
        await broker.publish("none", [message("k")])
    assert broker.failing(0.0) is None
