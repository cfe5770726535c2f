"""The check of `doctor` that uses the object store: create, list, read, delete, clock, versions."""

import secrets

from shardline.services.report import report_all
from shardline.services.wiring.stores import open_store
from shardline_common.errors import ObjectMissing, ShardlineError
from shardline_common.ports.store import ObjectStore
from shardline_common.settings.load import Settings
from shardline_common.storage.probe import ROUNDS, WRITERS, probe_create_only
from shardline_common.storage.s3_checks import clock_ahead, keeps_versions

# AWS and others refuse a request whose time differs by more than 15 minutes.
_REFUSED_SECONDS, _FAILED_SECONDS, _NOTABLE_SECONDS = 900, 300, 5


async def check_store(settings: Settings) -> str:
    """Use the store as a producer does. Returns a sentence about all that was found.

    Raises:
        ShardlineError: a part failed. The message has what the other parts found too.
        UsageError: no bucket is set, or a setting is wrong.
    """
    async with open_store(settings) as (store, client):

        async def clock() -> str:
            return _about_clock(await clock_ahead(client, client.bucket))

        async def versions() -> str:
            return _about_versions(await keeps_versions(client, client.bucket))

        parts = (lambda: _list(store), lambda: _create(store), lambda: _delete(store), clock, versions)
        return f"{store.uri}: " + await report_all(parts)


async def _list(store: ObjectStore) -> str:
    async for _ in store.list(""):
        break
    return "it lists"


async def _create(store: ObjectStore) -> str:
    await probe_create_only(store)
    return f"it honours create-only puts ({ROUNDS} rounds of {WRITERS} at once, one won each)"


async def _delete(store: ObjectStore) -> str:
    key = f"_probe/{secrets.token_hex(16)}"
    await store.create(key, b"deleted next", content_type="text/plain")
    await store.delete([key])
    try:
        await store.get(key)
    except ObjectMissing:
        return "it deletes"
    raise ShardlineError(
        f"{store.uri} says that it has deleted {key}, and still has it", hint="see the store's log"
    )


def _about_clock(ahead: float | None) -> str:
    if ahead is None:
        return "its clock is not known: its answers have no Date"
    if abs(ahead) < _NOTABLE_SECONDS:
        return "its clock agrees with this machine's"
    found = f"its clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} this machine's"
    if abs(ahead) < _FAILED_SECONDS:
        return found
    raise ShardlineError(
        f"{found}; requests are refused from {_REFUSED_SECONDS} s on",
        hint="set the clock, by NTP for example",
    )


def _about_versions(keeps: bool | None) -> str:
    if keeps is None:
        return "it does not say whether the bucket keeps versions of deleted objects"
    return "the bucket keeps versions of deleted objects" if keeps else "the bucket keeps no versions"
