"""A finished dataset, from its folder: its manifest, or all that readers of its shards need."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from shardline.services.wiring.stores import open_store_at
from shardline_common.dataset.manifest import Manifest
from shardline_common.dataset.published import PublishedDataset, read_published
from shardline_common.errors import ObjectMissing, ServiceUnavailable, UsageError
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.read_again import read_again
from shardline_common.settings.load import Settings

_NAMED = 5
# A bucket may hold millions of objects that are no datasets.
_LISTED = 10_000
_MANIFEST = "manifest.json"


async def read_manifest_at(uri: str, settings: Settings) -> Manifest:
    """Read the manifest of the dataset in the folder `uri`.

    Raises:
        UsageError: a setting is wrong, or the folder is no finished dataset; the hint names those below it.
        JobFailed: the manifest cannot be read.
        StoreUnavailable: the store cannot be reached.
    """
    async with open_store_at(uri, settings) as store:
        try:
            return await read_manifest(store, _MANIFEST)
        except ObjectMissing:
            raise await _unfinished(uri, store, "manifest.json") from None


@asynccontextmanager
async def open_published(uri: str, settings: Settings) -> AsyncIterator[tuple[ObjectStore, PublishedDataset]]:
    """Open the store of a finished dataset, and read the manifest that its `_SUCCESS` names.

    Raises:
        UsageError: a setting is wrong, or the folder is no finished dataset; the hint names those below it.
        JobFailed: the manifest is damaged.
        StoreUnavailable: the store cannot be reached.
    """
    async with open_store_at(uri, settings) as store:
        try:
            dataset = await read_published(store)
        except ObjectMissing:
            raise await _unfinished(uri, store, "_SUCCESS") from None
        yield store, dataset


async def _unfinished(uri: str, store: ObjectStore, name: str) -> UsageError:
    below = await datasets_below(store)
    hint = f"name one of these: {', '.join(below)}" if below else "name the folder that has _SUCCESS"
    return UsageError(f"{uri} has no {name}: it is no finished dataset", hint=hint)


async def read_manifest(store: ObjectStore, key: str) -> Manifest:
    """Read a manifest.

    Raises:
        ObjectMissing: there is none.
        JobFailed: it cannot be read, also when it is read again.
        StoreUnavailable: the store cannot be reached.
    """

    async def read() -> Manifest:
        return Manifest.decode(await store.get(key))

    return await read_again(read)


async def datasets_below(store: ObjectStore) -> list[str]:
    """Return the URIs of up to 5 datasets in folders below the root of a store."""
    found, listed = list[str](), 0
    # What cannot be listed is only a hint less.
    with suppress(ServiceUnavailable):
        async for info in store.list(""):
            listed += 1
            folder, _, name = info.key.rpartition("/")
            if name == _MANIFEST and folder:
                found.append(f"{store.uri}/{folder}")
            if len(found) == _NAMED or listed == _LISTED:
                break
    return found
