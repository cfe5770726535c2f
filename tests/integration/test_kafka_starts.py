"""Clients of Kafka that are cancelled while they start or close leave no connection behind."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from shardline_common.kafka.broker import KafkaBroker, open_kafka
from shardline_common.kafka.options import KafkaOptions
from shardline_common.ports.broker import GroupListener, Message, TopicSpec
from tests.faults.proxies import TcpProxy, until
from tests.stores import connections_to

TOPIC = "starts"
# What a client asks first: which versions, to which there is an answer, and then where the brokers are.
ANSWERED, ASKED = 2, 3

Open = Callable[[KafkaBroker], AbstractAsyncContextManager[object]]
Work = Callable[[KafkaBroker], Coroutine[None, None, None]]


async def nothing(_: Sequence[int]) -> None:
    """What a member hears that is never given a partition."""


OPEN: dict[str, Open] = {
    "writer": lambda broker: broker.transactional("writer"),
    "table": lambda broker: broker.table_reader(TOPIC, [0]),
    "group": lambda broker: broker.group_reader(TOPIC, "group", GroupListener(nothing, nothing)),
}


async def stay(client: AbstractAsyncContextManager[object], opened: asyncio.Event) -> None:
    async with client:
        opened.set()
        await asyncio.Event().wait()


async def publish(broker: KafkaBroker) -> None:
    await broker.publish(TOPIC, [Message(b"key", b"value")])


async def catch_up(broker: KafkaBroker) -> None:
    async with broker.table_reader(TOPIC, [0]) as table:
        await table.catch_up(deadline=30)


def staying(name: str) -> Work:
    return lambda broker: stay(OPEN[name](broker), asyncio.Event())


# Of each: how many clients before it have started by then.
STARTS: dict[str, tuple[Work, int]] = {
    "admin": (KafkaBroker.check, 0),
    "producer": (publish, 0),
    "writer": (staying("writer"), 0),
    "table": (staying("table"), 0),
    "ends of a table": (catch_up, 1),
    "group": (staying("group"), 1),
}


@asynccontextmanager
async def proxied(address: str) -> AsyncIterator[tuple[TcpProxy, KafkaOptions]]:
    """A broker with a topic, of which one hears through a proxy."""
    proxy, prefix = TcpProxy(port_of(address)), f"{secrets.token_hex(4)}-"
    async with open_kafka(KafkaOptions(address, prefix)) as broker:
        await broker.create_topic(TopicSpec(TOPIC, 1))
    with proxy.running() as port:
        yield proxy, KafkaOptions(f"127.0.0.1:{port}", prefix)


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


async def cancel(work: asyncio.Task[None], times: int) -> None:
    """As a task group does it whose tasks were cancelled before: again, a turn of the loop later."""
    for _ in range(times):
        work.cancel()
        await asyncio.sleep(0)


@pytest.mark.parametrize("cancels", [1, 2])
@pytest.mark.parametrize("name", STARTS)
async def test_cancels_at_the_start(
    monkeypatch: pytest.MonkeyPatch, kafka: str, name: str, cancels: int
) -> None:
    monkeypatch.setattr("shardline_common.runtime.tasks._GRACE_SECONDS", 60.0)
    start, before = STARTS[name]
    async with proxied(kafka) as (proxy, options), open_kafka(options) as broker:
        proxy.hold = (before, ANSWERED)
        work = asyncio.create_task(start(broker))
        await until(lambda: proxy.connections > before and proxy.chunks[before] == ASKED, "a question")
        await cancel(work, cancels)
        proxy.hold = None
        with pytest.raises(asyncio.CancelledError):
            await work
        await until(lambda: proxy.open == 0, "the end of all connections", 10)


@pytest.mark.parametrize("cancels", [1, 2])
@pytest.mark.parametrize("name", OPEN)
async def test_cancels_at_the_end(kafka: str, name: str, cancels: int) -> None:
    opened = asyncio.Event()
    async with proxied(kafka) as (_, options), open_kafka(options) as broker:
        work = asyncio.create_task(stay(OPEN[name](broker), opened))
        await opened.wait()
        assert connections_to(port_of(kafka)) > 0
        await cancel(work, cancels)
        with pytest.raises(asyncio.CancelledError):
            await work
        await broker.close()
        await until(lambda: connections_to(port_of(kafka)) == 0, "the end of all connections", 10)
