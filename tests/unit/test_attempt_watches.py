"""Many attempts of one producer share the requests by which it follows them."""

from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from shardline_common.runtime.attempt_watches import AttemptWatches


@dataclass(eq=False)
class Attempt:
    sends: bool


@pytest.mark.parametrize(("others", "factor"), [(0, 1.0), (15, 1.0), (63, 4.0), (5_000, 15.0)])
def test_an_attempt_is_looked_at_more_seldom_the_more_there_are(others: int, factor: float) -> None:
    watches, attempt = AttemptWatches(), Attempt(sends=True)
    with ExitStack() as stack:
        for one in (attempt, *(Attempt(sends=True) for _ in range(others))):
            stack.enter_context(watches.added(one))
        assert watches.factor(attempt) == factor


def test_a_long_queue_delays_no_attempt_that_sends() -> None:
    watches, sending, queued = AttemptWatches(), Attempt(sends=True), Attempt(sends=False)
    with ExitStack() as stack:
        for one in (sending, queued, *(Attempt(sends=False) for _ in range(159))):
            stack.enter_context(watches.added(one))
        assert watches.factor(sending) == 1.0
        assert watches.factor(queued) == 10.0
        queued.sends = True
        assert watches.factor(queued) == 1.0
    assert watches.factor(sending) == 1.0
