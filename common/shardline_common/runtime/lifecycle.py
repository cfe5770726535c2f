"""The life of a long-running process: signals, grace, and the end."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from shardline_common.runtime.threads import set_thread_pool

_log = logging.getLogger(__name__)


async def run_until_stopped(work: Callable[[], Awaitable[None]], grace: float) -> None:
    """Run until the work ends or a SIGTERM or SIGINT comes; then cancel it and wait up to `grace` seconds.

    A second signal ends the process at once. What the work raises by itself is raised.
    """
    set_thread_pool()
    stop = asyncio.Event()
    with _signals(stop):
        task = asyncio.ensure_future(work())
        stopped = asyncio.ensure_future(stop.wait())
        await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if task.done():
            task.result()
            return
        _log.info("stopping; a second signal stops at once")
        task.cancel()
        _, late = await asyncio.wait((task,), timeout=grace)
        if late:
            _log.error("not done within %.0f s; stopping all the same, nothing that landed is lost", grace)
            _exit(1)
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error


@contextmanager
def _signals(stop: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def handle(number: int) -> None:
        if stop.is_set():
            _exit(128 + number)
        stop.set()

    numbers = (signal.SIGTERM, signal.SIGINT)
    try:
        for number in numbers:
            loop.add_signal_handler(number, handle, number)
    except NotImplementedError:
        # Windows: there Ctrl-C cancels the main task, which has the same effect.
        yield
        return
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _exit(code: int) -> None:
    # sys.exit would wait for threads, and for what hangs.
    sys.stderr.flush()
    os._exit(code)
