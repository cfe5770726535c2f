"""The rows of shards of a finished dataset, as lines."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from shardline_common.dataset.line_cutter import LineCutter
from shardline_common.dataset.read import ObjectReader
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
        shard, number, cutter = one.shard, 0, LineCutter()
        reader = ObjectReader(store, shard.key, compression, shard.sha256)
        try:
            async with aclosing(reader.plain()) as chunks:  # type: ignore[type-var]
                async for chunk in chunks:
                    lines = cutter.cut(chunk)
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
        if number != shard.rows or cutter.rest:
            raise JobFailed(
                FailureCode.DATASET_DAMAGED,
                f"{shard.key} has {number} rows, its manifest says {shard.rows}",
                hint="run `shardline verify`",
            )
