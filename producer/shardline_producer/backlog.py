"""The backlog of one attempt: messages in no chain yet. It blocks the producer and trims the topic."""

import asyncio
import logging
from collections.abc import Sequence

from shardline_common.dataset.chain import Chain, ChainRecord, Totals, total
from shardline_common.dataset.heads import are_short, read_heads
from shardline_common.job.names import Layout, attempt_topic
from shardline_common.job.segment_limits import max_topic_bytes
from shardline_common.job.state import JobState
from shardline_common.ports.broker import Broker
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.waits import LOG_SECONDS, log_wait

_log = logging.getLogger(__name__)
_MAX_READS = 32


class Backlog:
    """Follows the chains of one attempt, or of one slice of it.

    `state` is the state of the job or slice, which the pipeline updates. `heads` are the last chain records
    that were read, for each partition of the state; None for an empty chain. `limit`, in bytes, is raised to
    the size that all open segments may need, because a segment closes only at its own limits. A slice has its
    share of the limit.
    """

    def __init__(self, broker: Broker, store: ObjectStore, state: JobState, limit: int) -> None:
        self._broker = broker
        self.state = state
        self._topic = attempt_topic(state.spec.job_id, state.attempt)
        self._store = store
        self._layout = layout = Layout.of(state.spec)
        self._chains = [Chain(store, layout, number) for number in state.numbers]
        self.heads: list[ChainRecord | None] = [None] * len(self._chains)
        self._trimmed: dict[int, int] | None = None
        self._next_read = 0
        self._limit = max(limit, max_topic_bytes(state.spec))
        if state.slice is not None:
            self._limit = max(1, self._limit // state.spec.slices)
        self._room = asyncio.Event()
        self._room.set()
        # The time of the last segment, and of the last log line since then.
        self._standstill: float | None = None
        self._logged = 0.0

    @property
    def initialized(self) -> bool:
        """Whether all heads have been read once."""
        return self._trimmed is not None

    @property
    def bytes(self) -> int:
        """Scanned bytes that were produced and are in no segment of the chain."""
        committed = sum(head.upto.scanned_bytes for head in self.heads if head)
        return sum(part.bytes for part in self.state.partitions) - committed

    @property
    def lag(self) -> int:
        """Messages produced that are in no segment of the chain."""
        return max(0, self.state.produced - self.chained)

    @property
    def chained(self) -> int:
        """The number of messages in the chains."""
        return sum(head.next for head in self.heads if head)

    @property
    def filled(self) -> float:
        """The backlog as a share of the limit; from 1 on the producer waits."""
        return max(0, self.bytes) / self._limit

    @property
    def committed(self) -> Totals:
        """The totals of the chains, over all partitions."""
        return total(head.upto for head in self.heads if head)

    @property
    def slowest(self) -> tuple[int, int]:
        """The partition with the most lag, and its lag in messages; (-1, 0) when none lags."""
        sent = self.state.partitions
        lags = [
            (part.sequence - (head.next if head else 0), -number)
            for number, (part, head) in enumerate(zip(sent, self.heads, strict=False))
        ]
        lag, number = max(lags, default=(0, 1))
        return (-number, lag) if lag > 0 else (-1, 0)

    async def wait_for_room(self) -> None:
        """Return when the backlog is below the limit."""
        if self.bytes >= self._limit:
            self._room.clear()
        with log_wait("the workers: the topic is full", self._waiting_reason):
            await self._room.wait()

    def _waiting_reason(self) -> str:
        return f"{self.lag} messages of {self._topic} are in no segment; is a worker running?"

    async def refresh(self) -> None:
        """Read heads, unblock the producer, and trim the messages that are in the chains from the topic.

        The first call reads all heads. A later call reads up to 32 of those that lag, in turn.

        Raises:
            StoreUnavailable, BrokerUnavailable: call again later.
        """
        before = self.chained
        lagging = [number for number in range(len(self._chains)) if self._lags(number)]
        start = self._next_read % max(1, len(lagging))
        wanted = (lagging[start:] + lagging[:start])[: _MAX_READS if self.initialized else None]
        self._next_read = start + len(wanted)
        await self._read(wanted)
        if self.bytes < self._limit:
            self._room.set()
        await self._trim()
        self._log_standstill(before)

    def _log_standstill(self, chained: int) -> None:
        """Log every 30 seconds that the workers write no segment, while messages are in none."""
        now = asyncio.get_running_loop().time()
        if self.chained != chained or not self.lag or self._standstill is None:
            self._standstill = self._logged = now
        elif now - self._logged >= LOG_SECONDS:
            self._logged = now
            _log.warning("no new segment for %.0f s: %s", now - self._standstill, self._waiting_reason())

    async def refresh_all(self) -> None:
        """Read all heads, including those of complete chains.

        Raises:
            StoreUnavailable: call again later.
        """
        await self._read(range(len(self._chains)))

    async def _read(self, numbers: Sequence[int]) -> None:
        own = None if self.state.slice is None else self.state.numbers
        slices = 1 if own is None else self.state.spec.slices
        if len(numbers) == len(self._chains) or (len(numbers) > 1 and are_short(self.heads, slices)):
            self.heads = await read_heads(self._store, self._layout, self.heads, own, slices)
            return
        calls = (self._chains[number].head(self.heads[number]) for number in numbers)
        found = await asyncio.gather(*calls)
        for number, head in zip(numbers, found, strict=True):
            self.heads[number] = head

    def _lags(self, number: int) -> bool:
        head, sent = self.heads[number], self.state.partitions
        return not sent or (head.next if head else 0) != sent[number].sequence

    async def _trim(self) -> None:
        below = {
            head.partition: head.offset
            for head in self.heads
            if head is not None and head.attempt == self.state.attempt
        }
        if self._trimmed is None:
            # Offsets that the chain held before this producer may belong to an earlier topic of the same
            # name. Only offsets that appear from now on are known to belong to this one.
            self._trimmed = below
        moved = {number: offset for number, offset in below.items() if self._trimmed.get(number) != offset}
        if moved:
            await self._broker.delete_records(self._topic, moved)
            self._trimmed |= moved
