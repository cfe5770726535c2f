"""Objects of a killed run that no chain record names: they are no part of the dataset.

A segment's objects are put before its chain record. A process that is killed between both leaves them. When
the source gives the same documents again, the next process finds the same content under these keys. When
rows have changed since, it finds another content, and must not overwrite it: the killed process might be only
paused, and might still append its record. Who knows that nobody else writes may remove them.
"""

import re
from collections.abc import Collection, Iterable

from shardline_common.dataset.contents import PUBLISHED, list_sizes
from shardline_common.job.names import Layout
from shardline_common.job.outcome import latest_attempt
from shardline_common.ports.store import ObjectStore

_SIDECARS = r"_state/(?:records|bands|signatures)"
_SEGMENT = re.compile(rf"(?:data/([a-z]+)|rejected|dead-letters|{_SIDECARS})/part-(\d{{5,}})-(\d{{12,}})\.")
_STAGED = re.compile(r"part-(\d{5,})-(\d{12,})\.jsonl")


def leftover_keys(layout: Layout, keys: Iterable[str]) -> list[str]:
    """Of the relative keys of a dataset folder those of segments without a chain record, sorted."""
    names = set(keys)
    return sorted(key for key in names if _is_leftover(layout, key, names))


def _is_leftover(layout: Layout, key: str, names: set[str]) -> bool:
    match = _SEGMENT.match(key)
    if match is None:
        return False
    partition, first = int(match[2]), int(match[3])
    own = (
        layout.data(match[1] or "", partition, first),
        layout.rejected(partition, first),
        layout.dead_letters(partition, first),
        layout.records(partition, first),
        layout.bands(partition, first),
        layout.signatures(partition, first),
    )
    if layout.root + key not in own:
        return False
    return layout.chain_record(partition, first).removeprefix(layout.root) not in names


async def remove_leftovers(store: ObjectStore, layout: Layout, *, assembled: bool = False) -> list[str]:
    """Delete the leftovers of a dataset that is not completed. Returns their relative keys.

    The caller must know that no other process writes to the dataset. With `assembled`, staged rows are
    removed too; they lie outside the dataset, and their keys are those of the store.

    Raises:
        JobFailed: an outcome record cannot be read.
        StoreUnavailable: try again later.
    """
    _, outcome = await latest_attempt(store, layout)
    if outcome is not None and outcome.ending == "completed":
        # A completed dataset has none: what looks like one was added by somebody, and `verify` names it.
        return []
    keys = await list_sizes(store, layout)
    if PUBLISHED & keys.keys() or layout.plan.removeprefix(layout.root) not in keys:
        # It was completed, or without a plan the objects are not of this job.
        return []
    found = leftover_keys(layout, keys)
    staged = await _staged_leftovers(store, layout, keys.keys()) if assembled else []
    if found or staged:
        await store.delete([*staged, *(layout.root + key for key in found)])
    return staged + found


async def _staged_leftovers(store: ObjectStore, layout: Layout, names: Collection[str]) -> list[str]:
    """The keys of staged rows without a chain record, sorted."""
    found = []
    async for info in store.list(layout.staged_rows):
        match = _STAGED.fullmatch(info.key.removeprefix(layout.staged_rows))
        if match is None:
            continue
        partition, first = int(match[1]), int(match[2])
        record = layout.chain_record(partition, first).removeprefix(layout.root)
        if info.key == layout.staged(partition, first) and record not in names:
            found.append(info.key)
    return sorted(found)
