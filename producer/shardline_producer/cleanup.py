"""Deleting a job: its dataset, topics and dead letters. The acceptance record stays."""

from shardline_common.job.names import DEAD_LETTERS, Layout, attempt_topic
from shardline_common.job.state import JobState
from shardline_common.ports.broker import Broker, Message
from shardline_common.ports.store import ObjectStore

_BATCH = 1000


async def delete_dataset(broker: Broker, store: ObjectStore, state: JobState) -> None:
    """Remove the topics of all attempts, every object of the dataset, and the job's dead letters.

    Raises:
        ServiceUnavailable: call again; what is already deleted is no error.
    """
    job_id = state.spec.job_id
    for attempt in range(1, state.attempt + 1):
        await broker.delete_topic(attempt_topic(job_id, attempt))
    layout = Layout.of(state.spec)
    for prefix in (layout.root, layout.exports, layout.rankings):
        await _remove(store, prefix)
    await _delete_dead_letters(broker, job_id)


async def _remove(store: ObjectStore, prefix: str) -> None:
    batch: list[str] = []
    async for info in store.list(prefix):
        batch.append(info.key)
        if len(batch) == _BATCH:
            await store.delete(batch)
            batch = []
    await store.delete(batch)


async def _delete_dead_letters(broker: Broker, job_id: str) -> None:
    # The topic is compacted: a tombstone removes the dead letter of its key.
    prefix = f"{job_id}/".encode()
    async with broker.table_reader(DEAD_LETTERS) as table:
        records = await table.catch_up(deadline=120.0)
    keys = {record.key for record in records if record.key and record.key.startswith(prefix)}
    for start in range(0, len(keys), _BATCH):
        tombstones = [Message(key, None) for key in sorted(keys)[start : start + _BATCH]]
        await broker.publish(DEAD_LETTERS, tombstones)
