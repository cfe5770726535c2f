"""The record of a final shard of an assembled dataset: create-only, as a chain record is of a segment."""

import builtins
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial

import orjson
from pydantic import TypeAdapter

from shardline_common.dataset.append import append_record
from shardline_common.dataset.chain import Count, HashSum, SegmentObject
from shardline_common.errors import FailureCode, JobFailed
from shardline_common.job.names import Layout
from shardline_common.job.stored_json import read_stored
from shardline_common.ports.clock import Clock
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.read_again import read_again

_HINT = "restore this object, or delete it; then retry the job"


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """Shard `number`, from 0, of the `count` shards of a split.

    `sha256` is that of the uncompressed rows, `hash_sum` the sum of the hashes of their document ids mod
    2^64, `quality` the sum of their scores in units of 0.0001. `decision` is the sha256 of the decision by
    which it was made. `object` is the shard as it is stored.
    """

    split: str
    number: Count
    count: Count
    rows: Count
    bytes: Count
    sha256: str
    hash_sum: HashSum
    words: Count
    quality: Count
    decision: str
    object: SegmentObject

    def encode(self) -> builtins.bytes:
        """The record as JSON."""
        return orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2)

    @classmethod
    def decode(cls, data: builtins.bytes, key: str) -> "ShardRecord":
        """The record of `encode`, which is stored under `key`.

        Raises:
            JobFailed: the bytes are no record of a shard (`dataset_damaged`).
        """
        return read_stored(_reader(), data, f"{key}: this record of a shard", _HINT)

    def has_same_content(self, other: "ShardRecord") -> bool:
        """Whether both are of the same rows. A compressor of another version stores other bytes."""
        left, right = (
            replace(item, object=replace(item.object, stored_bytes=0, stored_sha256=""))
            for item in (self, other)
        )
        return left == right


@cache
def _reader() -> TypeAdapter[ShardRecord]:
    return TypeAdapter(ShardRecord)


async def read_shard_record(
    store: ObjectStore, key: str, pauses: Sequence[float] | None = None
) -> tuple[ShardRecord, bytes]:
    """The record under a key, and its bytes. `pauses` are those of `read_again`.

    Raises:
        ObjectMissing: there is none.
        JobFailed: it is damaged, also when it is read again (`dataset_damaged`).
        StoreUnavailable: try again later.
    """

    async def read() -> tuple[ShardRecord, bytes]:
        body = await store.get(key)
        return ShardRecord.decode(body, key), body

    return await read_again(read, pauses=pauses)


async def append_shard_record(
    store: ObjectStore, layout: Layout, record: ShardRecord, clock: Clock
) -> ShardRecord:
    """Create the record. Returns the one in the store: this one, or an existing one with its content.

    Raises:
        JobFailed: a record with other content exists (`not_reproducible`), or the store refuses the record
            and has none (`store_inconsistent`).
        StoreUnavailable: the record may have been created; call again.
    """
    key = layout.shard_record(record.split, record.number)
    refused = JobFailed(
        FailureCode.NOT_REPRODUCIBLE,
        f"{key}: the shard exists with other content; nothing was overwritten",
        hint="submit a new job",
    )
    return await append_record(store, key, record, partial(read_shard_record, store, key), clock, refused)
