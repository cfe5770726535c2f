"""The port of time. Code that waits or records times takes a Clock; tests pass a virtual one."""

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Wall time for records, monotonic time for deadlines, and sleep."""

    def now(self) -> datetime:
        """Wall time in UTC. Rows, their order and their shards must not depend on it."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary start; never less than before."""

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds`. May be cancelled."""
