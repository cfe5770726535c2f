"""A member of an attempt's consumer group, with one processor for each assigned partition."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from contextvars import copy_context
from functools import partial

from shardline_common.dataset.chain import ChainRecord
from shardline_common.dataset.events import Event, event_message
from shardline_common.dataset.heads import READS_AT_ONCE, read_heads
from shardline_common.errors import BrokerUnavailable, FailureCode, JobFailed, OffsetOutOfRange, TopicMissing
from shardline_common.job.dead_letters import document_dead_letter
from shardline_common.job.names import DEAD_LETTERS, EVENTS, attempt_group, attempt_topic
from shardline_common.ports.broker import GroupListener, GroupReader
from shardline_common.runtime.clock import stamp
from shardline_common.runtime.failpoints import failpoint
from shardline_common.runtime.retry import retry_forever
from shardline_common.runtime.task_group import TaskGroup
from shardline_common.runtime.threads import SharedCalls
from shardline_common.runtime.waits import log_failure
from shardline_common.telemetry.logs import log_context, log_fields
from shardline_consumer.commit import SegmentSink
from shardline_consumer.partition import (
    ChainAdvanced,
    Heads,
    PartitionProcessor,
    PartitionRevoked,
    SpoolYielded,
)
from shardline_consumer.segment import SequencedDeadLetter

_log = logging.getLogger(__name__)
_POLL_SECONDS = 0.5
_MAX_RECORDS = 4_000
_TOPIC_CHECK_SECONDS = 5.0
_MAX_READS = 16
_MAX_LOSSES = 3


class AttemptConsumer:
    """Consumes one attempt until cancelled. Implements `PartitionListener`.

    `progress` is set when partitions are assigned; `owned` holds those that are assigned; `committed` is
    called with the chain record of each segment. Each assignment has a number, its epoch. A processor of an
    earlier epoch puts and commits nothing.
    """

    def __init__(
        self,
        sink: SegmentSink,
        progress: asyncio.Event,
        owned: set[int],
        committed: Callable[[ChainRecord], None],
    ) -> None:
        self._sink = sink
        self._committed = committed
        self._owned = owned
        self._context = sink.context
        self._progress = progress
        self._topic = attempt_topic(sink.spec.job_id, sink.attempt)
        self._processors: dict[int, PartitionProcessor] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._epoch = 0
        self.takes = SharedCalls()
        self.reads = asyncio.Semaphore(_MAX_READS)
        self.upload_queue = asyncio.Lock()
        self._ready = asyncio.Event()
        self._quiet_since = self._context.clock.monotonic()
        self._lost: Counter[str] = Counter()

    async def run(self) -> None:
        """Join the group and consume.

        Raises (partly in ExceptionGroups):
            TopicMissing: the attempt's topic was deleted.
            JobFailed, SpoolError, UsageError: as PartitionProcessor.run.
            BrokerUnavailable: join again later.
        """
        group = attempt_group(self._sink.spec.job_id, self._sink.attempt)
        self._task_context = copy_context()
        async with TaskGroup() as tasks:
            self._group = tasks
            listener = GroupListener(assigned=self._assigned, revoked=self._revoked)
            async with self._context.broker.group_reader(self._topic, group, listener) as reader:
                self._reader = reader
                try:
                    await self._feed(reader)
                finally:
                    await self._revoked(tuple(self._tasks))

    async def _assigned(self, partitions: Sequence[int]) -> None:
        # Only starts tasks, which read their chains themselves: a rebalance must not wait for S3.
        self._epoch += 1
        self._owned.update(partitions)
        self._progress.set()
        heads: Heads | None = None
        # By one listing, unless most of the partitions are those of other workers.
        several = 1 < len(partitions) >= self._sink.spec.total_partitions / 2
        if several or len(partitions) > READS_AT_ONCE:
            read, name = self._read_heads(), f"{self._topic} heads"
            heads = self._group.create_task(read, name=name, context=self._task_context.copy())
        for partition in partitions:
            work, name = self._process(partition, self._epoch, heads), f"{self._topic}/{partition}"
            # The broker calls this from its own task, which does not have the log context of the job.
            self._tasks[partition] = self._group.create_task(
                work, name=name, context=self._task_context.copy()
            )

    async def _revoked(self, partitions: Sequence[int]) -> None:
        self._epoch += 1
        self._owned.difference_update(partitions)
        tasks = [self._tasks.pop(partition) for partition in partitions if partition in self._tasks]
        for partition in partitions:
            self._processors.pop(partition, None)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _read_heads(self) -> list[ChainRecord | None]:
        """Read the chains of all partitions together, for the first processors of an assignment."""
        empty = [None] * self._sink.spec.total_partitions
        read = partial(read_heads, self._context.store, self._sink.layout, empty)
        return await retry_forever(read, self._context.clock, "read the chains", self._sink.count_store_error)

    async def _process(self, partition: int, epoch: int, heads: Heads | None) -> None:
        is_assigned = partial(self._is_current, epoch)
        with log_context(partition=partition):
            while is_assigned():
                processor = PartitionProcessor(self._sink, self, partition, is_assigned)
                self._processors[partition] = processor
                try:
                    await processor.run(heads)
                except BaseExceptionGroup as group:
                    if group.split((PartitionRevoked, ChainAdvanced, SpoolYielded))[1] is not None:
                        raise
                heads = None

    def _is_current(self, epoch: int) -> bool:
        return epoch == self._epoch

    async def _feed(self, reader: GroupReader) -> None:
        while True:
            receivers = {number: item for number, item in self._processors.items() if item.wants_records}
            if not receivers:
                await self._wait_for_room(reader)
                continue
            try:
                found = await reader.poll(tuple(receivers), timeout=_POLL_SECONDS, max_records=_MAX_RECORDS)
            except OffsetOutOfRange as error:
                for number in error.partitions:
                    if (processor := self._processors.get(number)) is not None:
                        processor.rewind()
                continue
            for number, records in found.items():
                # A later processor of the partition seeks first: then a poll under way returns none of it.
                receivers[number].add_records(records)
            await self._check_topic(quiet=not found)

    async def _wait_for_room(self, reader: GroupReader) -> None:
        # A poll of no partition keeps the membership.
        self._ready.clear()
        await reader.poll((), timeout=0, max_records=1)
        try:
            async with asyncio.timeout(_POLL_SECONDS):
                await self._ready.wait()
        except TimeoutError:
            await self._check_topic(quiet=True)

    async def _check_topic(self, *, quiet: bool) -> None:
        # A consumer whose topic was deleted gets no error: its polls return no records from then on.
        now = self._context.clock.monotonic()
        if not quiet:
            self._quiet_since = now
        elif now - self._quiet_since > _TOPIC_CHECK_SECONDS:
            self._quiet_since = now
            try:
                partitions = await self._context.broker.partitions(self._topic)
            except BrokerUnavailable as error:
                # Unknown is not gone. To leave the group would stop the work that needs no broker now.
                log_failure(_log, error, "it is not known whether the topic exists: %s", error)
                return
            if not partitions:
                raise TopicMissing(f"the topic {self._topic} is gone", hint="retry the job to rebuild it")

    def seek(self, partition: int, offset: int) -> None:
        """Implements `PartitionListener.seek`."""
        self._reader.seek(partition, offset)

    def records_wanted(self) -> None:
        """Implements `PartitionListener.records_wanted`."""
        self._ready.set()

    def record_lost(self, partition: int, first: int) -> None:
        """Implements `PartitionListener.record_lost`."""
        key = self._sink.layout.chain_record(partition, first)
        self._lost[key] += 1
        _log.warning("%s was written, and is not in the store; it is written again", key)
        if self._lost[key] >= _MAX_LOSSES:
            raise JobFailed(
                FailureCode.OBJECT_LOST,
                f"{key} was put {_MAX_LOSSES} times, and acknowledged, and is not in the store",
                hint="find out why the store loses objects, then retry the job",
            )

    async def publish_dead_letters(self, partition: int, dead_letters: Sequence[SequencedDeadLetter]) -> None:
        """Implements `PartitionListener.publish_dead_letters`: retried until Kafka accepts them."""
        messages = [
            document_dead_letter(
                self._sink.spec.job_id,
                partition,
                item.sequence,
                item.position,
                item.dead_letter,
                keep_original=self._context.keep_originals,
            )
            for item in dead_letters
        ]
        publish = partial(self._context.broker.publish, DEAD_LETTERS, messages)
        await retry_forever(publish, self._context.clock, "publish dead letters")

    async def segment_committed(self, record: ChainRecord) -> None:
        """Implements `PartitionListener.segment_committed`."""
        self._committed(record)
        spec, attempt = self._sink.spec, self._sink.attempt
        _log.info(
            "segment committed",
            extra=log_fields(first=record.first, rows=record.segment.rows, object=record.key),
        )
        if record.attempt == attempt:
            await self._reader.commit({record.partition: record.offset})
            failpoint("worker.after_commit")
        event = Event.of(spec.job_id, attempt, record, stamp(self._context.clock))
        try:
            await self._context.broker.publish(EVENTS, [event_message(event)])
        except BrokerUnavailable as error:
            # Events are hints. The chain has the segment, so its error must not end this consumer.
            log_failure(_log, error, "the progress is not published: %s", error)
