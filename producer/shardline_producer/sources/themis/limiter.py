"""The rate limit on requests to ThemisDB, and the pauses that the server requests."""

import asyncio

from shardline_common.ports.clock import Clock
from shardline_common.runtime.token_bucket import TokenBucket

_MINUTE = 60.0
# A little less than the server's own bucket, so that the server does not refuse because of rounding.
_SHARE = 0.9
_UNLIMITED = 1_000_000
# So many requests at a time while the server refuses some: about 5 seconds at its default rate.
_SLOW_STEP = 8


class RateLimiter:
    """Requests per minute of one process, by a token bucket; 0 is no limit. Safe for concurrent use.

    `ended_by` names the request at which the server's process seems to have ended, until such a request
    succeeds. It is kept here because each try of a job has a client of its own, and the limiter is the same.
    """

    def __init__(self, per_minute: float, clock: Clock) -> None:
        self._bucket = TokenBucket(_MINUTE / per_minute, _SHARE * per_minute) if per_minute else None
        self._clock = clock
        self._paused_until = 0.0
        self._slow_until = 0.0
        self._lock = asyncio.Lock()
        self.ended_by: str | None = None

    async def wait(self) -> None:
        """Wait until a request may be sent, and count it as sent."""
        async with self._lock:
            while (seconds := self._seconds()) > 0:
                await self._clock.sleep(seconds)
            if self._bucket:
                self._bucket.take(self._clock.monotonic())

    def _seconds(self) -> float:
        now = self._clock.monotonic()
        return max(self._bucket.wait(now) if self._bucket else 0.0, self._paused_until - now)

    def pause(self, seconds: float) -> None:
        """Allow no request for `seconds`, because the server refused one.

        The server's bucket is empty then, even if another process emptied it. So this bucket is emptied too.
        """
        until = self._clock.monotonic() + seconds
        self._paused_until = max(self._paused_until, until)
        self._slow_until = until + _MINUTE
        if self._bucket:
            self._bucket.drain(until)

    @property
    def is_slow(self) -> bool:
        """Whether the server refused a request in the last minute."""
        return self._clock.monotonic() < self._slow_until

    @property
    def available(self) -> int:
        """How many requests may be sent now without a long wait: at least 1, and few while `is_slow`."""
        free = max(1, int(self._bucket.level(self._clock.monotonic()))) if self._bucket else _UNLIMITED
        return min(free, _SLOW_STEP) if self.is_slow else free

    @property
    def interval(self) -> float:
        """Seconds per request in the long run; 0.0 without a limit."""
        return self._bucket.interval if self._bucket else 0.0
