"""The rows of shards of a finished dataset, as lines."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from shardline_common.dataset.finished import shard_lines
from shardline_common.dataset.row_ranges import ShardRows
from shardline_common.errors import FailureCode, JobFailed, ObjectMissing
from shardline_common.ports.store import ObjectStore


async def row_lines(
    store: ObjectStore, compression: str, ranges: Sequence[ShardRows]
) -> AsyncGenerator[list[bytes], None]:
    """The lines of the rows, in lists. Of a shard all bytes are read, and proven behind its last rows.

    Raises:
        JobFailed: a shard is not there (`object_lost`), or is damaged (`dataset_damaged`).
        StoreUnavailable: the store cannot be read now, or a shard had other bytes.
    """
    for one in ranges:
        shard, number = one.shard, 0
        try:
            async with aclosing(shard_lines(store, shard.key, compression, shard.sha256)) as lists:
                async for lines in lists:
                    low, high = max(one.first - number, 0), max(one.after - number, 0)
                    number += len(lines)
                    if wanted := lines[low:high]:
                        yield wanted
        except ObjectMissing:
            raise JobFailed(
                FailureCode.OBJECT_LOST,
                f"{shard.key} is not in {store.uri}",
                hint="pull it, if only other shards were pulled; else run `shardline verify`",
            ) from None
        if number != shard.rows:
            raise JobFailed(
                FailureCode.DATASET_DAMAGED,
                f"{shard.key} has {number} rows, its manifest says {shard.rows}",
                hint="run `shardline verify`",
            )
