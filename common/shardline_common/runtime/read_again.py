"""Reads of stored objects that are repeated when what came cannot be right.

A disk, a cache or a proxy may damage one answer. An object that stays damaged is a failure of the job.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from shardline_common.errors import FailureCode, JobFailed, ShardlineError

T = TypeVar("T")
_log = logging.getLogger(__name__)
PAUSES: Sequence[float] = (0.1, 0.4, 1.0)
"""The pauses between the reads, in seconds. The loop's clock measures them, as that of every read."""


def is_damaged(error: Exception) -> bool:
    """Whether the error says that an object is damaged (`dataset_damaged`)."""
    return isinstance(error, JobFailed) and error.code is FailureCode.DATASET_DAMAGED


async def read_again(
    read: Callable[[], Awaitable[T]],
    is_wrong: Callable[[Exception], bool] = is_damaged,
    pauses: Sequence[float] | None = None,
) -> T:
    """Read and decode an object; after a damaged one, read it up to three times more.

    Args:
        read: reads, decodes, and raises an error for what cannot be right.
        is_wrong: whether this error says so.
        pauses: the seconds before each further read; None: PAUSES.

    Raises:
        Exception: the error of the last read; any other at once.
    """
    # A command that passes pauses reports what is damaged by itself.
    level = logging.WARNING if pauses is None else logging.INFO
    for pause in PAUSES if pauses is None else pauses:
        try:
            return await read()
        except ShardlineError as error:
            if not is_wrong(error):
                raise
            _log.log(level, "%s; reading it again", error)
            level = logging.DEBUG
        await asyncio.sleep(pause)
    return await read()


async def read_until_equal(read: Callable[[], Awaitable[T]], first: T) -> T:
    """Read an object until two reads in a row agree: for what cannot be checked in another way.

    Args:
        read: reads the object.
        first: the result of the first read.
    """
    for pause in PAUSES:
        again = await read()
        if again == first:
            break
        first = again
        await asyncio.sleep(pause)
    return first
