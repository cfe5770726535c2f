"""The producer process: it owns the jobs in its partitions of dataset.jobs."""

import asyncio
import logging
from collections.abc import Sequence
from functools import partial

from shardline_common.errors import (
    BrokerUnavailable,
    JobFailed,
    JobInvalid,
    OffsetOutOfRange,
    explain,
    leaf_of,
)
from shardline_common.job.dead_letters import message_dead_letter
from shardline_common.job.names import CHECKPOINTS, DEAD_LETTERS, JOBS, PRODUCERS
from shardline_common.job.spec import JobSpec, Request, parse_message
from shardline_common.job.state import JobState, latest_states
from shardline_common.ports.broker import GroupListener, GroupReader, Record
from shardline_common.runtime.retry import retry_forever
from shardline_common.runtime.task_group import TaskGroup, no_foreign_cancel
from shardline_common.runtime.unexpected import (
    Restarts,
    contains_only,
    internal_failure,
)
from shardline_common.runtime.waits import log_failure
from shardline_common.telemetry.logs import log_context
from shardline_producer.context import ProducerContext
from shardline_producer.job_guard import JobGuard
from shardline_producer.job_runner import JobRunner
from shardline_producer.slice_coordinator import SliceCoordinator
from shardline_producer.staged_sweep import sweep_staged
from shardline_producer.topic_sweep import sweep_topics

_log = logging.getLogger(__name__)
_POLL_SECONDS = 0.5
_MAX_RECORDS = 500
_CATCH_UP_SECONDS = 120.0
_REJOIN_SECONDS = 1.0


class JobCoordinator:
    """Reads jobs and requests from dataset.jobs, and runs a JobRunner for each job that has work.

    The jobs of a newly assigned partition are loaded from its checkpoints before its messages are read.
    `ready` is set while partitions are assigned.
    """

    def __init__(self, context: ProducerContext) -> None:
        self._context = context
        self._runners: dict[int, dict[str, JobRunner]] = {}
        self._tasks: dict[tuple[int, str], asyncio.Task[None]] = {}
        self._loading: dict[int, asyncio.Task[None]] = {}
        self._next_offsets: dict[int, int] = {}
        self._errors = context.errors
        self._slices = SliceCoordinator(context, self._owns_active)
        self.ready = asyncio.Event()
        context.metrics.follow_jobs(self._states)

    async def run(self) -> None:
        """Work until cancelled. Join the group again after errors of the broker, and after unexpected ones.

        Raises:
            JobFailed: the fourth unexpected error in a row, which is none of a job; or the failure of a job
                that cannot be recorded, if it is the only job of this process.
        """
        restarts = Restarts(self._context.clock)
        while True:
            try:
                with no_foreign_cancel():
                    await self._follow_jobs()
            except Exception as error:
                leaf = leaf_of(error)
                if isinstance(leaf, JobFailed):
                    raise
                if contains_only(error, BrokerUnavailable):
                    log_failure(_log, error, "dataset.jobs cannot be read: %s; joining again", leaf)
                else:
                    self._errors.log(error, "the producer joins again")
                    if not await restarts.allowed():
                        raise internal_failure(error, "the producer") from error
            self.ready.clear()
            self._drop_partitions(tuple(self._runners))
            await self._context.clock.sleep(_REJOIN_SECONDS)

    async def _follow_jobs(self) -> None:
        async with TaskGroup() as tasks:
            self._group = tasks
            tasks.create_task(self._sweep(), name="sweep topics")
            tasks.create_task(self._sweep_staged(), name="sweep staged rows")
            if self._context.policy.follow_slices:
                tasks.create_task(self._slices.run(tasks), name="follow slices")
            listener = GroupListener(assigned=self._assigned, revoked=self._revoked)
            async with self._context.broker.group_reader(JOBS, PRODUCERS, listener) as reader:
                self._reader = reader
                try:
                    await self._read_messages(reader)
                finally:
                    self._drop_partitions(tuple(self._runners))
                    self._slices.assign(())

    async def _sweep(self) -> None:
        context = self._context
        seconds = context.policy.sweep_seconds
        await sweep_topics(context.broker, context.clock, seconds, self._state_of, self._errors)

    async def _sweep_staged(self) -> None:
        context = self._context
        seconds = context.policy.sweep_seconds
        await sweep_staged(context.store, context.clock, seconds, self._state_of, self._errors)

    def _state_of(self, job_id: str) -> JobState | None:
        runners = (runners.get(job_id) for runners in self._runners.values())
        return next((runner.state for runner in runners if runner is not None), None)

    def _owns_active(self, job_id: str) -> bool:
        state = self._state_of(job_id)
        return state is not None and state.active

    async def _read_messages(self, reader: GroupReader) -> None:
        while True:
            loaded = [number for number in self._runners if number not in self._loading]
            try:
                found = await reader.poll(loaded, timeout=_POLL_SECONDS, max_records=_MAX_RECORDS)
            except OffsetOutOfRange as error:
                for partition in error.partitions:
                    reader.seek(partition, -1)
                continue
            for records in found.values():
                for record in records:
                    await self._handle_guarded(record)
            self._remove_finished()

    async def _revoked(self, _: Sequence[int]) -> None:
        # Running jobs continue through a rebalance. Jobs of partitions that are not assigned again stop in
        # `_assigned`; the new owner of the partition fences this producer in any case.
        return

    async def _assigned(self, partitions: Sequence[int]) -> None:
        self._drop_partitions([number for number in self._runners if number not in partitions])
        self._slices.assign(partitions)
        for number in partitions:
            self._reader.seek(number, self._next_offsets.get(number, -1))
            if number not in self._runners:
                self._runners[number] = {}
                self._loading[number] = self._group.create_task(self._load(number), name=f"load {number}")
        self.ready.set()

    def _drop_partitions(self, partitions: Sequence[int]) -> None:
        for number in partitions:
            self._runners.pop(number, None)
            self._next_offsets.pop(number, None)
            if (loading := self._loading.pop(number, None)) is not None:
                loading.cancel()
        for (number, job_id), task in tuple(self._tasks.items()):
            if number in partitions:
                task.cancel()
                del self._tasks[number, job_id]

    async def _load(self, partition: int) -> None:
        """Read the checkpoints of a partition and start the jobs that have work."""

        async def read() -> Sequence[Record]:
            async with self._context.broker.table_reader(CHECKPOINTS, [partition]) as table:
                return await table.catch_up(deadline=_CATCH_UP_SECONDS)

        records = await retry_forever(read, self._context.clock, f"read checkpoints {partition}")
        for job_id, state in latest_states(records).items():
            runner = JobRunner(self._context, partition, state.spec, state)
            self._runners[partition][job_id] = runner
            if state.active or not state.topic_removed or state.pending_notifications:
                self._start(partition, runner, None)
        self._loading.pop(partition, None)

    def _start(self, partition: int, runner: JobRunner, submission: Record | None) -> None:
        job_id = runner.spec.job_id
        task = self._tasks.get((partition, job_id))
        if task is None or task.done():
            task = self._group.create_task(self._run_guarded(runner, submission), name=f"job {job_id}")
            self._tasks[partition, job_id] = task

    async def _run_guarded(self, runner: JobRunner, submission: Record | None) -> None:
        with log_context(job=runner.spec.job_id):
            await JobGuard(self._context, runner).run(submission)

    async def _handle_guarded(self, record: Record) -> None:
        try:
            with no_foreign_cancel():
                await self._handle_message(record)
        except Exception as error:  # noqa: BLE001 - it would end all jobs, and come again at the next start
            self._errors.log(error, f"the message {record.partition}/{record.offset} is refused")
            await self._refuse(record, "internal", explain(internal_failure(error, "the producer")))

    async def _handle_message(self, record: Record) -> None:
        """Pass a message to its job. Refuse one that is neither a job nor a request about a known job."""
        runners = self._runners.get(record.partition)
        if runners is None:
            return
        self._next_offsets[record.partition] = record.offset + 1
        try:
            message = _parse(record)
        except JobInvalid as error:
            await self._refuse(record, "invalid_job", str(error))
            return
        runner = runners.get(message.job_id)
        if isinstance(message, Request):
            if runner is None:
                await self._refuse(record, "unknown_job", f"no job '{message.job_id}' was ever submitted")
            else:
                runner.request(message, record)
                self._start(record.partition, runner, None)
        elif runner is None:
            self._submit(runners, message, record)
        elif runner.spec.body() != message.body():
            hint = f"the job id '{message.job_id}' belongs to another job, which is untouched; choose another"
            await self._refuse(record, "job_conflict", hint)

    def _submit(self, runners: dict[str, JobRunner], spec: JobSpec, record: Record) -> None:
        runner = JobRunner(self._context, record.partition, spec, None)
        runners[spec.job_id] = runner
        self._start(record.partition, runner, record)

    async def _refuse(self, record: Record, reason: str, hint: str) -> None:
        _log.warning("%s: message %d/%d: %s", reason, record.partition, record.offset, hint)
        self._context.metrics.message_refused()
        dead_letters = [message_dead_letter(record, reason, hint)]
        publish = partial(self._context.broker.publish, DEAD_LETTERS, dead_letters)
        await retry_forever(publish, self._context.clock, "publish a dead letter")

    def _remove_finished(self) -> None:
        for (partition, job_id), task in tuple(self._tasks.items()):
            if not task.done():
                continue
            del self._tasks[partition, job_id]
            runner = self._runners.get(partition, {}).get(job_id)
            if runner is not None and runner.state is None:
                # The job was not accepted.
                del self._runners[partition][job_id]

    def _states(self) -> list[str]:
        runners = [runner for jobs in self._runners.values() for runner in jobs.values()]
        return [runner.state.state.value for runner in runners if runner.state is not None]


def _parse(record: Record) -> JobSpec | Request:
    message = parse_message(record.value or b"")
    if record.key != message.job_id.encode():
        # The key decides the partition, and so the producer that owns the job.
        raise JobInvalid(f"the message's key must be the job id '{message.job_id}'")
    return message
