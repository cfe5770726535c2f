"""How often the attempts of a process look at the store: each one more seldom, the more there are."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

_AT_FULL_PACE = 16
_MOST = 15.0


class Watched(Protocol):
    """An attempt that is looked at. `sends`: whether it is planned; else it waits for a slot."""

    @property
    def sends(self) -> bool:
        """Whether the attempt has been planned."""
        ...


class AttemptWatches:
    """The attempts that this producer or worker follows.

    Each look costs several requests to the store. Without this, a producer of 64 jobs would spend a third of
    its time on looks, and one of 1,000 queued jobs all of it. Attempts that send and attempts in the queue
    are counted apart: a long queue must not delay the end of those that run. A worker has no queue.
    """

    def __init__(self) -> None:
        self._attempts: set[Watched] = set()

    @contextmanager
    def added(self, attempt: Watched) -> Iterator[None]:
        """Follow an attempt while the context lasts."""
        self._attempts.add(attempt)
        try:
            yield
        finally:
            self._attempts.discard(attempt)

    def factor(self, attempt: Watched) -> float:
        """By how much the interval of looks at an attempt is longer than that of a single one."""
        others = sum(one.sends == attempt.sends for one in self._attempts)
        return min(_MOST, max(1.0, others / _AT_FULL_PACE))
