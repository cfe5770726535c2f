"""Limits of what one user or address may request: requests per minute, and streams at a time."""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from starlette.types import Scope

from shardline.gateway.connections import client_group
from shardline.gateway.problems import Problem
from shardline_common.ports.clock import Clock
from shardline_common.runtime.token_bucket import TokenBucket
from shardline_common.settings.load import Settings
from shardline_common.telemetry.logs import limit_rate

_log = logging.getLogger("shardline.gateway.limits")
_MAX_USERS = 10_000
# One refused request without a valid token for so many requests that a user may make.
_REFUSALS_SHARE = 20
_EVENT_STREAMS, _EVENT_STREAMS_PER_USER = 1000, 50


class RateLimit:
    """Limits the requests of each user per minute. A burst may use a whole minute's requests at once.

    `what` names the requests in the refusal.
    """

    def __init__(self, per_minute: int, clock: Clock, what: str = "requests") -> None:
        self._per_minute = per_minute
        self._what = what
        self._clock = clock
        self._buckets: dict[str, TokenBucket] = {}

    def take(self, user: str) -> None:
        """Count a request. Raise Problem (429) when the user is over the limit."""
        wait = self._wait(user)
        if wait:
            _log.warning(f"more than {self._per_minute} {self._what} per minute")
            raise _too_many(f"more than {self._per_minute} {self._what} per minute", wait)

    def allows(self, user: str) -> bool:
        """Count a request. Return whether the user is within the limit."""
        return not self._wait(user)

    def _wait(self, user: str) -> float:
        now = self._clock.monotonic()
        bucket = self._buckets.pop(user, None)
        if bucket is None:
            bucket = TokenBucket(60.0 / self._per_minute, float(self._per_minute))
            # Evict the user whose last request is the oldest: that bucket is full again, or nearly so.
            while len(self._buckets) >= _MAX_USERS:
                self._buckets.pop(next(iter(self._buckets)))
        self._buckets[user] = bucket
        return bucket.take(now)


class StreamLimit:
    """Limits the open streams of each user, and of all users together. `what` names them in the refusal."""

    def __init__(self, total: int, per_user: int, what: str = "streams") -> None:
        self._total = total
        self._what = what
        self._per_user = per_user
        self._open: dict[str, int] = {}

    @property
    def open(self) -> int:
        """Number of open streams."""
        return sum(self._open.values())

    def check(self, user: str) -> None:
        """Raise Problem (429) when no slot is free."""
        count = self._open.get(user, 0)
        if count >= self._per_user:
            raise _too_many(f"{count} {self._what} of this user are open already", 1.0)
        if self.open >= self._total:
            raise _too_many(f"{self._total} {self._what} are open, which is the limit of this gateway", 1.0)

    @contextmanager
    def slot(self, user: str) -> Iterator[None]:
        """Hold a slot for a stream. Raise Problem (429) when none is free."""
        self.check(user)
        self._open[user] = self._open.get(user, 0) + 1
        try:
            yield
        finally:
            self._open[user] -= 1
            if not self._open[user]:
                del self._open[user]


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """The limits of one gateway process.

    Attributes:
        requests: requests of each user, and those with signed links for each user.
        refusals: requests of each address that are refused before a user is known; and the lines of the
            audit log about requests of each user that are over the limit.
        row_streams: streams of rows of each user.
        event_streams: streams of events of each user.
        downloads: downloads of each user, and those with signed links for each user.
    """

    requests: RateLimit
    refusals: RateLimit
    row_streams: StreamLimit
    event_streams: StreamLimit
    downloads: StreamLimit

    @classmethod
    def of(cls, settings: Settings, clock: Clock) -> Self:
        """Make the limits from the settings."""
        # A stranger can cause these records at any rate.
        limit_rate(_log.name)
        per_minute = settings.gateway_requests_per_minute
        refusals = settings.gateway_refusals_per_minute or max(1, per_minute // _REFUSALS_SHARE)
        streams, per_user = settings.gateway_streams, settings.gateway_streams_per_user
        return cls(
            requests=RateLimit(per_minute, clock),
            refusals=RateLimit(refusals, clock, "requests without a valid token"),
            row_streams=StreamLimit(streams, per_user),
            event_streams=StreamLimit(_EVENT_STREAMS, _EVENT_STREAMS_PER_USER),
            downloads=StreamLimit(streams, per_user, "downloads"),
        )


def client_address(scope: Scope) -> str:
    """Return the address under which the client of a request is counted."""
    client = scope.get("client")
    return f"address {client_group(client[0])}" if client else "address unknown"


def _too_many(detail: str, wait: float) -> Problem:
    return Problem(429, detail, headers={"Retry-After": str(math.ceil(wait))})
