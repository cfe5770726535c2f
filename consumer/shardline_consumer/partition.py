"""One assigned partition: read the end of the chain, fill segments from there, commit them in order."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Protocol

from shardline_common.dataset.chain import ChainRecord, Totals
from shardline_common.errors import FailureCode, JobFailed
from shardline_common.job.messages import decode_kind_and_sequence, is_message
from shardline_common.job.segment_limits import SegmentLimits, max_original_bytes, max_spool_bytes
from shardline_common.ports.broker import Record
from shardline_common.runtime.failpoints import failpoint
from shardline_common.runtime.retry import retry_forever
from shardline_common.runtime.task_group import TaskGroup
from shardline_common.runtime.threads import SharedCalls
from shardline_common.telemetry.tracing import span
from shardline_consumer.commit import SegmentSink
from shardline_consumer.filters.clara import Judge
from shardline_consumer.rejected_lines import RejectedLines
from shardline_consumer.segment import OpenSegment, SequencedDeadLetter
from shardline_consumer.spool.file import SpoolDamaged
from shardline_consumer.staging.segment import StagedSegment

_log = logging.getLogger(__name__)
_IDLE_SECONDS = 5.0
_CHECK_CHAIN_EVERY = 6


class PartitionRevoked(Exception):
    """The partition was revoked; the open segment is discarded."""


class ChainAdvanced(Exception):
    """The chain is not what this processor made it: start again at the end of the chain."""


class SpoolYielded(Exception):
    """An idle open segment was discarded, because another one waits for spool: run a new processor."""


Heads = asyncio.Task[list[ChainRecord | None]]
"""Reads the heads of all chains of a job."""


class PartitionListener(Protocol):
    """The consumer that feeds a processor, as the processor calls it.

    `reads` limits the chains of the attempt that are read at once. `upload_queue` is held by the partition of
    the attempt that waits for an upload. `takes` are the calls that fill segments: a poll has records of
    several partitions.
    """

    takes: SharedCalls
    reads: asyncio.Semaphore
    upload_queue: asyncio.Lock

    def seek(self, partition: int, offset: int) -> None:
        """Read the partition from `offset` on; -1 is the beginning of the log."""

    def records_wanted(self) -> None:
        """A processor has become ready for more records."""

    def record_lost(self, partition: int, first: int) -> None:
        """A chain record that this worker wrote is gone. Raises JobFailed at the third time."""

    async def publish_dead_letters(self, partition: int, dead_letters: Sequence[SequencedDeadLetter]) -> None:
        """Publish dead letters of the partition. Returns when they are delivered."""

    async def segment_committed(self, record: ChainRecord) -> None:
        """Commit the offset of a chain record and publish its event; both are only hints."""


class PartitionProcessor:
    """Processes one partition during one assignment.

    When the partition is revoked, the processor is cancelled and its open segment discarded; the next worker
    continues at the end of the chain. `is_assigned` returns whether the assignment is still valid.
    """

    def __init__(
        self,
        sink: SegmentSink,
        listener: PartitionListener,
        partition: int,
        is_assigned: Callable[[], bool],
    ) -> None:
        self._sink = sink
        self._context = sink.context
        self._listener = listener
        self._partition = partition
        self._is_assigned = is_assigned
        self._judge = sink.curator or Judge(sink.spec.quality.min_score)
        self._limits = SegmentLimits.of(sink.spec)
        self._spool_bytes = max_spool_bytes(sink.spec)
        self._segment: OpenSegment | None = None
        self._reserved: set[OpenSegment] = set()
        self._inbox: asyncio.Queue[Sequence[Record]] = asyncio.Queue(maxsize=1)
        self._closed: asyncio.Queue[OpenSegment] = asyncio.Queue(maxsize=1)
        self._offset_unproven = False
        self._next = 0

    @property
    def wants_records(self) -> bool:
        """Whether to fetch its next records: a segment is open, and no batch of records is waiting."""
        return self._segment is not None and self._inbox.empty()

    def add_records(self, records: Sequence[Record]) -> None:
        """Hand over the next records. Call it only while `wants_records`."""
        self._inbox.put_nowait(records)

    def rewind(self) -> None:
        """Read the log from its start, because the position is not in the log.

        Messages that the chain holds already are skipped by their sequences.
        """
        self._offset_unproven = False
        self._seek(-1)

    def _seek(self, offset: int) -> None:
        if not self._inbox.empty():
            self._inbox.get_nowait()
        self._listener.seek(self._partition, offset)

    async def run(self, heads: Heads | None = None) -> None:
        """Process until cancelled. `heads` reads the chains of all partitions; None: read this one's.

        1. Read the head of the chain. 2. Seek behind it. 3. Open a segment. 4. Fill and commit segments.

        Raises (from step 4 on in an ExceptionGroup):
            JobFailed: the attempt cannot continue.
            SpoolError, UsageError: this worker cannot continue.
            PartitionRevoked: the assignment has ended.
            ChainAdvanced, SpoolYielded: run a new processor.
        """
        try:
            # The task is shared: a cancel of this partition must not end it for the others.
            found = await asyncio.shield(heads) if heads else None
            head = found[self._partition] if found is not None else await self._read_head()
            if head is not None and head.attempt == self._sink.attempt:
                # Only an offset of this attempt belongs to this topic. Even that one is wrong when the topic
                # was created again; the sequence of the first record or the bounds of the log show it.
                self._offset_unproven = True
                self._seek(head.offset)
            else:
                self.rewind()
            self._next = head.next if head else 0
            await self._open_segment(head.upto if head else Totals(), head.next if head else 0)
            async with TaskGroup() as tasks:
                tasks.create_task(self._commit_segments())
                tasks.create_task(self._fill_segments())
        finally:
            for segment in tuple(self._reserved):
                self._release(segment)

    async def _read_head(self) -> ChainRecord | None:
        read = self._sink.chain(self._partition).head
        async with self._listener.reads:
            return await retry_forever(
                read, self._context.clock, "read the chain", self._sink.count_store_error
            )

    async def _open_segment(self, before: Totals, first: int) -> None:
        await self._context.budget.reserve(self._spool_bytes, self._sink.spec.job_id)
        self._context.metrics.spool(self._context.budget.used)
        spec = self._sink.spec
        parts = (first, before, self._judge, self._limits, self._context.spool)
        if spec.assembled:
            self._segment = StagedSegment(*parts, spec=spec, partition=self._partition)
        else:
            self._segment = OpenSegment(
                *parts, rejected_lines=RejectedLines.of(spec), original_bytes=max_original_bytes(spec)
            )
        self._reserved.add(self._segment)
        self._listener.records_wanted()

    def _release(self, segment: OpenSegment) -> None:
        self._reserved.discard(segment)
        try:
            segment.discard()
        except Exception as error:  # noqa: BLE001 - its spool must be free again in any case
            _log.error("spool files are removed later: %s: %s", type(error).__name__, error)
        self._context.budget.release(self._spool_bytes, self._sink.spec.job_id)
        self._context.metrics.spool(self._context.budget.used)

    async def _fill_segments(self) -> None:
        while True:
            records = await self._next_records()
            self._listener.records_wanted()
            while records and self._segment is not None:
                records = await self._take(self._segment, records)

    async def _next_records(self) -> Sequence[Record]:
        idle = 0
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_IDLE_SECONDS):
                    return await self._inbox.get()
            # A segment that gets no more records keeps its spool until the end marker. If another partition
            # waits for that spool, its messages fill the topic, the producer waits, and no marker comes.
            if self._context.budget.contended and self._reserved == {self._segment}:
                raise SpoolYielded
            idle += 1
            if idle % _CHECK_CHAIN_EVERY == 0 and self._reserved <= {self._segment}:
                await self._check_chain()

    async def _check_chain(self) -> None:
        # Nobody else would put a record again that was deleted behind this processor, and the attempt would
        # never be complete.
        head = await self._read_head()
        end = head.next if head else 0
        if end < self._next:
            self._listener.record_lost(self._partition, end)
            raise ChainAdvanced

    async def _take(self, segment: OpenSegment, records: Sequence[Record]) -> Sequence[Record]:
        """Add records to the segment. Returns the records that it did not use."""
        if self._is_misplaced(records[0], segment.next):
            self.rewind()
            return ()
        try:
            failpoint("worker.before_spool")
            taken = await self._listener.takes.run(partial(segment.take, records))
            failpoint("worker.after_spool")
        except JobFailed as error:
            # The missing messages may be in the chain already, and may be trimmed from the topic therefore.
            head = await self._read_head()
            if error.code is FailureCode.SEQUENCE_GAP and head is not None and head.next > segment.first:
                raise ChainAdvanced from error
            raise
        self._context.metrics.consumed(self._sink.spec.job_id, taken.documents, taken.replayed)
        if taken.dead_letters:
            await self._listener.publish_dead_letters(self._partition, taken.dead_letters)
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
            await self._open_segment(segment.before.plus(segment.totals), segment.next)

    def _is_misplaced(self, record: Record, expected: int) -> bool:
        value = record.value
        if not self._offset_unproven or not is_message(value):
            return False
        self._offset_unproven = False
        return decode_kind_and_sequence(value)[1] > expected

    async def _commit_segments(self) -> None:
        metrics, job_id = self._context.metrics, self._sink.spec.job_id
        while True:
            segment = await self._closed.get()
            async with self._upload_slot():
                with span("segment", first=segment.first, records=segment.next - segment.first):
                    record, created = await self._commit(segment)
            self._next = record.next
            self._release(segment)
            if created:
                metrics.segment_committed(job_id, record.segment)
            self._check_assigned()
            await self._listener.segment_committed(record)
            if not created:
                raise ChainAdvanced

    async def _commit(self, segment: OpenSegment) -> tuple[ChainRecord, bool]:
        try:
            return await self._sink.commit_segment(self._partition, segment, self._check_assigned)
        except SpoolDamaged as error:
            _log.error("%s; the segment is read again", error)
            raise ChainAdvanced from error

    @asynccontextmanager
    async def _upload_slot(self) -> AsyncIterator[None]:
        # The semaphore serves its waiters in order. One waiter of each job at a time, so that a job with a
        # thousand closed segments does not hold up the others.
        async with self._listener.upload_queue:
            await self._context.uploads.acquire()
        try:
            yield
        finally:
            self._context.uploads.release()

    def _check_assigned(self) -> None:
        if not self._is_assigned():
            raise PartitionRevoked
