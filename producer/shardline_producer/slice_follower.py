"""The owner's view of the slices of an attempt: it opens them, and merges what they commit."""

import logging
from collections.abc import Mapping, Sequence

from shardline_common.errors import FailureCode, JobFailed
from shardline_common.job.findings import merged_findings
from shardline_common.job.names import CHECKPOINTS, attempt_topic
from shardline_common.job.state import JobState, PartitionState, State, checkpoint
from shardline_common.job.trace_headers import trace_headers
from shardline_common.ports.broker import Message, Record, TransactionalWriter
from shardline_common.runtime.clock import stamp
from shardline_common.telemetry.tracing import current_traceparent
from shardline_producer.context import ProducerContext
from shardline_producer.dead_letter_limits import check_end, check_number
from shardline_producer.encoder import end_markers
from shardline_producer.slice_states import SliceStates, open_slices

_log = logging.getLogger(__name__)


class SliceFollower:
    """Opens the slices of one attempt, follows their checkpoints, and commits the sum as the job's state.

    `writer` is that of the job, `state` its last committed state, which is updated in place. `count`: how
    many ranges the plan has.
    """

    def __init__(
        self, context: ProducerContext, writer: TransactionalWriter, state: JobState, count: int
    ) -> None:
        self._context = context
        self._writer = writer
        self._state = state
        self._count = count
        self._known: dict[int, JobState] = {}

    async def run(self) -> None:
        """Follow the slices to their end. The state is `completing` then.

        1. Open the slices that are not open. 2. Merge what they commit, and commit the sum at most once in
        `progress_seconds`. 3. At the end of all, judge the dead letters, and commit the end of the job.

        Raises:
            JobFailed: a slice failed, or there are more dead letters than the job allows.
            BrokerUnavailable: start again.
        """
        context, state = self._context, self._state
        if state.home is None:
            raise AssertionError("the state of a job with slices was read from its checkpoint")
        slices = await SliceStates.of(context, state.spec.job_id, state.home)
        # 1.
        await open_slices(slices, state, self._count, stamp(context.clock))
        # 2.
        async with context.broker.table_reader(CHECKPOINTS, slices.homes(range(self._count))) as table:
            self._apply(slices, await table.catch_up(deadline=context.policy.catch_up_seconds))
            changed, due, offset = True, context.clock.monotonic(), state.request_offset
            while not self._ended():
                wait = due - context.clock.monotonic()
                if wait <= 0 and (changed or state.request_offset != offset):
                    merge(state, self._known, self._count)
                    await self._commit([])
                    changed, offset = False, state.request_offset
                    due = context.clock.monotonic() + context.policy.progress_seconds
                timeout = wait if wait > 0 else context.policy.progress_seconds
                changed |= self._apply(slices, await table.poll(timeout=timeout))
        # 3.
        merge(state, self._known, self._count)
        check_end(state)
        state.state, state.progress, state.warning = State.COMPLETING, 1.0, None
        state.slices = {}
        state.findings = merged_findings([self._known[number].findings for number in range(self._count)])
        await self._commit(self._unused_ends())

    def _apply(self, slices: SliceStates, records: Sequence[Record]) -> bool:
        """Take over the states of this attempt. Returns whether there were any.

        Raises:
            JobFailed: a slice failed; the lowest of those that have.
        """
        found = {
            number: state
            for number, state in slices.own(records).items()
            if number < self._count and state.attempt == self._state.attempt
        }
        self._known |= found
        for number in sorted(self._known):
            state = self._known[number]
            if state.state is State.FAILED:
                message = f"slice {number} of {self._count}: {state.message}"
                raise JobFailed(FailureCode(state.code or FailureCode.INTERNAL), message)
        return bool(found)

    def _ended(self) -> bool:
        ended = [state for state in self._known.values() if state.state is State.COMPLETING]
        return len(ended) == self._count

    def _unused_ends(self) -> list[Message]:
        """The end markers of the partitions that no range has: they are empty."""
        first = self._count * self._state.spec.slice_partitions
        unused = self._state.partitions[first:]
        return end_markers(unused, trace_headers(current_traceparent()), first)

    async def _commit(self, messages: list[Message]) -> None:
        state = self._state
        check_number(state, "")
        state.updated_at = stamp(self._context.clock)
        async with self._writer.transaction() as transaction:
            if messages:
                await transaction.send(attempt_topic(state.spec.job_id, state.attempt), messages)
            await transaction.send(CHECKPOINTS, [checkpoint(state)])
        if state.state is State.RUNNING:
            self._context.metrics.checkpointed(state.spec.job_id, self._context.clock.now())
        else:
            self._context.metrics.all_sent(state.spec.job_id)


def merge(state: JobState, slices: Mapping[int, JobState], count: int) -> None:
    """Set the counts of a job to the sums of its slices.

    Args:
        state: the state of the job, changed in place.
        slices: the last states of its slices, by their numbers.
        count: how many slices there are; those that are not in `slices` are queued.
    """
    spec = state.spec
    partitions = [PartitionState() for _ in range(spec.total_partitions)]
    known = [slices[number] for number in sorted(slices)]
    for one in known:
        partitions[one.numbers.start : one.numbers.start + len(one.partitions)] = one.partitions
    names = [one.state.value for one in known] + [State.QUEUED.value] * (count - len(known))
    state.partitions = partitions
    state.slices = {one.value: names.count(one.value) for one in State if one.value in names}
    state.source_count = sum(one.source_count for one in known)
    state.vanished = sum(one.vanished for one in known)
    state.first_dead_letter = next((one.first_dead_letter for one in known if one.first_dead_letter), "")
    state.progress = sum(one.progress for one in known) / count
    state.warning = next((one.warning for one in known if one.warning), None)
