"""When an attempt fails for Kafka's refusals, and when it waits for the operator."""

import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

import pytest

from shardline_common.errors import (
    BrokerRefused,
    BrokerUnavailable,
    FailureCode,
    JobFailed,
    ServiceUnavailable,
    SourceUnavailable,
    StoreUnavailable,
)
from shardline_common.job.names import CHECKPOINTS, transactional_id
from shardline_common.job.state import JobState, checkpoint
from shardline_common.memory.broker import MemoryBroker
from shardline_common.ports.broker import TopicSpec, TransactionalWriter
from shardline_producer.retry_policy import AttemptRetryPolicy
from tests.make import job
from tests.simulation.loop import SimClock, simulate

CLOCK = SimClock()
STATE = JobState(job())
JOB = transactional_id(STATE.spec.job_id)
REFUSED = BrokerRefused("the transaction cannot be committed: too large", hint="raise max.message.bytes")


class Cluster(MemoryBroker):
    """A cluster that may be down, or whose coordinator of this job may refuse."""

    down = False
    refuses_job = False

    async def check(self) -> None:
        """Fail while it is down."""
        if self.down:
            raise BrokerUnavailable("nobody answers")

    @asynccontextmanager
    async def transactional(self, transactional_id: str) -> AsyncIterator[TransactionalWriter]:
        """Refuse the job while it is to be refused."""
        if self.refuses_job and transactional_id == JOB:
            raise REFUSED
        async with super().transactional(transactional_id) as writer:
            yield writer


def policy_of(cluster: Cluster, source_seconds: float = 900) -> AttemptRetryPolicy:
    @asynccontextmanager
    async def fence_and_load() -> AsyncIterator[tuple[TransactionalWriter, JobState]]:
        async with cluster.transactional(JOB) as writer:
            yield writer, STATE

    return AttemptRetryPolicy(cluster, CLOCK, source_seconds, fence_and_load)


async def a_cluster(*, checkpoints: bool = True) -> Cluster:
    cluster = Cluster()
    if checkpoints:
        await cluster.create_topic(TopicSpec(CHECKPOINTS, 1))
    return cluster


def in_virtual_time(main: Callable[[], Coroutine[None, None, None]]) -> None:
    async def run(_: random.Random) -> None:
        await main()

    simulate(1, run)


async def pause(policy: AttemptRetryPolicy, error: ServiceUnavailable, times: int) -> None:
    for _ in range(times):
        await policy.pause(error, (0, 1, 1))


def test_a_refusal_that_lasts_fails_the_job_within_a_minute() -> None:
    async def main() -> None:
        policy = policy_of(await a_cluster())
        with pytest.raises(JobFailed, match="too large") as raised:
            await pause(policy, REFUSED, 100)
        assert (raised.value.code, raised.value.hint) == (FailureCode.BROKER_REFUSED, REFUSED.hint)
        assert 15 < CLOCK.monotonic() < 60

    in_virtual_time(main)


def test_slow_refusals_fail_the_job_after_a_minute() -> None:
    async def main() -> None:
        policy = policy_of(await a_cluster())
        await pause(policy, REFUSED, 1)
        await CLOCK.sleep(61)
        with pytest.raises(JobFailed):
            await pause(policy, REFUSED, 1)

    in_virtual_time(main)


@pytest.mark.parametrize("error", [BrokerUnavailable("no replica in sync"), StoreUnavailable("503")])
def test_what_passes_is_waited_for(error: ServiceUnavailable) -> None:
    async def main() -> None:
        policy = policy_of(await a_cluster())
        await pause(policy, error, 1000)
        assert CLOCK.monotonic() > 3600

    in_virtual_time(main)


def test_a_cluster_that_is_down_is_waited_for() -> None:
    async def main() -> None:
        cluster = await a_cluster()
        cluster.down = True
        policy = policy_of(cluster)
        await pause(policy, REFUSED, 100)
        cluster.down = False
        with pytest.raises(JobFailed):
            await pause(policy, REFUSED, 1)

    in_virtual_time(main)


def test_a_cluster_that_refuses_checkpoints_is_waited_for() -> None:
    # The failure of the job could not be recorded either.
    async def main() -> None:
        policy = policy_of(await a_cluster(checkpoints=False))
        await pause(policy, REFUSED, 100)

    in_virtual_time(main)


def test_a_job_whose_coordinator_refuses_is_waited_for_although_other_brokers_accept() -> None:
    async def main() -> None:
        cluster = await a_cluster()
        cluster.refuses_job = True
        policy = policy_of(cluster)
        await pause(policy, REFUSED, 100)
        cluster.refuses_job = False
        with pytest.raises(JobFailed):
            await pause(policy, REFUSED, 1)

    in_virtual_time(main)


def test_the_last_checkpoint_is_committed_once_more_before_a_job_fails() -> None:
    async def main() -> None:
        cluster = await a_cluster()
        with pytest.raises(JobFailed):
            await pause(policy_of(cluster), REFUSED, 100)
        async with cluster.table_reader(CHECKPOINTS) as table:
            (record,) = await table.catch_up(deadline=1)
        assert (record.key, record.value) == (checkpoint(STATE).key, checkpoint(STATE).value)

    in_virtual_time(main)


def test_refusals_before_progress_do_not_count() -> None:
    async def main() -> None:
        policy = policy_of(await a_cluster())
        for ordinal in range(100):
            await policy.pause(REFUSED, (0, ordinal, ordinal))

    in_virtual_time(main)


def test_an_unreachable_source_fails_the_job_after_its_time() -> None:
    async def main() -> None:
        policy = policy_of(await a_cluster(), 60)
        with pytest.raises(JobFailed) as raised:
            await pause(policy, SourceUnavailable("no route"), 100)
        assert raised.value.code is FailureCode.SOURCE_UNREACHABLE

    in_virtual_time(main)


def test_a_source_that_keeps_changing_fails_the_job_as_changed() -> None:
    async def main() -> None:
        policy = policy_of(await a_cluster(), 60)
        error = SourceUnavailable("records were added", lasting=FailureCode.SOURCE_CHANGED)
        with pytest.raises(JobFailed, match="listed as a whole for 61 s: records were added") as raised:
            await pause(policy, error, 100)
        assert raised.value.code is FailureCode.SOURCE_CHANGED

    in_virtual_time(main)
