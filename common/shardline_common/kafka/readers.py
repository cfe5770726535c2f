"""Reading from Kafka: group members and tables."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    IllegalGenerationError,
    IllegalStateError,
    KafkaError,
    OffsetOutOfRangeError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)

from shardline_common.errors import BrokerUnavailable, OffsetOutOfRange
from shardline_common.kafka.client_errors import translated
from shardline_common.kafka.client_internals import (
    check_group_errors,
    close_connections,
    commit_only_while,
    generation,
    seek_to_beginning,
)
from shardline_common.kafka.options import KafkaOptions
from shardline_common.ports.broker import GroupListener, GroupReader, Record, TableReader
from shardline_common.runtime.tasks import close_shielded, start_shielded

_log = logging.getLogger(__name__)
_STALE = (
    CommitFailedError,
    IllegalGenerationError,
    RebalanceInProgressError,
    UnknownMemberIdError,
    IllegalStateError,
)
_BATCH_RECORDS = 5_000


def _consumer(options: KafkaOptions, *topics: str, **more: Any) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        *topics,
        **options.client(),
        enable_auto_commit=False,
        max_partition_fetch_bytes=options.fetch_bytes,
        **{"isolation_level": "read_committed", "auto_offset_reset": "none"} | more,
    )


async def _stop(consumer: AIOKafkaConsumer) -> None:
    async def stop() -> None:
        # The helper task of the consumer must have run once: cancelled before, it cancels this task.
        await asyncio.sleep(0)
        try:
            await consumer.stop()
        finally:
            # `stop` fails early when the consumer waits to fetch again from a broker that is down.
            await close_connections(consumer)

    await close_shielded(stop)


def _record(found: Any) -> Record:
    return Record(found.partition, found.offset, found.key, found.value, found.headers)


class _RebalanceListener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is untyped
    """Calls a GroupListener. An error of a callback is kept for the next poll, because aiokafka swallows it.

    aiokafka fetches from the committed offsets while the `assigned` callback still runs. So only partitions
    in `sought` are read, from the positions that the callback gave them. `epoch` counts rebalances, `seeks`
    the seeks of each partition. `assigned_generation` is that of the current assignment, -1 without one.
    """

    def __init__(self, listener: GroupListener) -> None:
        self._listener = listener
        self.error: BaseException | None = None
        self.generation: Callable[[], int] = lambda: -1
        self.assigned_generation = -1
        self.epoch = 0
        self.joined = False
        self.sought: dict[int, int] = {}
        self.seeks: dict[int, int] = {}
        self.changed = asyncio.Event()

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        self._start_epoch(joined=False)
        await self._call(self._listener.revoked, revoked)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self._start_epoch(joined=True)
        await self._call(self._listener.assigned, assigned)

    def _start_epoch(self, *, joined: bool) -> None:
        self.epoch += 1
        self.joined = joined
        self.assigned_generation = self.generation() if joined else -1
        self.sought.clear()

    def check(self) -> None:
        """Raise the error that a callback raised since the last check."""
        if self.error is not None:
            error, self.error = self.error, None
            raise error

    async def _call(self, callback: Any, partitions: Iterable[TopicPartition]) -> None:
        try:
            await callback(tuple(sorted(item.partition for item in partitions)))
        except Exception as error:  # noqa: BLE001 - raised at the next poll
            self.error = error
            self.changed.set()


@asynccontextmanager
async def open_group_reader(
    options: KafkaOptions, topic: str, group: str, listener: GroupListener
) -> AsyncIterator[GroupReader]:
    """A member of the group."""
    consumer = _consumer(
        options,
        group_id=group,
        session_timeout_ms=options.session_timeout_ms,
        heartbeat_interval_ms=max(100, min(3000, options.session_timeout_ms // 4)),
        max_poll_interval_ms=options.max_poll_interval_ms,
    )
    reader = _KafkaGroupReader(consumer, topic, options, _RebalanceListener(listener))
    try:
        with translated(f"the group {group} cannot be joined", options.bootstrap_servers):
            await start_shielded(consumer.start)
        reader.guard_commits()
        reader.subscribe()
        yield reader
    finally:
        await _stop(consumer)


class _KafkaGroupReader:
    def __init__(
        self, consumer: AIOKafkaConsumer, topic: str, options: KafkaOptions, listener: _RebalanceListener
    ) -> None:
        self._consumer = consumer
        self._topic = topic
        self._options = options
        self._listener = listener

    def guard_commits(self) -> None:
        """Refuse commits of another generation than that of the assignment."""
        commit_only_while(
            self._consumer, lambda: generation(self._consumer) == self._listener.assigned_generation
        )
        self._listener.generation = lambda: generation(self._consumer)

    def subscribe(self) -> None:
        self._consumer.subscribe([self._topic], listener=self._listener)

    def seek(self, partition: int, offset: int) -> None:
        where = TopicPartition(self._topic, partition)
        with suppress(IllegalStateError):
            # The partition is not assigned any more; its new owner seeks.
            if offset >= 0:
                self._consumer.seek(where, offset)
            else:
                seek_to_beginning(self._consumer, where)
            self._listener.sought[partition] = offset
            self._listener.seeks[partition] = self._listener.seeks.get(partition, 0) + 1
            self._listener.changed.set()

    async def commit(self, offsets: Mapping[int, int]) -> bool:
        wanted = {TopicPartition(self._topic, number): offset for number, offset in offsets.items()}
        try:
            with translated("offsets cannot be committed", self._options.bootstrap_servers):
                try:
                    await self._consumer.commit(wanted)
                except _STALE:
                    return False
        except BrokerUnavailable as error:
            _log.info("offsets were not committed (they are only hints): %s", error)
            return False
        return True

    async def poll(
        self,
        partitions: Sequence[int] | None,
        *,
        timeout: float,
        max_records: int,
    ) -> Mapping[int, Sequence[Record]]:
        self._listener.check()
        sought = self._listener.sought
        readable = [number for number in (sought if partitions is None else partitions) if number in sought]
        if not readable:
            return await self._wait(timeout)
        with translated(f"{self._topic} cannot be read", self._options.bootstrap_servers):
            try:
                found = await self._fetch(readable, timeout, max_records)
            except OffsetOutOfRangeError as error:
                numbers = tuple(where.partition for where in error.args[0])
                raise OffsetOutOfRange(f"{self._topic}: no such offset", partitions=numbers) from None
        return {where.partition: [_record(item) for item in items] for where, items in found.items() if items}

    async def _fetch(
        self,
        numbers: Sequence[int],
        timeout: float,
        max_records: int,
    ) -> Mapping[TopicPartition, Sequence[Any]]:
        epoch, seeks = self._listener.epoch, dict(self._listener.seeks)
        wanted = [TopicPartition(self._topic, number) for number in numbers]
        try:
            found: Mapping[TopicPartition, Sequence[Any]] = await self._consumer.getmany(
                *wanted, timeout_ms=int(timeout * 1000), max_records=max_records
            )
        except KafkaError:
            if self._listener.epoch == epoch:
                raise
            found = dict.fromkeys(wanted, ())
        # A getmany that is under way continues through a rebalance, from the committed offsets, and through
        # a seek. Its records are dropped then, and the partition is read again from the position sought.
        moved = [
            number
            for number in numbers
            if self._listener.epoch != epoch or self._listener.seeks.get(number) != seeks.get(number)
        ]
        for number in moved:
            if number in self._listener.sought:
                self.seek(number, self._listener.sought[number])
        return {where: items for where, items in found.items() if where.partition not in moved}

    async def _wait(self, timeout: float) -> Mapping[int, Sequence[Record]]:
        """Wait without reading. The coordinator must see a poll, so poll a partition that does not exist."""
        with translated(f"{self._topic} cannot be read", self._options.bootstrap_servers):
            if self._listener.joined:
                await self._consumer.getmany(TopicPartition(self._topic, 1 << 30), timeout_ms=0)
            else:
                # The error of a member that has no right to join is raised only by this call.
                check_group_errors(self._consumer)
        self._listener.changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._listener.changed.wait()
        return {}


@asynccontextmanager
async def open_table_reader(
    options: KafkaOptions, topic: str, partitions: Sequence[int]
) -> AsyncIterator[TableReader]:
    """A reader of partitions from their beginning."""
    # Retention may move the log's start during the read: the rest of the log is the table.
    consumer = _consumer(options, auto_offset_reset="earliest")
    try:
        with translated(f"the topic {topic} cannot be read", options.bootstrap_servers):
            await start_shielded(consumer.start)
            partitions = [TopicPartition(topic, number) for number in partitions]
            consumer.assign(partitions)
            if partitions:
                await consumer.seek_to_beginning(*partitions)
        yield _KafkaTableReader(consumer, partitions, options)
    finally:
        await _stop(consumer)


class _KafkaTableReader:
    def __init__(
        self, consumer: AIOKafkaConsumer, partitions: list[TopicPartition], options: KafkaOptions
    ) -> None:
        self._consumer = consumer
        self._partitions = partitions
        self._options = options

    async def poll(self, *, timeout: float) -> Sequence[Record]:
        if not self._partitions:
            await asyncio.sleep(timeout)
            return ()
        with translated("a table cannot be read", self._options.bootstrap_servers):
            found = await self._consumer.getmany(timeout_ms=int(timeout * 1000), max_records=_BATCH_RECORDS)
        return [_record(item) for items in found.values() for item in items]

    async def catch_up(self, *, deadline: float) -> Sequence[Record]:
        records: list[Record] = []
        try:
            async with asyncio.timeout(deadline):
                ends = await self._ends()
                while not await self._reached(ends):
                    records += await self.poll(timeout=0.1)
        except TimeoutError:
            raise BrokerUnavailable(
                f"the table {self._partitions[0].topic} was not readable to its end within {deadline:.0f} s",
                hint="another producer's transaction may be open; it ends by its time-out",
            ) from None
        return records

    async def _ends(self) -> Mapping[TopicPartition, int]:
        # The log's end, open transactions included, instead of the last stable offset: a message that was
        # committed behind an open transaction must be read as well.
        end_reader = _consumer(self._options, isolation_level="read_uncommitted")
        with translated("a table cannot be read", self._options.bootstrap_servers):
            try:
                await start_shielded(end_reader.start)
                ends: Mapping[TopicPartition, int] = await end_reader.end_offsets(self._partitions)
            finally:
                await _stop(end_reader)
        return ends

    async def _reached(self, ends: Mapping[TopicPartition, int]) -> bool:
        with translated("a table cannot be read", self._options.bootstrap_servers):
            for where, end in ends.items():
                if end > 0 and await self._consumer.position(where) < end:
                    return False
        return True
