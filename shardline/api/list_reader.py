"""Lists of an async generator for code without an event loop."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import Future
from contextlib import aclosing, suppress
from queue import SimpleQueue
from typing import Generic, TypeVar

from shardline_common.runtime.threads import set_thread_pool

T = TypeVar("T")


class ListReader(Generic[T]):
    """Reads lists in a thread with its own event loop, two lists ahead.

    One task reads all of them: a source may hold a task group or a time-out open between two lists, which
    only the task that opened it may close. Ctrl-C interrupts the thread that takes the lists, never this
    task.
    """

    def __init__(self, lists: AsyncGenerator[list[T], None]) -> None:
        self._lists = lists
        self._items = SimpleQueue[list[T] | BaseException | None]()
        self._free = asyncio.Semaphore(2)
        self._running = Future[tuple[asyncio.AbstractEventLoop, Callable[[], object]]]()
        # A program may end while an iterator is open. Python waits for other threads before it closes it.
        self._thread = threading.Thread(target=self._work, name="shardline-stream", daemon=True)

    def lists(self) -> Generator[list[T], None, None]:
        """The lists, once. Close it: the task is cancelled then, and has closed its source."""
        try:
            self._thread.start()
            while (item := self._take()) is not None:
                yield item
        finally:
            self._stop()

    def _take(self) -> list[T] | None:
        """Return the next list, or None at the end."""
        item = self._items.get()
        if isinstance(item, BaseException):
            raise item
        if item is not None:
            self._call(self._free.release)
        return item

    def _stop(self) -> None:
        """Cancel the task and wait until it has closed its source."""
        if self._thread.is_alive():
            self._call(self._running.result()[1])
            self._thread.join()

    def _call(self, function: Callable[[], object]) -> None:
        # The loop is closed after the last list was read.
        with suppress(RuntimeError):
            self._running.result()[0].call_soon_threadsafe(function)

    def _work(self) -> None:
        try:
            asyncio.run(self._read())
        except BaseException as error:  # noqa: BLE001 - raised by `_take`
            self._items.put(error)
        else:
            self._items.put(None)

    async def _read(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "a coroutine runs in a task"  # noqa: S101
        self._running.set_result((asyncio.get_running_loop(), task.cancel))
        set_thread_pool()
        async with aclosing(self._lists):
            async for rows in self._lists:
                await self._free.acquire()
                self._items.put(rows)
