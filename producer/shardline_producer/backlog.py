"""The backlog of one attempt: what the chain does not hold yet. It gates the producer and trims the topic."""

import asyncio
from collections.abc import Sequence

from shardline_common.dataset.chain import Chain, ChainRecord, Totals, total
from shardline_common.job.names import Layout, attempt_topic
from shardline_common.job.spec import JobSpec
from shardline_common.job.state import JobState
from shardline_common.ports.broker import Broker
from shardline_common.ports.store import ObjectStore

_SCAN_FACTOR = 4
_LOOKS = 32


def effective_limit(spec: JobSpec, limit: int) -> int:
    """The limit in bytes, raised to what the open segments of all partitions may need.

    A segment closes only at its own bounds; a smaller limit would wait for it for ever.
    """
    open_segment = _SCAN_FACTOR * spec.output.shard_bytes + spec.max_document_bytes
    return max(limit, spec.total_partitions * open_segment)


class Backlog:
    """Follows the chains of one attempt."""

    def __init__(self, broker: Broker, store: ObjectStore, state: JobState, limit: int) -> None:
        self._broker = broker
        self.state = state
        self._topic = attempt_topic(state.spec.job_id, state.attempt)
        layout = Layout.of(state.spec)
        self._chains = [Chain(store, layout, number) for number in range(state.spec.total_partitions)]
        self.tips: list[ChainRecord | None] = [None] * len(self._chains)
        self._trimmed: dict[int, int] | None = None
        self._turn = 0
        self._limit = effective_limit(state.spec, limit)
        self._room = asyncio.Event()
        self._room.set()

    @property
    def seen(self) -> bool:
        """Whether the chains' ends have been read once."""
        return self._trimmed is not None

    @property
    def bytes(self) -> int:
        """Scanned bytes that were produced and are in no segment of the chain."""
        held = sum(tip.upto.scanned_bytes for tip in self.tips if tip)
        return sum(part.bytes for part in self.state.partitions) - held

    @property
    def lag(self) -> int:
        """Messages produced and in no segment of the chain."""
        return max(0, self.state.produced - self.chained)

    @property
    def chained(self) -> int:
        """Messages that the chains hold."""
        return sum(tip.next for tip in self.tips if tip)

    @property
    def filled(self) -> float:
        """Share of the limit that is waiting; at 1 and over the producer waits."""
        return max(0, self.bytes) / self._limit

    @property
    def held(self) -> Totals:
        """What the chains hold, over all partitions."""
        return total(tip.upto for tip in self.tips if tip)

    @property
    def slowest(self) -> tuple[int, int]:
        """The partition with the most lag, and its lag in messages; (-1, 0) when none lags."""
        sent = self.state.partitions
        lags = [
            (part.sequence - (tip.next if tip else 0), -number)
            for number, (part, tip) in enumerate(zip(sent, self.tips, strict=False))
        ]
        lag, number = max(lags, default=(0, 1))
        return (-number, lag) if lag > 0 else (-1, 0)

    async def wait_for_room(self) -> None:
        """Return when less than the limit is waiting."""
        if self.bytes >= self._limit:
            self._room.clear()
        await self._room.wait()

    async def look(self) -> None:
        """Read the chains' ends, let the producer on, and trim what they hold from the topic.

        Raises:
            StoreUnavailable, BrokerUnavailable: look again later.
        """
        # The first look tells what stood there before: it must be whole.
        await self._look_at_lagging(most=None if self._trimmed is None else _LOOKS)
        if self.bytes < self._limit:
            self._room.set()
        await self._trim()

    async def _look_at_lagging(self, *, most: int | None) -> None:
        # The ends of chains that may have moved, and of these at `most` the next few.
        lagging = [number for number in range(len(self._chains)) if self._lags(number)]
        start = self._turn % max(1, len(lagging))
        wanted = (lagging[start:] + lagging[:start])[:most]
        self._turn = start + len(wanted)
        await self._read(wanted)

    async def look_at_all(self) -> None:
        """Read the ends of all chains, also of those that should have ended where they were last seen.

        Raises:
            StoreUnavailable: look again later.
        """
        await self._read(range(len(self._chains)))

    async def _read(self, numbers: Sequence[int]) -> None:
        found = await asyncio.gather(*(self._chains[number].head(self.tips[number]) for number in numbers))
        for number, tip in zip(numbers, found, strict=True):
            self.tips[number] = tip

    def _lags(self, number: int) -> bool:
        tip, sent = self.tips[number], self.state.partitions
        return not sent or (tip.next if tip else 0) != sent[number].sequence

    async def _trim(self) -> None:
        below = {
            tip.partition: tip.offset
            for tip in self.tips
            if tip is not None and tip.attempt == self.state.attempt
        }
        if self._trimmed is None:
            # What the chain held before we came may speak of an earlier topic of the same name; only
            # offsets that appear from now on are known to be of this one.
            self._trimmed = below
        moved = {number: offset for number, offset in below.items() if self._trimmed.get(number) != offset}
        if moved:
            await self._broker.delete_records(self._topic, moved)
            self._trimmed |= moved
