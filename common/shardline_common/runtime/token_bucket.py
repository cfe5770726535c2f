"""A token bucket: it limits the rate of requests. Pure: the caller passes the time."""

from dataclasses import dataclass

# A wait of less than a nanosecond is a rounding error of the clock.
_DIGITS = 9


@dataclass(slots=True)
class TokenBucket:
    """Holds up to `size` tokens and gets one more every `interval` seconds. It starts full.

    `taken` tokens were taken since the time `full_at` at which it was full, in seconds of the caller's
    monotonic clock. It counts tokens instead of adding intervals, because a sum is rounded: a full bucket of
    600 tokens would give 599.
    """

    interval: float
    size: float
    full_at: float = 0.0
    taken: float = 0.0

    def level(self, now: float) -> float:
        """The number of tokens in the bucket."""
        return self.size - max(0.0, self.taken - (now - self.full_at) / self.interval)

    def wait(self, now: float) -> float:
        """Seconds until a token is available; 0.0 when one is."""
        wait = (self.full_at - now) + (self.taken + 1.0 - self.size) * self.interval
        return max(0.0, round(wait, _DIGITS))

    def take(self, now: float) -> float:
        """Take a token and return 0.0. When there is none, take nothing and return the seconds to wait."""
        wait = self.wait(now)
        if wait == 0.0:
            if self._full_again_at <= now:
                self.full_at, self.taken = now, 0.0
            self.taken += 1.0
        return wait

    def drain(self, at: float) -> None:
        """Remove tokens, so that none is available before the time `at`."""
        if self._full_again_at < at + (self.size - 1.0) * self.interval:
            self.full_at, self.taken = at, self.size - 1.0

    @property
    def _full_again_at(self) -> float:
        return self.full_at + self.taken * self.interval
