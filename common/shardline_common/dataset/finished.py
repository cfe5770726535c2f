"""Finished datasets that another job compares with: found, frozen by their digest, and read row by row."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing

import orjson

from shardline_common.dataset.line_cutter import LineCutter
from shardline_common.dataset.manifest import Manifest
from shardline_common.dataset.read import StoredBytes, plain_bytes
from shardline_common.dataset.success import SuccessMarker, hash_of
from shardline_common.errors import FailureCode, JobFailed, ObjectMissing
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.read_again import read_again

OpenDataset = Callable[[str], AbstractAsyncContextManager[ObjectStore]]
"""Opens the folder of a dataset by its address. Raises UsageError for one that this process may not read."""


async def read_finished(store: ObjectStore, address: str, digest: str | None = None) -> Manifest:
    """The manifest of a finished dataset, as `_SUCCESS` names it.

    Args:
        store: the store whose root is the folder of the dataset.
        address: its address, for messages.
        digest: the digest that it must have; None: any.

    Raises:
        JobFailed: it is not finished or is damaged (`source_invalid`), or has another digest
            (`source_changed`).
        StoreUnavailable: the store cannot be read now.
    """
    manifest, _ = await _read_proven(store, address, digest)
    return manifest


async def read_finished_objects(
    store: ObjectStore, address: str, digest: str
) -> tuple[Manifest, dict[str, StoredBytes]]:
    """The manifest of a finished dataset, and the stored bytes of all objects that it names, by key.

    Raises as `read_finished`.
    """
    manifest, body = await _read_proven(store, address, digest)
    named = orjson.loads(body).get("objects", ())
    return manifest, {one["key"]: StoredBytes(one["bytes"], one["sha256"]) for one in named}


async def _read_proven(store: ObjectStore, address: str, digest: str | None) -> tuple[Manifest, bytes]:
    try:
        manifest, body = await read_again(lambda: _read(store))
    except (ObjectMissing, JobFailed) as error:
        raise JobFailed(
            FailureCode.SOURCE_INVALID,
            f"dedup.against: {address} is no finished dataset: {error}",
            hint="name the folder that has its _SUCCESS; `shardline verify` says what it lacks",
        ) from None
    if digest not in (None, manifest.digest):
        raise JobFailed(
            FailureCode.SOURCE_CHANGED,
            f"dedup.against: {address} has the digest {manifest.digest}; when the job was planned, it had "
            f"{digest}",
            hint="submit a new job",
        )
    return manifest, body


async def _read(store: ObjectStore) -> tuple[Manifest, bytes]:
    marker = SuccessMarker.decode(await store.get("_SUCCESS"))
    body = await store.get("manifest.json")
    manifest = Manifest.decode(body)
    # Version 0.1 names the digest only.
    named = marker.hashes.get("manifest.json", hash_of(body))
    if (marker.digest, named) != (manifest.digest, hash_of(body)):
        raise JobFailed(FailureCode.DATASET_DAMAGED, "its manifest.json is not the one that _SUCCESS names")
    return manifest, body


async def finished_lines(store: ObjectStore, manifest: Manifest) -> AsyncIterator[list[bytes]]:
    """The rows of all shards, in lists of lines. The bytes of each shard are proven behind its last rows.

    Raises:
        JobFailed: a shard is no valid stream of its compression (`dataset_damaged`).
        ObjectMissing: a shard is not in the store.
        StoreUnavailable: the store cannot be read now, or a shard had other bytes.
    """
    compression = manifest.job.output.compression
    for shard in manifest.shards:
        cutter = LineCutter()
        async with aclosing(plain_bytes(store, shard["key"], compression, shard["sha256"])) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                if lines := cutter.cut(chunk):
                    yield lines
        if cutter.rest:
            raise JobFailed(FailureCode.DATASET_DAMAGED, f"{shard['key']}: its last row is cut off")
