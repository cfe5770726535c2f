"""Members of a consumer group."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from shardline_common.ports.broker import Broker, GroupListener, GroupReader, Record
from tests.contract.writing import SECONDS

Positions = Callable[[int], int]


class Member:
    """A group member that starts every partition where `position` says and remembers what it saw."""

    def __init__(self, position: Positions = lambda _: -1) -> None:
        self.position = position
        self.assigned: list[int] = []
        self.revoked: list[int] = []
        self.records: list[Record] = []
        self.reader: GroupReader

    async def on_assigned(self, partitions: Sequence[int]) -> None:
        self.assigned = sorted(partitions)
        for partition in partitions:
            self.reader.seek(partition, self.position(partition))

    async def on_revoked(self, partitions: Sequence[int]) -> None:
        self.revoked += partitions
        self.assigned = []

    async def poll(self) -> None:
        for records in (await self.reader.poll(None, timeout=0.05, max_records=100)).values():
            self.records += records


@asynccontextmanager
async def member(broker: Broker, position: Positions = lambda _: -1) -> AsyncIterator[Member]:
    joined = Member(position)
    listener = GroupListener(joined.on_assigned, joined.on_revoked)
    async with broker.group_reader("t", "g", listener) as joined.reader:
        yield joined


async def poll_until(done: Callable[[], bool], *members: Member) -> None:
    async with asyncio.timeout(SECONDS):
        while not done():
            await asyncio.gather(*(each.poll() for each in members))
