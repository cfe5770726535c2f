"""`run --replace`: delete the dataset of another job under the same id.

The objects are deleted in an order that leaves, wherever it stops, what a killed run could have left: first
what says that the dataset is complete, then each chain from its end, then the shards, then the plan, and last
the acceptance record. So the next `--replace` finds the old job's folder by its record and goes on, and the
old job itself would continue to a complete dataset.
"""

from collections.abc import AsyncIterator

from shardline_common.errors import StoreUnavailable
from shardline_common.job.names import Layout, job_key
from shardline_common.job.spec import JobSpec
from shardline_common.ports.store import ObjectStore
from shardline_producer.acceptance import read_acceptance

_BATCH = 1000


async def find_old_job(store: ObjectStore, spec: JobSpec) -> JobSpec | None:
    """Return the job that has the id of `spec` with another body; None when there is none.

    Raises:
        JobConflict: the record of the id cannot be read, so its dataset is not known.
        StoreUnavailable: the store cannot be reached.
    """
    found = await read_acceptance(store, spec.job_id)
    return None if found is None or found.spec.body() == spec.body() else found.spec


async def delete_old_dataset(store: ObjectStore, old: JobSpec) -> None:
    """Delete the exports, the dataset and the acceptance record of a job, in the order above.

    Raises:
        StoreUnavailable: the store cannot be reached, or a process still writes to the dataset.
    """
    layout = Layout.of(old)
    await _delete(store, _keys(store, layout.exports))
    for key in (layout.success, layout.manifest, layout.card):
        await store.delete([key])
    await _delete(store, _keys(store, layout.outcome(0).removesuffix("0.json")))
    await _delete_backwards(store, f"{layout.state}chain/")
    await _delete(store, _keys(store, layout.root, keep=layout.state))
    await _delete_backwards(store, layout.plan_pages)
    await _delete(store, _keys(store, layout.root))
    async for info in store.list(layout.root):
        raise StoreUnavailable(
            f"{info.key} was written while the dataset was deleted",
            hint="end the processes that work on the job, and run the command again",
        )
    await store.delete([job_key(old.job_id)])


async def _keys(store: ObjectStore, prefix: str, *, keep: str | None = None) -> AsyncIterator[str]:
    async for info in store.list(prefix):
        if keep is None or not info.key.startswith(keep):
            yield info.key


async def _delete(store: ObjectStore, keys: AsyncIterator[str]) -> None:
    batch: list[str] = []
    async for key in keys:
        batch.append(key)
        if len(batch) == _BATCH:
            await store.delete(batch)
            batch = []
    if batch:
        await store.delete(batch)


async def _delete_backwards(store: ObjectStore, prefix: str) -> None:
    """Delete the last keys first: what is left of a numbered sequence has no gap."""
    keys = sorted([info.key async for info in store.list(prefix)], reverse=True)
    for start in range(0, len(keys), _BATCH):
        await store.delete(keys[start : start + _BATCH])
