"""Reading from Kafka as a member of a group."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
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
from shardline_common.kafka.acls import Right
from shardline_common.kafka.client_errors import Request, translated
from shardline_common.kafka.client_internals import (
    check_group_errors,
    client_of,
    commit_only_while,
    generation,
    seek_to_beginning,
)
from shardline_common.kafka.consumers import ReadWatch, make_consumer, stop_consumer
from shardline_common.kafka.listed_records import ListingConsumer
from shardline_common.kafka.operations import Operations, OperationWait
from shardline_common.ports.broker import GroupListener, GroupReader, Record
from shardline_common.runtime.tasks import start_shielded

_log = logging.getLogger(__name__)
_COMMITTING = Request("offsets cannot be committed")
_STALE = (
    CommitFailedError,
    IllegalGenerationError,
    RebalanceInProgressError,
    UnknownMemberIdError,
    IllegalStateError,
)


class _RebalanceListener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is untyped
    """Calls a GroupListener. An error of a callback is kept for the next poll, because aiokafka swallows it.

    aiokafka fetches from the committed offsets while the `assigned` callback still runs. So only partitions
    in `sought` are read, from the positions that the callback gave them. `epoch` counts rebalances, `seeks`
    the seeks of each partition. `assigned_generation` is that of the current assignment, -1 without one.
    """

    def __init__(self, listener: GroupListener, joining: OperationWait) -> None:
        self._listener = listener
        self._joining = joining
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
        if joined:
            self._joining.succeed()
        else:
            self._joining.begin()
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
    operations: Operations, topic: str, group: str, listener: GroupListener
) -> AsyncIterator[GroupReader]:
    """A member of the group."""
    options = operations.options
    consumer = make_consumer(
        options,
        group_id=group,
        session_timeout_ms=options.session_timeout_ms,
        heartbeat_interval_ms=max(100, min(3000, options.session_timeout_ms // 4)),
        max_poll_interval_ms=options.max_poll_interval_ms,
    )
    answers = operations.watch(client_of(consumer))
    requests = _GroupRequests(
        joining=Request(
            f"{topic} cannot be read: the group {group} cannot be joined",
            Right("group", group, "Read"),
            answers,
        ),
        reading=Request(f"{topic} cannot be read", Right("topic", topic, "Read"), answers),
    )
    joining = operations.wait(requests.joining)
    watch = ReadWatch(operations, consumer, answers, requests.reading)
    rebalances = _RebalanceListener(listener, joining)
    try:
        joining.begin()
        with operations.translated(requests.joining):
            await start_shielded(consumer.start)
        reader = _KafkaGroupReader(consumer, topic, operations, requests, rebalances, watch)
        reader.guard_commits()
        reader.subscribe()
        yield reader
    finally:
        try:
            await stop_consumer(consumer)
        finally:
            # Last, because a rebalance during the stop would begin the wait again.
            joining.end()
            watch.end()


@dataclass(frozen=True, slots=True)
class _GroupRequests:
    joining: Request
    reading: Request


class _KafkaGroupReader:
    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        topic: str,
        operations: Operations,
        requests: _GroupRequests,
        listener: _RebalanceListener,
        watch: ReadWatch,
    ) -> None:
        self._consumer = consumer
        self._topic = topic
        self._operations = operations
        self._requests = requests
        self._listener = listener
        self._watch = watch
        self._lists = ListingConsumer(consumer)

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
            # Not counted as failing: work goes on without them.
            with translated(_COMMITTING, self._operations.options):
                try:
                    # The client looks for a coordinator without an end.
                    async with asyncio.timeout(self._operations.options.request_timeout_ms / 1000):
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
        with self._operations.translated(self._requests.reading):
            try:
                found = await self._fetch(readable, timeout, max_records)
            except OffsetOutOfRangeError as error:
                numbers = tuple(where.partition for where in error.args[0])
                raise OffsetOutOfRange(f"{self._topic}: no such offset", partitions=numbers) from None
        self._watch.check()
        return {where.partition: records for where, records in found.items() if records}

    async def _fetch(
        self,
        numbers: Sequence[int],
        timeout: float,
        max_records: int,
    ) -> Mapping[TopicPartition, Sequence[Record]]:
        epoch, seeks = self._listener.epoch, dict(self._listener.seeks)
        wanted = [TopicPartition(self._topic, number) for number in numbers]
        try:
            found = await self._lists.fetch(wanted, timeout, max_records)
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
        with self._operations.translated(self._requests.joining):
            if self._listener.joined:
                await self._consumer.getmany(TopicPartition(self._topic, 1 << 30), timeout_ms=0)
                self._watch.check()
            else:
                # The error of a member that has no right to join is raised only by this call.
                check_group_errors(self._consumer)
        self._listener.changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._listener.changed.wait()
        return {}
