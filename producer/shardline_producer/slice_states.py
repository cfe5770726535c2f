"""The committed states of a job's slices: each has a checkpoint and a transactional id."""

import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from shardline_common.job.names import CHECKPOINTS, checkpoint_key, transactional_id
from shardline_common.job.spec import JobSpec
from shardline_common.job.state import JobState, checkpoint, latest_slices, latest_states
from shardline_common.ports.broker import Broker, Message, Record, TransactionalWriter
from shardline_common.runtime.tasks import gather_limited
from shardline_producer.context import ProducerContext

_log = logging.getLogger(__name__)
_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class SliceStates:
    """Access to the checkpoints of the slices of one job.

    Slice n has its checkpoint n partitions behind that of the job, so that the slices of a job belong to
    different producers.

    Args:
        broker: the broker of the checkpoints.
        job_id: the job.
        home: the partition of the job's own checkpoint.
        partitions: the number of partitions of dataset.checkpoints.
        seconds: the longest time to read the checkpoints.
    """

    broker: Broker
    job_id: str
    home: int
    partitions: int
    seconds: float

    @classmethod
    async def of(cls, context: ProducerContext, job_id: str, home: int) -> "SliceStates":
        """The slices of a job, whose own checkpoint is in partition `home`. Raises BrokerUnavailable."""
        count = await context.broker.partitions(CHECKPOINTS)
        return cls(context.broker, job_id, home, max(1, count), context.policy.catch_up_seconds)

    def home_of(self, number: int) -> int:
        """The partition of the checkpoint of a slice."""
        return (self.home + number) % self.partitions

    def homes(self, numbers: Iterable[int]) -> list[int]:
        """The partitions of the checkpoints of some slices."""
        return sorted({self.home_of(number) for number in numbers})

    def own(self, records: Sequence[Record]) -> dict[int, JobState]:
        """The last states of the slices of this job among checkpoints, by their numbers."""
        found = latest_slices(records)
        return {number: state for (job_id, number), state in found.items() if job_id == self.job_id}

    async def load(self, numbers: Iterable[int]) -> dict[int, JobState]:
        """Read the last committed states of some slices. Raises BrokerUnavailable."""
        async with self.broker.table_reader(CHECKPOINTS, self.homes(numbers)) as table:
            return self.own(await table.catch_up(deadline=self.seconds))

    async def is_active(self, attempt: int) -> bool:
        """Whether this attempt of the job is undecided, by its last committed state."""
        async with self.broker.table_reader(CHECKPOINTS, [self.home]) as table:
            job = latest_states(await table.catch_up(deadline=self.seconds)).get(self.job_id)
        return job is not None and job.active and job.attempt == attempt

    def fence_and_load(
        self, number: int
    ) -> AbstractAsyncContextManager[tuple[TransactionalWriter, JobState | None]]:
        """As `fence_and_load`."""
        return fence_and_load(self.broker, self.job_id, number, self.home_of(number), self.seconds)


@asynccontextmanager
async def fence_and_load(
    broker: Broker, job_id: str, number: int, home: int, seconds: float
) -> AsyncIterator[tuple[TransactionalWriter, JobState | None]]:
    """Open a writer that fences every other producer of a slice, and read its last committed state.

    The state is None when the slice was never opened, or is removed. `home` is the partition of its
    checkpoint, `seconds` the longest time to read it.

    Raises:
        BrokerUnavailable: try again.
    """
    async with broker.transactional(transactional_id(job_id, number)) as writer:
        async with broker.table_reader(CHECKPOINTS, [home]) as table:
            records = await table.catch_up(deadline=seconds)
        yield writer, latest_slices(records).get((job_id, number))


async def open_slices(slices: SliceStates, state: JobState, count: int, at: str) -> None:
    """Commit the first state of each slice of an attempt, unless it has one. May be repeated.

    Args:
        slices: the slices of the job.
        state: the state of the job.
        count: how many ranges the plan has.
        at: the time.

    Raises:
        BrokerUnavailable: try again.
    """

    async def open_one(number: int) -> None:
        async with slices.fence_and_load(number) as (writer, found):
            # Another owner of the job may have opened it meanwhile, for this attempt or for a later one.
            if found is not None and found.attempt >= state.attempt:
                return
            # After a pause, the attempt may have ended and its slices be removed. Read behind the fence: who
            # removes them later fences this writer.
            if not await slices.is_active(state.attempt):
                return
            first = JobState(
                state.spec,
                attempt=state.attempt,
                accepted_at=state.accepted_at,
                traceparent=state.traceparent,
                updated_at=at,
                slice=number,
                home=slices.home_of(number),
            )
            async with writer.transaction() as transaction:
                await transaction.send(CHECKPOINTS, [checkpoint(first)])

    # Opening a writer fences the producer that sends the slice. So it is done only where needed.
    known = await slices.load(range(count))
    missing = [n for n in range(count) if n not in known or known[n].attempt < state.attempt]
    await gather_limited([partial(open_one, number) for number in missing], _AT_ONCE)
    if missing:
        _log.info("%d slices are opened", len(missing))


async def remove_slices(context: ProducerContext, spec: JobSpec, home: int, attempt: int) -> None:
    """Remove the checkpoints of the slices of an ended attempt and of those before it. May be repeated.

    `home` is the partition of the job's own checkpoint.

    Raises:
        BrokerUnavailable: try again.
    """
    slices = await SliceStates.of(context, spec.job_id, home)

    async def remove_one(number: int) -> None:
        async with slices.fence_and_load(number) as (writer, found):
            # Another producer may have opened the next attempt.
            if found is None or found.attempt > attempt:
                return
            key = checkpoint_key(slices.job_id, number).encode()
            async with writer.transaction() as transaction:
                await transaction.send(CHECKPOINTS, [Message(key, None, slices.home_of(number))])

    # Also those that have none now: what a killed producer has sent may still arrive, unless it is fenced.
    await gather_limited([partial(remove_one, number) for number in range(spec.slices)], _AT_ONCE)
