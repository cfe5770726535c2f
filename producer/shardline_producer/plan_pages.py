"""Plan pages in an object store."""

from shardline_common.errors import ObjectMissing
from shardline_common.ports.clock import Clock
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.clock import SYSTEM_CLOCK
from shardline_common.runtime.create_or_read import create_or_get


class StoredPlanPages:
    """Implements `sources.source.PlanPages` below prefixes that end with a slash or are empty.

    Args:
        store: the store of the dataset.
        prefix: the prefix of pages without a folder.
        clock: measures how long a store that refuses a page has none.
        rankings: the prefix of pages in folders; None: the same. Every planner that ranks writes a folder of
            its own, so these pages are outside of the dataset, which would have foreign objects otherwise.
    """

    def __init__(
        self, store: ObjectStore, prefix: str, clock: Clock = SYSTEM_CLOCK, rankings: str | None = None
    ) -> None:
        self._store = store
        self._prefix = prefix
        self._rankings = prefix if rankings is None else rankings
        self._clock = clock

    def _key(self, name: str) -> str:
        return (self._rankings if "/" in name else self._prefix) + name

    async def create_or_get(self, name: str, body: bytes) -> bytes:
        """Create the page if its name is new. Returns the stored body."""
        existing = await create_or_get(self._store, self._key(name), body, self._clock)
        return body if existing is None else existing

    async def get(self, name: str) -> bytes:
        """The body of a page."""
        try:
            return await self._store.get(self._key(name))
        except ObjectMissing:
            if self._key(name) == self._prefix + name:
                raise
        # A job that version 0.1 planned has its ranking in the dataset.
        return await self._store.get(self._prefix + name)

    async def names(self, folder: str) -> list[str]:
        """The names in a folder, sorted."""
        if not folder:
            return await self._names(self._prefix, "")
        return await self._names(self._rankings, f"{folder}/") or await self._names(
            self._prefix, f"{folder}/"
        )

    async def _names(self, prefix: str, inside: str) -> list[str]:
        start = len(prefix + inside)
        found = [info.key[start:] async for info in self._store.list(prefix + inside)]
        return [inside + name for name in sorted(found) if "/" not in name]
