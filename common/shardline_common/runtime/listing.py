"""Proven listings: one list may lack an entry without a sign of it, two in a row do not lack the same one."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from shardline_common.runtime.retry import Backoff

T = TypeVar("T")
_MAX_LISTS = 6
_BACKOFF = Backoff(base=0.1, cap=5.0)


class ListsDiffer(Exception):
    """Six lists in a row differ. `key` is the first key that is not the same in the last two."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key} is in one of two lists and not in the other, or is another object there")
        self.key = key


async def proven_list(read: Callable[[], Awaitable[dict[str, T]]]) -> dict[str, T]:
    """List until two lists in a row are equal, and return the last one.

    Args:
        read: reads the list: values by key. What somebody changes at the same time makes lists differ.

    Raises:
        ListsDiffer: no two lists in a row were equal.
    """
    found = await read()
    for number in range(1, _MAX_LISTS):
        before, found = found, await read()
        if found == before:
            return found
        await asyncio.sleep(_BACKOFF.longest(number))
    raise ListsDiffer(min(key for key in before.keys() | found.keys() if before.get(key) != found.get(key)))
