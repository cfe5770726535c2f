"""Clients of Kafka whose start is cut short: a cancel, or a time-out, leaves no connection behind."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager

import pytest

from common.kafka import KafkaBroker, open_kafka
from common.kafka_options import KafkaOptions
from common.ports import GroupListener, Message, TopicSpec
from tests.faults.proxies import TcpProxy

TOPIC = "starts"
# What a client asks first: the versions (a question and its answer), then where the brokers are.
ASKED = 3


@asynccontextmanager
async def far_away(address: str) -> AsyncIterator[tuple[TcpProxy, KafkaOptions]]:
    """A broker that is slow to tell of itself, with a topic."""
    proxy, prefix = TcpProxy(int(address.rpartition(":")[2])), f"{secrets.token_hex(4)}-"
    async with open_kafka(KafkaOptions(address, prefix)) as broker:
        await broker.create_topic(TopicSpec(TOPIC, 1))
    with proxy.running() as port:
        yield proxy, KafkaOptions(f"127.0.0.1:{port}", prefix)


async def nothing(_: Sequence[int]) -> None:
    """What a member hears that is never given a partition."""


async def publish(broker: KafkaBroker) -> None:
    await broker.publish(TOPIC, [Message(b"key", b"value")])


async def write(broker: KafkaBroker) -> None:
    async with broker.transactional("writer"):
        pass


async def read(broker: KafkaBroker) -> None:
    async with broker.table_reader(TOPIC, [0]):
        pass


async def catch_up(broker: KafkaBroker) -> None:
    async with broker.table_reader(TOPIC, [0]) as table:
        await table.catch_up(deadline=30)


async def join(broker: KafkaBroker) -> None:
    async with broker.group_reader(TOPIC, "group", GroupListener(nothing, nothing)):
        pass


# Of each: how many clients before it have started by then.
STARTS: dict[str, tuple[Callable[[KafkaBroker], Coroutine[None, None, None]], int]] = {
    "admin": (KafkaBroker.check, 0),
    "producer": (publish, 0),
    "writer": (write, 0),
    "table": (read, 0),
    "ends of a table": (catch_up, 1),
    "group": (join, 1),
}


@pytest.mark.parametrize("name", STARTS)
async def test_a_cancelled_start_leaves_no_connection(kafka: str, name: str) -> None:
    start, before = STARTS[name]
    async with far_away(kafka) as (proxy, options), open_kafka(options) as broker:
        proxy.delay = 0.2
        work = asyncio.create_task(start(broker))
        async with asyncio.timeout(30):
            while proxy.connections <= before:
                await asyncio.sleep(0.01)
            begun = proxy.chunks
            while proxy.chunks < begun + ASKED:
                await asyncio.sleep(0.01)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        async with asyncio.timeout(10):
            while proxy.open:
                await asyncio.sleep(0.01)
