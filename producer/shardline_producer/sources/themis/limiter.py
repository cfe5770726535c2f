"""The rate limit on requests to ThemisDB, and the pauses that the server requests."""

import asyncio

from shardline_common.ports.clock import Clock
from shardline_common.runtime.token_bucket import TokenBucket

_MINUTE = 60.0
# A little less than the server's own bucket, so that the server does not refuse because of rounding.
_SHARE = 0.9
_UNLIMITED = 1_000_000


class RateLimiter:
    """Requests per minute of one process, by a token bucket; 0 is no limit. Safe for concurrent use."""

    def __init__(self, per_minute: float, clock: Clock) -> None:
        self._bucket = TokenBucket(_MINUTE / per_minute, _SHARE * per_minute) if per_minute else None
        self._clock = clock
        self._paused_until = 0.0
        self._lock = asyncio.Lock()

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
        if self._bucket:
            self._bucket.drain(until)

    @property
    def available(self) -> int:
        """How many requests may be sent now without a wait; at least 1."""
        return max(1, int(self._bucket.level(self._clock.monotonic()))) if self._bucket else _UNLIMITED

    @property
    def interval(self) -> float:
        """Seconds per request in the long run; 0.0 without a limit."""
        return self._bucket.interval if self._bucket else 0.0
