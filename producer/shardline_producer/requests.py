"""What users ask of one job, in the order of their messages."""

import asyncio
from collections import deque

from shardline_common.job.spec import Request
from shardline_common.ports.broker import Record

Asked = tuple[Request, Record]


class Requests:
    """A queue whose first stays until it was heeded: whoever is interrupted meanwhile loses none."""

    def __init__(self) -> None:
        self._waiting: deque[Asked] = deque()
        self._arrived = asyncio.Event()

    def put(self, request: Request, record: Record) -> None:
        """Take in the next one."""
        self._waiting.append((request, record))
        self._arrived.set()

    @property
    def next(self) -> Asked | None:
        """The first, if there is one."""
        return self._waiting[0] if self._waiting else None

    async def first(self) -> Asked:
        """The first, once there is one."""
        await self._arrived.wait()
        return self._waiting[0]

    def drop(self) -> None:
        """The first was heeded."""
        self._waiting.popleft()
        if not self._waiting:
            self._arrived.clear()
