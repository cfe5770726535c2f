"""Time as a port: what waits or stamps takes a Clock, so that tests and simulations own the time."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Wall time for records that people read, monotonic time for deadlines, and sleep."""

    def now(self) -> datetime:
        """Wall time in UTC; never decides rows, order or place."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start, never going back."""

    async def sleep(self, seconds: float) -> None:
        """Wait; cancellable."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Wall time in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds of the monotonic clock."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait on the running event loop."""
        await asyncio.sleep(seconds)


def stamp(clock: Clock) -> str:
    """Wall time as RFC 3339 with milliseconds, for records and logs."""
    return clock.now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
