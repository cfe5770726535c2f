"""Plan pages in an object store, in the folder of the dataset, with which they are deleted."""

from shardline_common.ports.clock import Clock
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.clock import SYSTEM_CLOCK
from shardline_common.runtime.create_or_read import create_or_get


class StoredPlanPages:
    """Implements `sources.source.PlanPages` below one prefix, which ends with a slash or is empty."""

    def __init__(self, store: ObjectStore, prefix: str, clock: Clock = SYSTEM_CLOCK) -> None:
        self._store = store
        self._prefix = prefix
        self._clock = clock

    async def create_or_get(self, name: str, body: bytes) -> bytes:
        """Create the page if its name is new. Returns the stored body."""
        existing = await create_or_get(self._store, self._prefix + name, body, self._clock)
        return body if existing is None else existing

    async def get(self, name: str) -> bytes:
        """The body of a page."""
        return await self._store.get(self._prefix + name)

    async def names(self, folder: str) -> list[str]:
        """The names in a folder, sorted."""
        inside = f"{folder}/" if folder else ""
        start = len(self._prefix + inside)
        found = [info.key[start:] async for info in self._store.list(self._prefix + inside)]
        return [inside + name for name in sorted(found) if "/" not in name]
