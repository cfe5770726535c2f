"""Limits of what one user may request: requests per minute, and streams at a time."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from shardline.gateway.problems import Problem
from shardline_common.ports.clock import Clock
from shardline_common.runtime.token_bucket import TokenBucket
from shardline_common.settings.load import Settings

_MAX_USERS = 10_000
_EVENT_STREAMS, _EVENT_STREAMS_PER_USER = 1000, 50


class RateLimit:
    """Limits the requests of each user per minute. A burst may use a whole minute's requests at once."""

    def __init__(self, per_minute: int, clock: Clock) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._buckets: dict[str, TokenBucket] = {}

    def take(self, user: str) -> None:
        """Count a request. Raise Problem (429) when the user is over the limit."""
        now = self._clock.monotonic()
        bucket = self._buckets.pop(user, None)
        if bucket is None:
            bucket = TokenBucket(60.0 / self._per_minute, float(self._per_minute))
            # Evict the user whose last request is the oldest: that bucket is full again, or nearly so.
            while len(self._buckets) >= _MAX_USERS:
                self._buckets.pop(next(iter(self._buckets)))
        self._buckets[user] = bucket
        wait = bucket.take(now)
        if wait:
            raise _too_many(f"more than {self._per_minute} requests per minute", wait)


class StreamLimit:
    """Limits the open streams of each user, and of all users together."""

    def __init__(self, total: int, per_user: int) -> None:
        self._total = total
        self._per_user = per_user
        self._open: dict[str, int] = {}

    @property
    def open(self) -> int:
        """Number of open streams."""
        return sum(self._open.values())

    @contextmanager
    def slot(self, user: str) -> Iterator[None]:
        """Hold a slot for a stream. Raise Problem (429) when none is free."""
        count = self._open.get(user, 0)
        if count >= self._per_user:
            raise _too_many(f"{count} streams of this user are open already", 1.0)
        if self.open >= self._total:
            raise _too_many(f"{self._total} streams are open, which is the limit of this gateway", 1.0)
        self._open[user] = count + 1
        try:
            yield
        finally:
            self._open[user] -= 1
            if not self._open[user]:
                del self._open[user]


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """The limits of one gateway process: on requests, on streams of rows, on streams of events."""

    requests: RateLimit
    row_streams: StreamLimit
    event_streams: StreamLimit

    @classmethod
    def of(cls, settings: Settings, clock: Clock) -> Self:
        """Make the limits from the settings."""
        return cls(
            RateLimit(settings.gateway_requests_per_minute, clock),
            StreamLimit(settings.gateway_streams, settings.gateway_streams_per_user),
            StreamLimit(_EVENT_STREAMS, _EVENT_STREAMS_PER_USER),
        )


def _too_many(detail: str, wait: float) -> Problem:
    return Problem(429, detail, headers={"Retry-After": str(math.ceil(wait))})
