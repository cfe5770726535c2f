"""A create-only put whose refusal is explained by the object that stands under the key."""

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from shardline_common.errors import FailureCode, JobFailed, ObjectExists, ObjectMissing
from shardline_common.ports.clock import Clock
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.retry import Backoff

T = TypeVar("T")
_log = logging.getLogger(__name__)
_LIMIT_SECONDS = 30.0
_BACKOFF = Backoff(base=0.2, cap=5.0)


async def create_or_read(
    create: Callable[[], Awaitable[None]], read: Callable[[], Awaitable[T]], key: str, clock: Clock
) -> T | None:
    """Create an object, or read the one under its key. None: this call created it.

    A store may refuse the create and then not find the object: its reads lag behind its writes, or the object
    was deleted in between. Both calls are repeated for up to 30 seconds then.

    Args:
        create: the create-only put; it raises ObjectExists.
        read: reads what the caller compares with its own; it raises ObjectMissing.
        key: the key of both, for messages.
        clock: measures the time, and sleeps between the tries.

    Raises:
        JobFailed: the store refused every create, and had no object for 30 seconds (`store_inconsistent`).
        StoreUnavailable: the object may have been created; call again.
    """
    failures, since = 0, clock.monotonic()
    while True:
        try:
            await create()
        except ObjectExists:
            pass
        else:
            return None
        try:
            return await read()
        except ObjectMissing:
            seconds = clock.monotonic() - since
        if seconds >= _LIMIT_SECONDS:
            raise JobFailed(
                FailureCode.STORE_INCONSISTENT,
                f"the store refuses to create {key} because it exists, and for {seconds:.0f} s has no such "
                "object",
                hint="check the store with `shardline doctor`, then retry the job",
            )
        level = logging.DEBUG if failures else logging.WARNING
        _log.log(level, "%s: the store refused to create it and has no such object; trying again", key)
        await clock.sleep(_BACKOFF.longest(failures))
        failures += 1


async def create_or_get(
    store: ObjectStore, key: str, body: bytes, clock: Clock, *, content_type: str = "application/json"
) -> bytes | None:
    """Create a small object, or return the bytes of the one under its key. None: this call created it.

    Raises as `create_or_read`.
    """
    create = partial(store.create, key, body, content_type=content_type)
    return await create_or_read(create, partial(store.get, key), key, clock)
