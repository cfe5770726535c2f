"""A broker in memory, for one process. `shardline run` uses it."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager

from shardline_common.errors import BrokerUnavailable, Fenced, OffsetOutOfRange, TopicMissing
from shardline_common.memory.log import MemoryTopic, PartitionLog
from shardline_common.ports.broker import (
    GroupListener,
    GroupReader,
    Message,
    Record,
    TableReader,
    TopicSpec,
    Transaction,
    TransactionalWriter,
)


class MemoryBroker:
    """Implements `ports.broker.Broker`. Records stay until they are trimmed or their topic is deleted.

    `fewest`: a poll of a group returns a partition when it has so many records, as `fetch.min.bytes` of Kafka
    does; all partitions when nothing was written for `quiet` seconds. So a reader of many partitions, of
    which each gets few records at once, is called for many of them.
    """

    def __init__(self, fewest: int = 1, quiet: float = 0.05) -> None:
        self.fewest = fewest
        self.quiet = quiet
        self._topics: dict[str, MemoryTopic] = {}
        self._epochs: dict[str, int] = {}
        self._groups: dict[tuple[str, str], _Group] = {}
        self._changed = asyncio.Event()

    async def check(self) -> None:
        """Succeeds always."""

    def failing(self, seconds: float) -> str | None:  # noqa: ARG002 - nothing fails here
        """None: no operation fails."""
        return None

    async def create_topic(self, spec: TopicSpec) -> bool:
        """Create the topic; False when it exists."""
        if spec.name in self._topics:
            return False
        self._topics[spec.name] = MemoryTopic(spec)
        return True

    async def topics(self) -> list[str]:
        """The names of all topics."""
        return sorted(self._topics)

    async def partitions(self, name: str) -> int:
        """The topic's partitions, or 0."""
        topic = self._topics.get(name)
        return topic.spec.partitions if topic else 0

    async def describe_topic(self, name: str) -> TopicSpec | None:
        """The topic's spec, or None."""
        topic = self._topics.get(name)
        return topic.spec if topic else None

    async def delete_topic(self, name: str) -> bool:
        """Delete the topic and its records."""
        return self._topics.pop(name, None) is not None

    async def delete_records(self, name: str, before: Mapping[int, int]) -> None:
        """Delete the records below the given offsets."""
        topic = self.topic(name)
        for number, offset in before.items():
            topic.logs[number].trim(offset)

    def topic(self, name: str) -> MemoryTopic:
        """A topic. Raises TopicMissing."""
        try:
            return self._topics[name]
        except KeyError:
            raise TopicMissing(f"the topic {name} does not exist") from None

    async def publish(self, topic: str, messages: Sequence[Message]) -> None:
        """Write at once."""
        self.commit([(topic, messages)])

    def commit(self, writes: Iterable[tuple[str, Sequence[Message]]]) -> None:
        """Make messages visible, all of them or none."""
        topics = [(self.topic(name), messages) for name, messages in writes]
        checked = [(topic, topic.by_partition(messages)) for topic, messages in topics]
        for topic, messages in checked:
            topic.append(messages)
        self.wake()

    def wake(self) -> None:
        """Wake all tasks that wait for a change."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_for_change(self, timeout: float) -> None:
        """Return at the next change, or after `timeout` seconds."""
        event = self._changed
        try:
            async with asyncio.timeout(timeout):
                await event.wait()
        except TimeoutError:
            return

    @asynccontextmanager
    async def transactional(self, transactional_id: str) -> AsyncIterator[TransactionalWriter]:
        """Open a writer that fences the earlier ones of its id."""
        epoch = self._epochs[transactional_id] = self._epochs.get(transactional_id, 0) + 1
        await asyncio.sleep(0)
        yield _MemoryWriter(self, transactional_id, epoch)

    def check_epoch(self, transactional_id: str, epoch: int) -> None:
        """Raise Fenced when a newer writer of the id was opened."""
        if self._epochs[transactional_id] != epoch:
            raise Fenced(f"a newer producer took over {transactional_id}")

    @asynccontextmanager
    async def group_reader(
        self, topic: str, group: str, listener: GroupListener
    ) -> AsyncIterator[GroupReader]:
        """Open a reader. It joins the group at its first poll, because the listener's callbacks need it."""
        self.topic(topic)
        members = self._groups.setdefault((topic, group), _Group(self, topic))
        reader = _MemoryGroupReader(self, members, topic, listener)
        try:
            yield reader
        finally:
            await members.leave(reader)
            if not members.members and topic not in self._topics:
                self._groups.pop((topic, group), None)

    @asynccontextmanager
    async def table_reader(
        self, topic: str, partitions: Sequence[int] | None = None
    ) -> AsyncIterator[TableReader]:
        """Read partitions from their beginning."""
        wanted = range(self.topic(topic).spec.partitions) if partitions is None else partitions
        yield _MemoryTableReader(self, topic, wanted)


class _MemoryWriter:
    def __init__(self, broker: MemoryBroker, transactional_id: str, epoch: int) -> None:
        self._broker = broker
        self._id = transactional_id
        self._epoch = epoch
        self._unusable = False

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        if self._unusable:
            raise BrokerUnavailable("this writer failed before; open a new one")
        self._unusable = True
        self._broker.check_epoch(self._id, self._epoch)
        transaction = _MemoryTransaction(self._broker)
        yield transaction
        # As on Kafka, other tasks run between the last send and the commit.
        await asyncio.sleep(0)
        self._broker.check_epoch(self._id, self._epoch)
        self._broker.commit(transaction.writes)
        self._unusable = False


class _MemoryTransaction:
    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self.writes: list[tuple[str, Sequence[Message]]] = []

    async def send(self, topic: str, messages: Sequence[Message]) -> None:
        self._broker.topic(topic)
        self.writes.append((topic, messages))


class _MemoryTableReader:
    def __init__(self, broker: MemoryBroker, topic: str, partitions: Iterable[int]) -> None:
        self._broker = broker
        self._topic = topic
        self._positions = dict.fromkeys(partitions, 0)

    async def poll(self, *, timeout: float) -> Sequence[Record]:
        found = self._read()
        if not found and timeout > 0:
            await self._broker.wait_for_change(timeout)
            found = self._read()
        return found

    async def catch_up(self, *, deadline: float) -> Sequence[Record]:  # noqa: ARG002 - never has to wait
        await asyncio.sleep(0)
        return self._read()

    def _read(self) -> list[Record]:
        logs = self._broker.topic(self._topic).logs
        found: list[Record] = []
        for number, position in self._positions.items():
            log = logs[number]
            found += log.read(max(position, log.start), 1 << 30)
            self._positions[number] = log.end
        return found


class _Group:
    """A consumer group. Partitions are assigned again, round robin, whenever a member joins or leaves."""

    def __init__(self, broker: MemoryBroker, topic: str) -> None:
        self._broker = broker
        self._topic = topic
        self.members: list[_MemoryGroupReader] = []
        self.committed: dict[int, int] = {}
        self._lock = asyncio.Lock()

    async def join(self, reader: "_MemoryGroupReader") -> None:
        async with self._lock:
            if reader not in self.members:
                self.members.append(reader)
                await self._assign()

    async def leave(self, reader: "_MemoryGroupReader") -> None:
        async with self._lock:
            if reader in self.members:
                self.members.remove(reader)
                reader.positions.clear()
                await self._assign()

    async def _assign(self) -> None:
        for member in self.members:
            await member.revoke()
        partitions = self._broker.topic(self._topic).spec.partitions if self.members else 0
        for index, member in enumerate(self.members):
            await member.assign(range(index, partitions, len(self.members)))
        self._broker.wake()


class _MemoryGroupReader:
    def __init__(self, broker: MemoryBroker, group: _Group, topic: str, listener: GroupListener) -> None:
        self._broker = broker
        self._group = group
        self._topic = topic
        self._listener = listener
        self.positions: dict[int, int] = {}
        self._sought: set[int] = set()

    async def revoke(self) -> None:
        if self.positions:
            await self._listener.revoked(tuple(self.positions))
        self.positions.clear()

    async def assign(self, partitions: Iterable[int]) -> None:
        self.positions = dict.fromkeys(partitions, -1)
        await self._listener.assigned(tuple(self.positions))

    def seek(self, partition: int, offset: int) -> None:
        self.positions[partition] = offset
        self._sought.add(partition)

    async def commit(self, offsets: Mapping[int, int]) -> bool:
        if not offsets.keys() <= self.positions.keys():
            return False
        self._group.committed |= offsets
        return True

    async def poll(
        self,
        partitions: Sequence[int] | None,
        *,
        timeout: float,
        max_records: int,
    ) -> Mapping[int, Sequence[Record]]:
        if self not in self._group.members:
            await self._group.join(self)
        self._sought.clear()
        if not self._readable(partitions):
            # Other tasks must run even when the time-out is 0.
            await (self._broker.wait_for_change(timeout) if timeout > 0 else asyncio.sleep(0))
        else:
            await asyncio.sleep(0)
        # The next poll reads a partition that was sought during this one.
        wanted = self.positions if partitions is None else partitions
        numbers = [number for number in wanted if number not in self._sought]
        if self._broker.fewest > 1 and timeout > 0:
            numbers = await self._filled(numbers, min(timeout, self._broker.quiet))
        return self._read(numbers, max_records)

    async def _filled(self, numbers: list[int], quiet: float) -> list[int]:
        """Those of the partitions that have enough records; all when nothing was written for a while."""
        topic, fewest, loop = self._broker.topic(self._topic), self._broker.fewest, asyncio.get_running_loop()
        end, until = -1, 0.0
        while True:
            numbers = [one for one in numbers if one in self.positions and one not in self._sought]
            filled = [one for one in numbers if topic.logs[one].count_from(self.positions[one]) >= fewest]
            written = sum(log.end for log in topic.logs)
            if written != end:
                end, until = written, loop.time() + quiet
            if filled or (left := until - loop.time()) <= 0:
                return filled or numbers
            await self._broker.wait_for_change(left)

    def _readable(self, partitions: Sequence[int] | None) -> bool:
        logs = self._broker.topic(self._topic).logs
        wanted = self.positions if partitions is None else partitions
        return any(
            logs[number].has_records(self.positions[number]) for number in wanted if number in self.positions
        )

    def _read(self, partitions: Sequence[int], max_records: int) -> dict[int, list[Record]]:
        logs = self._broker.topic(self._topic).logs
        found: dict[int, list[Record]] = {}
        for number in partitions:
            if max_records <= 0 or number not in self.positions:
                continue
            try:
                records = self._next(logs[number], number, max_records)
            except OffsetOutOfRange:
                # The records of other partitions must reach the caller first; the next poll raises.
                if found:
                    return found
                raise
            if records:
                found[number] = records
                max_records -= len(records)
                self.positions[number] = records[-1].offset + 1
        return found

    def _next(self, log: PartitionLog, number: int, max_records: int) -> list[Record]:
        position = self.positions[number]
        try:
            return log.read(log.start if position < 0 else position, max_records)
        except OffsetOutOfRange as error:
            raise OffsetOutOfRange(str(error), partitions=(number,)) from None
