"""Blocking calls on threads."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

from shardline_common.runtime.paths import open_regular
from shardline_common.runtime.tasks import await_uncancelled

T = TypeVar("T")
_THREADS = 3


def set_thread_pool() -> None:
    """Give the running loop a pool of 3 threads: few, because each thread has a heap that only grows."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS, thread_name_prefix="work"))


async def run_in_thread(call: Callable[[], T], undo: Callable[[T], object] = lambda _: None) -> T:
    """Run a short blocking call on a thread. Waits for its end even when the task is cancelled twice.

    Args:
        call: the call to run.
        undo: closes or removes the result; called when the caller was cancelled and cannot receive it.
    """
    # As `asyncio.to_thread`, which needs a task to be shielded: the log context reaches the thread.
    future = asyncio.get_running_loop().run_in_executor(None, copy_context().run, call)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await await_uncancelled(future)
        if not future.cancelled() and future.exception() is None:
            undo(future.result())
        raise


class SharedCalls:
    """Runs short blocking calls that come together by one call of a thread, one after the other.

    To change to a thread and back takes longer than many of these calls. Calls that come while others run are
    the next group, so a group is the larger the busier the thread is.
    """

    def __init__(self) -> None:
        self._waiting: list[_SharedCall[Any]] = []
        self._running = False

    async def run(self, call: Callable[[], T]) -> T:
        """Run a call. Waits for its end even when the task is cancelled twice."""
        loop = asyncio.get_running_loop()
        shared = _SharedCall(call, copy_context(), loop.create_future())
        self._waiting.append(shared)
        if not self._running:
            self._running = True
            # In the next step, because the tasks that are ready in this one have calls as well.
            loop.call_soon(self._start)
        try:
            return await asyncio.shield(shared.ended)
        except asyncio.CancelledError:
            await await_uncancelled(shared.ended)
            # asyncio logs an error that nobody has looked at, with its traceback.
            shared.ended.exception()
            raise

    def _start(self) -> None:
        group, self._waiting = self._waiting, []
        future = asyncio.get_running_loop().run_in_executor(None, _run_all, group)
        future.add_done_callback(partial(self._end, group))

    def _end(
        self, group: "list[_SharedCall[Any]]", future: "asyncio.Future[list[BaseException | None]]"
    ) -> None:
        failed = future.exception() if not future.cancelled() else asyncio.CancelledError()
        errors = [failed] * len(group) if failed is not None else future.result()
        for shared, error in zip(group, errors, strict=True):
            if error is None:
                shared.ended.set_result(shared.result)
            else:
                shared.ended.set_exception(error)
        self._running = bool(self._waiting)
        if self._running:
            self._start()


@dataclass(slots=True, eq=False)
class _SharedCall(Generic[T]):
    call: Callable[[], T]
    context: Context
    ended: asyncio.Future[T]
    result: T | None = None

    def run(self) -> BaseException | None:
        try:
            self.result = self.context.run(self.call)
        except BaseException as error:  # noqa: BLE001 - raised where the call is awaited
            return error
        return None


def _run_all(group: list[_SharedCall[Any]]) -> list[BaseException | None]:
    return [shared.run() for shared in group]


async def open_to_read(path: Path) -> BinaryIO:
    """Open a regular file on a thread; the caller closes it. Raises as `open_regular`."""
    return await run_in_thread(lambda: open_regular(path), lambda file: file.close())
