"""Several requests at once, with their answers in order."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from shardline_common.runtime.tasks import leaf_errors

T = TypeVar("T")


async def in_order(calls: Sequence[Callable[[], Awaitable[T]]], width: int) -> list[T]:
    """The results of calls, at most `width` of them at once; the first error cancels the others."""
    gate = asyncio.Semaphore(width)

    async def run(call: Callable[[], Awaitable[T]]) -> T:
        async with gate:
            return await call()

    with leaf_errors():
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(run(call)) for call in calls]
    return [task.result() for task in running]
