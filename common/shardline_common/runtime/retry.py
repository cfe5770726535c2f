"""The retry policy: exponential back-off with full jitter, on the clock of the caller.

Own code, because the kept libraries measure delays by the machine's clock (docs/dependencies.md).
"""

import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import inf
from typing import NamedTuple, TypeVar

from shardline_common.errors import ServiceUnavailable, ShardlineError, explain
from shardline_common.ports.clock import Clock
from shardline_common.runtime.durations import in_seconds
from shardline_common.runtime.waits import log_failure, log_wait

T = TypeVar("T")
_log = logging.getLogger(__name__)
_MAX_EXPONENT = 20


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses between attempts, in seconds: `base` doubles with each failure, up to `cap`."""

    base: float
    cap: float

    def longest(self, failures: int) -> float:
        """The longest pause after this number of consecutive failures (0, 1, 2 …)."""
        return min(self.cap, self.base * 2.0 ** min(failures, _MAX_EXPONENT))

    def pause(self, failures: int) -> float:
        """A random pause up to `longest`, so that callers that failed together do not retry together."""
        return random.uniform(0.0, self.longest(failures))  # noqa: S311 - jitter, no secret


class TransientError(Exception):
    """An attempt failed and may be repeated.

    Args:
        final: the error that `retry_attempts` raises after the last attempt.
        at_least: the shortest pause before the next attempt, in seconds, as the server requested it.
    """

    def __init__(self, final: ShardlineError, *, at_least: float = 0.0) -> None:
        super().__init__(str(final))
        self.final = final
        self.at_least = at_least


async def retry_attempts(
    call: Callable[[], Awaitable[T]],
    attempts: int,
    backoff: Backoff,
    sleep: Callable[[float], Awaitable[None]],
) -> T:
    """Call until it succeeds, at most `attempts` times; only TransientError is repeated.

    Raises:
        ShardlineError: the `final` error of the last TransientError, with the same cause.
    """
    failures = 0
    while True:
        try:
            return await call()
        except TransientError as error:
            failures += 1
            if failures >= attempts:
                raise error.final from error.__cause__
            pause = max(error.at_least, backoff.pause(failures))
        await sleep(pause)


class Failing(NamedTuple):
    """A call that `retry_forever` retries: its name, the seconds since its first failure, the last error."""

    what: str
    seconds: float
    reason: str


@dataclass(slots=True)
class _Failure:
    what: str
    since: float
    reason: str
    until: float = inf


_failing: dict[int, _Failure] = {}


def longest_failing(clock: Clock) -> Failing | None:
    """The call that `retry_forever` retries longest; None when no call fails."""
    now = clock.monotonic()
    failures = [failure for failure in _failing.values() if now < failure.until]
    if not failures:
        return None
    found = min(failures, key=lambda failure: failure.since)
    return Failing(found.what, now - found.since, found.reason)


def call_failed(caller: object, what: str, reason: str, clock: Clock, seconds: float) -> None:
    """Count the failures of a caller in `longest_failing`, from the first on until `call_succeeded`.

    A failure that does not come again for `seconds` is forgotten.
    """
    now = clock.monotonic()
    failure = _failing.get(id(caller))
    if failure is None or failure.until <= now:
        failure = _failing[id(caller)] = _Failure(what, now, reason)
    failure.reason, failure.until = reason, now + seconds


def forget_failures() -> None:
    """End what every `call_failed` began: the state of a new process, for tests."""
    _failing.clear()


def call_succeeded(caller: object) -> None:
    """End what `call_failed` began; without it do nothing."""
    _failing.pop(id(caller), None)


async def retry_forever(
    call: Callable[[], Awaitable[T]],
    clock: Clock,
    what: str,
    on_error: Callable[[ServiceUnavailable], None] = lambda _: None,
    cap: float = 15.0,
    *,
    lasting: bool = False,
) -> T:
    """Call until it succeeds, without a limit of attempts or time; only ServiceUnavailable is repeated.

    A warning is logged for each new cause, and every 30 seconds; once for all calls that fail for that cause.

    Args:
        call: the attempt.
        clock: sleeps between attempts.
        what: the name of the call in the log and in `longest_failing`.
        on_error: called with the error of each failed attempt.
        cap: the longest pause in seconds.
        lasting: the call lasts long when nothing is wrong, as a whole run does. Its failures are logged, and
            not that it lasts.
    """
    backoff, failures, ticket = Backoff(0.2, cap), 0, object()
    last: ServiceUnavailable | None = None

    def wait() -> AbstractContextManager[None]:
        return log_wait(what, lambda: last)

    try:
        with nullcontext() if lasting else wait():
            while True:
                try:
                    return await call()
                except ServiceUnavailable as error:
                    on_error(error)
                    last, pause, text = error, backoff.pause(failures), explain(error)
                    log_failure(_log, error, "%s: %s; trying again %s", what, text, in_seconds(pause))
                    failure = _failing.setdefault(id(ticket), _Failure(what, clock.monotonic(), text))
                    failure.reason = text
                    failures += 1
                with wait():
                    await clock.sleep(pause)
    finally:
        _failing.pop(id(ticket), None)
