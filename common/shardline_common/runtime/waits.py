"""Waits that are logged: one that lasts for 30 seconds says so, and again every 30 seconds."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

_log = logging.getLogger(__name__)
LOG_SECONDS = 30.0


class WaitLog:
    """Logs one wait from `begin` to `end`, both of which may be repeated.

    `what` names what is waited for, as in "waiting for a slot". `reason` returns what is known about the
    cause, or None. A timer of the event loop logs, so a call that hangs is logged as well, with the log
    context of its task.
    """

    def __init__(self, what: str, reason: Callable[[], str | None] = lambda: None) -> None:
        self._what = what
        self._reason = reason
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Start the wait, if it is not running."""
        if self._timer is None:
            self._since = asyncio.get_running_loop().time()
            self._arm()

    def end(self) -> None:
        """End the wait, if it is running."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(LOG_SECONDS, self._write)

    def _write(self) -> None:
        seconds, reason = asyncio.get_running_loop().time() - self._since, self._reason()
        _log.warning("waiting for %s, for %.0f s now%s", self._what, seconds, f": {reason}" if reason else "")
        self._arm()


@contextmanager
def log_wait(what: str, reason: Callable[[], str | None] = lambda: None) -> Iterator[None]:
    """Log the wait of the body every 30 seconds. See `WaitLog`."""
    wait = WaitLog(what, reason)
    wait.begin()
    try:
        yield
    finally:
        wait.end()


class LoggedSemaphore(asyncio.Semaphore):
    """A semaphore whose waiters are logged. `what` names what it limits, as in "a slot"."""

    def __init__(self, value: int, what: str) -> None:
        super().__init__(value)
        self._what = what

    async def acquire(self) -> Literal[True]:
        """Wait for a permit."""
        with log_wait(self._what):
            return await super().acquire()
