"""The chain of segments: which messages of a partition are in the dataset.

The messages of a partition are cut into segments [first, next). Each segment has one create-only record
with the keys of its objects, its counts, and the totals of the chain up to its end. The last record, the
head, therefore holds the whole progress of the partition. Committed offsets, events and object metadata are
hints.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from hashlib import sha256
from typing import Annotated

import orjson
from pydantic import Field, TypeAdapter, ValidationError

from shardline_common.dataset.append import append_record
from shardline_common.errors import FailureCode, JobFailed, ObjectMissing, StoreUnavailable, UsageError
from shardline_common.job.field_faults import first_fault
from shardline_common.job.hashing import add
from shardline_common.job.messages import Position
from shardline_common.job.names import Layout
from shardline_common.ports.clock import Clock
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.clock import SYSTEM_CLOCK
from shardline_common.runtime.read_again import read_again

_READS = 2
_LISTED_SECONDS = 30.0
_LISTED_PAUSE_SECONDS = 0.5
EMPTY_SHA256 = sha256().hexdigest()
Count = Annotated[int, Field(ge=0, lt=1 << 63)]
HashSum = Annotated[int, Field(ge=0, lt=1 << 64)]


def _merged(left: Mapping[str, int], right: Mapping[str, int]) -> dict[str, int]:
    return {reason: left.get(reason, 0) + right.get(reason, 0) for reason in sorted({*left, *right})}


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts of a segment, or of a chain up to a record.

    `bytes` are uncompressed row bytes, `scanned_bytes` those of all documents read (rows without
    their score, originals of dead letters), `quality` the sum of scores in units of 0.0001,
    `hash_sum` the sum of document hashes mod 2^64 over rows, rejections and dead letters. `pii`: by kind, the
    personal data that was found in rows, and replaced if the job redacts.
    """

    rows: Count = 0
    bytes: Count = 0
    rejected: Mapping[str, Count] = field(default_factory=dict)
    dead: Mapping[str, Count] = field(default_factory=dict)
    hash_sum: HashSum = 0
    words: Count = 0
    quality: int = 0
    scanned_bytes: Count = 0
    segments: Count = 0
    pii: Mapping[str, Count] = field(default_factory=dict)

    @property
    def records(self) -> int:
        """Messages: rows, rejections and dead letters."""
        return self.rows + sum(self.rejected.values()) + sum(self.dead.values())

    def plus(self, other: "Totals") -> "Totals":
        """The sum of both."""
        return Totals(
            rows=self.rows + other.rows,
            bytes=self.bytes + other.bytes,
            rejected=_merged(self.rejected, other.rejected),
            dead=_merged(self.dead, other.dead),
            hash_sum=add(self.hash_sum, other.hash_sum),
            words=self.words + other.words,
            quality=self.quality + other.quality,
            scanned_bytes=self.scanned_bytes + other.scanned_bytes,
            segments=self.segments + other.segments,
            pii=_merged(self.pii, other.pii),
        )


def total(parts: Iterable[Totals]) -> Totals:
    """The sum of all."""
    result = Totals()
    for part in parts:
        result = result.plus(part)
    return result


@dataclass(frozen=True, slots=True)
class SegmentObject:
    """One object of a segment: its key in the dataset, and size and sha256 of its bytes.

    `plain_sha256` is that of the uncompressed bytes. `stored_bytes` and `stored_sha256` are those of the
    object as it is stored. They are no function of the content: another version of a compressor writes other
    bytes.
    """

    key: str
    plain_sha256: str
    stored_bytes: Count
    stored_sha256: str


@dataclass(frozen=True, slots=True)
class SegmentObjects:
    """The objects of a segment, by kind; None where the segment has none.

    A staged segment, which is one of an assembled job, has `records`: the sidecar with a line for each of its
    records. `bands` and `signatures` are there where the job looks for near duplicates. The `plain_sha256` of
    a sidecar is that of its values. The key of its `data` begins at the root of the store, because
    staged rows lie outside the dataset.
    """

    data: SegmentObject | None = None
    rejected: SegmentObject | None = None
    dead_letters: SegmentObject | None = None
    records: SegmentObject | None = None
    bands: SegmentObject | None = None
    signatures: SegmentObject | None = None


# The record of a segment without them is, to the byte, that of the versions before assembled datasets.
_SIDECARS = ("records", "bands", "signatures")


@dataclass(frozen=True, slots=True)
class ChainRecord:
    """One segment: sequences [first, next) of a partition.

    `key` and `rejected_key` are None where there is no such object. `sha256` is that of the uncompressed
    rows. `segment` are its own counts, `upto` those of the chain up to its end. `position` is the source
    position of its last message, `offset` the Kafka offset behind it, in the topic of `attempt`. `objects`
    are the segment's objects with their hashes; None in a record of version 0.1.
    """

    split: str
    partition: Count
    first: Count
    next: Count
    key: str | None
    rejected_key: str | None
    sha256: str
    segment: Totals
    upto: Totals
    position: Position
    attempt: Count
    offset: Count
    objects: SegmentObjects | None = None

    @property
    def is_staged(self) -> bool:
        """Whether the segment is one of an assembled job: its rows are staged, and it has sidecars."""
        return self.objects is not None and self.objects.records is not None

    def encode(self) -> bytes:
        """The record as JSON."""
        value = asdict(self)
        if self.objects is not None:
            for name in _SIDECARS:
                if value["objects"][name] is None:
                    del value["objects"][name]
        for totals in (value["segment"], value["upto"]):
            # Likewise the record of a job that looks for no personal data.
            if not totals["pii"]:
                del totals["pii"]
        return orjson.dumps(value, option=orjson.OPT_INDENT_2)

    @classmethod
    def decode(cls, data: bytes) -> "ChainRecord":
        """The record of `encode`. Raises ValueError for anything else."""
        return _reader().validate_json(data, strict=True)

    def has_same_content(self, other: "ChainRecord") -> bool:
        """Whether both describe the same segment with the same content; attempt and offset may differ.

        Objects are compared where both records have them: a worker of version 0.1 writes none.
        """
        left, right = (replace(record, attempt=0, offset=0) for record in (self, other))
        if left.objects is None or right.objects is None:
            left, right = replace(left, objects=None), replace(right, objects=None)
        return left == right


@cache
def _reader() -> TypeAdapter[ChainRecord]:
    # Built when it is first used, because building takes long enough to slow --help down.
    return TypeAdapter(ChainRecord)


class Chain:
    """The chain of one partition in the store. `pauses` are those of `read_again`."""

    def __init__(
        self, store: ObjectStore, layout: Layout, partition: int, pauses: Sequence[float] | None = None
    ) -> None:
        self._store = store
        self._layout = layout
        self._partition = partition
        self._pauses = pauses

    async def head(self, known: ChainRecord | None = None) -> ChainRecord | None:
        """The last record; None when the chain is empty or was deleted.

        Args:
            known: a record that was read before; the listing starts at it.

        Raises:
            StoreUnavailable: the store cannot be read now.
            JobFailed: the object is not a chain record, also when it is read again (`dataset_damaged`), or it
                is listed, and cannot be read for 30 seconds (`object_lost`).
        """
        # The known record is listed again: that shows whether the chain was deleted.
        known_key = self._layout.chain_record(self._partition, known.first) if known else None
        before = self._layout.chain_record(self._partition, known.first - 1) if known and known.first else ""
        last = None
        async for info in self._store.list(self._layout.chain(self._partition), start_after=before):
            last = info.key
        if last is None:
            return None
        return known if last == known_key else await self.listed_record(last)

    async def listed_record(self, key: str) -> ChainRecord:
        """The record of a key that a listing has returned. Raises as `head`."""
        number = key.removeprefix(self._layout.chain(self._partition)).removesuffix(".json")
        if not number.isdecimal() or key != self._layout.chain_record(self._partition, int(number)):
            # Before it is read: an entry of a directory that is no file would be missing for ever.
            raise _foreign(key)
        record = await self._read_listed(key)
        # A foreign record in the folder would be taken for the end of the chain.
        if (record.partition, record.first) != (self._partition, int(number)):
            raise _foreign(key)
        return record

    async def _read_listed(self, key: str) -> ChainRecord:
        """Read a listed record. A store may list an object before it serves it, but not for ever."""
        clock = asyncio.get_running_loop().time
        ends = clock() + _LISTED_SECONDS
        while True:
            try:
                return (await self._read(key))[0]
            except ObjectMissing as error:
                missing = error
            if key not in [info.key async for info in self._store.list(key)]:
                raise StoreUnavailable(f"{missing}; it was listed a moment ago")
            if clock() >= ends:
                raise JobFailed(
                    FailureCode.OBJECT_LOST,
                    f"{key} is listed, and for {_LISTED_SECONDS:.0f} s cannot be read",
                    hint="repair the store, or remove what is in this place; then retry the job",
                )
            await asyncio.sleep(_LISTED_PAUSE_SECONDS)

    async def _read(self, key: str) -> tuple[ChainRecord, bytes]:
        return await read_again(partial(self._read_once, key), pauses=self._pauses)

    async def _read_once(self, key: str) -> tuple[ChainRecord, bytes]:
        try:
            body = await self._store.get(key)
            return ChainRecord.decode(body), body
        except UsageError as error:
            # Stores list names that no key of Shardline has, for example with a backslash.
            hint = "move or delete this object, then retry the job"
            raise JobFailed(
                FailureCode.DATASET_DAMAGED, f"a chain has a foreign object: {error}", hint=hint
            ) from None
        except ValidationError as error:
            where, what = first_fault(error)
            raise JobFailed(
                FailureCode.DATASET_DAMAGED,
                f"{key} is no chain record: {where} {what}".replace("  ", " "),
                hint="restore this object, or delete it and the later ones of its folder; then retry the job",
            ) from None

    async def records(self) -> AsyncIterator[ChainRecord]:
        """All records, in order. Raises as `stored_records`."""
        async for record, _, _ in self.stored_records():
            yield record

    async def stored_records(
        self, keys: Sequence[str] | None = None
    ) -> AsyncIterator[tuple[ChainRecord, str, bytes]]:
        """All records, in order, each with the key and the bytes of its object.

        Args:
            keys: the keys of the records, sorted; None lists them.

        Raises:
            JobFailed: the chain has a gap or an overlap, or its totals do not add up.
        """
        upto, expected = Totals(), 0
        if keys is None:
            keys = [info.key async for info in self._store.list(self._layout.chain(self._partition))]
        for start in range(0, len(keys), _READS):
            batch = keys[start : start + _READS]
            for key, (record, body) in zip(batch, await asyncio.gather(*map(self._read, batch)), strict=True):
                upto = upto.plus(record.segment)
                self._check_record(record, key, expected, upto)
                expected = record.next
                yield record, key, body

    def _check_record(self, record: ChainRecord, key: str, expected: int, upto: Totals) -> None:
        where = f"partition {self._partition}, sequence {record.first}"
        is_next = record.first == expected and record.next > record.first
        own_key = self._layout.chain_record(self._partition, record.first)
        if not is_next or record.partition != self._partition or key != own_key:
            raise JobFailed(
                FailureCode.CONSERVATION,
                f"{where}: the chain should continue at sequence {expected}",
                hint=f"restore the records before {key}, or submit a new job",
            )
        if record.upto != upto or record.segment.records != record.next - record.first:
            raise JobFailed(
                FailureCode.CONSERVATION,
                f"{where}: the counts of the chain do not add up",
                hint=f"restore {key} or the records before it, or submit a new job",
            )

    async def append(self, record: ChainRecord, clock: Clock = SYSTEM_CLOCK) -> ChainRecord:
        """Create the record. Returns the record in the store: this one, or an existing one with its content.

        Raises:
            JobFailed: a record with other content exists (`not_reproducible`), or the store refuses the
                record and has none (`store_inconsistent`).
            StoreUnavailable: the record may have been created; call again.
        """
        key = self._layout.chain_record(self._partition, record.first)
        refused = JobFailed(
            FailureCode.NOT_REPRODUCIBLE,
            f"partition {record.partition}, sequence {record.first}: the segment exists with other "
            "content; nothing was overwritten",
            hint="the source gave other documents this time; submit a new job",
        )
        return await append_record(self._store, key, record, partial(self._read, key), clock, refused)


def _foreign(key: str) -> JobFailed:
    return JobFailed(
        FailureCode.DATASET_DAMAGED,
        f"{key} is no chain record of this place",
        hint="move or delete this object, then retry the job",
    )


class Digest:
    """The dataset digest: sha256 over the fields of each segment that decide the rows."""

    def __init__(self) -> None:
        self._hash = sha256()

    def add(self, record: ChainRecord) -> None:
        """Add the next segment: partitions in ascending order, then sequences."""
        part = [
            record.split,
            record.partition,
            record.first,
            record.next,
            record.segment.rows,
            record.sha256,
            sorted(record.segment.rejected.items()),
            sorted(record.segment.dead.items()),
        ]
        self._hash.update(orjson.dumps(part) + b"\n")

    def hexdigest(self) -> str:
        """The digest, as hexadecimal text."""
        return self._hash.hexdigest()
