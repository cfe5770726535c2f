"""What the Kafka client does wrong or in silence, and the adapter must not."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import GroupCoordinatorNotAvailableError
from aiokafka.protocol.commit import OffsetCommitRequest

from deploy.dev.kafka import Kafka
from deploy.dev.service import free_ports
from shardline_common.errors import BrokerUnavailable, TopicMissing
from shardline_common.kafka.broker import open_kafka
from shardline_common.kafka.options import KafkaOptions
from shardline_common.ports.broker import Broker, GroupListener, GroupReader, Message, TopicSpec

BOUND = 30.0


@pytest.fixture
def options(kafka: str) -> KafkaOptions:
    prefix = f"{uuid4().hex[:8]}-"
    return KafkaOptions(kafka, prefix, session_timeout_ms=6000, request_timeout_ms=10_000)


@pytest.fixture
async def broker(options: KafkaOptions) -> AsyncIterator[Broker]:
    async with open_kafka(options) as opened:
        await opened.create_topic(TopicSpec("documents", 2, {"max.message.bytes": "10000"}))
        await opened.create_topic(TopicSpec("checkpoints", 1))
        yield opened


def documents(count: int, size: int, partition: int = 0) -> list[Message]:
    return [Message(b"d%d" % number, bytes(size), partition) for number in range(count)]


async def committed(broker: Broker, topic: str) -> list[bytes | None]:
    async with broker.table_reader(topic) as reader:
        return [record.value for record in await reader.catch_up(deadline=BOUND)]


async def run_torn(broker: Broker, between: Callable[[], Awaitable[object]], more: Sequence[Message]) -> None:
    """A transaction of documents and a checkpoint, with something happening in its middle."""
    async with broker.transactional("job") as writer, writer.transaction() as transaction:
        await transaction.send("documents", documents(3, 100))
        await between()
        await transaction.send("documents", more)
        await transaction.send("checkpoints", [Message(b"job", b"checkpoint", 0)])


async def nothing() -> None:
    """Between the sends, nothing happens."""


async def test_a_refused_batch_commits_nothing(broker: Broker) -> None:
    # aiokafka alone commits here: the documents are lost and the checkpoint says they are not.
    async with asyncio.timeout(BOUND):
        with pytest.raises(BrokerUnavailable):
            await run_torn(broker, nothing, documents(1, 20_000, 1))
    assert await committed(broker, "checkpoints") == []
    assert await committed(broker, "documents") == []


async def test_after_a_refused_batch_a_new_writer_goes_on(broker: Broker) -> None:
    with pytest.raises(BrokerUnavailable):
        await run_torn(broker, nothing, documents(1, 20_000, 1))
    await run_torn(broker, nothing, documents(2, 100, 1))
    assert await committed(broker, "checkpoints") == [b"checkpoint"]
    assert len(await committed(broker, "documents")) == 5


async def test_a_topic_deleted_in_mid_transaction_commits_nothing(broker: Broker) -> None:
    async with asyncio.timeout(2 * BOUND):
        with pytest.raises(BrokerUnavailable):
            await run_torn(broker, lambda: broker.delete_topic("documents"), documents(3, 100))
    assert await committed(broker, "checkpoints") == []
    assert await broker.describe_topic("documents") is None


async def test_a_missing_topic_is_noticed_within_the_request_timeout(broker: Broker) -> None:
    started = time.monotonic()
    with pytest.raises(TopicMissing):
        async with broker.transactional("job") as writer, writer.transaction() as transaction:
            await transaction.send("none", documents(1, 10))
    assert time.monotonic() - started < BOUND


async def test_an_error_of_the_body_stays_what_it_is(broker: Broker) -> None:
    # A source that cannot be read in the middle of a transaction is no failure of the broker.
    with pytest.raises(FileNotFoundError):
        async with broker.transactional("job") as writer, writer.transaction():
            raise FileNotFoundError("laws.jsonl")


async def test_a_reader_that_may_read_nothing_stays_a_member(options: KafkaOptions) -> None:
    short = replace(options, max_poll_interval_ms=1500)
    changes: list[str] = []

    async def assigned(partitions: Sequence[int]) -> None:
        changes.append("assigned")
        for partition in partitions:
            reader.seek(partition, -1)

    async def revoked(partitions: Sequence[int]) -> None:
        # The client also tells that nothing was revoked, when it joins.
        changes.extend("revoked" for _ in partitions)

    reader: GroupReader
    async with open_kafka(short) as broker:
        await broker.create_topic(TopicSpec("documents", 1))
        async with broker.group_reader("documents", "g", GroupListener(assigned, revoked)) as reader:
            async with asyncio.timeout(BOUND):
                while not changes:
                    await reader.poll(None, timeout=0.1, max_records=1)
            end = time.monotonic() + 5.0
            while time.monotonic() < end:
                assert await reader.poll((), timeout=0.2, max_records=1) == {}
            assert changes == ["assigned"]
            assert await reader.commit({0: 0})


async def test_a_forgotten_member_commits_nothing(broker: Broker) -> None:
    # With its generation reset the client would commit as a consumer without a group, which Kafka takes
    # for a group that is empty: a worker that slept would move the offset back.
    async def assigned(partitions: Sequence[int]) -> None:
        for partition in partitions:
            reader.seek(partition, -1)

    async def revoked(_partitions: Sequence[int]) -> None:
        return None

    reader: GroupReader
    async with broker.group_reader("documents", "g", GroupListener(assigned, revoked)) as reader:
        async with asyncio.timeout(BOUND):
            while not await reader.commit({0: 7}):
                await reader.poll(None, timeout=0.1, max_records=1)
        coordinator = reader._consumer._coordinator  # type: ignore[attr-defined]
        await coordinator._maybe_leave_group()
        coordinator.generation, coordinator.member_id = -1, ""
        assert not await reader.commit({0: 3})


@pytest.mark.usefixtures("broker")
async def test_a_commit_without_a_coordinator_ends(
    options: KafkaOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The client would look for the coordinator for ever, and the partition of the worker would wait for it.
    send, gone = AIOKafkaClient.send, asyncio.Event()

    async def refuse(client: AIOKafkaClient, node: int, request: Any, **more: Any) -> Any:
        if gone.is_set() and isinstance(request, OffsetCommitRequest):
            raise GroupCoordinatorNotAvailableError
        return await send(client, node, request, **more)

    async def assigned(partitions: Sequence[int]) -> None:
        for partition in partitions:
            reader.seek(partition, -1)

    async def revoked(_partitions: Sequence[int]) -> None:
        return None

    monkeypatch.setattr(AIOKafkaClient, "send", refuse)
    reader: GroupReader
    listener = GroupListener(assigned, revoked)
    async with (
        asyncio.timeout(BOUND),
        open_kafka(replace(options, request_timeout_ms=1000)) as quick,
        quick.group_reader("documents", "g", listener) as reader,
    ):
        while not await reader.commit({0: 0}):
            await reader.poll(None, timeout=0.1, max_records=1)
        gone.set()
        assert not await reader.commit({0: 1})


async def test_whoever_creates_a_topic_second_sees_it_at_once(options: KafkaOptions) -> None:
    async def created(number: int) -> int:
        async with open_kafka(replace(options, client_id=f"c{number}")) as broker:
            await broker.check()
            everyone.release()
            await go.wait()
            seen = 0
            for topic in range(8):
                await broker.create_topic(TopicSpec(f"race-{topic}", 20))
                found = await broker.describe_topic(f"race-{topic}")
                seen += found is not None and found.partitions == 20
            return seen

    everyone, go = asyncio.Semaphore(0), asyncio.Event()
    async with asyncio.timeout(3 * BOUND), asyncio.TaskGroup() as tasks:
        started = [tasks.create_task(created(number)) for number in range(6)]
        for _ in started:
            await everyone.acquire()
        go.set()
    assert [task.result() for task in started] == [8] * 6


async def test_a_send_that_failed_cannot_be_committed_even_if_the_body_goes_on(broker: Broker) -> None:
    async with asyncio.timeout(BOUND):
        with pytest.raises(BrokerUnavailable):
            await swallow_a_failed_send(broker)
    assert await committed(broker, "checkpoints") == []


async def swallow_a_failed_send(broker: Broker) -> None:
    async with broker.transactional("job") as writer, writer.transaction() as transaction:
        await transaction.send("checkpoints", [Message(b"job", b"checkpoint", 0)])
        with suppress(TopicMissing):
            await transaction.send("none", documents(1, 10))


async def test_nothing_is_read_before_a_slow_listener_has_sought(broker: Broker) -> None:
    # aiokafka fetches from the committed offset while the callback still runs, and would hand it out.
    await broker.publish("documents", documents(10, 10))
    done = asyncio.Event()

    async def assigned(_: Sequence[int]) -> None:
        await asyncio.sleep(1.0)
        for partition in (0, 1):
            reader.seek(partition, 0)
        done.set()

    async def revoked(_: Sequence[int]) -> None:
        """Nothing is kept."""

    reader: GroupReader
    for committed_offset in (5, None):
        found: list[int] = []
        done.clear()
        async with broker.group_reader("documents", "g", GroupListener(assigned, revoked)) as reader:
            async with asyncio.timeout(BOUND):
                while len(found) < 10:
                    polled = await reader.poll(None, timeout=0.1, max_records=100)
                    assert done.is_set() or not polled
                    found += [record.offset for record in polled.get(0, ())]
            if committed_offset is not None:
                assert await reader.commit({0: committed_offset})
        assert found == list(range(10))


async def test_an_error_in_the_listener_is_raised_by_the_next_poll(broker: Broker) -> None:
    async def broken(_: Sequence[int]) -> None:
        raise ZeroDivisionError

    async def poll_on() -> None:
        async with broker.group_reader("documents", "g", GroupListener(broken, broken)) as reader:
            while True:
                await reader.poll(None, timeout=0.1, max_records=1)

    async with asyncio.timeout(BOUND):
        with pytest.raises(ZeroDivisionError):
            await poll_on()


async def test_a_deleted_topic_does_not_flood_the_log(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    async def ignore(partitions: Sequence[int]) -> None:
        for partition in partitions:
            reader.seek(partition, -1)

    reader: GroupReader
    async with broker.group_reader("documents", "g", GroupListener(ignore, ignore)) as reader:
        await reader.poll(None, timeout=1.0, max_records=1)
        await broker.delete_topic("documents")
        end = time.monotonic() + 3.0
        while time.monotonic() < end:
            await reader.poll(None, timeout=0.5, max_records=1)
    loud = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(loud) < 20


async def test_the_broker_may_restart_under_a_reader_and_a_writer(own_kafka: Kafka) -> None:
    options = KafkaOptions(own_kafka.bootstrap, request_timeout_ms=10_000)
    async with open_kafka(options) as broker:
        await broker.create_topic(TopicSpec("t", 1))
        await broker.publish("t", [Message(b"k", b"before", 0)])
        async with broker.table_reader("t") as reader:
            assert [r.value for r in await reader.catch_up(deadline=BOUND)] == [b"before"]
            await asyncio.to_thread(own_kafka.stop, kill=True)
            with pytest.raises(BrokerUnavailable):
                await broker.check()
            await asyncio.to_thread(own_kafka.start)
            await broker.check()
            await broker.publish("t", [Message(b"k", b"after", 0)])
            found: list[bytes | None] = []
            async with asyncio.timeout(BOUND):
                while not found:
                    found += [record.value for record in await reader.poll(timeout=1.0)]
            assert found == [b"after"]


async def test_a_reader_may_be_closed_while_the_broker_is_away(own_kafka: Kafka) -> None:
    # A consumer that waits to fetch again hands the cancel of that wait to whoever stops it, once, and
    # leaves its client open.
    options = KafkaOptions(own_kafka.bootstrap, request_timeout_ms=10_000)
    async with open_kafka(options) as broker:
        await broker.create_topic(TopicSpec("t", 1))
        before = asyncio.all_tasks()
        async with broker.table_reader("t") as reader:
            await reader.catch_up(deadline=BOUND)
            await asyncio.to_thread(own_kafka.stop, kill=True)
            await reader.poll(timeout=1.0)
        async with asyncio.timeout(BOUND):
            while asyncio.all_tasks() - before:
                await asyncio.sleep(0.05)


async def test_nobody_at_the_address_is_a_sentence_not_a_hang() -> None:
    (port,) = free_ports(1)
    before = asyncio.all_tasks()
    async with asyncio.timeout(BOUND), open_kafka(KafkaOptions(f"127.0.0.1:{port}")) as broker:
        with pytest.raises(BrokerUnavailable, match=str(port)) as raised:
            await broker.check()
        assert "KAFKA_BOOTSTRAP_SERVERS" in (raised.value.hint or "")
    assert asyncio.all_tasks() == before


async def test_prefixes_keep_deployments_apart(options: KafkaOptions, broker: Broker) -> None:
    async with open_kafka(replace(options, prefix="other-" + options.prefix)) as other:
        assert await other.describe_topic("documents") is None
        assert await other.create_topic(TopicSpec("documents", 1))
        async with (
            broker.transactional("job") as ours,
            other.transactional("job"),
            ours.transaction() as transaction,
        ):
            await transaction.send("documents", documents(1, 10))
        assert await committed(other, "documents") == []
    assert len(await committed(broker, "documents")) == 1


def test_options_do_not_show_the_password() -> None:
    secret = uuid4().hex
    assert secret not in repr(KafkaOptions("kafka:9092", sasl_username="me", sasl_password=secret))
