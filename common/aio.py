"""Small helpers for asyncio: blocking calls that cancellation waits for, and patient retries."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from common.clock import Clock
from common.errors import JobFailed, ServiceUnavailable, ShardlineError

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)
_THREADS = 3
_START_GRACE_SECONDS = 2.0
_log = logging.getLogger(__name__)


def first_of(group: BaseExceptionGroup[BaseException], kind: type[E]) -> E:
    """The first error of that kind in a group that holds one, however deep."""
    for error in group.exceptions:
        if isinstance(error, kind):
            return error
        if isinstance(error, BaseExceptionGroup) and error.subgroup(kind) is not None:
            return first_of(error, kind)
    raise LookupError(kind.__name__)


def few_threads() -> None:
    """Give the running loop a small pool: every thread more has a heap of its own, which only grows."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS, thread_name_prefix="work"))


async def blocking(call: Callable[[], T]) -> T:
    """Run a short blocking call on a thread; a cancel waits for its end, so nothing runs behind our back."""
    future = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        if not future.done():
            await asyncio.wait([future])
        if not future.cancelled():
            future.exception()
        raise


async def begun(start: Callable[[], Awaitable[object]]) -> None:
    """Await the start of a client; a cancel lets it end first, for as long as a sound start takes.

    Cut short, a client can leave a connection open of which its close knows nothing.
    """
    task = asyncio.ensure_future(start())
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task], timeout=_START_GRACE_SECONDS)
        raise
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()


async def let_go(close: Callable[[], Awaitable[object]]) -> bool:
    """Await the close of a client; False when a cancel of its own cut that short.

    Clients cancel their helper tasks and await them. One of those cancels can come out to us, who were
    not meant; and ours, when it comes meanwhile, can end in a helper that takes it for the client's.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    whole = True
    try:
        await close()
    except asyncio.CancelledError:
        whole = False
    if task and task.cancelling() > before:
        raise asyncio.CancelledError
    return whole


_in_vain: dict[int, tuple[str, float]] = {}


def longest_in_vain(clock: Clock) -> tuple[str, float] | None:
    """What `patiently` tries longest in this process without success, and for how many seconds."""
    if not _in_vain:
        return None
    what, since = min(_in_vain.values(), key=lambda entry: entry[1])
    return what, clock.monotonic() - since


async def patiently(
    call: Callable[[], Awaitable[T]],
    clock: Clock,
    what: str,
    on_error: Callable[[ServiceUnavailable], None] = lambda _: None,
    cap: float = 15.0,
) -> T:
    """Call until the service answers: full-jitter back-off up to `cap` seconds, for as long as it takes."""
    ticket = object()
    try:
        return await _until_answered(call, clock, what, on_error, cap, id(ticket))
    finally:
        _in_vain.pop(id(ticket), None)


async def _until_answered(
    call: Callable[[], Awaitable[T]],
    clock: Clock,
    what: str,
    on_error: Callable[[ServiceUnavailable], None],
    cap: float,
    ticket: int,
) -> T:
    attempt = 0
    while True:
        try:
            return await call()
        except ServiceUnavailable as error:
            on_error(error)
            _in_vain.setdefault(ticket, (what, clock.monotonic()))
            wait = random.uniform(0.0, min(cap, 0.2 * 2**attempt))  # noqa: S311 - jitter, no secret
            level = logging.WARNING if attempt % 10 == 0 else logging.DEBUG
            _log.log(level, "%s: %s; trying again in %.1f s", what, error, wait)
            attempt = min(attempt + 1, 20)
            await clock.sleep(wait)


@contextmanager
def leaf_errors() -> Iterator[None]:
    """Let one error of an ExceptionGroup out as itself, the group as its cause: nothing is lost.

    A JobFailed goes before other ShardlineErrors; a group without any stays a group.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        for kind in (JobFailed, ShardlineError):
            if group.subgroup(kind) is not None:
                raise first_of(group, kind) from group
        raise
