"""Whether a store keeps the one promise that everything rests on: create-only puts."""

import asyncio
import secrets
from contextlib import suppress

from shardline_common.errors import ObjectExists, StoreUnavailable, UsageError
from shardline_common.ports.store import ObjectStore

_WRITERS = 12


async def probe_create_only(store: ObjectStore) -> None:
    """Let many writers create one key at once: exactly one may win.

    Raises:
        UsageError: the store lets more than one succeed.
        StoreUnavailable: it cannot be asked, or lost the winner's answer; ask again.
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
            # The winner's answer was lost, and its retry met its own object.
            raise StoreUnavailable(f"{store.uri} did not tell who of {_WRITERS} writers of one key won")
        if wins > 1:
            raise UsageError(
                f"{store.uri} does not honour create-only puts (If-None-Match: *): "
                f"{wins} of {_WRITERS} writers of one key succeeded",
                hint="Shardline cannot be exactly once there; use a store or version that does",
            )
    finally:
        # Who may not delete is no worse a writer.
        with suppress(StoreUnavailable):
            await store.delete([key])
