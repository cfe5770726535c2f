"""How fast one process may ask: so many requests a minute, and silence when the server asks for it."""

import asyncio

from shardline_common.ports.clock import Clock

_MINUTE = 60.0


class RateLimiter:
    """A bucket of `per_minute` requests that refills steadily; 0 is no limit. One per process."""

    def __init__(self, per_minute: float, clock: Clock) -> None:
        self._interval = _MINUTE / per_minute if per_minute else 0.0
        # A little less than the server's own bucket, so that rounding does not make it say no.
        self._burst = 0.9 * _MINUTE if per_minute else 0.0
        self._clock = clock
        # When the bucket would be full again: the one number that says how many requests are left.
        self._full_at = 0.0
        self._silent_until = 0.0
        self._turn = asyncio.Lock()

    async def wait(self) -> None:
        """Return when a request may be sent; it counts as sent."""
        async with self._turn:
            while (seconds := self._seconds()) > 0:
                await self._clock.sleep(seconds)
            now = self._clock.monotonic()
            self._full_at = max(self._full_at, now) + self._interval

    def _seconds(self) -> float:
        now = self._clock.monotonic()
        return max(self._full_at + self._interval - self._burst - now, self._silent_until - now, 0.0)

    def pause(self, seconds: float) -> None:
        """Send nothing for so long: the server's bucket is empty, whoever emptied it."""
        now = self._clock.monotonic()
        self._silent_until = max(self._silent_until, now + seconds)
        if self._interval:
            self._full_at = max(self._full_at, now + seconds + self._burst - self._interval)

    @property
    def free(self) -> int:
        """Requests that may be sent at once, without a wait; at least 1."""
        if not self._interval:
            return 1_000_000
        now = self._clock.monotonic()
        return max(1, int((self._burst - max(0.0, self._full_at - now)) / self._interval))

    def seconds_for(self, requests: int) -> float:
        """About how long so many requests take by this limit alone."""
        return requests * self._interval
