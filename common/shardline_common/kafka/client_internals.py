"""The private parts of aiokafka that Shardline uses, each behind one function.

aiokafka 0.14 has no public way to do these things. pyproject.toml excludes later minor versions, and
tests/unit/test_aiokafka_internals.py fails where a version has moved one of them.
"""
# ruff: noqa: SLF001 - the purpose of this module

import asyncio
from collections.abc import Callable
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.consumer.fetcher import OffsetResetStrategy
from aiokafka.errors import IllegalGenerationError, KafkaConnectionError, KafkaError, NodeNotReadyError
from aiokafka.producer.sender import Sender
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.produce import ProduceRequest

from shardline_common.kafka.answers import Answers

_CANCEL_SECONDS = 2.0


def watch_answers(client: AIOKafkaClient, answers: Answers | None = None) -> Answers:
    """Record the refusals that the client gets from now on.

    aiokafka looks for a coordinator, joins a group and sends a batch again and again without telling why.
    """
    if answers is None:
        answers = Answers(client._request_timeout_ms)
    send, connect = client.send, client._get_conn

    async def watched_connect(node_id: Any, **options: Any) -> Any:
        connection = await connect(node_id, **options)
        if connection is not None:
            answers.succeeded("connect", node_id)
        elif (broker := client.cluster.broker_metadata(node_id)) is not None:
            address = f"{broker.host}:{broker.port}"
            answers.unreachable(node_id, address)
        return connection

    async def watched_send(node_id: Any, request: Any, *, group: Any = ConnectionGroup.DEFAULT) -> Any:
        kind = type(request).__name__.removesuffix("Request")
        try:
            response = await send(node_id, request, group=group)
        except NodeNotReadyError:
            raise
        except KafkaConnectionError as error:
            if isinstance(request, ProduceRequest):
                answers.closed(node_id, sum(len(data) for _, parts in request._topics for _, data in parts))
            else:
                answers.failed(kind, node_id, error)
            raise
        except KafkaError as error:
            answers.failed(kind, node_id, error)
            raise
        answers.answered(kind, node_id, response)
        return response

    client._get_conn, client.send = watched_connect, watched_send
    return answers


def client_of(owner: AIOKafkaAdminClient | AIOKafkaConsumer) -> AIOKafkaClient:
    """The connections of an admin client or a consumer."""
    return owner._client


def advertised_addresses(admin: AIOKafkaAdminClient) -> list[tuple[int, str, int]]:
    """Node, host and port of each broker, as the bootstrap server names them."""
    return sorted((one.nodeId, one.host, one.port) for one in admin._client.cluster.brokers())


def without_leader(consumer: AIOKafkaConsumer) -> list[int]:
    """The assigned partitions that have no leader, according to the metadata that the client has."""
    leader = consumer._client.cluster.leader_for_partition
    return sorted(where.partition for where in consumer.assignment() if leader(where) == -1)


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
    """Connect to the first of these servers and close the connection. Raises the client's error.

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

    Its `stop` would wait for them first. Its sender awaits its own tasks when it is cancelled: one that looks
    for a coordinator, or that commits behind those deliveries, has no end. So all of them are cancelled.
    """
    producer._closed = True
    try:
        while tasks := _tasks_of(producer._sender):
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=_CANCEL_SECONDS)
        # A `stop` that waits for the batches ends.
        producer._message_accumulator.fail_all(KafkaError("the producer was closed"))
        waiter = producer._txn_manager.wait_for_transaction_end()
        if waiter is not None and waiter.done() and not waiter.cancelled():
            # Otherwise asyncio logs an error that nobody has read, with a traceback.
            waiter.exception()
    finally:
        await producer.client.close()


def _tasks_of(sender: Sender) -> list[asyncio.Task[Any]]:
    frames = ((task, getattr(task.get_coro(), "cr_frame", None)) for task in asyncio.all_tasks())
    return [task for task, frame in frames if frame is not None and frame.f_locals.get("self") is sender]
