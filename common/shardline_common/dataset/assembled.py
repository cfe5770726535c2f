"""What an assembled dataset holds beside its chains: the decision, its drop lists, the final shards."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from functools import partial
from hashlib import sha256
from typing import Any

import orjson

from shardline_common.dataset.chain import ChainRecord, Totals, total
from shardline_common.dataset.decision import DecisionHead, DropList, check_list, inputs_sha256
from shardline_common.dataset.read import ObjectReader, StoredBytes
from shardline_common.dataset.shard_record import ShardRecord, read_shard_record
from shardline_common.dataset.success import hash_of
from shardline_common.errors import FailureCode, JobFailed, ObjectMissing
from shardline_common.job.hashing import add
from shardline_common.job.names import Layout
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.read_again import read_again
from shardline_common.runtime.tasks import gather_limited

_READS_AT_ONCE = 8
DIGEST = "assembled-v1"
"""What the digest of an assembled dataset covers: see `AssembledContents.digest`."""


@dataclass(slots=True)
class AssembledContents:
    """`head` is the decision, `head_sha256` the sha256 of its object, `shards` are by split and number."""

    head: DecisionHead
    head_sha256: str
    shards: list[ShardRecord] = field(default_factory=list)

    def splits(self) -> dict[str, Totals]:
        """The totals of each split that has a shard, sorted by name. Rejections belong to no split."""
        found = dict[str, Totals]()
        for shard in self.shards:
            part = Totals(
                rows=shard.rows, bytes=shard.bytes, words=shard.words, quality=shard.quality, segments=1
            )
            found[shard.split] = found.get(shard.split, Totals()).plus(part)
        return dict(sorted(found.items()))

    def totals(self, landed: Totals) -> Totals:
        """The totals of the dataset; `landed` are those of the chains.

        What the decision drops is rejected by its reason.
        """
        kept = total(self.splits().values())
        dropped = {reason.value: drop.records for reason, drop in self.head.dropped.items() if drop.records}
        # No filter has a reason of the decision: each of them is counted once.
        rejected = dict(sorted({**landed.rejected, **dropped}.items()))
        return Totals(
            rows=kept.rows,
            bytes=kept.bytes,
            rejected=rejected,
            dead=landed.dead,
            hash_sum=landed.hash_sum,
            words=kept.words,
            quality=kept.quality,
            scanned_bytes=landed.scanned_bytes,
            segments=len(self.shards),
            pii=landed.pii,
        )

    def notes(self) -> dict[str, Any]:
        """What the manifest says about the decision."""
        head = self.head
        return {
            "layout": DIGEST,
            "decision": self.head_sha256,
            "warnings": list(head.warnings),
            "clusters": None if head.clusters is None else asdict(head.clusters),
        }

    def digest(self, landed: Totals) -> str:
        """The dataset digest: sha256 over the shards in their order, then all counts and the hash sum.

        Neither partitions nor positions are part of it, so it does not change with them.
        """
        sums, lines = self.totals(landed), sha256(orjson.dumps([DIGEST]) + b"\n")
        for shard in self.shards:
            lines.update(orjson.dumps([shard.split, shard.number, shard.rows, shard.sha256]) + b"\n")
        counts = [sorted(sums.rejected.items()), sorted(sums.dead.items()), sums.records, sums.hash_sum]
        lines.update(orjson.dumps(counts) + b"\n")
        return lines.hexdigest()

    def problems(self, records: Sequence[ChainRecord]) -> Iterator[str]:
        """What contradicts the chains or the decision, as sentences.

        1. The decision is made from the sidecars of these chains. 2. Each of its cuts has a shard, and no
        other is there. 3. Each record that landed is in a shard, dropped, rejected or a dead letter, once.
        """
        if self.head.inputs_sha256 != inputs_sha256(sidecar_hashes(records)):
            yield "the decision was made from other sidecars than those of the chains"
        yield from self._shard_problems()
        yield from self._count_problems(total(record.segment for record in records))

    def _shard_problems(self) -> Iterator[str]:
        cuts = {(split.name, cut.number): cut for split in self.head.splits for cut in split.shards}
        found = {(shard.split, shard.number): shard for shard in self.shards}
        for other in sorted(cuts.keys() ^ found.keys()):
            there = "is not in the dataset" if other in cuts else "is not in the decision"
            yield f"shard {other[1]} of {other[0]} {there}"
        for name in sorted(cuts.keys() & found.keys()):
            shard, cut = found[name], cuts[name]
            made = (shard.rows, shard.bytes, shard.hash_sum, shard.count)
            if made != (cut.rows, cut.bytes, cut.hash_sum, len(self.head.split(shard.split).shards)):
                yield f"shard {shard.number} of {shard.split} has other rows than the decision says"
            if shard.decision != self.head_sha256:
                yield f"shard {shard.number} of {shard.split} was made by another decision"

    def _count_problems(self, landed: Totals) -> Iterator[str]:
        head = self.head
        counted = [item for part in (head.dropped, head.rejected, head.dead) for item in part.values()]
        count = sum(shard.rows for shard in self.shards) + sum(item.records for item in counted)
        if count != landed.records:
            yield f"{landed.records} records landed, and {count} are in shards, dropped, rejected or dead"
        hash_sum = 0
        for one in (*(shard.hash_sum for shard in self.shards), *(item.hash_sum for item in counted)):
            hash_sum = add(hash_sum, one)
        if hash_sum != landed.hash_sum:
            yield "the hash sum of shards, drops, rejections and dead letters is not that of what landed"
        for name, decided, own in (
            ("rejections", head.rejected, landed.rejected),
            ("dead letters", head.dead, landed.dead),
        ):
            if {reason: item.records for reason, item in decided.items()} != dict(own):
                yield f"the decision counts other {name} than the chains"


def sidecar_hashes(records: Sequence[ChainRecord]) -> dict[str, str]:
    """The sha256 of the values of every sidecar that the chains name, by relative key."""
    found = dict[str, str]()
    for record in records:
        objects = record.objects
        for item in (objects.records, objects.bands, objects.signatures) if objects else ():
            if item is not None:
                found[item.key] = item.plain_sha256
    return found


def assembled_shard(record: ShardRecord) -> dict[str, Any]:
    """A final shard as the manifest lists it; its key is relative to the dataset."""
    return {
        "key": record.object.key,
        "split": record.split,
        "number": record.number,
        "rows": record.rows,
        "bytes": record.bytes,
        "sha256": record.sha256,
    }


async def read_head(
    store: ObjectStore, layout: Layout, pauses: Sequence[float] | None = None
) -> tuple[DecisionHead, bytes]:
    """The decision, and the bytes of its object.

    Raises:
        ObjectMissing: nothing is decided.
        JobFailed: it is damaged, also when it is read again (`dataset_damaged`).
        StoreUnavailable: try again later.
    """

    async def read() -> tuple[DecisionHead, bytes]:
        body = await store.get(layout.decision)
        return DecisionHead.decode(body), body

    return await read_again(read, pauses=pauses)


async def read_assembled(
    store: ObjectStore, layout: Layout, sizes: Mapping[str, int], pauses: Sequence[float] | None = None
) -> tuple[AssembledContents, dict[str, StoredBytes]]:
    """The decision and the records of all shards, and the stored bytes of every object that they name.

    Args:
        store: the store of the dataset.
        layout: its keys.
        sizes: the keys of its folder.
        pauses: those of `read_again`.

    Raises:
        JobFailed: an object is missing (`object_lost`), is damaged, or is not the one that was decided
            (`dataset_damaged`).
        StoreUnavailable: the store cannot be read now.
    """
    try:
        head, body = await read_head(store, layout, pauses)
    except ObjectMissing as error:
        raise _lost(f"{error}, and nothing says how the dataset was assembled") from None
    found = AssembledContents(head, hash_of(body))
    objects = {layout.decision.removeprefix(layout.root): StoredBytes.of(body)}
    lists = {layout.drops(*name): listed for name, listed in head.drop_lists().items()}
    if head.moved is not None:
        lists[layout.moved] = head.moved
    reads = [partial(_read_list, store, key, listed, pauses) for key, listed in lists.items()]
    for key, stored in await gather_limited(reads, _READS_AT_ONCE):
        objects[key.removeprefix(layout.root)] = stored
    prefix = layout.shard_records.removeprefix(layout.root)
    keys = sorted(layout.root + key for key in sizes if key.startswith(prefix))
    records = await gather_limited(
        [partial(read_shard_record, store, key, pauses) for key in keys], _READS_AT_ONCE
    )
    for key, (record, of_record) in zip(keys, records, strict=True):
        if key != layout.shard_record(record.split, record.number):
            raise JobFailed(
                FailureCode.DATASET_DAMAGED,
                f"{key} is the record of shard {record.number} of {record.split}",
                hint="move or delete this object, then retry the job",
            )
        found.shards.append(record)
        objects[key.removeprefix(layout.root)] = StoredBytes.of(of_record)
        objects[record.object.key] = StoredBytes(record.object.stored_bytes, record.object.stored_sha256)
    return found, objects


async def _read_list(
    store: ObjectStore, key: str, listed: DropList, pauses: Sequence[float] | None
) -> tuple[str, StoredBytes]:
    async def read() -> StoredBytes:
        # Not as one body: eight lists of a large dataset are read at once.
        reader, lines = ObjectReader(store, key, "none"), 0
        async with aclosing(reader.plain()) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                lines += chunk.count(b"\n")
        check_list(DropList(lines, reader.plain_sha256), listed, key)
        return reader.stored

    try:
        return key, await read_again(read, pauses=pauses)
    except ObjectMissing as error:
        raise _lost(str(error)) from None


def _lost(message: str) -> JobFailed:
    return JobFailed(FailureCode.OBJECT_LOST, message, hint="restore it, or submit a new job")
