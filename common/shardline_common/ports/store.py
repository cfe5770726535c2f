"""The port of an object store. `shardline_common.storage` and `shardline_common.memory` implement it.

The contract is documented only here; all implementations pass tests/contract/. A method raises only the
errors named in its docstring and `asyncio.CancelledError`, never an exception of a client library.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """Key and size in bytes of an object. `etag` identifies its content within one store."""

    key: str
    size: int
    etag: str = ""


@dataclass(frozen=True, slots=True)
class HashedFile:
    """A file with the sha256 of its bytes (hexadecimal), which its writer has computed.

    A store that sends a hash sends this one, instead of reading the file once more. So it refuses the file
    when its bytes have changed since they were written. A store on the same disk takes the file itself: after
    the call it may be removed, and is not written to.
    """

    path: Path
    sha256: str

    def read_bytes(self) -> bytes:
        """The bytes of the file, as they are now."""
        return self.path.read_bytes()


Body = bytes | Path | HashedFile


@dataclass(frozen=True, slots=True)
class KeptVersions:
    """Versions of deleted objects that a store keeps: their bytes are still stored.

    `certain`: False when the store does not say whether, or how many. `named`: some keys, each with the end
    of its lock. `refused`: why others were not removed, in the store's words.
    """

    count: int
    certain: bool = True
    named: tuple[str, ...] = ()
    refused: str = ""


class ObjectStore(Protocol):
    """Create-only objects below one root. Keys are relative, `/`-separated, without `..`.

    All methods raise StoreUnavailable when the store cannot serve now (time-outs, 403, 409, 429, 5xx).
    A method that was cancelled may still have taken effect.
    """

    @property
    def uri(self) -> str:
        """The root as users write it: `s3://bucket/prefix`, or a directory."""

    async def create(self, key: str, body: Body, *, content_type: str = "application/json") -> None:
        """Create the object completely or not at all. Of many writers of one key exactly one succeeds.

        A writer whose first response was lost may get ObjectExists for its own object.

        Raises:
            ObjectExists: there is an object under the key.
        """

    async def get(self, key: str) -> bytes:
        """The bytes of a small object: all that the store says it has. Raises ObjectMissing.

        A body without its end, or with fewer or more bytes, is read again; then StoreUnavailable is raised.
        A store that is wrong about the length too is found only where the caller compares a hash.
        """

    def stream(self, key: str, *, offset: int = 0, size: int | None = None) -> AsyncIterator[bytes]:
        """The bytes from `offset` on, in chunks of at most 1 MiB. Raises ObjectMissing.

        With `size`, 1 or more, only so many of them are requested. A body that ends early is read on where
        it broke; then StoreUnavailable is raised. The iterator ends only at the end of the object, or when
        it has returned `size` bytes.
        """

    def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        """The objects whose key starts with `prefix` and sorts behind `start_after`.

        The list ends only where the store says that it ends; a page that is not whole is requested again,
        then StoreUnavailable is raised. What a store leaves out without a sign is found by a second listing.
        Within one folder they are sorted by key in byte order; stores order folders among files differently.
        """

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects. A key without an object is no error."""

    async def purge(self, prefix: str, *, versions: bool = False) -> KeptVersions | None:
        """Delete the objects whose key starts with `prefix`.

        With `versions`, also the versions that the store keeps of them, where it allows that.

        Returns:
            What stays of them; with `versions`, also of objects that were deleted before. None for nothing.
        """
