"""`run --replace`: delete the dataset of another job under the same id.

The objects are deleted in an order that leaves, wherever it stops, what a killed run could have left: first
what says that the dataset is complete, then what an assembled one has made of the landed segments, then each
chain from its end, then shards, staged rows and sidecars, then the plan, and last the acceptance record. So
the next `--replace` finds the old job's folder by its record and goes on, and the old job itself would
continue to a complete dataset.
"""

from collections.abc import AsyncIterator, Sequence

from shardline_common.errors import JobConflict, StoreUnavailable
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
    """Delete exports, dataset, staged rows, rankings and acceptance record of a job, in the order above.

    Raises:
        JobConflict: another process has deleted the record, or has replaced the dataset.
        StoreUnavailable: the store cannot be reached, or a process still writes to the dataset.
    """
    layout, deletion = Layout.of(old), _Deletion(store, old)
    await deletion.delete_all(layout.exports)
    for key in (layout.success, layout.manifest, layout.card):
        await deletion.delete([key])
    await deletion.delete_all(layout.outcomes)
    # The record of an assembled shard says that the shard is there, and the head that its drop lists are.
    await deletion.delete_all(layout.shard_records)
    await deletion.delete([layout.decision])
    await deletion.delete_all(layout.decisions)
    await deletion.delete_backwards(layout.chains)
    await deletion.delete_all(layout.root, but=layout.state)
    for prefix in (layout.staged_root, *layout.sidecars):
        await deletion.delete_all(prefix)
    # A scan lists on behind the last page that is left. A ranking is whole or is made again with a new plan.
    await deletion.delete_backwards(layout.plan_pages, folders=False)
    await deletion.delete([layout.plan])
    await deletion.delete_all(layout.root)
    await deletion.delete_all(layout.rankings)
    async for info in store.list(layout.root):
        await deletion.check()
        raise StoreUnavailable(
            f"{info.key} was written while the dataset was deleted",
            hint="end the processes that work on the job, and run the command again",
        )
    await deletion.delete([job_key(old.job_id)])


class _Deletion:
    """Deletes objects of a job for as long as its record is in the store."""

    def __init__(self, store: ObjectStore, old: JobSpec) -> None:
        self._store = store
        self._old = old

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects, if the record is still that of the job."""
        await self.check()
        await self._store.delete(keys)

    async def check(self) -> None:
        """Raise JobConflict unless the record is still that of the job.

        Of two processes that replace the job at once, the slower must not delete the new dataset.
        """
        found = await read_acceptance(self._store, self._old.job_id)
        if found is None or found.spec.body() != self._old.body():
            raise JobConflict(
                f"another process has replaced the dataset of '{self._old.job_id}' in the meantime",
                hint="run the command again",
            )

    async def delete_all(self, prefix: str, *, but: str | None = None) -> None:
        """Delete the objects below a prefix, but for those below the prefix `but`."""
        batch: list[str] = []
        async for key in self._keys(prefix):
            if but is not None and key.startswith(but):
                continue
            batch.append(key)
            if len(batch) == _BATCH:
                await self.delete(batch)
                batch = []
        if batch:
            await self.delete(batch)

    async def delete_backwards(self, prefix: str, *, folders: bool = True) -> None:
        """Delete the last keys first: what is left of a numbered sequence has no gap."""
        found = [key async for key in self._keys(prefix)]
        keys = sorted([key for key in found if folders or "/" not in key[len(prefix) :]], reverse=True)
        for start in range(0, len(keys), _BATCH):
            await self.delete(keys[start : start + _BATCH])

    async def _keys(self, prefix: str) -> AsyncIterator[str]:
        async for info in self._store.list(prefix):
            yield info.key
