"""Reading the objects of a dataset: stored and uncompressed bytes, in bounded memory."""

import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256

import zstandard

from shardline_common.errors import FailureCode, JobFailed
from shardline_common.ports.store import ObjectStore

# A step of a hostile stream becomes at most 128 MiB: a zstd block of 4 bytes is up to 128 KiB.
_STEP = 1 << 12


@dataclass(frozen=True, slots=True)
class StoredBytes:
    """Size and sha256 (hexadecimal) of the bytes of an object, as they are stored."""

    size: int
    sha256: str

    @classmethod
    def of(cls, body: bytes) -> "StoredBytes":
        """Those of a small object."""
        return cls(len(body), sha256(body).hexdigest())


class ObjectReader:
    """Reads one object. `compression` is none, gzip or zstd. `stored` is known once `plain` has ended."""

    def __init__(self, store: ObjectStore, key: str, compression: str) -> None:
        self._store = store
        self._key = key
        self._compression = compression
        self._size = 0
        self._hash = sha256()

    @property
    def stored(self) -> StoredBytes:
        """Size and sha256 of the bytes that were read."""
        return StoredBytes(self._size, self._hash.hexdigest())

    async def plain(self) -> AsyncIterator[bytes]:
        """The uncompressed bytes, in chunks: those that gzip and zstd give, over all members or frames.

        Raises:
            JobFailed: the object is no valid stream of that compression, ends before its end, or has other
                bytes behind it.
            ObjectMissing: there is no such object.
            StoreUnavailable: the store cannot be read now.
        """
        decoder = None if self._compression == "none" else _Decoder(self._compression)
        try:
            async for chunk in self._store.stream(self._key):
                self._size += len(chunk)
                self._hash.update(chunk)
                if decoder is None:
                    yield chunk
                    continue
                for piece in decoder.decode(chunk):
                    yield piece
            if decoder is not None:
                decoder.check_end()
        except (zstandard.ZstdError, zlib.error) as error:
            raise JobFailed(
                FailureCode.CONSERVATION, f"{self._key} is no valid {self._compression}: {error}"
            ) from None


class _Decoder:
    """Decodes one gzip member or zstd frame after the other, like the readers of these formats."""

    def __init__(self, compression: str) -> None:
        self._open: Callable[[], zlib._Decompress | zstandard.ZstdDecompressionObj] = (
            (lambda: zlib.decompressobj(wbits=31))
            if compression == "gzip"
            else zstandard.ZstdDecompressor().decompressobj
        )
        self._stream = self._open()
        self._empty = True

    def decode(self, chunk: bytes) -> Iterator[bytes]:
        """The uncompressed bytes of the next stored bytes."""
        for start in range(0, len(chunk), _STEP):
            rest = chunk[start : start + _STEP]
            while rest:
                if self._stream.eof:
                    self._stream = self._open()
                self._empty = False
                yield self._stream.decompress(rest)
                rest = self._stream.unused_data

    def check_end(self) -> None:
        """Raise zlib.error unless the last stored bytes end a member or frame."""
        if self._empty or not self._stream.eof:
            raise zlib.error("the stream is cut off")


async def plain_sha256(reader: ObjectReader) -> str:
    """Read an object to its end. Returns the sha256 of its uncompressed bytes. Raises as `plain`."""
    digest = sha256()
    async for chunk in reader.plain():
        digest.update(chunk)
    return digest.hexdigest()


def plain_bytes(store: ObjectStore, key: str, compression: str) -> AsyncIterator[bytes]:
    """The uncompressed bytes of an object, in chunks. Raises as `ObjectReader.plain`."""
    return ObjectReader(store, key, compression).plain()
