"""One assigned partition: settle on the chain, fill segments, land them in order.

An instance lives for one assignment: its `epoch`. When the partition is revoked the instance is
cancelled and its open segment dropped; whoever comes next goes on at the chain's end.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from shardline_common.dataset.chain import ChainRecord, Totals
from shardline_common.errors import FailureCode, JobFailed
from shardline_common.ports.broker import Record
from shardline_common.runtime.failpoints import failpoint
from shardline_common.runtime.retry import retry_forever
from shardline_common.runtime.threads import run_in_thread
from shardline_common.telemetry.tracing import span
from shardline_consumer.commit import Landing, land
from shardline_consumer.filters.clara import Judge
from shardline_consumer.segment import SCAN_FACTOR, Cut, Dead, OpenSegment
from shardline_consumer.spool.budget import SpoolBudget


class Stale(Exception):
    """The partition has gone to another worker; what was begun is dropped."""


class Behind(Exception):
    """The chain is ahead of us: settle again and go on at its end."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What the partitions of a job share: the worker's spool folder, budget and upload slots.

    And where they report: dead letters met, segments landed, ready for more records.
    """

    spool: Path
    budget: SpoolBudget
    uploads: asyncio.Semaphore
    dead_letters: Callable[[int, Sequence[Dead]], Awaitable[None]]
    landed: Callable[[ChainRecord], Awaitable[None]]
    ready: Callable[[], None]


class PartitionTask:
    """The work on one partition during one assignment."""

    def __init__(
        self,
        landing: Landing,
        bench: Bench,
        partition: int,
        seek: Callable[[int, int], None],
        is_current: Callable[[], bool],
    ) -> None:
        self._landing = landing
        self._bench = bench
        self._partition = partition
        self._seek = seek
        self._is_current = is_current
        self._judge = Judge(landing.spec.quality.min_score)
        self._segment: OpenSegment | None = None
        self._held: set[OpenSegment] = set()
        self._inbox: asyncio.Queue[Sequence[Record]] = asyncio.Queue(maxsize=1)
        self._closed: asyncio.Queue[OpenSegment] = asyncio.Queue(maxsize=1)
        self._unproven = False

    @property
    def wants_records(self) -> bool:
        """Whether the next records should be fetched: settled, and nothing is waiting."""
        return self._segment is not None and self._inbox.empty()

    def give(self, records: Sequence[Record]) -> None:
        """Hand over records, when it wants them."""
        self._inbox.put_nowait(records)

    def rewind(self) -> None:
        """The log does not hold the position asked for: read from its start, sequences tell what is new."""
        self._unproven = False
        self._go_to(-1)

    def _go_to(self, offset: int) -> None:
        if not self._inbox.empty():
            self._inbox.get_nowait()
        self._seek(self._partition, offset)

    async def run(self) -> None:
        """Work until cancelled.

        Raises (in an ExceptionGroup once settled):
            JobFailed: the attempt cannot go on.
            SpoolError, UsageError: this worker cannot go on.
            Stale, Behind: start anew, or not at all.
        """
        try:
            tip = await self._read_tip()
            self._start_at(tip)
            await self._open(tip.upto if tip else Totals(), tip.next if tip else 0)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._land_segments())
                tasks.create_task(self._fill_segments())
        finally:
            for segment in tuple(self._held):
                self._release(segment)

    async def _read_tip(self) -> ChainRecord | None:
        read = self._landing.chain(self._partition).tip
        return await retry_forever(read, self._landing.clock, "read the chain", self._landing.store_error)

    def _start_at(self, tip: ChainRecord | None) -> None:
        # An offset of an earlier life of the topic means nothing here. A wrong one is noticed by the
        # sequence of the first record, or by the log's bounds; then we read from the start.
        if tip is not None and tip.attempt == self._landing.attempt:
            self._unproven = True
            self._go_to(tip.offset)
        else:
            self.rewind()

    async def _open(self, before: Totals, first: int) -> None:
        await self._bench.budget.reserve(self._need)
        self._landing.metrics.spool(self._bench.budget.used)
        spec = self._landing.spec
        rejects = spec.relevance_decimals if spec.quality.keep_rejected else None
        self._segment = OpenSegment(
            first, before, self._judge, Cut.of(spec), self._bench.spool, rejects=rejects
        )
        self._held.add(self._segment)
        self._bench.ready()

    def _release(self, segment: OpenSegment) -> None:
        self._held.discard(segment)
        segment.discard()
        self._bench.budget.release(self._need)
        self._landing.metrics.spool(self._bench.budget.used)

    @property
    def _need(self) -> int:
        spec = self._landing.spec
        rows = spec.output.shard_bytes + spec.max_document_bytes
        rejected = SCAN_FACTOR * spec.output.shard_bytes if spec.quality.keep_rejected else 0
        return (rows + rejected) * (1 if spec.output.compression == "none" else 2)

    async def _fill_segments(self) -> None:
        while True:
            records: Sequence[Record] = await self._inbox.get()
            self._bench.ready()
            while records and self._segment is not None:
                records = await self._take(self._segment, records)

    async def _take(self, segment: OpenSegment, records: Sequence[Record]) -> Sequence[Record]:
        if self._misplaced(records[0], segment.next):
            self.rewind()
            return ()
        try:
            failpoint("worker.before_spool")
            taken = await run_in_thread(partial(segment.take, records))
            failpoint("worker.after_spool")
        except JobFailed as error:
            await self._unless_behind(error, segment)
            raise
        self._landing.metrics.consumed(self._landing.spec.job_id, taken.used, taken.replayed)
        if taken.dead:
            await self._bench.dead_letters(self._partition, taken.dead)
        if segment.closed or segment.ended:
            await self._next_segment(segment)
        return records[taken.used :]

    async def _next_segment(self, segment: OpenSegment) -> None:
        self._segment = None
        if segment.closed:
            await self._closed.put(segment)
        else:
            self._release(segment)
        if not segment.ended:
            await self._open(segment.before.plus(segment.totals), segment.next)

    def _misplaced(self, record: Record, due: int) -> bool:
        if not self._unproven or not record.value:
            return False
        self._unproven = False
        return int.from_bytes(record.value[1:9], "big") > due

    async def _unless_behind(self, error: JobFailed, segment: OpenSegment) -> None:
        # What we miss may be in the chain already, and trimmed from the topic for that reason.
        tip = await self._read_tip()
        if error.code is FailureCode.SEQUENCE_GAP and tip is not None and tip.next > segment.first:
            raise Behind from error

    async def _land_segments(self) -> None:
        while True:
            segment = await self._closed.get()
            async with self._bench.uploads:
                with span("segment", first=segment.first, records=segment.next - segment.first):
                    record, ours = await land(self._landing, self._partition, segment, self._valid)
            self._release(segment)
            if ours:
                self._landing.metrics.landed(self._landing.spec.job_id, record.segment)
            self._valid()
            await self._bench.landed(record)
            if not ours:
                raise Behind

    def _valid(self) -> None:
        if not self._is_current():
            raise Stale
