"""The private parts of aiokafka that Shardline uses, each behind one function.

aiokafka 0.14 has no public way to do these things. pyproject.toml excludes later minor versions, and
tests/unit/test_aiokafka_internals.py fails where a version has moved one of them.
"""
# ruff: noqa: SLF001 - the purpose of this module

import asyncio
from collections.abc import Callable
from struct import Struct
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.consumer.fetcher import OffsetResetStrategy
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import IllegalGenerationError, KafkaError
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.types import String

_CANCEL_SECONDS = 2.0
_PRODUCE_HEAD, _BATCH_HEAD, _COUNT = Struct(">hii"), Struct(">ii"), Struct(">i")


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


async def connect_once(bootstrap_servers: str, **arguments: Any) -> None:
    """Connect to this server and close the connection. Raises the client's error."""
    host, port, _ = collect_hosts(bootstrap_servers)[0]
    connection = await create_conn(host, port, **arguments)
    await connection.close()


def brokers_of(consumer: AIOKafkaConsumer) -> set[int] | None:
    """The brokers that the consumer needs: leaders of its partitions, and its group's coordinator.

    None while the coordinator is looked for.
    """
    leader = consumer._client.cluster.leader_for_partition
    needed = {leader(where) for where in consumer.assignment()}
    if isinstance(consumer._coordinator, GroupCoordinator):
        if consumer._coordinator.coordinator_id is None:
            return None
        needed.add(consumer._coordinator.coordinator_id)
    return needed - {None, -1}


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
    """Close the connections of a consumer and end its tasks, even when its `stop` failed before it did so."""
    await consumer._client.close()
    tasks = _tasks_of(consumer._fetcher, consumer._coordinator)
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=_CANCEL_SECONDS)


class JoinedProduceRequest(ProduceRequest):  # type: ignore[misc]  # aiokafka is untyped
    """A request with record batches that is encoded by one copy.

    aiokafka joins the batches of a partition, of a topic, and of all topics, one after the other: six copies,
    which cost as much as to build the batches.
    """

    def __init__(self, request: ProduceRequest) -> None:
        super().__init__(request._transactional_id, request._required_acks, request._timeout, request._topics)

    def prepare(self, versions: Any) -> Any:
        """The request of the version that the broker knows."""
        found = super().prepare(versions)
        # The versions of this layout; aiokafka 0.14 sends version 7.
        if 3 <= found.API_VERSION <= 8:  # noqa: PLR2004 - the first and the last one
            found.encode = self._joined
        return found

    def _joined(self) -> bytes:
        parts: list[bytes] = [
            String("utf-8").encode(self._transactional_id),
            _PRODUCE_HEAD.pack(self._required_acks, self._timeout, len(self._topics)),
        ]
        for topic, batches in self._topics:
            parts += (String("utf-8").encode(topic), _COUNT.pack(len(batches)))
            for partition, data in batches:
                parts += (_BATCH_HEAD.pack(partition, len(data)), data)
        return b"".join(parts)


def retrieve_transaction_error(producer: AIOKafkaProducer) -> None:
    """Retrieve the error that the begun transaction may get. Call it after its begin.

    It is raised by other futures as well. asyncio logs an error that nobody has read, with a traceback.
    """
    waiter: asyncio.Future[None] = producer._txn_manager.wait_for_transaction_end()
    waiter.add_done_callback(lambda done: None if done.cancelled() else done.exception())


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
        # A fatal error after another one is that of a new future.
        if producer._txn_manager.wait_for_transaction_end() is not None:
            retrieve_transaction_error(producer)
    finally:
        await producer.client.close()


def _tasks_of(*owners: object) -> list[asyncio.Task[Any]]:
    """The tasks that run a method of one of these."""
    kept = {id(owner) for owner in owners if owner is not None}
    frames = ((task, getattr(task.get_coro(), "cr_frame", None)) for task in asyncio.all_tasks())
    return [task for task, frame in frames if frame is not None and id(frame.f_locals.get("self")) in kept]
