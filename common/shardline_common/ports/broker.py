"""The port of a broker. `shardline_common.kafka` and `shardline_common.memory` implement it.

The contract stands here, once; all implementations pass tests/contract/. Every method may raise the
errors named in its docstring and `asyncio.CancelledError`; foreign exceptions never cross a port.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Message:
    """A record to be written. `partition` None: chosen from the key by the broker's default partitioner."""

    key: bytes
    value: bytes | None
    partition: int | None = None
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Record:
    """A record as read: one committed message at one offset."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic as it must be. `config` holds Kafka topic settings by their names, values as text."""

    name: str
    partitions: int
    config: Mapping[str, str] = field(default_factory=dict)


class Transaction(Protocol):
    """One open transaction of a TransactionalWriter."""

    async def send(self, topic: str, messages: Sequence[Message]) -> None:
        """Add messages, in order per partition. May return before they are delivered.

        Messages of one call that carry a partition are packed into as few record batches as fit.
        """


class TransactionalWriter(Protocol):
    """A writer fenced by its transactional id: opening a second one of the id shuts out the first."""

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Run the body in a transaction: on leaving, every delivery is awaited, then it commits.

        When the body or a delivery fails, nothing becomes visible, the error is raised and the
        writer is unusable: close it, open a new one, read the last committed state again.

        Raises:
            Fenced: a newer writer of the same id exists.
            TopicMissing: a topic is not there.
            BrokerUnavailable: anything else; the fate of the transaction may be unknown.
        """


class GroupReader(Protocol):
    """A consumer-group member that reads committed records of one topic.

    The position of a newly assigned partition is undefined until the listener seeks: the
    `assigned` callback must seek every partition it is given.
    """

    async def poll(
        self, partitions: Sequence[int] | None, *, timeout: float, max_records: int
    ) -> Mapping[int, Sequence[Record]]:
        """Records of the named (None: all assigned) partitions, in offset order; {} after `timeout` seconds.

        Callers poll on, with an empty sequence if need be, to stay members of the group.

        Raises:
            OffsetOutOfRange: a position is not in the log; seek and poll on.
            BrokerUnavailable: not readable now; may be tried again.
        """

    def seek(self, partition: int, offset: int) -> None:
        """Read `partition` from `offset` on; -1 is the beginning of the log.

        Takes effect at the next poll: one that is under way returns no records of the partition.
        """

    async def commit(self, offsets: Mapping[int, int]) -> bool:
        """Commit next offsets for the group; a hint only. False when the group has moved on."""


@dataclass(frozen=True, slots=True)
class GroupListener:
    """Callbacks of a GroupReader, awaited in the middle of a rebalance. They must not raise."""

    assigned: Callable[[Sequence[int]], Awaitable[None]]
    revoked: Callable[[Sequence[int]], Awaitable[None]]


class TableReader(Protocol):
    """Reads partitions of a topic from their beginning, without a group: for compacted tables."""

    async def poll(self, *, timeout: float) -> Sequence[Record]:
        """The next committed records; empty after `timeout` seconds."""

    async def catch_up(self, *, deadline: float) -> Sequence[Record]:
        """All committed records up to what the log holds now, waiting out open transactions.

        Raises:
            BrokerUnavailable: not reached within `deadline` seconds.
        """


class Broker(Protocol):
    """Topics, transactions and groups. Topic names are given without prefix; the adapter adds it."""

    async def check(self) -> None:
        """Return when the broker answers; raise BrokerUnavailable else."""

    async def create_topic(self, spec: TopicSpec) -> bool:
        """Create the topic; False when one of that name exists already (it is left as it is).

        Who may not create topics may still use one that is there: False, too.
        """

    async def topics(self) -> Sequence[str]:
        """The names of all topics (under the prefix), sorted."""

    async def partitions(self, name: str) -> int:
        """How many partitions the topic has; 0 when it does not exist. Asks for no more than that."""

    async def describe_topic(self, name: str) -> TopicSpec | None:
        """The topic's partitions and full configuration, or None when it does not exist."""

    async def delete_topic(self, name: str) -> bool:
        """Delete it; False when there was none."""

    async def delete_records(self, name: str, before: Mapping[int, int]) -> None:
        """Let go of the records below the given offsets, by partition. Idempotent."""

    def transactional(self, transactional_id: str) -> AbstractAsyncContextManager[TransactionalWriter]:
        """Open a writer that fences all earlier ones of the id and aborts what they left open."""

    async def publish(self, topic: str, messages: Sequence[Message]) -> None:
        """Write outside transactions; returns when all are delivered (acks=all, idempotent)."""

    def group_reader(
        self, topic: str, group: str, listener: GroupListener
    ) -> AbstractAsyncContextManager[GroupReader]:
        """Join `group` for that one topic. Leaving the context leaves the group; nothing is committed."""

    def table_reader(
        self, topic: str, partitions: Sequence[int] | None = None
    ) -> AbstractAsyncContextManager[TableReader]:
        """Read the named (None: all) partitions from their beginning."""
