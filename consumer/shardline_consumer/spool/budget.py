"""The spool budget: the disk space of the open segments of a worker."""

import asyncio
from collections import deque

from shardline_common.errors import FailureCode, JobFailed
from shardline_common.runtime.waits import log_wait


class SpoolBudget:
    """Reservations of bytes over all jobs and partitions, granted in the order of the calls."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def used(self) -> int:
        """The reserved bytes."""
        return self._used

    @property
    def contended(self) -> bool:
        """Whether a reservation is waiting."""
        return any(not future.done() for _, future in self._waiting)

    async def reserve(self, size: int) -> None:
        """Wait until `size` bytes are free, and reserve them.

        Raises:
            JobFailed: `size` is larger than the whole budget (`spool`).
        """
        if size > self._limit:
            raise JobFailed(
                FailureCode.SPOOL,
                f"one segment of this job may need {size} bytes of spool, the worker has {self._limit}",
                hint="raise SHARDLINE_SPOOL_BYTES, or submit the job with a smaller output.shard_bytes",
            )
        if not self._waiting and self._used + size <= self._limit:
            self._used += size
            return
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((size, future))
        try:
            with log_wait(f"{size} bytes of spool (SHARDLINE_SPOOL_BYTES)", self._reason):
                await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.release(size)
            raise

    def _reason(self) -> str:
        return f"{self._used} of {self._limit} bytes are reserved by open segments"

    def release(self, size: int) -> None:
        """Release `size` bytes, and grant waiting reservations."""
        self._used -= size
        while self._waiting:
            wanted, future = self._waiting[0]
            if not future.done():
                if self._used + wanted > self._limit:
                    return
                self._used += wanted
                future.set_result(None)
            self._waiting.popleft()
