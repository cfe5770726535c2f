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
    create: Callable[[], Awaitable[None]],
    read: Callable[[], Awaitable[T]],
    key: str,
    clock: Clock,
    *,
    confirm: bool = False,
) -> T | None:
    """Create an object, or read the one under its key. None: this call created it.

    A store may refuse the create and then not find the object: its reads lag behind its writes, or the object
    was deleted in between. Both calls are repeated for up to 30 seconds then.

    Args:
        create: the create-only put; it raises ObjectExists.
        read: reads what the caller compares with its own; it raises ObjectMissing.
        key: the key of both, for messages.
        clock: measures the time, and sleeps between the tries.
        confirm: read the object that this call has created too, and return it. A store may acknowledge a put
            and lose the object; it is put again then.

    Raises:
        JobFailed: for 30 seconds the store had no object, and refused every create (`store_inconsistent`) or
            acknowledged the last one (`object_lost`).
        StoreUnavailable: the object may have been created; call again.
    """
    failures, since = 0, clock.monotonic()
    while True:
        refused = False
        try:
            await create()
        except ObjectExists:
            refused = True
        else:
            if not confirm:
                return None
        try:
            return await read()
        except ObjectMissing:
            seconds = clock.monotonic() - since
        if seconds >= _LIMIT_SECONDS:
            raise _inconsistent(key, seconds) if refused else _lost(key, failures + 1)
        level = logging.DEBUG if failures else logging.WARNING
        what = "refused to create it" if refused else "acknowledged it"
        _log.log(level, "%s: the store %s and has no such object; trying again", key, what)
        await clock.sleep(_BACKOFF.longest(failures))
        failures += 1


def _inconsistent(key: str, seconds: float) -> JobFailed:
    return JobFailed(
        FailureCode.STORE_INCONSISTENT,
        f"the store refuses to create {key} because it exists, and for {seconds:.0f} s has no such object",
        hint="check the store with `shardline doctor`, then retry the job",
    )


def _lost(key: str, puts: int) -> JobFailed:
    return JobFailed(
        FailureCode.OBJECT_LOST,
        f"{key} was put {puts} times, and acknowledged, and is not in the store",
        hint="find out why the store loses objects, then retry the job",
    )


async def create_or_get(
    store: ObjectStore, key: str, body: bytes, clock: Clock, *, content_type: str = "application/json"
) -> bytes | None:
    """Create a small object, and read it. Returns its bytes; None: they are those of `body`.

    Raises as `create_or_read`.
    """
    create = partial(store.create, key, body, content_type=content_type)
    found = await create_or_read(create, partial(store.get, key), key, clock, confirm=True)
    return None if found == body else found
