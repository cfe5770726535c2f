"""The port of an object store. `shardline_common.storage` and `shardline_common.memory` implement it.

The contract stands here, once; all implementations pass tests/contract/. Every method may raise the
errors named in its docstring and `asyncio.CancelledError`; foreign exceptions never cross a port.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object's name and size in bytes; `etag` identifies its content within one store."""

    key: str
    size: int
    etag: str = ""


class ObjectStore(Protocol):
    """Create-only objects under one root. Keys are relative, `/`-separated, without `..`.

    All methods raise StoreUnavailable when the store cannot serve now (time-outs, 403, 409, 429, 5xx).
    """

    @property
    def uri(self) -> str:
        """Where the root is, as users write it: `s3://bucket/prefix` or a directory."""

    async def create(self, key: str, body: bytes | Path, *, content_type: str = "application/json") -> None:
        """Create the object whole, or not at all; of many writers of one key exactly one succeeds.

        Raises:
            ObjectExists: the key is taken.
        """

    async def get(self, key: str) -> bytes:
        """The object's bytes, for small objects. Raises ObjectMissing."""

    def stream(self, key: str, *, offset: int = 0) -> AsyncIterator[bytes]:
        """The object's bytes from `offset` on, in chunks of at most 1 MiB. Raises ObjectMissing."""

    def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        """Objects whose key starts with `prefix` and sorts behind `start_after`.

        Within one folder by key in byte order; stores differ on folders beside files.
        """

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove objects; keys that do not exist are no error."""
