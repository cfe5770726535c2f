"""What a program without Shardline needs to send the same messages in transactions, and to read them."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from shardline_common.ports.broker import Record, TopicSpec
from tests.e2e.system import System

_IN_TRANSACTION = 1_000
Send = Callable[[AIOKafkaProducer, str, Sequence[Record]], Awaitable[object]]


async def transactions(system: System, records: Sequence[Record], count: int, send: Send) -> float:
    """CPU-seconds of a bare client that sends so many messages, these again and again, in transactions."""
    topic, cpu, sent = f"bare-{send.__name__}", 0.0, 0
    await system.broker.create_topic(TopicSpec(topic, 4))
    producer = AIOKafkaProducer(
        bootstrap_servers=system.kafka,
        transactional_id=system.prefix + topic,
        acks="all",
        max_batch_size=1 << 20,
        max_request_size=1 << 28,
    )
    await producer.start()
    try:
        cpu = time.process_time()
        while sent < count:
            some = records[sent % len(records) :][:_IN_TRANSACTION][: count - sent]
            async with producer.transaction():
                await send(producer, f"{system.prefix}.{topic}", some)
            sent += len(some)
        cpu = time.process_time() - cpu
    finally:
        await producer.stop()
    await system.broker.delete_topic(topic)
    return cpu


async def polls(system: System, topic: str, count: int) -> float:
    """CPU-seconds of a bare client that polls so many committed messages and does nothing with them."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=system.kafka,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        max_partition_fetch_bytes=1 << 21,
    )
    await consumer.start()
    try:
        consumer.assign([TopicPartition(f"{system.prefix}.{topic}", number) for number in range(4)])
        cpu, seen = time.process_time(), 0
        while seen < count:
            found = await consumer.getmany(timeout_ms=1000, max_records=4000)
            seen += sum(map(len, found.values()))
        return time.process_time() - cpu
    finally:
        await consumer.stop()


async def send_each(producer: AIOKafkaProducer, topic: str, records: Sequence[Record]) -> None:
    """One call for each message, as most programs do it."""
    for one in records:
        await producer.send(topic, one.value, one.key, partition=one.partition)
    await producer.flush()


async def send_batches(producer: AIOKafkaProducer, topic: str, records: Sequence[Record]) -> None:
    """One call for each batch, as cheap as the client can."""
    deliveries = []
    for number in range(4):
        batch = producer.create_batch()
        for one in records:
            if one.partition == number and batch.append(key=one.key, value=one.value, timestamp=None) is None:
                deliveries.append(await producer.send_batch(batch, topic, partition=number))
                batch = producer.create_batch()
                batch.append(key=one.key, value=one.value, timestamp=None)
        batch.close()
        deliveries.append(await producer.send_batch(batch, topic, partition=number))
    await asyncio.gather(*deliveries)
