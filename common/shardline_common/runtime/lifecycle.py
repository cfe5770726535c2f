"""Stopping a long-running process: signals and the grace period."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from shardline_common.runtime.collector import collect_seldom
from shardline_common.runtime.threads import set_thread_pool

_log = logging.getLogger(__name__)


async def run_until_stopped(work: Callable[[], Awaitable[None]], grace: float) -> None:
    """Run the work until it ends, or until SIGTERM or SIGINT.

    1. The first signal cancels the work, which has `grace` seconds to end. 2. A second signal exits at once
    with the code 128 + signal, the end of the grace period with the code 1. An error of the work is raised.
    """
    set_thread_pool()
    collect_seldom()
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
            _log.error("not stopped within %.0f s; exiting now, committed work is kept", grace)
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
        # On Windows Ctrl-C cancels the main task, which has the same effect.
        yield
        return
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _exit(code: int) -> None:
    # sys.exit would wait for threads that hang.
    sys.stderr.flush()
    os._exit(code)
