"""The heads of all chains of a job: by one listing instead of one for each partition."""

from collections.abc import Sequence
from functools import partial

from shardline_common.dataset.chain import Chain, ChainRecord
from shardline_common.job.names import Layout
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.tasks import gather_limited

READS_AT_ONCE = 32
_MAX_KEYS_PER_PARTITION = 20


async def read_heads(
    store: ObjectStore, layout: Layout, known: Sequence[ChainRecord | None], numbers: range | None = None
) -> list[ChainRecord | None]:
    """The last record of each partition's chain; None for an empty one.

    Short chains are listed together, and so are those of many partitions: a page of the listing has a
    thousand keys, so that a thousand short chains need a few requests. Long chains would need more pages than
    there are partitions, so the listing ends at 20 keys a partition, and the rest is read one by one. At most
    32 requests are sent at once.

    Args:
        store: the store of the dataset.
        layout: its keys.
        known: for each partition a record that was read before, or None.
        numbers: the partitions, when they are not all of the dataset. They are listed one by one.

    Raises:
        StoreUnavailable: the store cannot be read now, or lists a record that it does not have.
        JobFailed: an object is not a chain record (`dataset_damaged`).
    """
    if numbers is not None:
        heads = [
            partial(Chain(store, layout, number).head, record)
            for number, record in zip(numbers, known, strict=True)
        ]
        return await gather_limited(heads, READS_AT_ONCE)
    numbers = range(len(known))
    together = len(known) > READS_AT_ONCE or are_short(known)
    last, listed = await _last_keys(store, layout, len(known)) if together else ({}, 0)
    chains = [Chain(store, layout, number) for number in numbers]

    async def read(number: int) -> ChainRecord | None:
        record = known[number]
        if number >= listed:
            return await chains[number].head(record)
        if (key := last.get(number)) is None:
            return None
        if record is not None and key == layout.chain_record(number, record.first):
            return record
        return await chains[number].listed_record(key)

    return await gather_limited([partial(read, number) for number in numbers], READS_AT_ONCE)


def are_short(known: Sequence[ChainRecord | None]) -> bool:
    """Whether one listing of several chains takes less than one of each, by the records that are known."""
    records = sum(record.upto.segments for record in known if record is not None)
    return len(known) > 1 and records <= _MAX_KEYS_PER_PARTITION * len(known)


async def _last_keys(store: ObjectStore, layout: Layout, partitions: int) -> tuple[dict[int, str], int]:
    """The last key of each chain, and the number of partitions that were listed to their end."""
    last: dict[int, str] = {}
    left = _MAX_KEYS_PER_PARTITION * partitions
    async for info in store.list(layout.chains):
        folder = info.key.removeprefix(layout.chains).partition("/")[0]
        if not folder.isdecimal():
            continue
        if left == 0:
            return last, int(folder)
        left -= 1
        last[int(folder)] = info.key
    return last, partitions
