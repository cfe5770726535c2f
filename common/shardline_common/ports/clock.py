"""The port of time: what waits or stamps takes a Clock, so that tests and simulations own the time."""

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Wall time for records that people read, monotonic time for deadlines, and sleep."""

    def now(self) -> datetime:
        """Wall time in UTC; never decides rows, order or place."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start, never going back."""

    async def sleep(self, seconds: float) -> None:
        """Wait; cancellable."""
