"""Blocking calls on threads."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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
    future = asyncio.ensure_future(asyncio.to_thread(call))
    if not await await_uncancelled(future):
        return future.result()
    if not future.cancelled() and future.exception() is None:
        undo(future.result())
    raise asyncio.CancelledError


async def open_to_read(path: Path) -> BinaryIO:
    """Open a regular file on a thread; the caller closes it. Raises as `open_regular`."""
    return await run_in_thread(lambda: open_regular(path), lambda file: file.close())
