"""The contents of a dataset folder: every object, its hash, and the proof that nothing is missing or foreign.

Each object is named, with the sha256 of its stored bytes, in one of two places:

| object | named in |
|---|---|
| shards, rejected documents, dead letters, chain records, sidecars, plan, pages | `objects` of the manifest |
| manifest, card and outcome records | `_SUCCESS` |
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from shardline_common.dataset.assembled import AssembledContents, read_assembled
from shardline_common.dataset.chain import Chain, ChainRecord, Digest, SegmentObject, Totals, total
from shardline_common.dataset.conservation import partition_problem
from shardline_common.dataset.read import ObjectReader, StoredBytes
from shardline_common.errors import (
    FailureCode,
    JobFailed,
    ObjectMissing,
    StoreUnavailable,
    UsageError,
)
from shardline_common.job.names import Layout, attempt_of_outcome
from shardline_common.job.spec import JobSpec
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.listing import ListsDiffer, proven_list
from shardline_common.runtime.read_again import read_again, read_until_equal
from shardline_common.runtime.tasks import gather_limited

SIDECARS = frozenset({"records", "bands", "signatures"})
PUBLISHED = frozenset({"manifest.json", "README.md", "_SUCCESS"})
_SHOWN_KEYS = 5
# Times the records of a chain that are read at once: a process keeps a connection to the store for each read.
_PARTITIONS_AT_ONCE = 4


@dataclass(slots=True)
class DatasetContents:
    """The contents of a dataset. Keys are relative to the dataset.

    `records` are those of all chains, in the order of the digest. `objects` are the stored bytes of every
    object that the manifest names. `assembled` is what an assembled dataset holds beside its chains; None for
    any other.
    """

    records: list[ChainRecord] = field(default_factory=list)
    objects: dict[str, StoredBytes] = field(default_factory=dict)
    assembled: AssembledContents | None = None

    @property
    def landed(self) -> Totals:
        """The totals of all chains."""
        return total(record.segment for record in self.records)

    @property
    def digest(self) -> str:
        """The digest of the dataset."""
        if self.assembled is not None:
            return self.assembled.digest(self.landed)
        digest = Digest()
        for record in self.records:
            digest.add(record)
        return digest.hexdigest()

    @property
    def splits(self) -> dict[str, Totals]:
        """The totals of each split, sorted by name."""
        if self.assembled is not None:
            return self.assembled.splits()
        found = dict[str, Totals]()
        for record in self.records:
            found[record.split] = found.get(record.split, Totals()).plus(record.segment)
        return dict(sorted(found.items()))

    @property
    def totals(self) -> Totals:
        """The totals of the dataset."""
        if self.assembled is not None:
            return self.assembled.totals(self.landed)
        return total(self.splits.values())

    def foreign_keys(self, sizes: Mapping[str, int]) -> list[str]:
        """The keys of a folder that no dataset with these contents has, sorted."""
        return sorted(
            key
            for key in sizes
            if key not in self.objects and key not in PUBLISHED and not attempt_of_outcome(key)
        )


def segment_keys(record: ChainRecord, layout: Layout) -> Iterator[tuple[str, str, SegmentObject | None]]:
    """Kind, relative key and hashes of each object that a segment has in the dataset by its counts.

    The kinds are `data`, `rejected` and `dead_letters`; of a staged segment `records`, `bands` and
    `signatures` instead of `data`, because its rows lie outside the dataset. The hashes are None where the
    record has none.
    """
    objects, segment = record.objects, record.segment
    if segment.rows and not record.is_staged:
        key = layout.data(record.split, record.partition, record.first)
        yield "data", key.removeprefix(layout.root), objects.data if objects else None
    if record.rejected_key is not None:
        key = layout.rejected(record.partition, record.first)
        yield "rejected", key.removeprefix(layout.root), objects.rejected if objects else None
    if segment.dead and objects is not None:
        key = layout.dead_letters(record.partition, record.first)
        yield "dead_letters", key.removeprefix(layout.root), objects.dead_letters
    if objects is not None:
        sidecars = (
            ("records", layout.records, objects.records),
            ("bands", layout.bands, objects.bands),
            ("signatures", layout.signatures, objects.signatures),
        )
        for kind, key_of, item in sidecars:
            if item is not None:
                yield kind, key_of(record.partition, record.first).removeprefix(layout.root), item


async def list_sizes(store: ObjectStore, layout: Layout) -> dict[str, int]:
    """The size in bytes of every object in the dataset folder, by relative key.

    It is listed twice: a list that lacks an object would lose it, or hide a foreign one from the proof.

    Raises:
        StoreUnavailable: the folder cannot be listed now, or each list of it is another one.
    """
    start = len(layout.root)

    async def read() -> dict[str, int]:
        return {info.key[start:]: info.size async for info in store.list(layout.root)}

    try:
        return await proven_list(read)
    except ListsDiffer as error:
        raise StoreUnavailable(
            f"the lists of {layout.root or '.'} differ: {error}",
            hint="wait until nothing writes to the folder; else the store's lists are not whole",
        ) from None


async def read_contents(
    store: ObjectStore, spec: JobSpec, layout: Layout, produced: Sequence[tuple[int, int]]
) -> DatasetContents:
    """Walk all chains, and check that the folder has every object of every segment, and no other.

    Args:
        store: the store of the dataset.
        spec: its job.
        layout: its keys.
        produced: for each partition the number of messages, and their hash sum.

    Raises:
        JobFailed: a chain is broken or does not end with the last message (`conservation`), an object is
            missing or has another size (`object_lost`), or the folder has a foreign object
            (`output_not_empty`).
        StoreUnavailable: the store cannot be read now.
    """
    sizes = await list_sizes(store, layout)
    found = await read_segments(store, spec, layout, produced, sizes)
    if spec.assembled:
        found.assembled, objects = await read_assembled(store, layout, sizes)
        for problem in found.assembled.problems(found.records):
            raise JobFailed(FailureCode.CONSERVATION, problem)
        found.objects |= objects
    check_sizes(found, sizes, layout)
    return found


async def read_segments(
    store: ObjectStore,
    spec: JobSpec,
    layout: Layout,
    produced: Sequence[tuple[int, int]],
    sizes: Mapping[str, int],
) -> DatasetContents:
    """Walk all chains of a folder with these keys, and find the objects of their segments, and the plan's.

    `sizes` are those of `list_sizes`; they are not compared with the chains, as `check_sizes` does.

    Raises:
        JobFailed: a chain is broken, does not end with the last message, or has segments of another layout
            than the job (`conservation`).
        StoreUnavailable: the store cannot be read now.
    """
    found, keys = DatasetContents(), keys_by_chain(layout, sizes)
    reads = [
        partial(_read_partition, store, layout, number, keys.get(layout.chain(number), []), sizes)
        for number in range(spec.total_partitions)
    ]
    parts = await gather_limited(reads, _PARTITIONS_AT_ONCE)
    for number, (part, (messages, hash_sum)) in enumerate(zip(parts, produced, strict=True)):
        upto = part.records[-1].upto if part.records else Totals()
        # The chains were complete when their ends were read. Their last records may be lost since.
        problem = partition_problem(number, messages, f"{hash_sum:016x}", upto)
        if problem is not None:
            raise JobFailed(FailureCode.CONSERVATION, problem)
        for record in part.records:
            _check_layout(record, spec)
        found.records += part.records
        found.objects |= part.objects
    found.objects |= await read_plan_objects(store, layout, sizes)
    return found


async def read_plan_objects(
    store: ObjectStore, layout: Layout, keys: Mapping[str, int]
) -> dict[str, StoredBytes]:
    """The stored bytes of the plan and of the plan pages among the keys of a folder, by relative key.

    `keys` has the size of each object.

    Raises:
        JobFailed: an object is listed and is not in the store (`object_lost`).
        StoreUnavailable: the store cannot be read now.
    """
    found = {}
    for key in keys:
        if key == "_state/plan.json" or key.startswith("_state/plan/"):
            # What is listed under a name that no key has is foreign.
            with suppress(UsageError):
                found[key] = await _read(store, layout, key, "none", keys.get(key))
    return found


def check_sizes(contents: DatasetContents, sizes: Mapping[str, int], layout: Layout) -> None:
    """Raise JobFailed unless the folder has every object of the dataset with its size, and no other."""
    for key, stored in contents.objects.items():
        if sizes.get(key) != stored.size:
            there = f"has {sizes[key]} bytes" if key in sizes else "is not in the store"
            raise _lost(f"{layout.root}{key} {there}; {stored.size} bytes were put, and acknowledged")
    if foreign := contents.foreign_keys(sizes):
        raise not_empty(layout, foreign)


def not_empty(layout: Layout, foreign: list[str]) -> JobFailed:
    """The failure of a job whose folder has objects of somebody else."""
    shown = ", ".join(foreign[:_SHOWN_KEYS])
    more = f" and {len(foreign) - _SHOWN_KEYS} more" if len(foreign) > _SHOWN_KEYS else ""
    return JobFailed(
        FailureCode.OUTPUT_NOT_EMPTY,
        f"the folder of the dataset, {layout.root or '.'}, holds what is not of this job: {shown}{more}",
        hint="move or delete these objects, then retry the job",
    )


def keys_by_chain(layout: Layout, sizes: Mapping[str, int]) -> dict[str, list[str]]:
    """The keys below the prefix of each chain, sorted, in one pass over all keys of the folder."""
    found: dict[str, list[str]] = {}
    for key in sorted(layout.root + key for key in sizes):
        if key.startswith(layout.chains):
            folder = key.removeprefix(layout.chains).partition("/")[0]
            found.setdefault(f"{layout.chains}{folder}/", []).append(key)
    return found


async def _read_partition(
    store: ObjectStore, layout: Layout, partition: int, keys: list[str], sizes: Mapping[str, int]
) -> DatasetContents:
    found = DatasetContents()
    async for record, key, body in Chain(store, layout, partition).stored_records(keys):
        found.records.append(record)
        found.objects[key.removeprefix(layout.root)] = StoredBytes.of(body)
        await _add_segment(store, layout, record, sizes, found)
    return found


async def _add_segment(
    store: ObjectStore, layout: Layout, record: ChainRecord, sizes: Mapping[str, int], found: DatasetContents
) -> None:
    for kind, key, item in segment_keys(record, layout):
        if record.objects is None:
            # A worker of version 0.1 wrote the record, which has no hashes.
            found.objects[key] = await _read(store, layout, key, layout.compression, sizes.get(key))
            continue
        if item is None or item.key != key:
            raise JobFailed(
                FailureCode.CONSERVATION,
                f"partition {record.partition}, sequence {record.first}: the chain names no {kind} {key}",
            )
        _check_item(record, kind, item, layout)
        found.objects[key] = StoredBytes(item.stored_bytes, item.stored_sha256)
    # A worker of version 0.1 may have written the record of a segment whose dead letters another worker put.
    late = layout.dead_letters(record.partition, record.first).removeprefix(layout.root)
    if record.objects is None and late in sizes:
        found.objects[late] = await _read(store, layout, late, layout.compression, sizes[late])


def _check_layout(record: ChainRecord, spec: JobSpec) -> None:
    # A worker of a version before assembled datasets commits a shard, which nothing would assemble.
    if record.is_staged != spec.assembled:
        found, expected = ("staged rows", "a shard") if record.is_staged else ("a shard", "staged rows")
        raise JobFailed(
            FailureCode.CONSERVATION,
            f"partition {record.partition}, sequence {record.first}: the segment has {found}, by its job it "
            f"should have {expected}",
            hint="run workers of one version, and submit the job under a new id",
        )


def _check_item(record: ChainRecord, kind: str, item: SegmentObject, layout: Layout) -> None:
    # Only `verify` reads the object. A record that was changed is found here where it holds a fact twice.
    if kind in SIDECARS:
        return
    is_plain = layout.compression == "none"
    same = item.stored_sha256 == item.plain_sha256 or not is_plain
    if kind == "data":
        same &= item.plain_sha256 == record.sha256
        same &= item.stored_bytes == record.segment.bytes or not is_plain
    if not same:
        raise JobFailed(
            FailureCode.CONSERVATION,
            f"partition {record.partition}, sequence {record.first}: the chain record contradicts itself "
            f"about {item.key}",
        )


async def _read(
    store: ObjectStore, layout: Layout, key: str, compression: str, size: int | None
) -> StoredBytes:
    async def read() -> StoredBytes:
        reader = ObjectReader(store, layout.root + key, compression)
        await reader.read_to_end()
        return reader.stored

    try:
        stored = await read_again(read)
        # Its hash goes into the manifest. A read of another size than the listed one may be a damaged one.
        return stored if stored.size == size else await read_until_equal(read, stored)
    except ObjectMissing:
        raise _lost(f"{layout.root}{key} is not in the store") from None


def _lost(message: str) -> JobFailed:
    return JobFailed(
        FailureCode.OBJECT_LOST,
        message,
        hint="find out why the store loses objects; then submit the job under a new id",
    )
