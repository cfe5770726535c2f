"""Checks of segments, several at once, with their results in the order of the chains."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from shardline_common.dataset.chain import ChainRecord
from shardline_common.dataset.segment_check import CheckedSegment, SegmentRules
from shardline_common.dataset.shard_record import ShardRecord


@dataclass(frozen=True, slots=True)
class SegmentChecks:
    """How segments are checked: `check` checks one of them, and up to `at_once` run at the same time."""

    check: Callable[[ChainRecord | ShardRecord], Awaitable[CheckedSegment]]
    at_once: int = 1


OpenChecks = Callable[[SegmentRules, int], AbstractAsyncContextManager[SegmentChecks]]
"""Called with the rules of a dataset, and the bytes that its manifest says its rows have."""


class ChecksInOrder:
    """Checks segments, and calls `on_checked` with each result in the order in which they were added."""

    def __init__(
        self, checks: SegmentChecks, on_checked: Callable[[ChainRecord | ShardRecord, CheckedSegment], None]
    ) -> None:
        self._checks = checks
        self._on_checked = on_checked
        self._waiting = deque[
            tuple[ChainRecord | ShardRecord, asyncio.Future[CheckedSegment]] | Callable[[], None]
        ]()
        self._running = 0

    async def add(self, record: ChainRecord | ShardRecord) -> None:
        """Check a segment. Returns when it may run, or with `at_once` of 1 when it is checked.

        Raises:
            StoreUnavailable: the store cannot be read.
        """
        if self._checks.at_once == 1:
            self._on_checked(record, await self._checks.check(record))
            return
        while self._running >= self._checks.at_once:
            await self._take()
        self._waiting.append((record, asyncio.ensure_future(self._checks.check(record))))
        self._running += 1

    def then(self, action: Callable[[], None]) -> None:
        """Call `action` behind the results of all segments that were added."""
        if self._waiting:
            self._waiting.append(action)
        else:
            action()

    async def finish(self) -> None:
        """Wait for all segments. Raises as `add`."""
        while self._waiting:
            await self._take()

    async def stop(self) -> None:
        """Cancel the checks whose results were not taken."""
        futures = [item[1] for item in self._waiting if isinstance(item, tuple)]
        for future in futures:
            future.cancel()
        await asyncio.gather(*futures, return_exceptions=True)

    async def _take(self) -> None:
        first = self._waiting[0]
        if isinstance(first, tuple):
            record, future = first
            checked = await future
            self._running -= 1
            self._on_checked(record, checked)
        else:
            first()
        self._waiting.popleft()
