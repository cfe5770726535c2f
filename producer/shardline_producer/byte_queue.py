"""A queue between two tasks of a pipeline, bounded by bytes."""

import asyncio
from collections import deque
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")


class ByteQueue(Generic[T]):
    """Passes values from one task to another, in order. At most `max_bytes` wait in it, or one value.

    The receiver takes all that wait at once. So each step handles as much as came while it handled the last
    part: one value when the sender is slow, and `max_bytes` when the receiver is.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._values: deque[tuple[T, int]] = deque()
        self._bytes = 0
        self._ended = False
        self._changed, self._filled = asyncio.Event(), asyncio.Event()

    async def put(self, value: T, size: int) -> None:
        """Add a value of `size` bytes. Waits until there is room for it."""
        while self._values and self._bytes + size > self._max_bytes:
            self._filled.set()
            await self._wait()
        self._values.append((value, size))
        self._bytes += size
        self._changed.set()

    def end(self) -> None:
        """No value follows."""
        self._ended = True
        self._changed.set()
        self._filled.set()

    async def wait_until_full(self, seconds: float) -> None:
        """Return when a value waits for room, at the end, or after so many seconds."""
        if seconds > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._filled.wait()

    async def take(self, most: int | None = None) -> list[T]:
        """All values that wait, at most `most`. Waits for the first one. Empty at the end."""
        while not self._values and not self._ended:
            await self._wait()
        taken: list[T] = []
        while self._values and len(taken) != most:
            value, size = self._values.popleft()
            taken.append(value)
            self._bytes -= size
        self._changed.set()
        if not self._ended:
            self._filled.clear()
        return taken

    async def _wait(self) -> None:
        # One task puts and one takes, and only one of them can be waiting.
        self._changed.clear()
        await self._changed.wait()
