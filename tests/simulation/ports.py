"""The ports of one simulated process: every request goes over the world's network."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial

import orjson

from shardline_common.errors import (
    BrokerUnavailable,
    ObjectExists,
    ServiceUnavailable,
    StoreUnavailable,
    TopicMissing,
)
from shardline_common.job.names import CHECKPOINTS
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
from shardline_common.ports.store import Body, KeptVersions, ObjectInfo
from shardline_common.runtime.purge import delete_listed
from tests.simulation.group import Group, Reader
from tests.simulation.world import Process, World


class NetStore:
    """The object store, seen from a process."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._store = process.world.store
        self._put: set[str] = set()

    @property
    def uri(self) -> str:
        """Where it is."""
        return self._store.uri

    async def create(self, key: str, body: Body, *, content_type: str = "application/json") -> None:
        """Create; the bytes have left the process with the request."""
        data = body if isinstance(body, bytes) else body.read_bytes()
        self._put.add(key)

        async def apply() -> None:
            try:
                await self._store.create(key, data, content_type=content_type)
            except ObjectExists:
                self._process.world.watch_refusal(key)
                raise
            self._process.world.watch_object(key, data)

        await self._process.request("store", apply, StoreUnavailable)

    async def get(self, key: str) -> bytes:
        """An object's bytes."""
        body = await self._process.request("store", partial(self._store.get, key), StoreUnavailable)
        if key not in self._put:
            self._process.world.watch_read(key)
        return body

    async def stream(self, key: str, *, offset: int = 0, size: int | None = None) -> AsyncIterator[bytes]:
        """An object's bytes from `offset` on, at most `size`."""
        yield (await self.get(key))[offset:][:size]

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        """Objects by key."""

        async def page() -> list[ObjectInfo]:
            return [info async for info in self._store.list(prefix, start_after=start_after)]

        for info in await self._process.request("store", page, StoreUnavailable):
            yield info

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove objects."""
        await self._process.request("store", partial(self._store.delete, keys), StoreUnavailable)

    async def purge(self, prefix: str, *, versions: bool = False) -> KeptVersions | None:  # noqa: ARG002 - it has none
        """Remove all objects below a prefix, by several requests."""
        await delete_listed(self, prefix)
        return None


class NetReceiver:
    """The webhook, seen from a producer: a notification is sent until a response arrives."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def deliver(self, message_id: str, body: bytes) -> None:
        """Deliver a notification."""
        notification = orjson.loads(body)
        success = f"{notification['name'].lower()}/{notification['job_id']}/_SUCCESS"

        async def apply() -> None:
            world = self._process.world
            whole = notification["state"] != "completed" or success in world.store._objects
            world.receive(message_id, body, whole=whole)

        # Slow enough that producers are killed meanwhile.
        await asyncio.sleep(self._process.world.dice.uniform(0.0, 4.0))
        while True:
            try:
                return await self._process.request("receiver", apply, ServiceUnavailable)
            except ServiceUnavailable:
                await asyncio.sleep(0.5)


class NetBroker:
    """The broker, seen from a process."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._broker = process.world.broker

    async def check(self) -> None:
        """Whether it answers."""
        await self._process.request("broker", self._broker.check, BrokerUnavailable)

    def failing(self, seconds: float) -> str | None:  # noqa: ARG002 - nobody asks
        return None

    async def create_topic(self, spec: TopicSpec) -> bool:
        """Create."""
        return await self._process.request(
            "broker", partial(self._broker.create_topic, spec), BrokerUnavailable
        )

    async def topics(self) -> Sequence[str]:
        """List."""
        return await self._process.request("broker", self._broker.topics, BrokerUnavailable)

    async def partitions(self, name: str) -> int:
        """Count."""
        call = partial(self._broker.partitions, name)
        return await self._process.request("broker", call, BrokerUnavailable)

    async def describe_topic(self, name: str) -> TopicSpec | None:
        """Describe."""
        call = partial(self._broker.describe_topic, name)
        return await self._process.request("broker", call, BrokerUnavailable)

    async def delete_topic(self, name: str) -> bool:
        """Delete."""
        return await self._process.request(
            "broker", partial(self._broker.delete_topic, name), BrokerUnavailable
        )

    async def delete_records(self, name: str, before: Mapping[int, int]) -> None:
        """Trim."""
        call = partial(self._broker.delete_records, name, before)
        await self._process.request("broker", call, BrokerUnavailable)

    async def publish(self, topic: str, messages: Sequence[Message]) -> None:
        """Write."""
        call = partial(self._broker.publish, topic, messages)
        await self._process.request("broker", call, BrokerUnavailable)

    @asynccontextmanager
    async def transactional(self, transactional_id: str) -> AsyncIterator[TransactionalWriter]:
        """Fence and open."""
        inner = self._broker.transactional(transactional_id)
        writer = await self._process.request("broker", inner.__aenter__, BrokerUnavailable)
        yield NetWriter(self._process, writer)

    @asynccontextmanager
    async def group_reader(
        self, topic: str, group: str, listener: GroupListener
    ) -> AsyncIterator[GroupReader]:
        """Join."""
        process = self._process
        self._broker.topic(topic)
        members = process.world.groups.setdefault((topic, group), Group(process.world, topic))
        reader = Reader(process, topic, members, listener, process.world.number())
        silence = partial(members.leave, reader)
        process.on_silence.append(silence)
        staying = asyncio.ensure_future(reader.stay())
        try:
            yield reader
        finally:
            staying.cancel()
            await asyncio.gather(staying, return_exceptions=True)
            if process.alive:
                process.on_silence.remove(silence)
                members.leave(reader)

    @asynccontextmanager
    async def table_reader(
        self, topic: str, partitions: Sequence[int] | None = None
    ) -> AsyncIterator[TableReader]:
        """Read a table."""
        async with self._broker.table_reader(topic, partitions) as inner:
            yield NetTable(self._process, inner)


class NetWriter:
    """A transactional writer whose commit travels as one request."""

    def __init__(self, process: Process, inner: TransactionalWriter) -> None:
        self._process = process
        self._inner = inner
        self._broken = False

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Collect, then commit: all or nothing."""
        await self._process.gate()
        if self._broken:
            raise BrokerUnavailable("this writer failed before; open a new one")
        self._broken = True
        transaction = NetTransaction(self._process)
        yield transaction
        transaction.delivered()
        await self._process.request("broker", partial(self._commit, transaction), BrokerUnavailable)
        self._broken = False

    async def _commit(self, transaction: "NetTransaction") -> None:
        async with self._inner.transaction() as inner:
            for topic, messages in transaction.writes:
                await inner.send(topic, messages)
        world = self._process.world
        for topic, messages in transaction.writes:
            world.watch_messages(topic, messages)
            if topic == CHECKPOINTS:
                if b"/" not in messages[-1].key:
                    world.watch_checkpoint(orjson.loads(messages[-1].value or b"{}"))
            else:
                _add_markers(world, topic, messages)


def _add_markers(world: World, topic: str, messages: Sequence[Message]) -> None:
    # As on Kafka, the marker of a commit takes an offset that no reader sees.
    with suppress(TopicMissing):
        logs = world.broker.topic(topic).logs
        for number in {message.partition or 0 for message in messages}:
            logs[number].end += 1


class NetTransaction:
    """An open transaction; now and then the broker refuses a batch of it."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.writes: list[tuple[str, Sequence[Message]]] = []
        self.refused = False

    async def send(self, topic: str, messages: Sequence[Message]) -> None:
        """Add messages."""
        await self._process.gate()
        world = self._process.world
        world.broker.topic(topic)
        if world.dice.random() < world.harm.refused:
            self.refused = True
            return
        self.writes.append((topic, messages))

    def delivered(self) -> None:
        """Every delivery is asked for before the commit."""
        if self.refused:
            raise BrokerUnavailable("a batch was refused")


class NetTable:
    """A table reader over the network."""

    def __init__(self, process: Process, inner: TableReader) -> None:
        self._process = process
        self._inner = inner

    async def poll(self, *, timeout: float) -> Sequence[Record]:
        """The next records."""
        await self._process.gate()
        found = await self._inner.poll(timeout=timeout)
        await self._process.gate()
        return found

    async def catch_up(self, *, deadline: float) -> Sequence[Record]:
        """All records."""
        call = partial(self._inner.catch_up, deadline=deadline)
        return await self._process.request("broker", call, BrokerUnavailable)
