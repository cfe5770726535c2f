"""The private parts of aiokafka that Shardline uses, each behind one function.

aiokafka 0.14 has no public way to do these things. pyproject.toml excludes later minor versions, and
tests/unit/test_aiokafka_internals.py fails where a version has moved one of them.
"""
# ruff: noqa: SLF001 - the purpose of this module

from collections.abc import Callable
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.consumer.fetcher import OffsetResetStrategy
from aiokafka.errors import IllegalGenerationError
from aiokafka.protocol.metadata import MetadataRequest


def has_brokers(admin: AIOKafkaAdminClient) -> bool:
    """Whether the client has a broker. A client whose token was refused starts, but has none."""
    return bool(admin._client.cluster.brokers())


async def topic_metadata(admin: AIOKafkaAdminClient, topic: str) -> dict[str, Any] | None:
    """The metadata of a topic: error_code, topic, partitions. None when the response has none.

    The public call lets a broker with auto.create.topics.enable create the topic.
    """
    request = MetadataRequest([topic], allow_auto_topic_creation=False)
    topics: list[dict[str, Any]] = (await admin._send_request(request)).to_object()["topics"]
    return topics[0] if topics else None


async def connect_once(bootstrap_servers: str, **arguments: Any) -> None:
    """Connect to the first bootstrap server and close the connection. Raises the client's error.

    Starting a client reports only that no broker accepted it, without the cause.
    """
    host, port, _ = collect_hosts(bootstrap_servers)[0]
    connection = await create_conn(host, port, **arguments)
    await connection.close()


def generation(consumer: AIOKafkaConsumer) -> int:
    """The member's generation of its group; -1 while it is not a member."""
    return int(consumer._coordinator.generation)


def commit_only_while(consumer: AIOKafkaConsumer, allowed: Callable[[], bool]) -> None:
    """Make commits raise IllegalGenerationError unless `allowed()` is true when the request is made.

    aiokafka commits with the generation that it has when the request is made. After the coordinator removed
    the member, that is -1. For an empty group Kafka accepts this as a commit from outside the group.
    """
    coordinator = consumer._coordinator
    send = coordinator._do_commit_offsets

    async def checked(assignment: Any, offsets: Any) -> None:
        if coordinator.generation < 0 or not allowed():
            raise IllegalGenerationError(coordinator.group_id)
        await send(assignment, offsets)

    coordinator._do_commit_offsets = checked


def check_group_errors(consumer: AIOKafkaConsumer) -> None:
    """Raise the error of the coordinator's background task, such as a missing right.

    A poll raises it as well, but only while the member has partitions to read.
    """
    consumer._coordinator.check_errors()


def seek_to_beginning(consumer: AIOKafkaConsumer, where: TopicPartition) -> None:
    """Read the partition from the start of its log.

    The public call waits for the broker, which a rebalance listener must not do.
    """
    consumer._fetcher._records.pop(where, None)
    state = consumer._subscription.subscription.assignment.state_value(where)
    state.await_reset(OffsetResetStrategy.EARLIEST)


async def close_connections(consumer: AIOKafkaConsumer) -> None:
    """Close the connections of a consumer, even when its `stop` failed before it closed them."""
    await consumer._client.close()


async def abandon(producer: AIOKafkaProducer) -> None:
    """Close a producer without waiting for deliveries that can no longer succeed.

    Its `stop` would wait for them first.
    """
    producer._closed = True
    try:
        if producer._sender.sender_task is not None:
            await producer._sender.close()
    finally:
        await producer.client.close()
