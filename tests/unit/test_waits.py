"""Waits that last are logged, whatever waits: a retried call, a call that hangs, a full semaphore."""

import asyncio
import itertools
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise

import pytest

from shardline.services.job_view import JobView
from shardline_common.dataset.events import EventTotals
from shardline_common.errors import BrokerUnavailable, StoreRefused, StoreUnavailable
from shardline_common.job.state import JobState, PartitionState, State
from shardline_common.memory.broker import MemoryBroker
from shardline_common.memory.store import MemoryStore
from shardline_common.runtime.retry import longest_failing, retry_forever
from shardline_common.runtime.waits import LoggedSemaphore, WaitLog, log_failure, log_wait
from shardline_producer.backlog import Backlog
from tests.make import job
from tests.simulation.loop import SimClock, simulate

CLOCK = SimClock()


def lines(caplog: pytest.LogCaptureFixture, main: Callable[[], Coroutine[None, None, None]]) -> list[str]:
    """The warnings of `main`, which runs in virtual time."""

    async def run(_: random.Random) -> None:
        await main()

    caplog.set_level(logging.WARNING)
    simulate(1, run)
    return [record.getMessage() for record in caplog.records]


async def failing_until(seconds: float, say: Callable[[], str]) -> None:
    if CLOCK.monotonic() < seconds:
        raise BrokerUnavailable(say(), hint="set it")


def test_a_call_that_fails_is_logged_every_thirty_seconds(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        await retry_forever(lambda: failing_until(100, lambda: "refused"), CLOCK, "commit")
        assert longest_failing(CLOCK) is None

    found = lines(caplog, main)
    assert found[0].startswith("commit: refused; set it; trying again ")
    assert found[1:] == [f"waiting for commit, for {n} s now: refused; set it" for n in (30, 60, 90)]


def test_a_new_reason_is_logged_at_once(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        def say() -> str:
            return "first" if CLOCK.monotonic() < 10 else "second"

        await retry_forever(lambda: failing_until(25, say), CLOCK, "commit", cap=2.0)

    assert [line.split(";")[0] for line in lines(caplog, main)] == ["commit: first", "commit: second"]


def test_a_call_that_hangs_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        await retry_forever(lambda: CLOCK.sleep(70), CLOCK, "join the group")

    assert lines(caplog, main) == [f"waiting for join the group, for {n} s now" for n in (30, 60)]


@pytest.mark.parametrize(("refused_until", "expected"), [(99, ["5", "35"]), (3, ["30"]), (0, ["30"])])
def test_a_refusal_that_lasts_is_logged_within_seconds(
    caplog: pytest.LogCaptureFixture, refused_until: float, expected: list[str]
) -> None:
    async def main() -> None:
        def refused() -> bool:
            return CLOCK.monotonic() < refused_until

        wait = WaitLog("Kafka", lambda: "the factor is 3" if refused() else None, explained=refused)
        wait.begin()
        await CLOCK.sleep(40)
        wait.end()

    found = lines(caplog, main)
    assert [line.split()[4] for line in found] == expected


def test_the_longest_failing_call_has_its_reason() -> None:
    async def main(_: random.Random) -> None:
        calls: list[Awaitable[None]] = [
            retry_forever(lambda: failing_until(50, lambda: "old"), CLOCK, "one"),
            retry_forever(lambda: failing_later(20, 50), CLOCK, "other"),
        ]
        tasks = [asyncio.ensure_future(call) for call in calls]
        await CLOCK.sleep(40)
        found = longest_failing(CLOCK)
        assert found is not None
        assert (found.what, found.reason, round(found.seconds)) == ("one", "old; set it", 40)
        await asyncio.gather(*tasks)
        assert longest_failing(CLOCK) is None

    simulate(1, main)


async def failing_later(first: float, until: float) -> None:
    await CLOCK.sleep(first)
    if CLOCK.monotonic() < until:
        raise StoreUnavailable("new")


def test_the_wait_for_a_permit_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        slots = LoggedSemaphore(1, "a slot")

        async def work(seconds: float) -> None:
            async with slots:
                await CLOCK.sleep(seconds)

        await asyncio.gather(work(40), work(40))

    assert lines(caplog, main) == ["waiting for a slot, for 30 s now"]


@contextmanager
def timed(caplog: pytest.LogCaptureFixture) -> Iterator[list[float]]:
    """The virtual times of the warnings."""
    times: list[float] = []

    class Times(logging.Handler):
        def emit(self, _: logging.LogRecord) -> None:
            times.append(CLOCK.monotonic())

    handler = Times(logging.WARNING)
    logging.getLogger().addHandler(handler)
    try:
        with caplog.at_level(logging.WARNING):
            yield times
    finally:
        logging.getLogger().removeHandler(handler)


def at_most_one_in_thirty_seconds(times: list[float], until: float) -> None:
    pauses = [after - before for before, after in pairwise([*times, until])]
    assert times
    assert times[0] <= 30.001
    assert all(pause >= 29.99 for pause in pauses[:-1]), times
    assert all(pause <= 30.01 for pause in pauses), times


def test_calls_that_fail_for_one_cause_are_one_line_in_thirty_seconds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    requests = itertools.count()

    async def refused(number: int, kind: type[StoreUnavailable]) -> None:
        # Each answer of a store has another request id, and each call puts another object.
        await CLOCK.sleep(0.05)
        if CLOCK.monotonic() < 300:
            message = f"s3://b cannot serve (put part-{number}: AccessDenied, request id {next(requests)})"
            raise kind(message, hint="check the rights", cause="s3://b: AccessDenied")

    async def watched() -> None:
        # As loops that go on with their other work, and come back.
        while True:
            try:
                await refused(99, StoreRefused)
            except StoreUnavailable as error:
                log_failure(logging.getLogger("watch"), error, "cannot be watched: %s", error)
                await CLOCK.sleep(1)
            else:
                return

    async def main(_: random.Random) -> None:
        calls = [
            retry_forever(partial(refused, number, StoreRefused), CLOCK, f"put {number}", cap=number + 0.5)
            for number in range(20)
        ]
        await asyncio.gather(watched(), *calls)

    with timed(caplog) as times:
        simulate(1, main)
    at_most_one_in_thirty_seconds(times, 300)


def test_calls_that_hang_are_one_line_in_thirty_seconds(caplog: pytest.LogCaptureFixture) -> None:
    async def attempt(number: int) -> None:
        # A store that stays silent: each attempt ends after 60 seconds without an answer.
        for _ in range(5):
            with log_wait(f"s3://b (put {number})", cause="s3://b: it does not answer in time"):
                await CLOCK.sleep(60)

    async def main(_: random.Random) -> None:
        with log_wait("the plan of a job"):
            calls = [retry_forever(partial(attempt, number), CLOCK, f"put {number}") for number in range(20)]
            await asyncio.gather(*calls)

    with timed(caplog) as times:
        simulate(1, main)
    at_most_one_in_thirty_seconds(times, 300)
    assert "s3://b (put" in caplog.messages[0]


def test_a_call_that_lasts_by_its_nature_is_logged_when_it_fails(caplog: pytest.LogCaptureFixture) -> None:
    async def follow() -> None:
        if CLOCK.monotonic() < 100:
            await CLOCK.sleep(100)
            raise BrokerUnavailable("refused", hint="set it")
        await CLOCK.sleep(500)

    async def main() -> None:
        await retry_forever(follow, CLOCK, "follow a job", lasting=True)

    (line,) = lines(caplog, main)
    assert line.startswith("follow a job: refused; set it; trying again")


def test_two_causes_are_two_lines(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        calls = [
            retry_forever(lambda: failing_until(8, lambda: "one"), CLOCK, "commit"),
            retry_forever(lambda: failing_until(8, lambda: "other"), CLOCK, "commit"),
        ]
        await asyncio.gather(*calls)

    assert sorted(line.split(";")[0] for line in lines(caplog, main)) == ["commit: one", "commit: other"]


def test_failures_in_a_group_have_the_cause_of_the_first(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        for number in range(3):
            error = StoreUnavailable(f"put {number}", cause="one")
            group = ExceptionGroup("", [ExceptionGroup("", [error])])
            log_failure(logging.getLogger("first"), group, "%s", error)
            log_failure(logging.getLogger("first"), OSError("no"), "no")

    assert lines(caplog, main) == ["put 0", "no"]


def test_a_pause_after_a_known_failure_is_logged_when_it_is_due(caplog: pytest.LogCaptureFixture) -> None:
    error = StoreUnavailable("refused", cause="one")

    async def main() -> None:
        log_failure(logging.getLogger("first"), error, "%s", error)
        await CLOCK.sleep(20)
        with log_wait("the next try", lambda: error):
            await CLOCK.sleep(15)

    assert lines(caplog, main) == ["refused", "waiting for the next try, for 10 s now: refused"]


def test_a_wait_that_ends_or_is_cancelled_is_not_logged_later(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        with log_wait("one"):
            await CLOCK.sleep(29)
        await asyncio.wait_for(hang(), 29)
        await CLOCK.sleep(60)

    async def hang() -> None:
        with suppress(asyncio.CancelledError), log_wait("other"):
            await asyncio.Event().wait()

    assert lines(caplog, main) == []


@pytest.mark.parametrize(
    ("state", "sequence", "words"),
    [
        (State.QUEUED, 0, "for a producer: a slot, the plan of the source, or Kafka"),
        (State.RUNNING, 7, "for the source, Kafka or workers (7 messages are in no segment)"),
        (State.COMPLETING, 7, "for workers: 7 messages are in no segment"),
        (State.COMPLETING, 0, "for a worker, which publishes the dataset"),
    ],
)
def test_status_says_what_an_old_checkpoint_waits_for(state: State, sequence: int, words: str) -> None:
    def view(seconds: float, now: State = state) -> JobView:
        at = (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()
        parts = [PartitionState(sequence=sequence)]
        return JobView(JobState(job(), now, updated_at=at, partitions=parts), EventTotals())

    assert view(40).to_json()["waiting"] == f"waiting for 40 s {words}"
    assert view(20).waiting is None
    assert view(40, State.FAILED).waiting is None


def test_a_job_without_workers_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        spec = job(job_id="alone", partitions=1)
        state = JobState(spec, State.RUNNING, partitions=[PartitionState(sequence=7, bytes=100)])
        backlog = Backlog(MemoryBroker(), MemoryStore(), state, 1)
        for _ in range(95):
            await backlog.refresh()
            await CLOCK.sleep(1)
        # As if a worker had written them all.
        state.partitions = [PartitionState()]
        for _ in range(60):
            await backlog.refresh()
            await CLOCK.sleep(1)

    told = "7 messages of dataset.job.alone.1 are in no segment; is a worker running?"
    found = lines(caplog, main)
    assert found == [f"no new segment for {n} s: {told}" for n in (30, 60, 90)]
