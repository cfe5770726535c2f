"""Finished datasets that another job compares with: found, frozen by their digest, and read row by row."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing

from shardline_common.dataset.line_cutter import LineCutter
from shardline_common.dataset.manifest import Manifest
from shardline_common.dataset.published import PublishedDataset, read_published
from shardline_common.dataset.read import StoredBytes, plain_bytes
from shardline_common.errors import FailureCode, JobFailed, ObjectMissing
from shardline_common.ports.store import ObjectStore

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
    return (await _read_proven(store, address, digest)).manifest


async def read_finished_objects(
    store: ObjectStore, address: str, digest: str
) -> tuple[Manifest, Mapping[str, StoredBytes]]:
    """The manifest of a finished dataset, and the stored bytes of all objects that it names, by key.

    Raises as `read_finished`.
    """
    dataset = await _read_proven(store, address, digest)
    return dataset.manifest, dataset.objects


async def _read_proven(store: ObjectStore, address: str, digest: str | None) -> PublishedDataset:
    try:
        dataset = await read_published(store)
    except (ObjectMissing, JobFailed) as error:
        raise JobFailed(
            FailureCode.SOURCE_INVALID,
            f"dedup.against: {address} is no finished dataset: {error}",
            hint="name the folder that has its _SUCCESS; `shardline verify` says what it lacks",
        ) from None
    if digest not in (None, found := dataset.manifest.digest):
        raise JobFailed(
            FailureCode.SOURCE_CHANGED,
            f"dedup.against: {address} has the digest {found}; when the job was planned, it had {digest}",
            hint="submit a new job",
        )
    return dataset


async def finished_lines(store: ObjectStore, manifest: Manifest) -> AsyncIterator[list[bytes]]:
    """The rows of all shards, in lists of lines. The bytes of each shard are proven behind its last rows.

    Raises:
        JobFailed: a shard is no valid stream of its compression (`dataset_damaged`).
        ObjectMissing: a shard is not in the store.
        StoreUnavailable: the store cannot be read now, or a shard had other bytes.
    """
    compression = manifest.job.output.compression
    for shard in manifest.shards:
        async with aclosing(shard_lines(store, shard["key"], compression, shard["sha256"])) as lists:
            async for lines in lists:
                yield lines


async def shard_lines(
    store: ObjectStore, key: str, compression: str, sha256: str
) -> AsyncGenerator[list[bytes], None]:
    """The rows of one shard, in lists of lines. Its bytes are proven behind the last rows.

    Raises as `finished_lines`.
    """
    cutter = LineCutter()
    async with aclosing(plain_bytes(store, key, compression, sha256)) as chunks:  # type: ignore[type-var]
        async for chunk in chunks:
            if lines := cutter.cut(chunk):
                yield lines
    if cutter.rest:
        raise JobFailed(FailureCode.DATASET_DAMAGED, f"{key}: its last row is cut off")
