"""One worker's part in one job attempt: a group member that feeds its partitions."""

import asyncio
import logging
from collections.abc import Sequence
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from shardline_common.dataset.chain import ChainRecord
from shardline_common.dataset.events import Event, event_message
from shardline_common.errors import OffsetOutOfRange, TopicMissing
from shardline_common.job.dead_letters import document_dead_letter
from shardline_common.job.names import DEAD_LETTERS, EVENTS, attempt_group, attempt_topic
from shardline_common.ports.broker import Broker, GroupListener, GroupReader
from shardline_common.runtime.clock import stamp
from shardline_common.runtime.failpoints import failpoint
from shardline_common.runtime.retry import retry_forever
from shardline_common.telemetry.logs import about, log_context
from shardline_consumer.commit import Landing
from shardline_consumer.partition import Behind, Bench, PartitionTask, Stale
from shardline_consumer.segment import Dead
from shardline_consumer.spool.budget import SpoolBudget

_log = logging.getLogger(__name__)
_POLL_SECONDS = 0.5
_MOST_RECORDS = 4_000
_LOOK_FOR_TOPIC_AFTER = 5.0


@dataclass(frozen=True, slots=True)
class Resources:
    """What a worker's jobs share."""

    spool: Path
    budget: SpoolBudget
    uploads: asyncio.Semaphore
    keep_originals: bool = True


class JobConsumer:
    """Takes part in one attempt until cancelled."""

    def __init__(
        self, broker: Broker, landing: Landing, resources: Resources, progress: asyncio.Event
    ) -> None:
        self._broker = broker
        self._landing = landing
        self._resources = resources
        self._progress = progress
        self._topic = attempt_topic(landing.spec.job_id, landing.attempt)
        self._parts: dict[int, PartitionTask] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._epoch = 0
        self._ready = asyncio.Event()
        self._quiet_since = landing.clock.monotonic()

    async def run(self) -> None:
        """Join the group and work.

        Raises (partly in ExceptionGroups):
            TopicMissing: the attempt's topic was deleted.
            JobFailed, SpoolError, UsageError: see PartitionTask.
            BrokerUnavailable: join again later.
        """
        group = attempt_group(self._landing.spec.job_id, self._landing.attempt)
        self._context = copy_context()
        async with asyncio.TaskGroup() as tasks:
            self._group = tasks
            listener = GroupListener(assigned=self._assigned, revoked=self._revoked)
            async with self._broker.group_reader(self._topic, group, listener) as reader:
                self._reader = reader
                try:
                    await self._feed(reader)
                finally:
                    await self._revoked(tuple(self._tasks))

    async def _assigned(self, partitions: Sequence[int]) -> None:
        # Only marks the place: the chain is read by each partition's task, a rebalance must not wait for S3.
        self._epoch += 1
        self._progress.set()
        for partition in partitions:
            work, name = self._work(partition, self._epoch), f"{self._topic}/{partition}"
            # Brokers call from tasks of their own: what is known of the job must not get lost.
            self._tasks[partition] = self._group.create_task(work, name=name, context=self._context.copy())

    async def _revoked(self, partitions: Sequence[int]) -> None:
        self._epoch += 1
        tasks = [self._tasks.pop(partition) for partition in partitions if partition in self._tasks]
        for partition in partitions:
            self._parts.pop(partition, None)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, partition: int, epoch: int) -> None:
        with log_context(partition=partition):
            await self._work_on(partition, epoch)

    async def _work_on(self, partition: int, epoch: int) -> None:
        current = partial(self._is_current, epoch)
        resources = self._resources
        bench = Bench(
            spool=resources.spool,
            budget=resources.budget,
            uploads=resources.uploads,
            dead_letters=self._report_dead,
            landed=self._report_landed,
            ready=self._ready.set,
        )
        while current():
            task = PartitionTask(self._landing, bench, partition, self._seek, current)
            self._parts[partition] = task
            try:
                await task.run()
            except BaseExceptionGroup as group:
                if group.split((Stale, Behind))[1] is not None:
                    raise

    def _is_current(self, epoch: int) -> bool:
        return epoch == self._epoch

    def _seek(self, partition: int, offset: int) -> None:
        self._reader.seek(partition, offset)

    async def _feed(self, reader: GroupReader) -> None:
        while True:
            wanted = {number: part for number, part in self._parts.items() if part.wants_records}
            if not wanted:
                await self._rest(reader)
                continue
            try:
                found = await reader.poll(tuple(wanted), timeout=_POLL_SECONDS, max_records=_MOST_RECORDS)
            except OffsetOutOfRange as error:
                self._rewind(error.partitions)
                continue
            for number, records in found.items():
                # Whoever follows on one of these seeks first, which takes back what was under way.
                wanted[number].give(records)
            await self._look_for_topic(quiet=not found)

    async def _rest(self, reader: GroupReader) -> None:
        # No partition has room: stay a member, and wake when one of them is ready.
        self._ready.clear()
        await reader.poll((), timeout=0, max_records=1)
        try:
            async with asyncio.timeout(_POLL_SECONDS):
                await self._ready.wait()
        except TimeoutError:
            await self._look_for_topic(quiet=True)

    def _rewind(self, partitions: Sequence[int]) -> None:
        for number in partitions:
            if (part := self._parts.get(number)) is not None:
                part.rewind()

    async def _look_for_topic(self, *, quiet: bool) -> None:
        # A consumer whose topic was deleted gets no error, only nothing, for ever.
        now = self._landing.clock.monotonic()
        if not quiet:
            self._quiet_since = now
        elif now - self._quiet_since > _LOOK_FOR_TOPIC_AFTER:
            self._quiet_since = now
            if not await self._broker.partitions(self._topic):
                raise TopicMissing(f"the topic {self._topic} is gone", hint="retry the job to rebuild it")

    async def _report_dead(self, partition: int, dead: Sequence[Dead]) -> None:
        spec = self._landing.spec
        messages = [
            document_dead_letter(
                spec.job_id,
                (partition, item.sequence),
                item.position,
                item.letter,
                keep_original=self._resources.keep_originals,
            )
            for item in dead
        ]
        publish = partial(self._broker.publish, DEAD_LETTERS, messages)
        await retry_forever(publish, self._landing.clock, "publish dead letters")

    async def _report_landed(self, record: ChainRecord) -> None:
        self._progress.set()
        spec, attempt = self._landing.spec, self._landing.attempt
        _log.info(
            "a segment landed", extra=about(first=record.first, rows=record.segment.rows, object=record.key)
        )
        if record.attempt == attempt:
            await self._reader.commit({record.partition: record.offset})
            failpoint("worker.after_commit")
        event = Event.of(spec.job_id, attempt, record, stamp(self._landing.clock))
        await self._broker.publish(EVENTS, [event_message(event)])
