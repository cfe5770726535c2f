"""Reading tables from Kafka: partitions from their beginning, without a group."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from aiokafka import AIOKafkaConsumer, TopicPartition

from shardline_common.errors import BrokerUnavailable, explain
from shardline_common.kafka.acls import Right
from shardline_common.kafka.client_errors import Request, last_refusal
from shardline_common.kafka.client_internals import client_of
from shardline_common.kafka.consumers import ReadWatch, make_consumer, stop_consumer, to_record
from shardline_common.kafka.operations import Operations
from shardline_common.ports.broker import Record, TableReader
from shardline_common.runtime.tasks import start_shielded
from shardline_common.runtime.waits import log_wait

_BATCH_RECORDS = 5_000
_OPEN_TRANSACTION = "another producer's transaction may be open; it ends by its time-out"


@asynccontextmanager
async def open_table_reader(
    operations: Operations, topic: str, partitions: Sequence[int]
) -> AsyncIterator[TableReader]:
    """A reader of partitions from their beginning."""
    # Retention may move the log's start during the read: the rest of the log is the table.
    consumer = make_consumer(operations.options, auto_offset_reset="earliest")
    answers = operations.watch(client_of(consumer))
    reading = Request(f"{topic} as a table cannot be read", Right("topic", topic, "Read"), answers)
    watch = ReadWatch(operations, consumer, answers, reading)
    try:
        with operations.waiting(reading), operations.translated(reading):
            await start_shielded(consumer.start)
            partitions = [TopicPartition(topic, number) for number in partitions]
            consumer.assign(partitions)
            if partitions:
                # It waits for the leaders, without an end where there is none.
                async with asyncio.timeout(operations.options.request_timeout_ms / 1000):
                    await consumer.seek_to_beginning(*partitions)
        yield _KafkaTableReader(consumer, partitions, operations, reading, watch)
    finally:
        watch.end()
        await stop_consumer(consumer)


class _KafkaTableReader:
    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        partitions: list[TopicPartition],
        operations: Operations,
        reading: Request,
        watch: ReadWatch,
    ) -> None:
        self._consumer = consumer
        self._partitions = partitions
        self._operations = operations
        self._reading = reading
        self._watch = watch

    async def poll(self, *, timeout: float) -> Sequence[Record]:
        if not self._partitions:
            await asyncio.sleep(timeout)
            return ()
        with self._operations.translated(self._reading):
            found = await self._consumer.getmany(timeout_ms=int(timeout * 1000), max_records=_BATCH_RECORDS)
        self._watch.check()
        return [to_record(item) for items in found.values() for item in items]

    async def catch_up(self, *, deadline: float) -> Sequence[Record]:
        records: list[Record] = []
        topic = self._partitions[0].topic if self._partitions else ""
        try:
            with log_wait(f"the end of the table {topic}", self._why_not_readable):
                async with asyncio.timeout(deadline):
                    ends = await self._ends()
                    while not await self._reached(ends):
                        records += await self.poll(timeout=0.1)
        except TimeoutError:
            refusal = last_refusal(self._reading, self._operations.options)
            message = f"the table {topic} was not readable to its end within {deadline:.0f} s"
            error = BrokerUnavailable(
                f"{message}: {refusal.reason}" if refusal else message,
                hint=(refusal.hint if refusal else None) or _OPEN_TRANSACTION,
            )
            self._operations.failed(self._reading, explain(error))
            raise error from None
        return records

    def _why_not_readable(self) -> str:
        refusal = last_refusal(self._reading, self._operations.options)
        return refusal.reason if refusal else _OPEN_TRANSACTION

    async def _ends(self) -> Mapping[TopicPartition, int]:
        # The log's end, open transactions included, instead of the last stable offset: a message that was
        # committed behind an open transaction must be read as well.
        end_reader = make_consumer(self._operations.options, isolation_level="read_uncommitted")
        reading = replace(self._reading, answers=self._operations.watch(client_of(end_reader)))
        with self._operations.waiting(reading), self._operations.translated(reading):
            try:
                await start_shielded(end_reader.start)
                ends: Mapping[TopicPartition, int] = await end_reader.end_offsets(self._partitions)
            finally:
                await stop_consumer(end_reader)
        return ends

    async def _reached(self, ends: Mapping[TopicPartition, int]) -> bool:
        with self._operations.translated(self._reading):
            for where, end in ends.items():
                if end > 0 and await self._consumer.position(where) < end:
                    return False
        return True
