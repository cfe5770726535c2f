"""Reading shards: an object's uncompressed bytes, in bounded memory."""

import zlib
from collections.abc import AsyncIterator
from hashlib import sha256

import zstandard

from shardline_common.errors import FailureCode, JobFailed
from shardline_common.ports.store import ObjectStore


async def object_sha256(store: ObjectStore, key: str, compression: str) -> str:
    """The sha256 of an object's uncompressed bytes, read in bounded memory. Raises as `plain_bytes`."""
    digest = sha256()
    async for chunk in plain_bytes(store, key, compression):
        digest.update(chunk)
    return digest.hexdigest()


async def plain_bytes(store: ObjectStore, key: str, compression: str) -> AsyncIterator[bytes]:
    """The uncompressed bytes of an object, in chunks.

    Args:
        store: where the object is.
        key: its key.
        compression: none, gzip or zstd.

    Raises:
        JobFailed: the object is no valid stream of that compression.
        ObjectMissing: there is no such object.
        StoreUnavailable: the store cannot be read now.
    """
    if compression == "none":
        async for chunk in store.stream(key):
            yield chunk
        return
    gzipped = compression == "gzip"
    decoder = zlib.decompressobj(wbits=31) if gzipped else zstandard.ZstdDecompressor().decompressobj()
    async for chunk in store.stream(key):
        for start in range(0, len(chunk), 1 << 16):
            try:
                yield decoder.decompress(chunk[start : start + (1 << 16)])
            except (zstandard.ZstdError, zlib.error) as error:
                raise JobFailed(
                    FailureCode.CONSERVATION, f"{key} is no valid {compression}: {error}"
                ) from None
