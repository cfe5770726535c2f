"""Small helpers for asyncio: blocking calls that cancellation waits for, and patient retries."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import BinaryIO, TypeVar

from common.clock import Clock
from common.errors import JobFailed, ServiceUnavailable, ShardlineError

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)
_THREADS = 3
_GRACE_SECONDS = 2.0
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


async def blocking(call: Callable[[], T], undo: Callable[[T], object] = lambda _: None) -> T:
    """Run a short blocking call on a thread; a cancel waits for its end, so nothing runs behind our back.

    `undo` gets what the call gave where a cancel comes before we have it.
    """
    future = asyncio.ensure_future(asyncio.to_thread(call))
    if not await _ended(future):
        return future.result()
    if not future.cancelled() and future.exception() is None:
        undo(future.result())
    raise asyncio.CancelledError


async def open_to_read(path: Path) -> BinaryIO:
    """The file, opened off the loop; the caller closes it.

    Raises:
        OSError: as `open` does.
    """
    return await blocking(lambda: path.open("rb"), lambda file: file.close())


async def begun(start: Callable[[], Awaitable[object]]) -> None:
    """Await the start of a client; cancels of ours let it end first, for as long as a sound start takes.

    Cut short, a client can leave a connection open of which its close knows nothing.
    """
    if not await _outlasts_cancels(start):
        raise asyncio.CancelledError


async def let_go(close: Callable[[], Awaitable[object]]) -> None:
    """Await the close of a client; cancels of ours let it end first, for as long as a sound close takes.

    Clients cancel their helper tasks and await them. One of those cancels can come out of the close: it is
    not meant for us. Ours, were it to reach the client, could end in a helper that takes it for the client's.
    """
    await _outlasts_cancels(close)


async def _outlasts_cancels(call: Callable[[], Awaitable[object]]) -> bool:
    """False when the call ended with a cancel that was none of ours; those that are come after its end."""
    task = asyncio.ensure_future(call())
    cancelled = await _ended(task, grace=_GRACE_SECONDS)
    if not task.done():
        task.cancel()
        await _ended(task, at_most=_GRACE_SECONDS)
    whole = task.done() and not task.cancelled()
    failed = task.exception() if whole else None
    if cancelled:
        raise asyncio.CancelledError
    if failed:
        raise failed
    return whole


async def _ended(future: asyncio.Future[T], *, grace: float = inf, at_most: float = inf) -> bool:
    """Wait for its end through cancels of ours; from the first on `grace` seconds. Whether there was one."""
    loop, cancelled = asyncio.get_running_loop(), False
    until = loop.time() + at_most
    while not future.done() and (left := until - loop.time()) > 0:
        try:
            await asyncio.wait([future], timeout=None if left == inf else left)
        except asyncio.CancelledError:
            cancelled = True
            until = min(until, loop.time() + grace)
    return cancelled


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
