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
    store: ObjectStore,
    layout: Layout,
    known: Sequence[ChainRecord | None],
    numbers: range | None = None,
    slices: int = 1,
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
        numbers: the partitions, when they are those of one slice.
        slices: how many slices there are: a listing of the chains of one has keys of those behind it.

    Raises:
        StoreUnavailable: the store cannot be read now, or lists a record that it does not have.
        JobFailed: an object is not a chain record (`dataset_damaged`).
    """
    together = are_short(known, slices) or (numbers is None and len(known) > READS_AT_ONCE)
    numbers = range(len(known)) if numbers is None else numbers
    last, listed = await _last_keys(store, layout, numbers) if together else ({}, numbers.start)

    async def read(number: int) -> ChainRecord | None:
        record, chain = known[number - numbers.start], Chain(store, layout, number)
        if number >= listed:
            return await chain.head(record)
        if (key := last.get(number)) is None:
            return None
        if record is not None and key == layout.chain_record(number, record.first):
            return record
        return await chain.listed_record(key)

    return await gather_limited([partial(read, number) for number in numbers], READS_AT_ONCE)


def are_short(known: Sequence[ChainRecord | None], slices: int = 1) -> bool:
    """Whether one listing of several chains takes less than one of each, by the records that are known.

    They are those of one of so many slices, which have about as many.
    """
    records = sum(record.upto.segments for record in known if record is not None)
    return len(known) > 1 and records * slices <= _MAX_KEYS_PER_PARTITION * len(known)


async def _last_keys(store: ObjectStore, layout: Layout, numbers: range) -> tuple[dict[int, str], int]:
    """The last key of each chain, and the first partition that was not listed to its end."""
    last: dict[int, str] = {}
    left = _MAX_KEYS_PER_PARTITION * len(numbers)
    before = layout.chain(numbers.start) if numbers.start else ""
    async for info in store.list(layout.chains, start_after=before):
        folder = info.key.removeprefix(layout.chains).partition("/")[0]
        # A foreign folder is no chain, whatever number it may be read as.
        if not folder.isdecimal() or not info.key.startswith(layout.chain(int(folder))):
            continue
        if int(folder) >= numbers.stop:
            break
        if left == 0:
            return last, int(folder)
        left -= 1
        last[int(folder)] = info.key
    return last, numbers.stop
