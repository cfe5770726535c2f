"""How many requests one process may send to ThemisDB, and the pauses that the server asks for."""

import asyncio

from shardline_common.ports.clock import Clock
from shardline_common.runtime.token_bucket import TokenBucket

_MINUTE = 60.0
# A little less than the server's own bucket, so that rounding does not make it refuse.
_SHARE = 0.9
_UNLIMITED = 1_000_000


class RateLimiter:
    """Requests per minute of one process, by a token bucket; 0 is no limit."""

    def __init__(self, per_minute: float, clock: Clock) -> None:
        self._bucket = TokenBucket(_MINUTE / per_minute, _SHARE * per_minute) if per_minute else None
        self._clock = clock
        self._paused_until = 0.0
        self._lock = asyncio.Lock()

    async def wait(self) -> None:
        """Return when a request may be sent; it counts as sent."""
        async with self._lock:
            while (seconds := self._seconds()) > 0:
                await self._clock.sleep(seconds)
            if self._bucket:
                self._bucket.take(self._clock.monotonic())

    def _seconds(self) -> float:
        now = self._clock.monotonic()
        return max(self._bucket.wait(now) if self._bucket else 0.0, self._paused_until - now)

    def pause(self, seconds: float) -> None:
        """Send nothing for so long: the server's bucket is empty, also where another process emptied it."""
        until = self._clock.monotonic() + seconds
        self._paused_until = max(self._paused_until, until)
        if self._bucket:
            self._bucket.drain(until)

    @property
    def free(self) -> int:
        """Requests that may be sent at once, without a wait; at least 1."""
        return max(1, int(self._bucket.level(self._clock.monotonic()))) if self._bucket else _UNLIMITED

    def seconds_for(self, requests: int) -> float:
        """Seconds that so many requests take by this limit alone."""
        return requests * self._bucket.interval if self._bucket else 0.0
