"""Blocking calls on threads."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import BinaryIO, TypeVar

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


async def open_to_read(path: Path) -> BinaryIO:
    """Open a regular file on a thread; the caller closes it. Raises as `open_regular`."""
    return await run_in_thread(lambda: open_regular(path), lambda file: file.close())
