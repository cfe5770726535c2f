"""A finished dataset as its readers see it: the shards of each split, and the bytes of every object."""

from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from shardline_common.dataset.manifest import Manifest
from shardline_common.dataset.read import StoredBytes
from shardline_common.dataset.success import SuccessMarker, hash_of
from shardline_common.errors import FailureCode, JobFailed
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.read_again import read_again

SUCCESS, MANIFEST, CARD = "_SUCCESS", "manifest.json", "README.md"


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard. `size` and `sha256` are those of its rows, without compression.

    `stored` are the bytes of its object; None in a manifest of version 1, which does not name them.
    """

    key: str
    rows: int
    size: int
    sha256: str
    stored: StoredBytes | None


@dataclass(frozen=True, slots=True)
class PublishedDataset:
    """A finished dataset.

    `splits`: the shards by split, both in the order of the manifest. `objects`: the stored bytes of every
    object that the manifest names; empty in version 1. `marker` and `body` are the contents of `_SUCCESS`,
    and the bytes of `manifest.json`.
    """

    manifest: Manifest
    splits: Mapping[str, tuple[Shard, ...]]
    objects: Mapping[str, StoredBytes]
    marker: SuccessMarker
    body: bytes

    @property
    def compression(self) -> str:
        """The compression of the shards: none, gzip or zstd."""
        return self.manifest.job.output.compression


async def read_published(store: ObjectStore) -> PublishedDataset:
    """Read the manifest that `_SUCCESS` names. The root of the store is the folder of the dataset.

    Raises:
        ObjectMissing: there is no `_SUCCESS` or no manifest: it is no finished dataset.
        JobFailed: one of them is damaged (`dataset_damaged`), or of a later version (`conservation`).
        StoreUnavailable: the store cannot be read now.
    """
    return await read_again(lambda: _read(store))


async def _read(store: ObjectStore) -> PublishedDataset:
    marker = SuccessMarker.decode(await store.get(SUCCESS))
    body = await store.get(MANIFEST)
    manifest = Manifest.decode(body)
    # Version 0.1 names the digest only.
    named = marker.hashes.get(MANIFEST, hash_of(body))
    if (marker.digest, named) != (manifest.digest, hash_of(body)):
        raise JobFailed(
            FailureCode.DATASET_DAMAGED,
            f"{store.uri}: its manifest.json is not the one that _SUCCESS names",
            hint="run `shardline verify`; restore the manifest",
        )
    objects = {
        item["key"]: StoredBytes(item["bytes"], item["sha256"])
        for item in orjson.loads(body).get("objects", ())
    }
    splits: dict[str, list[Shard]] = {}
    for shard in manifest.shards:
        key = shard["key"]
        splits.setdefault(shard["split"], []).append(
            Shard(key, shard["rows"], shard["bytes"], shard["sha256"], objects.get(key))
        )
    return PublishedDataset(
        manifest, {name: tuple(shards) for name, shards in splits.items()}, objects, marker, body
    )
