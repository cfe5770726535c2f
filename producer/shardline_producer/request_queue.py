"""The requests about one job, in the order of their messages."""

import asyncio
from collections import deque
from dataclasses import dataclass

from shardline_common.job.spec import Request
from shardline_common.ports.broker import Record


@dataclass(frozen=True, slots=True)
class QueuedRequest:
    """A request and the message of dataset.jobs that carried it."""

    request: Request
    record: Record


class RequestQueue:
    """Keeps each request until it is handled, so an interrupted handler loses none.

    `last_handled_offset` is the offset in dataset.jobs of the last request that was handled here.
    """

    def __init__(self) -> None:
        self.last_handled_offset = -1
        self._waiting: deque[QueuedRequest] = deque()
        self._arrived = asyncio.Event()

    def put(self, request: Request, record: Record) -> None:
        """Add the next request."""
        self._waiting.append(QueuedRequest(request, record))
        self._arrived.set()

    def waiting(self, handled_offset: int) -> tuple[QueuedRequest, ...]:
        """The requests that are not handled, the oldest first.

        Args:
            handled_offset: the last offset that the job's checkpoint covers. Requests up to it are dropped.
        """
        handled = max(self.last_handled_offset, handled_offset)
        while self._waiting and self._waiting[0].record.offset <= handled:
            self._pop()
        return tuple(self._waiting)

    def mark_handled(self) -> None:
        """Remove the oldest request, which was handled."""
        self.last_handled_offset = self._waiting[0].record.offset
        self._pop()

    def _pop(self) -> None:
        self._waiting.popleft()
        if not self._waiting:
            self._arrived.clear()

    async def arrival(self) -> None:
        """Return when a request is waiting."""
        await self._arrived.wait()
