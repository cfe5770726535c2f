"""The probe of an object store: whether it honours create-only puts, on which exactly-once depends."""

import asyncio
import secrets
from contextlib import suppress

from shardline_common.errors import ObjectExists, StoreUnavailable, UsageError
from shardline_common.ports.store import ObjectStore

_WRITERS = 12


async def probe_create_only(store: ObjectStore) -> None:
    """Create one key by 12 concurrent puts and check that exactly one succeeds.

    Raises:
        UsageError: more than one succeeded.
        StoreUnavailable: the store cannot be reached, or the winner's response was lost; call again.
    """
    key = f"_probe/{secrets.token_hex(16)}"

    async def create(number: int) -> bool:
        try:
            await store.create(key, str(number).encode(), content_type="text/plain")
        except ObjectExists:
            return False
        return True

    wins = sum(await asyncio.gather(*map(create, range(_WRITERS))))
    try:
        if wins == 0:
            # The winner's response was lost, and its retry found its own object.
            raise StoreUnavailable(f"{store.uri} did not say which of {_WRITERS} writers succeeded")
        if wins > 1:
            raise UsageError(
                f"{store.uri} does not honour create-only puts (If-None-Match: *): "
                f"{wins} of {_WRITERS} writers of one key succeeded",
                hint="use a store or a version that does: exactly-once depends on it",
            )
    finally:
        # A process that only writes may have no right to delete.
        with suppress(StoreUnavailable):
            await store.delete([key])
