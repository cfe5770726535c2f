"""What all pages beside a plan have in common: names that sort as their numbers do, and reads of them."""

from collections.abc import Callable
from typing import TypeVar

from shardline_common.errors import JobFailed, ObjectMissing
from shardline_common.runtime.read_again import read_again
from shardline_producer.sources.source import PlanPages

P = TypeVar("P")


def page_name(first: int) -> str:
    """The name in its folder of the page that begins behind `first` items. Names sort as their numbers do."""
    return f"{first:012d}.json"


async def read_page(
    pages: PlanPages, name: str, decode: Callable[[bytes, str], P], lost: Callable[[str], JobFailed]
) -> P:
    """Read a page that was stored. `decode` takes its bytes and its name; `lost` makes the error without it.

    Raises:
        JobFailed: it is damaged, also when it is read again (`decode`), or it is not in the store (`lost`).
        StoreUnavailable: try again later.
    """

    async def read() -> P:
        return decode(await pages.get(name), name)

    try:
        return await read_again(read)
    except ObjectMissing:
        raise lost(name) from None
