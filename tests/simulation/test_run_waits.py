"""An embedded run waits for events, never for a time: its parts notify each other."""

import pytest

from shardline_common.errors import FailureCode, JobFailed
from tests.simulation.endings import run_with
from tests.simulation.faulty_ports import Call, Fault, Switchboard


def changed() -> BaseException:
    return JobFailed(FailureCode.SOURCE_CHANGED, "planted")


@pytest.mark.parametrize(
    ("call", "state"),
    [
        (None, "completed"),
        (Call("producer", "Source", "freeze"), "failed"),
        (Call("producer", "Source", "read"), "failed"),
    ],
    ids=str,
)
def test_a_run_ends_without_a_timed_wait(call: Call | None, state: str) -> None:
    board = Switchboard(Fault(call, 1, changed) if call else None)
    ending = run_with(board)
    # In virtual time, which moves only when every task waits for a timer.
    assert (ending.state, ending.seconds) == (state, 0.0)


def test_the_timers_of_a_run_are_seen() -> None:
    assert run_with(Switchboard(), slow=True).seconds > 1.0
