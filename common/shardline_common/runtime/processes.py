"""Worker processes for CPU work: concurrent.futures, without its traps for a command and for a library.

- The module that was started (`__main__`) is not imported again in the workers. A script without
  `if __name__ == "__main__"` would run once more in each of them.
- Ctrl-C interrupts only the parent, which ends the workers.
- Workers end with their parent, also when it is killed. The queues of concurrent.futures keep them waiting
  for ever, because each worker holds both ends.
"""

import asyncio
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from multiprocessing.connection import Connection, wait
from types import ModuleType
from typing import Any, TypeVar

from shardline_common.runtime.threads import run_in_thread

T = TypeVar("T")
_LOOK_SECONDS = 0.5
_SPAWN = multiprocessing.get_context("spawn")


def can_start_processes() -> bool:
    """Whether this process may have children: a daemonic one of multiprocessing may not."""
    return bool(sys.executable) and not multiprocessing.current_process().daemon


@asynccontextmanager
async def open_processes(
    count: int, initialize: Callable[..., object], *args: Any
) -> AsyncIterator[ProcessPoolExecutor]:
    """Start `count` worker processes; they have ended when the context ends.

    They are spawned, because a fork copies locks that other threads hold. When the context ends with an
    error or is cancelled, running calls are stopped at once.

    Args:
        count: how many.
        initialize: called first in each of them; a function of a module that imports little.
        args: its arguments.
    """
    # Nothing is written to it. This end is closed to stop the workers, and when this process is killed.
    watched, kept = _SPAWN.Pipe(duplex=False)
    with watched, kept:
        starting = partial(_start, count, watched, initialize, args)
        executor = await run_in_thread(starting, lambda started: _stop(started, kept))
        try:
            yield executor
        except BaseException:
            kept.close()
            raise
        finally:
            await run_in_thread(partial(_end, executor))


async def result_of(executor: ProcessPoolExecutor, future: Future[T]) -> T:
    """The result of a call, of whatever size.

    A process that is killed while it sends a result leaves half of it. The executor waits for the other half
    as long as a process may write to the queue, this one too, and never learns of the death.

    Raises:
        BrokenProcessPool: a process was killed.
        Exception: what the call raises.
    """
    waiting = asyncio.wrap_future(future)
    try:
        while not (await asyncio.wait({waiting}, timeout=_LOOK_SECONDS))[0]:
            _end_if_broken(executor)
        return waiting.result()
    finally:
        waiting.cancel()


def _end_if_broken(executor: ProcessPoolExecutor) -> None:
    started = list((executor._processes or {}).values())  # noqa: SLF001 - no other way to see them
    if any(one.exitcode for one in started):
        for one in started:
            one.kill()
        _close_results(executor._result_queue)  # noqa: SLF001 - as above


def _close_results(queue: Any) -> None:
    # Its own close would close the other end as well, at which the executor waits.
    queue._writer.close()  # noqa: SLF001


def _end(executor: ProcessPoolExecutor) -> None:
    started, results = list((executor._processes or {}).values()), executor._result_queue  # noqa: SLF001 - as above
    executor.shutdown(wait=False, cancel_futures=True)
    while running := [one.sentinel for one in started if one.exitcode is None]:
        if any(one.exitcode for one in started):
            for one in started:
                one.kill()
        wait(running, _LOOK_SECONDS)
    _close_results(results)


def _start(
    count: int, watched: Connection, initialize: Callable[..., object], args: tuple[Any, ...]
) -> ProcessPoolExecutor:
    all_started, pending = _SPAWN.Pipe(duplex=False)
    arguments = (watched, all_started, initialize, args)
    executor = ProcessPoolExecutor(count, _SPAWN, _begin, arguments)
    with all_started, pending, _main_hidden(), _interrupts_blocked():
        # Each call starts a process, because none is idle before `pending` is closed.
        for _ in range(count):
            executor.submit(os.getpid)
    return executor


def _stop(executor: ProcessPoolExecutor, kept: Connection) -> None:
    kept.close()
    _end(executor)


def _begin(
    watched: Connection, all_started: Connection, initialize: Callable[..., object], args: tuple[Any, ...]
) -> None:
    threading.Thread(target=_end_with, args=(watched,), name="parent", daemon=True).start()
    all_started.poll(None)
    initialize(*args)


def _end_with(watched: Connection) -> None:
    watched.poll(None)
    os._exit(1)


@contextmanager
def _main_hidden() -> Iterator[None]:
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
