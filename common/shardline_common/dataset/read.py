"""Reading the objects of a dataset: stored and uncompressed bytes, in bounded memory."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from operator import methodcaller
from pathlib import Path

import zstandard

from shardline_common.errors import FailureCode, JobFailed, StoreUnavailable
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.read_again import read_again
from shardline_common.runtime.retry import Backoff
from shardline_common.runtime.threads import run_in_thread

# A step of a hostile stream becomes at most 128 MiB: a zstd block of 4 bytes is up to 128 KiB.
_STEP = 1 << 12
_MAX_READS = 5
_BACKOFF = Backoff(base=0.1, cap=5.0)


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
    """Reads one object. `stored` and `plain_sha256` are known once `plain` has ended.

    Args:
        store: the store that has it.
        key: its key.
        compression: none, gzip or zstd.
        expected: the sha256 that its uncompressed bytes must have; None: any.
    """

    def __init__(self, store: ObjectStore, key: str, compression: str, expected: str | None = None) -> None:
        self._store = store
        self._key = key
        self._compression = compression
        self._expected = expected
        self._size = 0
        self._hash = sha256()
        # Without compression both are of the same bytes.
        self._plain_hash = self._hash if compression == "none" else sha256()

    @property
    def stored(self) -> StoredBytes:
        """Size and sha256 of the bytes that were read."""
        return StoredBytes(self._size, self._hash.hexdigest())

    @property
    def plain_sha256(self) -> str:
        """The sha256 of the uncompressed bytes, in hexadecimal."""
        return self._plain_hash.hexdigest()

    async def plain(self) -> AsyncIterator[bytes]:
        """The uncompressed bytes, in chunks: those that gzip and zstd give, over all members or frames.

        Raises:
            JobFailed: the object is no valid stream of that compression, ends before its end, or has other
                bytes behind it (`dataset_damaged`).
            ObjectMissing: there is no such object.
            StoreUnavailable: the store cannot be read now, or the bytes were others than the expected ones.
        """
        async for piece in self._decoded():
            yield piece
        if self._expected not in (None, self.plain_sha256):
            raise StoreUnavailable(
                f"{self._key}: the sha256 of the {self._size} bytes that came is {self.plain_sha256}, the "
                f"manifest says {self._expected}",
                hint="try again; if it remains so, the object is damaged: run `shardline verify`",
            )

    async def read_to_end(self) -> None:
        """Read the object for its hashes. Raises as `plain`."""
        async for _ in self.plain():
            pass

    async def save(self, path: Path) -> None:
        """Write the uncompressed bytes to a file. Raises as `plain`, and OSError."""
        file = await run_in_thread(partial(path.open, "wb"), methodcaller("close"))
        try:
            async for piece in self.plain():
                await run_in_thread(partial(file.write, piece))
        finally:
            file.close()

    async def _decoded(self) -> AsyncIterator[bytes]:
        decoder = None if self._compression == "none" else _Decoder(self._compression)
        try:
            async for chunk in self._store.stream(self._key):
                self._size += len(chunk)
                self._hash.update(chunk)
                if decoder is None:
                    yield chunk
                    continue
                for piece in decoder.decode(chunk):
                    self._plain_hash.update(piece)
                    yield piece
            if decoder is not None:
                decoder.check_end()
        except (zstandard.ZstdError, zlib.error) as error:
            raise JobFailed(
                FailureCode.DATASET_DAMAGED,
                f"{self._key} is no valid {self._compression}: {error}",
                hint="restore or delete this object, then retry the job",
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


async def download(
    store: ObjectStore,
    key: str,
    path: Path,
    expected: StoredBytes | None,
    wrong: JobFailed,
    pauses: Sequence[float] | None = None,
) -> None:
    """Copy an uncompressed object to a file, and compare its bytes.

    Args:
        store: the store that has it.
        key: its key.
        path: the file; replaced when it exists.
        expected: the bytes that it must have; None: it should not be there.
        wrong: raised for other bytes (`dataset_damaged`, so that they are read again first).
        pauses: those of `read_again`.

    Raises:
        ObjectMissing: there is no such object.
        StoreUnavailable: the store cannot be read now.
        OSError: the file cannot be written.
    """

    async def read() -> None:
        reader = ObjectReader(store, key, "none")
        await reader.save(path)
        if reader.stored != expected:
            raise wrong

    await read_again(read, pauses=pauses)


async def read_hashes(
    store: ObjectStore, key: str, compression: str, expected: str
) -> tuple[str, StoredBytes]:
    """The sha256 of the uncompressed bytes of an object, and its stored bytes.

    An object with another sha256 than `expected`, or that cannot be decompressed, is read again until two
    reads in a row give the same bytes: one damaged answer of the store is no fact about the object.

    Raises as `ObjectReader.plain`.
    """
    before: StoredBytes | None = None
    async for _ in reads():
        reader = ObjectReader(store, key, compression)
        fault: JobFailed | None = None
        found = ""
        try:
            await reader.read_to_end()
            found = reader.plain_sha256
        except JobFailed as error:
            fault = error
        if fault is None and (found == expected or reader.stored == before):
            return found, reader.stored
        if fault is not None and reader.stored == before:
            raise fault
        before = reader.stored
    raise unsteady(key)


async def reads() -> AsyncIterator[int]:
    """The numbers of the reads of an object that gives other bytes each time; the third waits for a while."""
    for number in range(_MAX_READS):
        if number > 1:
            await asyncio.sleep(_BACKOFF.longest(number))
        yield number


def unsteady(key: str) -> StoreUnavailable:
    """The error of an object that gave other bytes in every read."""
    return StoreUnavailable(
        f"{key}: {_MAX_READS} reads gave different bytes",
        hint="look for a proxy, a cache or a disk that changes them",
    )


def plain_bytes(
    store: ObjectStore, key: str, compression: str, expected: str | None = None
) -> AsyncIterator[bytes]:
    """The uncompressed bytes of an object, in chunks. Raises as `ObjectReader.plain`.

    `expected`: the sha256 that they must have; None: any.
    """
    return ObjectReader(store, key, compression, expected).plain()
