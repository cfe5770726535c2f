"""A store that reports its failures: while its requests fail, the process is not ready."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager

from shardline_common.errors import ShardlineError, StoreUnavailable, explain
from shardline_common.ports.clock import Clock
from shardline_common.ports.store import Body, KeptVersions, ObjectInfo, ObjectStore
from shardline_common.runtime.retry import call_failed, call_succeeded

# Longer than every pause between two tries: a failure that nobody repeats is forgotten.
_FORGET_SECONDS = 60.0


class WatchedStore:
    """Implements `ports.store.ObjectStore` by another store, whose failures count in `longest_failing`.

    Not all callers retry a failed request in `retry_forever`: some go on with their other work and come back.
    """

    def __init__(self, store: ObjectStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    @property
    def uri(self) -> str:
        """The root of the other store."""
        return self._store.uri

    async def create(self, key: str, body: Body, *, content_type: str = "application/json") -> None:
        """Create the object, or raise ObjectExists."""
        with self._watched():
            await self._store.create(key, body, content_type=content_type)

    async def get(self, key: str) -> bytes:
        """The object's bytes."""
        with self._watched():
            return await self._store.get(key)

    async def stream(self, key: str, *, offset: int = 0, size: int | None = None) -> AsyncIterator[bytes]:
        """The object's bytes from `offset` on, at most `size`."""
        chunks = self._store.stream(key, offset=offset, size=size)
        while True:
            with self._watched():
                chunk = await anext(chunks, None)
            if chunk is None:
                return
            yield chunk

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        """Objects by key."""
        infos = self._store.list(prefix, start_after=start_after)
        while True:
            with self._watched():
                info = await anext(infos, None)
            if info is None:
                return
            yield info

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove objects."""
        with self._watched():
            await self._store.delete(keys)

    async def purge(self, prefix: str, *, versions: bool = False) -> KeptVersions | None:
        """Delete all objects below a prefix."""
        with self._watched():
            return await self._store.purge(prefix, versions=versions)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except StoreUnavailable as error:
            what = f"requests to {self.uri}"
            call_failed(self, what, explain(error), self._clock, _FORGET_SECONDS)
            raise
        except ShardlineError:
            call_succeeded(self)
            raise
        else:
            call_succeeded(self)
