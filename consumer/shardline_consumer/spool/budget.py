"""The spool budget: the disk space of the open segments of a worker."""

import asyncio
from collections import defaultdict, deque

from shardline_common.errors import FailureCode, JobFailed
from shardline_common.runtime.waits import WaitLog

_Waiting = deque[tuple[int, "asyncio.Future[None]"]]
# With fewer segments than this, a free one would cost more than it is worth.
_SEGMENTS_TO_SHARE = 4


class SpoolBudget:
    """Reservations of bytes over all jobs and partitions.

    The job that holds least is granted first, and of one job the oldest call. So a job with a thousand
    partitions does not hold up the others: a job waits for one segment of another job at most. A job that
    holds a segment leaves room for one more of its size, which the next job that starts can take at once.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used: defaultdict[str, int] = defaultdict(int)
        self._waiting: dict[str, _Waiting] = {}
        # One for each job that waits: its partitions may be a thousand.
        self._logs: dict[str, WaitLog] = {}

    @property
    def used(self) -> int:
        """The reserved bytes."""
        return sum(self._used.values())

    @property
    def contended(self) -> bool:
        """Whether a reservation is waiting."""
        return any(not future.done() for waiting in self._waiting.values() for _, future in waiting)

    async def reserve(self, size: int, job: str = "") -> None:
        """Wait until `size` bytes are free for a job, and reserve them.

        Raises:
            JobFailed: `size` is larger than the whole budget (`spool`).
        """
        if size > self._limit:
            raise JobFailed(
                FailureCode.SPOOL,
                f"this job may need {size} bytes of spool at once, the worker has {self._limit}",
                hint="raise SHARDLINE_SPOOL_BYTES, or submit the job with a smaller output.shard_bytes",
            )
        future = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(job, deque()).append((size, future))
        self._grant()
        try:
            if not future.done():
                what = f"{size} bytes of spool (SHARDLINE_SPOOL_BYTES)"
                self._logs.setdefault(job, WaitLog(what, self._reason)).begin()
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.release(size, job)
            else:
                # The next call may need less.
                self._grant()
            raise

    def reserve_now(self, size: int, job: str = "") -> bool:
        """Reserve `size` bytes for a job if they are free, and nobody waits. False: they are not reserved.

        For a job that holds a reservation: if it waited for more, two such jobs could wait for each other.
        """
        if self.contended or self.used + size > self._limit:
            return False
        self._used[job] += size
        return True

    def _reason(self) -> str:
        return f"{self.used} of {self._limit} bytes are reserved by open segments"

    def release(self, size: int, job: str = "") -> None:
        """Release `size` bytes of a job, and grant waiting reservations."""
        self._used[job] -= size
        if not self._used[job]:
            del self._used[job]
        self._grant()

    def _grant(self) -> None:
        while (job := self._next_job()) is not None:
            size, future = self._waiting[job][0]
            if not self._fits(size, job):
                # A smaller reservation of another job must not overtake it, or it could wait for ever.
                return
            self._waiting[job].popleft()
            self._used[job] += size
            future.set_result(None)

    def _next_job(self) -> str | None:
        """The waiting job that holds least; of equal ones the one that waits longest."""
        for job, waiting in tuple(self._waiting.items()):
            while waiting and waiting[0][1].done():
                waiting.popleft()
            if not waiting:
                del self._waiting[job]
                if job in self._logs:
                    self._logs.pop(job).end()
        return min(self._waiting, key=lambda job: self._used.get(job, 0), default=None)

    def _fits(self, size: int, job: str) -> bool:
        shares = self._used.get(job, 0) > 0 and self._limit >= _SEGMENTS_TO_SHARE * size
        return self.used + size + (size if shares else 0) <= self._limit
