"""An object store in memory, which can inject faults. Simulations, tests and `preview` use it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from hashlib import sha256

from shardline_common.errors import ObjectExists, ObjectMissing
from shardline_common.ports.store import Body, KeptVersions, ObjectInfo
from shardline_common.runtime.purge import delete_listed
from shardline_common.storage.object_keys import checked_key

CHUNK = 1 << 20

Fault = Callable[[str, str, str], None]
"""Called with ("before" | "after", operation, key).

To raise before an operation is to lose the request; to raise after it is to lose the response.
"""


class MemoryStore:
    """Implements `ports.store.ObjectStore` on a dict."""

    def __init__(self, fault: Fault = lambda _when, _operation, _key: None) -> None:
        self._objects: dict[str, bytes] = {}
        self._fault = fault

    @classmethod
    def copy_of(cls, other: "MemoryStore") -> "MemoryStore":
        """A store without faults that has the same objects as `other`."""
        store = cls()
        store._objects = dict(other._objects)  # noqa: SLF001 - the same class
        return store

    @property
    def uri(self) -> str:
        """A fixed name, for messages."""
        return "memory://"

    async def create(self, key: str, body: Body, *, content_type: str = "application/json") -> None:  # noqa: ARG002 - nothing serves it
        """Create the object, or raise ObjectExists."""
        checked_key(key)
        self._fault("before", "create", key)
        data = body if isinstance(body, bytes) else await asyncio.to_thread(body.read_bytes)
        await asyncio.sleep(0)
        if key in self._objects:
            raise ObjectExists(f"{key} exists")
        self._objects[key] = data
        self._fault("after", "create", key)

    async def get(self, key: str) -> bytes:
        """The object's bytes."""
        self._fault("before", "get", key)
        await asyncio.sleep(0)
        try:
            return self._objects[key]
        except KeyError:
            raise ObjectMissing(f"there is no {key}") from None

    async def stream(self, key: str, *, offset: int = 0, size: int | None = None) -> AsyncIterator[bytes]:
        """The object's bytes from `offset` on, at most `size`."""
        data = await self.get(key)
        end = len(data) if size is None else min(len(data), offset + size)
        for start in range(offset, end, CHUNK):
            yield data[start : min(start + CHUNK, end)]

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        """Objects by key in byte order."""
        self._fault("before", "list", prefix)
        await asyncio.sleep(0)
        for key in sorted(self._objects, key=str.encode):
            if key.startswith(prefix) and key.encode() > start_after.encode() and key in self._objects:
                data = self._objects[key]
                yield ObjectInfo(key, len(data), sha256(data).hexdigest())

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove objects."""
        for key in keys:
            self._fault("before", "delete", key)
            self._objects.pop(key, None)

    async def purge(self, prefix: str, *, versions: bool = False) -> KeptVersions | None:  # noqa: ARG002 - it has none
        """Delete all objects below a prefix."""
        await delete_listed(self, prefix)
        return None
