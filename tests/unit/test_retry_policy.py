"""When an attempt fails for Kafka's refusals, and when it waits for the operator."""

import random
from collections.abc import Callable, Coroutine

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
from shardline_common.job.names import CHECKPOINTS
from shardline_common.memory.broker import MemoryBroker
from shardline_common.ports.broker import TopicSpec
from shardline_producer.retry_policy import AttemptRetryPolicy
from tests.simulation.loop import SimClock, simulate

CLOCK = SimClock()
REFUSED = BrokerRefused("the transaction cannot be committed: too large", hint="raise max.message.bytes")


class Cluster(MemoryBroker):
    """A cluster that may be down."""

    down = False

    async def check(self) -> None:
        """Fail while it is down."""
        if self.down:
            raise BrokerUnavailable("nobody answers")


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
        policy = AttemptRetryPolicy(await a_cluster(), CLOCK, 900)
        with pytest.raises(JobFailed, match="too large") as raised:
            await pause(policy, REFUSED, 100)
        assert (raised.value.code, raised.value.hint) == (FailureCode.BROKER_REFUSED, REFUSED.hint)
        assert 15 < CLOCK.monotonic() < 60

    in_virtual_time(main)


def test_slow_refusals_fail_the_job_after_a_minute() -> None:
    async def main() -> None:
        policy = AttemptRetryPolicy(await a_cluster(), CLOCK, 900)
        await pause(policy, REFUSED, 1)
        await CLOCK.sleep(61)
        with pytest.raises(JobFailed):
            await pause(policy, REFUSED, 1)

    in_virtual_time(main)


@pytest.mark.parametrize("error", [BrokerUnavailable("no replica in sync"), StoreUnavailable("503")])
def test_what_passes_is_waited_for(error: ServiceUnavailable) -> None:
    async def main() -> None:
        policy = AttemptRetryPolicy(await a_cluster(), CLOCK, 900)
        await pause(policy, error, 1000)
        assert CLOCK.monotonic() > 3600

    in_virtual_time(main)


def test_a_cluster_that_is_down_is_waited_for() -> None:
    async def main() -> None:
        cluster = await a_cluster()
        cluster.down = True
        policy = AttemptRetryPolicy(cluster, CLOCK, 900)
        await pause(policy, REFUSED, 100)
        cluster.down = False
        with pytest.raises(JobFailed):
            await pause(policy, REFUSED, 1)

    in_virtual_time(main)


def test_a_cluster_that_refuses_checkpoints_is_waited_for() -> None:
    # The failure of the job could not be recorded either.
    async def main() -> None:
        policy = AttemptRetryPolicy(await a_cluster(checkpoints=False), CLOCK, 900)
        await pause(policy, REFUSED, 100)

    in_virtual_time(main)


def test_refusals_before_progress_do_not_count() -> None:
    async def main() -> None:
        policy = AttemptRetryPolicy(await a_cluster(), CLOCK, 900)
        for ordinal in range(100):
            await policy.pause(REFUSED, (0, ordinal, ordinal))

    in_virtual_time(main)


def test_an_unreachable_source_fails_the_job_after_its_time() -> None:
    async def main() -> None:
        policy = AttemptRetryPolicy(await a_cluster(), CLOCK, 60)
        with pytest.raises(JobFailed) as raised:
            await pause(policy, SourceUnavailable("no route"), 100)
        assert raised.value.code is FailureCode.SOURCE_UNREACHABLE

    in_virtual_time(main)
