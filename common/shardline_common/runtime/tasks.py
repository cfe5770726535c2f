"""Helpers for tasks: calls that end although they are cancelled, errors of groups, limited concurrency."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from math import inf
from typing import TypeVar

from shardline_common.errors import JobFailed, ShardlineError
from shardline_common.runtime.task_group import TaskGroup

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)
_GRACE_SECONDS = 2.0


async def start_shielded(start: Callable[[], Awaitable[object]]) -> None:
    """Await the start of a client. When the caller is cancelled, the start may continue for 2 seconds.

    A client whose start is cancelled can leave a connection open that its `close` does not close. The caller
    closes the client, whatever this raises.

    Raises:
        asyncio.CancelledError: the caller was cancelled, or the client cancelled its own start.
    """
    if not await _run_shielded(start):
        raise asyncio.CancelledError


async def close_shielded(close: Callable[[], Awaitable[object]]) -> None:
    """Await the close of a client. When the caller is cancelled, the close may continue for 2 seconds.

    Clients cancel their helper tasks and await them. A cancel of the caller could be swallowed by such a
    helper, and a helper's cancel could reach the caller. A separate task prevents both.

    Raises:
        asyncio.CancelledError: the caller was cancelled.
    """
    await _run_shielded(close)


async def _run_shielded(call: Callable[[], Awaitable[object]]) -> bool:
    """Run the call in a separate task. Returns False when the call was cancelled from inside.

    `asyncio.shield` is not enough: TaskGroup cancels again while a shielded call ends.
    """
    task = asyncio.ensure_future(call())
    cancelled = await await_uncancelled(task, grace=_GRACE_SECONDS)
    if not task.done():
        task.cancel()
        await await_uncancelled(task, at_most=_GRACE_SECONDS)
    ended = task.done() and not task.cancelled()
    error = task.exception() if ended else None
    if cancelled:
        raise asyncio.CancelledError
    if error:
        raise error
    return ended


async def await_uncancelled(future: asyncio.Future[T], *, grace: float = inf, at_most: float = inf) -> bool:
    """Wait until the future is done, through any number of cancels; True when there was a cancel.

    Args:
        future: the future to wait for; its result and error stay in it.
        grace: seconds to wait after the first cancel.
        at_most: seconds to wait in total.
    """
    loop, cancelled = asyncio.get_running_loop(), False
    until = loop.time() + at_most
    while not future.done() and (left := until - loop.time()) > 0:
        try:
            await asyncio.wait([future], timeout=None if left == inf else left)
        except asyncio.CancelledError:
            cancelled = True
            until = min(until, loop.time() + grace)
    return cancelled


def first_of(group: BaseExceptionGroup[BaseException], kind: type[E]) -> E:
    """The first error of that class in a group, at any depth. Raises LookupError when there is none."""
    for error in group.exceptions:
        if isinstance(error, kind):
            return error
        if isinstance(error, BaseExceptionGroup) and error.subgroup(kind) is not None:
            return first_of(error, kind)
    raise LookupError(kind.__name__)


@contextmanager
def leaf_errors() -> Iterator[None]:
    """Raise one error of an ExceptionGroup instead of the group, with the group as its cause.

    The first JobFailed is preferred, then the first ShardlineError; a group without either stays as it is.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        for kind in (JobFailed, ShardlineError):
            if group.subgroup(kind) is not None:
                raise first_of(group, kind) from group
        raise


async def gather_limited(calls: Sequence[Callable[[], Awaitable[T]]], limit: int) -> list[T]:
    """The results of the calls, in their order, with at most `limit` calls at once.

    The first error cancels the other calls and is raised.
    """
    semaphore = asyncio.Semaphore(limit)

    async def run(call: Callable[[], Awaitable[T]]) -> T:
        async with semaphore:
            return await call()

    with leaf_errors():
        async with TaskGroup() as tasks:
            running = [tasks.create_task(run(call)) for call in calls]
    return [task.result() for task in running]
