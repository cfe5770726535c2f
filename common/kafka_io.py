"""Reading from and writing to Kafka: transactions that cannot tear, group members, tables."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.consumer.fetcher import OffsetResetStrategy
from aiokafka.errors import (
    CommitFailedError,
    IllegalGenerationError,
    IllegalStateError,
    KafkaError,
    OffsetOutOfRangeError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)

from common.errors import BrokerUnavailable, OffsetOutOfRange
from common.kafka_errors import translated
from common.kafka_options import KafkaOptions
from common.ports import (
    GroupListener,
    GroupReader,
    Message,
    Record,
    TableReader,
    Transaction,
    TransactionalWriter,
)

_log = logging.getLogger(__name__)
_STALE = (
    CommitFailedError,
    IllegalGenerationError,
    RebalanceInProgressError,
    UnknownMemberIdError,
    IllegalStateError,
)
_BATCH_RECORDS = 5_000


@asynccontextmanager
async def open_writer(options: KafkaOptions, transactional_id: str) -> AsyncIterator[TransactionalWriter]:
    """A transactional writer; starting it fences the earlier ones of its id."""
    producer = options.producer(
        transactional_id=transactional_id, transaction_timeout_ms=options.transaction_timeout_ms
    )
    writer = _Writer(producer, options, transactional_id)
    try:
        with translated(f"{transactional_id} cannot be opened", options.bootstrap_servers):
            await producer.start()
        yield writer
    finally:
        await writer.close()


class _Writer:
    def __init__(self, producer: AIOKafkaProducer, options: KafkaOptions, transactional_id: str) -> None:
        self._producer = producer
        self._options = options
        self._id = transactional_id
        self._broken = False

    async def close(self) -> None:
        if not self._broken:
            await self._producer.stop()
            return
        # stop() would first wait for the delivery of what can no longer be delivered.
        self._producer._closed = True  # noqa: SLF001 - there is no public way to let go without a flush
        if self._producer._sender.sender_task is not None:  # noqa: SLF001
            await self._producer._sender.close()  # noqa: SLF001
        await self._producer.client.close()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        # aiokafka would commit a transaction of which a batch was refused: every delivery is awaited
        # here, under one deadline, before the commit is asked for.
        if self._broken:
            raise BrokerUnavailable("this writer failed before; open a new one")
        self._broken = True
        transaction = _Transaction(self._producer, self._options, f"the transaction of {self._id} failed")
        try:
            with transaction.translated():
                async with asyncio.timeout(self._options.request_timeout_ms / 1000):
                    await self._producer.begin_transaction()
            # The body is not Kafka's: an OSError of the source must not look like the broker's.
            yield transaction
            with transaction.translated():
                async with asyncio.timeout(2 * self._options.request_timeout_ms / 1000):
                    await transaction.delivered()
                    await self._producer.commit_transaction()
        except BaseException:
            transaction.forget()
            await self._abort()
            raise
        self._broken = False

    async def _abort(self) -> None:
        # Only to let readers go on sooner: the next writer of the id aborts it in any case.
        with suppress(KafkaError, TimeoutError, AssertionError):
            async with asyncio.timeout(2.0):
                await self._producer.abort_transaction()


class _Transaction:
    def __init__(self, producer: AIOKafkaProducer, options: KafkaOptions, failure: str) -> None:
        self._producer = producer
        self._options = options
        self._failure = failure
        self._whole = True
        self._deliveries: list[asyncio.Future[Any]] = []

    def translated(self) -> AbstractContextManager[None]:
        return translated(self._failure, self._options.bootstrap_servers)

    async def send(self, topic: str, messages: Sequence[Message]) -> None:
        whole, self._whole = self._whole, False
        with self.translated():
            await self._send(self._options.prefix + topic, messages)
        self._whole = whole

    async def _send(self, name: str, messages: Sequence[Message]) -> None:
        placed: dict[int, list[Message]] = {}
        for message in messages:
            if message.partition is None:
                sent = await self._producer.send(
                    name, message.value, message.key, headers=list(message.headers)
                )
                self._deliveries.append(sent)
            else:
                placed.setdefault(message.partition, []).append(message)
        for number, items in placed.items():
            await self._send_batches(name, number, items)

    async def _send_batches(self, topic: str, partition: int, messages: Iterable[Message]) -> None:
        batch = self._producer.create_batch()
        for message in messages:
            if not _append(batch, message):
                await self._send_batch(batch, topic, partition)
                batch = self._producer.create_batch()
                _append(batch, message)
        await self._send_batch(batch, topic, partition)

    async def _send_batch(self, batch: Any, topic: str, partition: int) -> None:
        batch.close()
        self._deliveries.append(await self._producer.send_batch(batch, topic, partition=partition))

    async def delivered(self) -> None:
        if not self._whole:
            raise BrokerUnavailable(f"{self._failure}: a send did not end")
        await asyncio.gather(*self._deliveries)

    def forget(self) -> None:
        for delivery in self._deliveries:
            delivery.cancel()
            if delivery.done() and not delivery.cancelled():
                delivery.exception()


def _append(batch: Any, message: Message) -> bool:
    return (
        batch.append(key=message.key, value=message.value, timestamp=None, headers=list(message.headers))
        is not None
    )


def _consumer(options: KafkaOptions, *topics: str, **more: Any) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        *topics,
        **options.client(),
        enable_auto_commit=False,
        auto_offset_reset="none",
        max_partition_fetch_bytes=options.fetch_bytes,
        **{"isolation_level": "read_committed"} | more,
    )


async def _stop(consumer: AIOKafkaConsumer) -> None:
    # Its helper task must have had a first turn: cancelled before, it would cancel us who wait for it.
    await asyncio.sleep(0)
    await consumer.stop()


def _record(found: Any) -> Record:
    return Record(found.partition, found.offset, found.key, found.value, found.headers)


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is untyped
    """Hands rebalances on, and keeps what a callback raises for the next poll: aiokafka would swallow it.

    aiokafka fetches from the committed offsets while the `assigned` callback still runs: `sought` holds
    the partitions, with their positions, that the callback has placed, and only those are read.
    """

    def __init__(self, listener: GroupListener) -> None:
        self._listener = listener
        self.error: BaseException | None = None
        self.epoch = 0
        self.joined = False
        self.sought: dict[int, int] = {}
        self.news = asyncio.Event()

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        self._turn(joined=False)
        await self._call(self._listener.revoked, revoked)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self._turn(joined=True)
        await self._call(self._listener.assigned, assigned)

    def _turn(self, *, joined: bool) -> None:
        self.epoch += 1
        self.joined = joined
        self.sought.clear()

    def check(self) -> None:
        """Raise what a callback raised."""
        if self.error is not None:
            error, self.error = self.error, None
            raise error

    async def _call(self, callback: Any, partitions: Iterable[TopicPartition]) -> None:
        try:
            await callback(tuple(sorted(item.partition for item in partitions)))
        except Exception as error:  # noqa: BLE001 - raised at the next poll
            self.error = error
            self.news.set()


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
    reader = _GroupReader(consumer, topic, options, _Listener(listener))
    try:
        with translated(f"the group {group} cannot be joined", options.bootstrap_servers):
            await consumer.start()
        reader.subscribe()
        yield reader
    finally:
        await _stop(consumer)


class _GroupReader:
    def __init__(
        self, consumer: AIOKafkaConsumer, topic: str, options: KafkaOptions, listener: _Listener
    ) -> None:
        self._consumer = consumer
        self._topic = topic
        self._options = options
        self._listener = listener

    def subscribe(self) -> None:
        self._consumer.subscribe([self._topic], listener=self._listener)

    def seek(self, partition: int, offset: int) -> None:
        where = TopicPartition(self._topic, partition)
        with suppress(IllegalStateError):
            # Not assigned any more: whoever has it seeks for himself.
            if offset >= 0:
                self._consumer.seek(where, offset)
            else:
                self._to_beginning(where)
            self._listener.sought[partition] = offset
            self._listener.news.set()

    def _to_beginning(self, where: TopicPartition) -> None:
        # The call of that name waits for the broker, which a rebalance listener must not.
        self._consumer._fetcher._records.pop(where, None)  # noqa: SLF001 - as its own seek does
        self._consumer._subscription.subscription.assignment.state_value(where).await_reset(  # noqa: SLF001
            OffsetResetStrategy.EARLIEST
        )

    async def commit(self, offsets: Mapping[int, int]) -> bool:
        wanted = {TopicPartition(self._topic, number): offset for number, offset in offsets.items()}
        try:
            with translated("offsets cannot be committed", self._options.bootstrap_servers):
                try:
                    await self._consumer.commit(wanted)
                except _STALE:
                    return False
        except BrokerUnavailable as error:
            _log.info("a commit failed, which is only a hint: %s", error)
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
            return await self._stay(timeout)
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
        epoch = self._listener.epoch
        wanted = [TopicPartition(self._topic, number) for number in numbers]
        try:
            found: Mapping[TopicPartition, Sequence[Any]] = await self._consumer.getmany(
                *wanted, timeout_ms=int(timeout * 1000), max_records=max_records
            )
        except KafkaError:
            if self._listener.epoch == epoch:
                raise
            found = dict.fromkeys(wanted, ())
        if self._listener.epoch == epoch:
            return found
        # getmany went on through a rebalance, and read from the committed offsets: that is not what
        # the listener asked for, and what it asked for is read again.
        for where in found:
            if where.partition in self._listener.sought:
                self.seek(where.partition, self._listener.sought[where.partition])
        return {}

    async def _stay(self, timeout: float) -> Mapping[int, Sequence[Record]]:
        """Wait without reading. The coordinator must see a poll: ask for a partition nobody has."""
        if self._listener.joined:
            nowhere = TopicPartition(self._topic, 1 << 30)
            with translated(f"{self._topic} cannot be read", self._options.bootstrap_servers):
                await self._consumer.getmany(nowhere, timeout_ms=0)
        self._listener.news.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._listener.news.wait()
        return {}


@asynccontextmanager
async def open_table_reader(
    options: KafkaOptions, topic: str, partitions: Sequence[int]
) -> AsyncIterator[TableReader]:
    """A reader of partitions from their beginning."""
    consumer = _consumer(options)
    try:
        with translated(f"the topic {topic} cannot be read", options.bootstrap_servers):
            await consumer.start()
            places = [TopicPartition(topic, number) for number in partitions]
            consumer.assign(places)
            if places:
                await consumer.seek_to_beginning(*places)
        yield _TableReader(consumer, places, options)
    finally:
        await _stop(consumer)


class _TableReader:
    def __init__(
        self, consumer: AIOKafkaConsumer, places: list[TopicPartition], options: KafkaOptions
    ) -> None:
        self._consumer = consumer
        self._places = places
        self._options = options

    async def poll(self, *, timeout: float) -> Sequence[Record]:
        if not self._places:
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
                f"the table {self._places[0].topic} was not readable to its end within {deadline:.0f} s",
                hint="another producer's transaction may hang; it ends by its time-out",
            ) from None
        return records

    async def _ends(self) -> Mapping[TopicPartition, int]:
        # The end of the log with open transactions, not only the last stable offset: what was
        # committed behind another's open transaction must be seen as well.
        asking = _consumer(self._options, isolation_level="read_uncommitted")
        with translated("a table cannot be read", self._options.bootstrap_servers):
            try:
                await asking.start()
                ends: Mapping[TopicPartition, int] = await asking.end_offsets(self._places)
            finally:
                await _stop(asking)
        return ends

    async def _reached(self, ends: Mapping[TopicPartition, int]) -> bool:
        with translated("a table cannot be read", self._options.bootstrap_servers):
            for where, end in ends.items():
                if end > 0 and await self._consumer.position(where) < end:
                    return False
        return True
