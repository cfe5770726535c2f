"""The port of time: what waits or stamps takes a Clock, so that tests and simulations own the time."""

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Wall time for records, monotonic time for deadlines, and sleep."""

    def now(self) -> datetime:
        """Wall time in UTC. It must not decide rows, their order or their place."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary start; never less than before."""

    async def sleep(self, seconds: float) -> None:
        """Wait. May be cancelled."""
