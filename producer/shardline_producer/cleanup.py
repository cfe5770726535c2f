"""Deleting a job: its dataset, topics and dead letters. The acceptance record stays."""

import logging
from collections.abc import Sequence

from shardline_common.job.names import DEAD_LETTERS, Layout, attempt_topic
from shardline_common.job.state import JobState, State
from shardline_common.ports.broker import Broker, Message
from shardline_common.ports.store import KeptVersions, ObjectStore

VERSIONS_KEPT = "versions_kept"
"""The warning of a deleted job of which the store keeps versions."""

_BATCH = 1000
_NAMED = 3
_log = logging.getLogger(__name__)


class DatasetDeletion:
    """Removes the topics of all attempts, every object of the dataset, staged rows and dead letters.

    With `versions`, also what a bucket with versioning keeps of the objects. What is found about that is kept
    over the calls: a call after a failure finds no object that could tell.
    """

    def __init__(self, broker: Broker, store: ObjectStore, state: JobState, *, versions: bool) -> None:
        self._broker = broker
        self._store = store
        self._state = state
        self._versions = versions
        self._kept: dict[str, KeptVersions | None] = {}

    async def run(self) -> KeptVersions | None:
        """Delete. Returns the versions that the store keeps; None for none.

        Raises:
            ServiceUnavailable: call again; what is already deleted is no error.
        """
        job_id = self._state.spec.job_id
        for attempt in range(1, self._state.attempt + 1):
            await self._broker.delete_topic(attempt_topic(job_id, attempt))
        layout = Layout.of(self._state.spec)
        staged = (layout.staged_root,) if self._state.spec.assembled else ()
        for prefix in (layout.root, layout.exports, layout.rankings, *staged):
            kept = await self._store.purge(prefix, versions=self._versions)
            self._kept[prefix] = kept or (None if self._versions else self._kept.get(prefix))
        await _delete_dead_letters(self._broker, job_id)
        return _sum_of([one for one in self._kept.values() if one is not None])


def _sum_of(kept: Sequence[KeptVersions]) -> KeptVersions | None:
    if not kept:
        return None
    return KeptVersions(
        sum(one.count for one in kept),
        certain=all(one.certain for one in kept),
        named=tuple(name for one in kept for name in one.named)[:_NAMED],
        refused=next((one.refused for one in kept if one.refused), ""),
    )


def describe_kept(kept: KeptVersions, job_id: str) -> str:
    """The message of a deleted job of which the store keeps versions, with one thing to do."""
    versions = f"{kept.count:,} version{'s' if kept.count != 1 else ''} of deleted objects"
    again = f"`shardline delete {job_id} --versions`"
    if kept.named:
        others = f" and {kept.count - len(kept.named):,} more" if kept.count > len(kept.named) else ""
        return (
            f"the store keeps {versions}, which are locked: {', '.join(kept.named)}{others}; "
            f"repeat {again} when the locks have ended"
        )
    if kept.refused:
        what = versions if kept.count else "versions of deleted objects"
        return (
            f"the store {'keeps' if kept.count else 'may keep'} {what}: {kept.refused}; give the producer "
            f"the rights for versions (docs/stores-s3.md), and repeat {again}"
        )
    if not kept.certain:
        return f"the store may keep versions of the deleted objects: it does not say; {again} removes them"
    return f"the store keeps {versions}, because the bucket has versioning; {again} removes them"


def apply_deletion(kept: KeptVersions | None, state: JobState, *, versions: bool) -> None:
    """Change the state to that of a deleted job, with a message if the store keeps versions."""
    known = state.state is State.DELETED and state.warning == VERSIONS_KEPT
    state.state, state.topic_removed = State.DELETED, True
    state.pending_notifications = []
    if kept is not None:
        state.code, state.warning = None, VERSIONS_KEPT
        state.message = describe_kept(kept, state.spec.job_id)
        _log.warning("%s", state.message)
    elif known and versions:
        # Without `versions`, a delete that finds no object cannot know whether earlier ones left versions.
        state.message = state.warning = None


async def _delete_dead_letters(broker: Broker, job_id: str) -> None:
    # The topic is compacted: a tombstone removes the dead letter of its key.
    prefix = f"{job_id}/".encode()
    async with broker.table_reader(DEAD_LETTERS) as table:
        records = await table.catch_up(deadline=120.0)
    keys = {record.key for record in records if record.key and record.key.startswith(prefix)}
    for start in range(0, len(keys), _BATCH):
        tombstones = [Message(key, None) for key in sorted(keys)[start : start + _BATCH]]
        await broker.publish(DEAD_LETTERS, tombstones)
