"""Errors that nobody has foreseen: the failure that they become, their log lines, and restarts after them."""

import logging
import time

from shardline_common.errors import FailureCode, JobFailed, leaf_of
from shardline_common.ports.clock import Clock
from shardline_common.runtime.retry import Backoff

_log = logging.getLogger(__name__)
_TRACE_SECONDS = 3600.0
_MAX_LOGGED = 1000
_LIMIT = 3
_FORGET_SECONDS = 60.0
_BACKOFF = Backoff(base=0.5, cap=30.0)


def contains_only(error: BaseException, kinds: type[BaseException] | tuple[type[BaseException], ...]) -> bool:
    """Whether the error, and if it is a group each error in it, is of one of the classes."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(kinds)[1] is None
    return isinstance(error, kinds)


def internal_failure(error: BaseException, log: str) -> JobFailed:
    """The failure of a job (`internal`) by an error that nobody has foreseen; a JobFailed stays as it is.

    Args:
        error: the error, or a group of errors.
        log: whose log has the traceback, for the hint.
    """
    leaf = leaf_of(error)
    if isinstance(leaf, JobFailed):
        return leaf
    hint = f"report it with the log of {log}; `retry` continues the job"
    return JobFailed(FailureCode.INTERNAL, f"{type(leaf).__name__}: {leaf}", hint=hint)


class UnexpectedErrors:
    """Logs the unexpected errors of one process: each with its traceback once an hour, a repeat as a line."""

    def __init__(self) -> None:
        self._logged: dict[tuple[str, str], float] = {}

    def log(self, error: BaseException, what: str) -> None:
        """Log an error. `what` says what happens next."""
        leaf = leaf_of(error)
        text = "a bug in Shardline: %s: %s; %s"
        _log.error(text, type(leaf).__name__, leaf, what, exc_info=self.new(error))

    def new(self, error: BaseException) -> BaseException | None:
        """The error if its traceback is to be logged; None if it was not long ago."""
        leaf, now = leaf_of(error), time.monotonic()
        name = type(leaf).__name__, str(leaf)
        if now - self._logged.get(name, -_TRACE_SECONDS) < _TRACE_SECONDS:
            return None
        if len(self._logged) >= _MAX_LOGGED:
            self._logged.clear()
        self._logged[name] = now
        return error


class Restarts:
    """The restarts of a loop after errors: three in a row, after pauses of 0.5, 1 and 2 seconds.

    An error that comes 60 seconds after the one before is the first of a row.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures = 0
        self._last = 0.0

    async def allowed(self) -> bool:
        """Whether the loop may start again; after the pause. False at the fourth error of a row."""
        now = self._clock.monotonic()
        if now - self._last >= _FORGET_SECONDS:
            self._failures = 0
        self._last = now
        self._failures += 1
        if self._failures > _LIMIT:
            return False
        await self._clock.sleep(_BACKOFF.longest(self._failures - 1))
        return True
