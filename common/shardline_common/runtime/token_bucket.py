"""A token bucket: it limits the rate of requests. Pure: the caller passes the time."""

from dataclasses import dataclass


@dataclass(slots=True)
class TokenBucket:
    """Holds up to `size` tokens and gets one more every `interval` seconds. It starts full.

    `full_at` is when it will be full again, in seconds of the caller's monotonic clock: the one number
    that says how many tokens are left.
    """

    interval: float
    size: float
    full_at: float = 0.0

    def level(self, now: float) -> float:
        """Tokens in the bucket."""
        return self.size - max(0.0, self.full_at - now) / self.interval

    def wait(self, now: float) -> float:
        """Seconds until there is a token; 0.0 when there is one."""
        return max(0.0, self.full_at + self.interval * (1.0 - self.size) - now)

    def take(self, now: float) -> float:
        """Take a token and return 0.0; where there is none, take nothing and return the seconds to wait."""
        wait = self.wait(now)
        if wait == 0.0:
            self.full_at = max(self.full_at, now) + self.interval
        return wait

    def drain(self, at: float) -> None:
        """Let the next token be there at `at` at the earliest."""
        self.full_at = max(self.full_at, at + self.interval * (self.size - 1.0))
