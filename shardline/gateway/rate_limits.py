"""How much one user may ask for: requests per minute, streams at once."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

from shardline.gateway.problems import Problem
from shardline_common.ports.clock import Clock
from shardline_common.runtime.token_bucket import TokenBucket

_MOST_USERS = 10_000


class RateLimit:
    """Requests per minute and user, with bursts of up to a minute's worth."""

    def __init__(self, per_minute: int, clock: Clock) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._buckets: dict[str, TokenBucket] = {}

    def take(self, user: str) -> None:
        """Count a request. Raises Problem (429) when it is one too many."""
        now = self._clock.monotonic()
        bucket = self._buckets.pop(user, None)
        if bucket is None:
            bucket = TokenBucket(60.0 / self._per_minute, float(self._per_minute))
            # Whoever has been away longest has a full bucket again, or nearly.
            while len(self._buckets) >= _MOST_USERS:
                self._buckets.pop(next(iter(self._buckets)))
        self._buckets[user] = bucket
        wait = bucket.take(now)
        if wait:
            raise _too_many(f"more than {self._per_minute} requests per minute", wait)


class StreamLimit:
    """Streams at once, of one user and of all."""

    def __init__(self, total: int, per_user: int) -> None:
        self._total = total
        self._per_user = per_user
        self._open: dict[str, int] = {}

    @property
    def open(self) -> int:
        """Streams open now."""
        return sum(self._open.values())

    @contextmanager
    def slot(self, user: str) -> Iterator[None]:
        """Hold a place for a stream. Raises Problem (429) when there is none."""
        held = self._open.get(user, 0)
        if held >= self._per_user:
            raise _too_many(f"{held} streams of this user are open already", 1.0)
        if self.open >= self._total:
            raise _too_many("the gateway has as many streams open as it may", 1.0)
        self._open[user] = held + 1
        try:
            yield
        finally:
            self._open[user] -= 1
            if not self._open[user]:
                del self._open[user]


def _too_many(detail: str, wait: float) -> Problem:
    return Problem(429, detail, headers={"Retry-After": str(math.ceil(wait))})
