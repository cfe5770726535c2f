"""Appending a record that says what is done: create-only, and equal to one that stands under its key."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol, Self, TypeVar

from shardline_common.errors import JobFailed
from shardline_common.ports.clock import Clock
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.create_or_read import create_or_read


class _Record(Protocol):
    def encode(self) -> bytes: ...

    def has_same_content(self, other: "Self") -> bool: ...


R = TypeVar("R", bound=_Record)


async def append_record(
    store: ObjectStore,
    key: str,
    record: R,
    read: Callable[[], Awaitable[tuple[R, bytes]]],
    clock: Clock,
    refused: JobFailed,
) -> R:
    """Create a record. Returns the one in the store: this one, or an existing one with its content.

    Args:
        store: where it is created.
        key: its key.
        record: the record.
        read: reads the record under the key. Raises ObjectMissing.
        clock: measures how long the store refuses the key and has no object under it.
        refused: raised where a record with other content exists (`not_reproducible`).

    Raises:
        JobFailed: `refused`, or the store refuses the record and has none (`store_inconsistent`).
        StoreUnavailable: the record may have been created; call again.
    """
    found = await create_or_read(partial(store.create, key, record.encode()), read, key, clock)
    if found is None:
        return record
    existing, _ = found
    if existing.has_same_content(record):
        return existing
    raise refused
