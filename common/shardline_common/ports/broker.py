"""The port of a broker. `shardline_common.kafka` and `shardline_common.memory` implement it.

The contract is documented only here; all implementations pass tests/contract/. A method raises only the
errors named in its docstring and `asyncio.CancelledError`, never an exception of a client library.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol


# Tuples, because there are millions of them: a frozen dataclass takes three times as long to make.
class Message(NamedTuple):
    """A record to write. `partition` None: the default partitioner of Kafka chooses it by the key."""

    key: bytes
    value: bytes | None
    partition: int | None = None
    headers: tuple[tuple[str, bytes], ...] = ()


class Record(NamedTuple):
    """A record that was read: one committed message at one offset."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic: its partitions, and in `config` the Kafka topic settings by name, with values as text."""

    name: str
    partitions: int
    config: Mapping[str, str] = field(default_factory=dict)


class Transaction(Protocol):
    """One open transaction of a TransactionalWriter."""

    async def send(self, topic: str, messages: Sequence[Message]) -> None:
        """Add messages, in order per partition. May return before they are delivered.

        The messages of one call that name a partition are packed into as few record batches as possible.
        """


class TransactionalWriter(Protocol):
    """A writer with a transactional id. Opening a second writer of the id fences the first."""

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Run the body in a transaction. Leaving the context awaits every delivery, then commits.

        When the body or a delivery fails, nothing becomes visible and the error is raised. The writer cannot
        be used again: close it, open a new one, and read the last committed state again.

        Raises:
            Fenced: a newer writer of the id exists.
            TopicMissing: a topic does not exist.
            BrokerUnavailable: anything else; the transaction may have been committed.
        """


class GroupReader(Protocol):
    """A member of a consumer group that reads committed records of one topic.

    A newly assigned partition has no position and is not read until `seek` is called for it: by the
    `assigned` callback, or by a task that it starts.
    """

    async def poll(
        self, partitions: Sequence[int] | None, *, timeout: float, max_records: int
    ) -> Mapping[int, Sequence[Record]]:
        """Read records of the named partitions (None: all assigned), in offset order.

        Returns {} when there was no record within `timeout` seconds.

        A member that does not poll is removed from the group. A poll of no partitions keeps the membership.

        Raises:
            OffsetOutOfRange: a position is not in the log; seek, and poll again.
            BrokerUnavailable: the records cannot be read now; poll again.
        """

    def seek(self, partition: int, offset: int) -> None:
        """Read `partition` from `offset` on; -1 is the start of the log.

        It takes effect at the next poll. A poll that is under way returns no record of the partition.
        """

    async def commit(self, offsets: Mapping[int, int]) -> bool:
        """Commit the group's next offsets, by partition. They are only hints. False after a rebalance."""


@dataclass(frozen=True, slots=True)
class GroupListener:
    """Callbacks of a GroupReader: they take partitions, are awaited in a rebalance, and must not raise."""

    assigned: Callable[[Sequence[int]], Awaitable[None]]
    revoked: Callable[[Sequence[int]], Awaitable[None]]


class TableReader(Protocol):
    """Reads partitions of a topic from their start, without a group: a compacted topic as a table."""

    async def poll(self, *, timeout: float) -> Sequence[Record]:
        """The next committed records; empty after `timeout` seconds."""

    async def catch_up(self, *, deadline: float) -> Sequence[Record]:
        """All committed records up to the current end of the log. Waits for open transactions to end.

        Raises:
            BrokerUnavailable: the end was not reached within `deadline` seconds.
        """


class Broker(Protocol):
    """Topics, transactions and groups. Topic names are given without prefix; the adapter adds it."""

    async def check(self) -> None:
        """Return if the broker answers. Raises BrokerUnavailable otherwise."""

    def failing(self, seconds: float) -> str | None:
        """A sentence about an operation that was refused, or not answered, for this long; else None.

        An operation counts from its first failure, or from its start, until it succeeds. It is forgotten
        when nobody repeats it.
        """

    async def create_topic(self, spec: TopicSpec) -> bool:
        """Create the topic; False when a topic of that name exists, which is left unchanged.

        Also False when it exists and this client has no right to create it.
        """

    async def topics(self) -> Sequence[str]:
        """The names of all topics (under the prefix), sorted."""

    async def partitions(self, name: str) -> int:
        """The number of partitions; 0 when the topic does not exist. Needs only the right to describe it."""

    async def describe_topic(self, name: str) -> TopicSpec | None:
        """The topic's partitions and full configuration, or None when it does not exist."""

    async def delete_topic(self, name: str) -> bool:
        """Delete the topic; False when it does not exist."""

    async def delete_records(self, name: str, before: Mapping[int, int]) -> None:
        """Delete the records below the given offsets, by partition. May be repeated."""

    def transactional(self, transactional_id: str) -> AbstractAsyncContextManager[TransactionalWriter]:
        """Open a writer. It fences all earlier writers of the id and aborts their open transactions."""

    async def publish(self, topic: str, messages: Sequence[Message]) -> None:
        """Write without a transaction; returns when all messages are delivered (acks=all, idempotent)."""

    def group_reader(
        self, topic: str, group: str, listener: GroupListener
    ) -> AbstractAsyncContextManager[GroupReader]:
        """Join `group` for one topic. Leaving the context leaves the group and commits nothing."""

    def table_reader(
        self, topic: str, partitions: Sequence[int] | None = None
    ) -> AbstractAsyncContextManager[TableReader]:
        """Read the named partitions (None: all) from their start."""
