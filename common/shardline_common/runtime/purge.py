"""The deletion of all objects below a prefix, by the methods that every store has."""

from shardline_common.ports.store import ObjectStore

_BATCH = 1000


async def delete_listed(store: ObjectStore, prefix: str) -> None:
    """Delete the objects whose key starts with `prefix`.

    Raises:
        StoreUnavailable: call again; what is already deleted is no error.
    """
    batch: list[str] = []
    async for info in store.list(prefix):
        batch.append(info.key)
        if len(batch) == _BATCH:
            await store.delete(batch)
            batch = []
    if batch:
        await store.delete(batch)
