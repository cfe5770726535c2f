"""What waits and what fails is logged: each cause once in 30 seconds, over the whole process.

Ten calls that wait for one store have one cause, and give one line. A wait without a failure says so after
30 seconds, and again every 30 seconds.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal
from weakref import WeakKeyDictionary

from shardline_common.errors import ServiceUnavailable, explain, leaf_of
from shardline_common.runtime.durations import seconds_text

_log = logging.getLogger(__name__)
LOG_SECONDS = 30.0
# A refusal that is gone by then has passed by itself, as while a leader changes.
_EARLY_SECONDS = 5.0
_TOLERANCE = 0.001
_MAX_CAUSES = 1000
Reason = str | ServiceUnavailable | None

# Per event loop, because each has its own time.
_logged: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, float]] = WeakKeyDictionary()
_outer: ContextVar["WaitLog | None"] = ContextVar("outer_wait", default=None)


def seconds_until_due(cause: str) -> float:
    """The seconds until a line of this cause may be logged again; 0.0: now."""
    loop = asyncio.get_running_loop()
    last = _logged.get(loop, {}).get(cause)
    left = 0.0 if last is None else last + LOG_SECONDS - loop.time()
    return left if left > _TOLERANCE else 0.0


def take_turn(cause: str) -> bool:
    """Whether a line of this cause may be logged now; it counts as logged then."""
    if seconds_until_due(cause):
        return False
    loop = asyncio.get_running_loop()
    logged = _logged.setdefault(loop, {})
    # Removed first, so that the oldest cause is the first one in the dictionary.
    logged.pop(cause, None)
    logged[cause] = loop.time()
    if len(logged) > _MAX_CAUSES:
        del logged[next(iter(logged))]
    return True


def log_failure(log: logging.Logger, error: BaseException, message: str, *args: object) -> None:
    """Log a failure that is repeated: a warning when its cause is due, else a line of DEBUG.

    The cause of a group is that of its first error.
    """
    level = logging.WARNING if take_turn(_cause_of(error)) else logging.DEBUG
    log.log(level, message, *args, stacklevel=2)


def _cause_of(error: BaseException) -> str:
    leaf = leaf_of(error)
    return leaf.cause if isinstance(leaf, ServiceUnavailable) else f"{type(leaf).__name__}: {leaf}"


class WaitLog:
    """Logs one wait from `begin` to `end`, both of which may be repeated.

    `what` names what is waited for, as in "waiting for a slot". `reason` returns what is known about the
    cause: an error, a text, or None. Without one, the cause is that of a wait within this one, else `cause`,
    else `what`. `explained` returns whether a server has refused it: then the first line comes after 5
    seconds. A timer of the event loop logs, so a call that hangs is logged as well, with the log context of
    its task.
    """

    def __init__(
        self,
        what: str,
        reason: Callable[[], Reason] = lambda: None,
        *,
        cause: str | None = None,
        explained: Callable[[], bool] | None = None,
    ) -> None:
        self.what = what
        self._reason = reason
        self._unexplained = cause or what
        self._explained = explained
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._parent: WaitLog | None = None
        self.within: dict[int, WaitLog] = {}

    def begin(self) -> None:
        """Start the wait, if it is not running."""
        if self._timer is None:
            self._since = asyncio.get_running_loop().time()
            self._parent = _outer.get()
            if self._parent is not None:
                self._parent.within[id(self)] = self
            # A failure that is known already was logged, unless its cause had been logged before.
            cause = self.known_cause()[0] if self._reason() else ""
            left = (seconds_until_due(cause) if cause else 0.0) or LOG_SECONDS
            early = left if self._explained is None else min(left, _EARLY_SECONDS)
            self._arm(early, later=left - early)

    def end(self) -> None:
        """End the wait, if it is running."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            if self._parent is not None:
                self._parent.within.pop(id(self), None)
                self._parent = None

    def _arm(self, seconds: float, later: float = 0.0) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._write, later)

    def _write(self, later: float = 0.0) -> None:
        if later > 0 and not (self._explained and self._explained()):
            self._arm(later)
            return
        cause, text = self.known_cause()
        if left := seconds_until_due(cause):
            # Another call has logged this cause.
            self._arm(left)
            return
        take_turn(cause)
        seconds = asyncio.get_running_loop().time() - self._since
        lasted = seconds_text(seconds)
        _log.warning("waiting for %s, for %s now%s", self.what, lasted, f": {text}" if text else "")
        self._arm(LOG_SECONDS)

    def known_cause(self) -> tuple[str, str]:
        """The cause, and what is known about it, or ""."""
        reason = self._reason()
        if isinstance(reason, ServiceUnavailable):
            return reason.cause, explain(reason)
        if reason:
            return reason, reason
        if self.within:
            inner = next(iter(self.within.values()))
            cause, text = inner.known_cause()
            return cause, text or f"waiting for {inner.what}"
        return self._unexplained, ""


@contextmanager
def log_wait(
    what: str, reason: Callable[[], Reason] = lambda: None, *, cause: str | None = None
) -> Iterator[None]:
    """Log the wait of the body every 30 seconds. See `WaitLog`."""
    wait, outer = WaitLog(what, reason, cause=cause), _outer.get()
    wait.begin()
    _outer.set(wait)
    try:
        yield
    finally:
        # Not `reset`, which raises in an async generator that another task closes.
        _outer.set(outer)
        wait.end()


class LoggedSemaphore(asyncio.Semaphore):
    """A semaphore whose waiters are logged. `what` names what it limits, as in "a slot"."""

    def __init__(self, value: int, what: str) -> None:
        super().__init__(value)
        self.what = what

    async def acquire(self) -> Literal[True]:
        """Wait for a permit."""
        with log_wait(self.what):
            return await super().acquire()
