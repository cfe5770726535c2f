"""Writing to Kafka in transactions.

Awaits every delivery before a commit, because aiokafka commits a transaction of which a batch was refused.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, NoReturn

from aiokafka import AIOKafkaProducer
from aiokafka.errors import IllegalOperation, KafkaError

from shardline_common.errors import BrokerUnavailable
from shardline_common.kafka.acls import Right
from shardline_common.kafka.client_errors import Request
from shardline_common.kafka.client_internals import abandon, retrieve_transaction_error
from shardline_common.kafka.joined_batch import joined_batches
from shardline_common.kafka.operations import Operations
from shardline_common.ports.broker import Message, Transaction, TransactionalWriter
from shardline_common.runtime.tasks import close_shielded, start_shielded

_STOP_SECONDS = 10.0


async def stop_producer(producer: AIOKafkaProducer) -> None:
    """Stop a producer, and close its connections even when its `stop` fails or hangs."""

    async def stop() -> None:
        try:
            # It waits for the delivery of all batches, without an end while Kafka refuses them.
            async with asyncio.timeout(_STOP_SECONDS):
                await producer.stop()
        except TimeoutError:
            await abandon(producer)
        finally:
            await producer.client.close()

    await close_shielded(stop)


@asynccontextmanager
async def open_writer(operations: Operations, transactional_id: str) -> AsyncIterator[TransactionalWriter]:
    """A transactional writer; starting it fences the earlier ones of its id."""
    options = operations.options
    producer = options.producer(
        transactional_id=transactional_id, transaction_timeout_ms=options.transaction_timeout_ms
    )
    answers = operations.watch(producer.client)
    right = Right("transactional-id", transactional_id, "Write")
    opening = Request(f"{transactional_id} cannot be opened", right, answers, transactional=True)
    what = f"the transaction of {transactional_id} cannot be committed"
    sending = Request(what, Right("topic", "", "Write"), answers, transactional=True)
    writer = _KafkaWriter(producer, operations, sending)
    try:
        with operations.run(opening):
            # The client looks for a coordinator without an end.
            async with asyncio.timeout(options.request_timeout_ms / 1000):
                await start_shielded(producer.start)
        yield writer
    finally:
        await writer.close()


class _KafkaWriter:
    def __init__(self, producer: AIOKafkaProducer, operations: Operations, sending: Request) -> None:
        self._producer = producer
        self._operations = operations
        self._sending = sending
        self._unusable = False

    async def close(self) -> None:
        if self._unusable:
            await close_shielded(lambda: abandon(self._producer))
        else:
            await stop_producer(self._producer)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        # 1. Begin. 2. Run the body. 3. Await every delivery, under one deadline. 4. Commit.
        if self._unusable:
            raise BrokerUnavailable("this writer failed before; open a new one")
        self._unusable = True
        operations, sending = self._operations, self._sending
        seconds = operations.options.request_timeout_ms / 1000
        transaction = _KafkaTransaction(self._producer, operations, sending)
        try:
            with operations.translated(sending):
                async with asyncio.timeout(seconds):
                    await self._producer.begin_transaction()
                    retrieve_transaction_error(self._producer)
            # Outside of the translation: an OSError of the source must not look like one of the broker.
            yield transaction
            with operations.run(sending):
                async with asyncio.timeout(2 * seconds):
                    await transaction.await_deliveries()
                    await self._producer.commit_transaction()
        except BaseException:
            transaction.discard()
            await self._abort()
            raise
        self._unusable = False

    async def _abort(self) -> None:
        # Lets readers continue sooner; the next writer of the id aborts the transaction in any case.
        with suppress(KafkaError, TimeoutError, AssertionError):
            async with asyncio.timeout(2.0):
                await self._producer.abort_transaction()


class _KafkaTransaction:
    def __init__(self, producer: AIOKafkaProducer, operations: Operations, sending: Request) -> None:
        self._producer = producer
        self._operations = operations
        self._sending = sending
        self._complete = True
        self._deliveries: list[asyncio.Future[Any]] = []

    async def send(self, topic: str, messages: Sequence[Message]) -> None:
        # Incomplete while a send runs: one that is cancelled or fails must not be committed.
        complete, self._complete = self._complete, False
        # Only a commit proves that Kafka accepts what was sent.
        with self._operations.waiting(self._sending), self._operations.translated(self._sending):
            try:
                await self._send(self._operations.options.prefix + topic, messages)
            except IllegalOperation:
                await self._raise_refusal()
        self._complete = complete

    async def _raise_refusal(self) -> NoReturn:
        # aiokafka fails a transaction when a batch was refused; the error is in the batch's delivery.
        async with asyncio.timeout(self._operations.options.request_timeout_ms / 1000):
            await asyncio.gather(*self._deliveries)
        raise BrokerUnavailable(f"{self._sending.what}: the client failed the transaction")

    async def _send(self, name: str, messages: Sequence[Message]) -> None:
        by_partition: dict[int, list[Message]] = {}
        for message in messages:
            if message.partition is None:
                sent = await self._producer.send(
                    name, message.value, message.key, headers=list(message.headers)
                )
                self._deliveries.append(sent)
            else:
                by_partition.setdefault(message.partition, []).append(message)
        options = self._operations.options
        if options.compression is not None:
            for number, items in by_partition.items():
                await self._send_batches(name, number, items)
            return
        # One batch of each partition after the other: the client waits with the second batch of a partition
        # until the first one is sent, and so each request would have the batch of one partition only.
        left = {number: joined_batches(items, options.batch_bytes) for number, items in by_partition.items()}
        while left:
            for number, batches in tuple(left.items()):
                if (batch := next(batches, None)) is None:
                    del left[number]
                else:
                    await self._send_batch(batch, name, number)

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

    async def await_deliveries(self) -> None:
        if not self._complete:
            raise BrokerUnavailable(f"{self._sending.what}: a send was interrupted")
        await asyncio.gather(*self._deliveries)

    def discard(self) -> None:
        for delivery in self._deliveries:
            delivery.cancel()
            if delivery.done() and not delivery.cancelled():
                delivery.exception()


def _append(batch: Any, message: Message) -> bool:
    return (
        batch.append(key=message.key, value=message.value, timestamp=None, headers=list(message.headers))
        is not None
    )
