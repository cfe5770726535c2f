"""The machine's clock, and its time as text."""

import asyncio
import time
from datetime import UTC, datetime

from shardline_common.ports.clock import Clock


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


SYSTEM_CLOCK = SystemClock()


def stamp(clock: Clock) -> str:
    """Wall time as text: RFC 3339 in UTC with milliseconds."""
    return clock.now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
