"""A consumer group as Kafka runs it: eager rebalances in the background, sessions, generations."""

import asyncio
from collections.abc import Mapping, Sequence

from shardline_common.errors import BrokerUnavailable, OffsetOutOfRange
from shardline_common.ports.broker import GroupListener, Record
from tests.simulation.world import SESSION, Process, World


class Group:
    """The coordinator's side: who is a member, of which generation, and what was committed."""

    def __init__(self, world: World, topic: str) -> None:
        self._world = world
        self._topic = topic
        self.generation = 0
        self.members: dict[Reader, bool] = {}
        self.committed: dict[int, int] = {}

    def join(self, reader: "Reader") -> None:
        """Take part in the next generation."""
        if reader not in self.members:
            self._disturb()
        self.members[reader] = True
        self._complete_if_all()

    def leave(self, reader: "Reader") -> None:
        """Said goodbye, or was silent for too long."""
        if self.members.pop(reader, None) is not None:
            reader.disturbed.set()
            self._disturb()
            self._complete_if_all()

    def _disturb(self) -> None:
        self.generation += 1
        for reader in self.members:
            self.members[reader] = False
            reader.disturbed.set()
        asyncio.get_running_loop().call_later(SESSION, self._give_up_waiting, self.generation)

    def _give_up_waiting(self, generation: int) -> None:
        if generation == self.generation and not all(self.members.values()):
            for reader in [reader for reader, joined in self.members.items() if not joined]:
                del self.members[reader]
                reader.disturbed.set()
            self._complete_if_all()

    def _complete_if_all(self) -> None:
        if not self.members or not all(self.members.values()):
            return
        topic = self._world.broker.topic(self._topic) if self._exists() else None
        partitions = topic.spec.partitions if topic else 0
        readers = sorted(self.members, key=lambda reader: reader.name)
        for index, reader in enumerate(readers):
            reader.offer(self.generation, tuple(range(index, partitions, len(readers))))

    def _exists(self) -> bool:
        try:
            self._world.broker.topic(self._topic)
        except BrokerUnavailable:
            return False
        return True

    def commit(self, reader: "Reader", generation: int, offsets: Mapping[int, int]) -> bool:
        """Commit, unless the group has moved on."""
        if reader not in self.members or generation != self.generation:
            return False
        for partition, offset in offsets.items():
            if offset < self.committed.get(partition, 0):
                self._world.problems.append(f"the committed offset of {self._topic}/{partition} went back")
            self.committed[partition] = offset
        return True


class Reader:
    """A member: its callbacks run in a task of their own, beside its polls."""

    def __init__(
        self, process: Process, topic: str, group: Group, listener: GroupListener, number: int
    ) -> None:
        self.name = f"{process.name}/{number}"
        self.disturbed = asyncio.Event()
        self._process = process
        self._world = process.world
        self._topic = topic
        self._group = group
        self._listener = listener
        self._offer: tuple[int, tuple[int, ...]] | None = None
        self._offered = asyncio.Event()
        self._epoch = 0
        self._generation = -1
        self._owned: tuple[int, ...] = ()
        self._positions: dict[int, int] = {}
        self._sought: dict[int, int] = {}
        self._seeks: dict[int, int] = {}

    def offer(self, generation: int, partitions: tuple[int, ...]) -> None:
        """An assignment of the coordinator."""
        self._offer = generation, partitions
        self._offered.set()

    async def stay(self) -> None:
        """Take part in rebalances until cancelled."""
        while True:
            await self._process.gate()
            self._offered.clear()
            self.disturbed.clear()
            self._group.join(self)
            await self._until_offered()
            await self._process.gate()
            if self.disturbed.is_set() or self._offer is None:
                continue
            self._world.count("assigned")
            self._generation, self._owned = self._offer
            self._turn()
            await self._listener.assigned(self._owned)
            await self.disturbed.wait()
            await self._process.gate()
            self._turn()
            owned, self._owned = self._owned, ()
            await self._listener.revoked(owned)

    async def _until_offered(self) -> None:
        waits = [asyncio.ensure_future(event.wait()) for event in (self._offered, self.disturbed)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _turn(self) -> None:
        self._epoch += 1
        self._positions.clear()
        self._sought.clear()

    def seek(self, partition: int, offset: int) -> None:
        """Read on from there."""
        if partition in self._owned:
            self._positions[partition] = self._sought[partition] = offset
            self._seeks[partition] = self._seeks.get(partition, 0) + 1

    async def commit(self, offsets: Mapping[int, int]) -> bool:
        """Commit under the generation that stands when the request is made."""
        generation = self._generation

        async def apply() -> bool:
            return self._group.commit(self, generation, offsets)

        try:
            return await self._process.request("broker", apply, BrokerUnavailable)
        except BrokerUnavailable:
            return False

    async def poll(
        self, partitions: Sequence[int] | None, *, timeout: float, max_records: int
    ) -> Mapping[int, Sequence[Record]]:
        """Records; what was fetched before a seek may arrive after it, and batches may come twice."""
        # As it stands when the call is made: a process may sleep from then on, and wake in another epoch.
        epoch, seeks = self._epoch, dict(self._seeks)
        await self._process.gate()
        if self._world.down_until["broker"] > self._world.now:
            await asyncio.sleep(max(timeout, 0.05))
            return {}
        found = self._read(partitions, max_records)
        if not found:
            await (self._world.broker.wait_for_change(timeout) if timeout > 0 else asyncio.sleep(0))
            await self._process.gate()
            found = self._read(partitions, max_records) if epoch == self._epoch else {}
        if found and self._world.dice.random() < 0.2:
            await asyncio.sleep(self._world.dice.uniform(0, 0.5))
            await self._process.gate()
        if epoch != self._epoch:
            self._positions |= self._sought
            return {}
        for number in [number for number in found if self._seeks.get(number) != seeks.get(number)]:
            del found[number]
            self._positions[number] = self._sought[number]
        return found

    def _read(self, partitions: Sequence[int] | None, most: int) -> dict[int, list[Record]]:
        dice = self._world.dice
        logs = self._world.broker.topic(self._topic).logs
        found: dict[int, list[Record]] = {}
        for number in self._positions if partitions is None else partitions:
            if number not in self._positions:
                continue
            log, position = logs[number], self._positions[number]
            again = position > log.start and dice.random() < self._world.harm.lost
            start = log.start if position < 0 else dice.randint(log.start, position) if again else position
            try:
                records = log.read(start, dice.randint(1, min(most, 12)))
            except OffsetOutOfRange as error:
                if found:
                    return found
                raise OffsetOutOfRange(str(error), partitions=(number,)) from None
            if records:
                found[number] = records
                self._positions[number] = max(position, records[-1].offset + 1)
        return found
