"""The check of one segment: its objects in the dataset against its chain record."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson

from shardline_common.dataset.chain import ChainRecord, SegmentObject
from shardline_common.dataset.contents import SIDECARS, segment_keys
from shardline_common.dataset.line_cutter import LineCutter
from shardline_common.dataset.read import ObjectReader, StoredBytes, reads, unsteady
from shardline_common.dataset.shard_record import ShardRecord
from shardline_common.errors import JobFailed, ObjectMissing
from shardline_common.job.columns import Columns
from shardline_common.job.hashing import MODULUS, document_hash
from shardline_common.job.names import Layout
from shardline_common.job.row_check import RowCheck
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.threads import run_in_thread

# The limit of a document holds without the score, and for no line of a dead letter with its original.
_MORE_BYTES = 1 << 20
_MAX_PROBLEMS = 20
_ROW_HASH_BYTES = 8


@dataclass(frozen=True, slots=True)
class SidecarFacts:
    """What a sidecar holds: the sha256 of its values, and of `records` the sums of the segment.

    `bytes` are those of all rows, `hash_sum` is the sum of the document hashes mod 2^64.
    """

    values_sha256: str
    rows: int = 0
    bytes: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    dead: Mapping[str, int] = field(default_factory=dict)
    hash_sum: int = 0


ReadSidecar = Callable[[str, Path], SidecarFacts]
"""Reads a file as a sidecar of the kind with this name. Raises JobFailed for one that is none."""


@dataclass(frozen=True, slots=True)
class SegmentRules:
    """What the segments of a dataset are checked against.

    `shards_only`: of a segment whose chain record has no hashes check only the shard, as version 0.1 did.
    `read_sidecar`: reads the lines of sidecars; None: only their stored bytes are checked.
    """

    layout: Layout
    columns: Columns
    max_document_bytes: int
    shards_only: bool
    read_sidecar: ReadSidecar | None = None


@dataclass(frozen=True, slots=True)
class CheckedSegment:
    """The stored bytes of a segment's objects by relative key, and the faults as sentences.

    `row_hashes` of an assembled shard: the sha256 over the row hashes of its rows (`row_hash` of sidecars).
    """

    objects: Mapping[str, StoredBytes]
    problems: Sequence[str]
    row_hashes: str | None = None


class SegmentChecker:
    """Reads the objects of segments in `store`, and checks them."""

    def __init__(self, store: ObjectStore, rules: SegmentRules) -> None:
        self._store = store
        self._layout = rules.layout
        self._row_check = RowCheck(rules.columns)
        self._max_line = rules.max_document_bytes + _MORE_BYTES
        self._shards_only = rules.shards_only
        self._read_sidecar = rules.read_sidecar

    async def check(self, record: ChainRecord | ShardRecord) -> CheckedSegment:
        """Read and check the objects of a segment, or an assembled shard.

        Raises:
            StoreUnavailable: the store cannot be read.
        """
        if isinstance(record, ShardRecord):
            return await self._check_shard(record)
        found = dict[str, StoredBytes]()
        problems = self._key_problems(record)
        for kind, key, item in segment_keys(record, self._layout):
            if self._shards_only and kind != "data" and record.objects is None:
                continue
            if record.objects is not None and (item is None or item.key != key):
                problems.append(f"{_where(record)}: the chain does not name {key}")
                continue
            stored, faults = await self._check_until_steady(record, kind, key, item, _RowHashes())
            problems += faults
            if stored is not None:
                found[key] = stored
        return CheckedSegment(found, problems)

    async def _check_shard(self, record: ShardRecord) -> CheckedSegment:
        key = self._layout.shard(record.split, record.number, record.count).removeprefix(self._layout.root)
        if record.object.key != key:
            return CheckedSegment({}, [f"a record of a shard names {record.object.key}, not {key}"])
        hashes = _RowHashes()
        stored, problems = await self._check_until_steady(record, "data", key, record.object, hashes)
        found = {key: stored} if stored is not None else {}
        return CheckedSegment(found, problems, hashes.digest)

    async def _check_until_steady(
        self,
        record: ChainRecord | ShardRecord,
        kind: str,
        key: str,
        item: SegmentObject | None,
        hashes: "_RowHashes",
    ) -> tuple[StoredBytes | None, list[str]]:
        """The stored bytes of an object, and its faults. None: it is missing, or cannot be decompressed.

        An object with a fault is read again until two reads in a row give the same bytes: one damaged answer
        of the store is no fault of the dataset.
        """
        before: StoredBytes | None = None
        async for number in reads():
            compression = "none" if kind in SIDECARS else self._layout.compression
            reader = ObjectReader(self._store, self._layout.root + key, compression)
            hashes.restart()
            stored, problems = await self._check_object(reader, record, kind, key, item, hashes)
            if not problems or (number and reader.stored == before):
                return stored, problems
            before = reader.stored
        raise unsteady(key)

    async def _check_object(
        self,
        reader: ObjectReader,
        record: ChainRecord | ShardRecord,
        kind: str,
        key: str,
        item: SegmentObject | None,
        hashes: "_RowHashes",
    ) -> tuple[StoredBytes | None, list[str]]:
        problems: list[str] = []
        plain: str | None
        try:
            if isinstance(record, ShardRecord):
                shard = _ExpectedRows.of_shard(record)
                plain = await self._check_rows(reader, key, shard, problems, hashes.add)
            elif kind == "data":
                segment = _ExpectedRows.of_segment(record)
                plain = await self._check_rows(reader, key, segment, problems, lambda _: None)
            elif kind in SIDECARS:
                plain = await self._check_sidecar(reader, kind, key, record, problems)
            else:
                plain = await self._check_reasons(reader, key, _reasons(record, kind), problems)
        except (ObjectMissing, JobFailed) as error:
            return None, [*problems, f"{key}: {error}"]
        if item is not None and plain is not None and plain != item.plain_sha256:
            problems.append(f"{item.key}: its sha256 is {plain}, the chain says {item.plain_sha256}")
        elif item is not None and reader.stored != StoredBytes(item.stored_bytes, item.stored_sha256):
            problems.append(f"{item.key}: the stored bytes are not those that were put")
        return reader.stored, problems

    def _key_problems(self, record: ChainRecord) -> list[str]:
        # The keys begin with the root of the store that the dataset was written to; it may have moved since.
        if record.is_staged:
            return self._staged_key_problems(record)
        expected = self._layout.data(record.split, record.partition, record.first)
        expected = expected.removeprefix(self._layout.root)
        has_rows = record.segment.rows > 0
        if (record.key is not None) == has_rows and (not record.key or record.key.endswith(expected)):
            return []
        named = expected if has_rows else "no shard"
        return [f"{_where(record)}: the chain names {record.key}, not {named}"]

    def _staged_key_problems(self, record: ChainRecord) -> list[str]:
        # Staged rows are removed once the dataset is assembled: only what the record says is checked.
        item = record.objects.data if record.objects else None
        if record.segment.rows:
            expected = f"/rows/part-{record.partition:05d}-{record.first:012d}.jsonl"
            named = item.key if item and item.plain_sha256 == record.sha256 else None
            if named is not None and named == record.key and f"/{named}".endswith(expected):
                return []
        elif record.key is None and item is None:
            return []
        wanted = f"staged rows with the sha256 {record.sha256}" if record.segment.rows else "no staged rows"
        return [f"{_where(record)}: the chain names {record.key} and {item}, not {wanted}"]

    async def _check_sidecar(
        self, reader: ObjectReader, kind: str, key: str, record: ChainRecord, problems: list[str]
    ) -> str | None:
        """The sha256 of its values; None: they are not read."""
        if self._read_sidecar is None:
            await reader.read_to_end()
            return None
        with TemporaryDirectory(prefix="shardline-") as folder:
            path = Path(folder, key.rpartition("/")[2])
            await reader.save(path)
            facts = await run_in_thread(partial(self._read_sidecar, kind, path))
        if kind == "records":
            segment = record.segment
            found = (facts.rows, facts.bytes, facts.rejected, facts.dead, facts.hash_sum)
            expected = (segment.rows, segment.bytes, segment.rejected, segment.dead, segment.hash_sum)
            if found != expected:
                _add(problems, f"{key}: its records sum to {facts}, the chain says {segment}")
        return facts.values_sha256

    async def _check_rows(
        self,
        reader: ObjectReader,
        key: str,
        expected: "_ExpectedRows",
        problems: list[str],
        hash_rows: Callable[[list[bytes]], None],
    ) -> str:
        rows = size = hash_sum = 0
        cutter, row_check, ids = LineCutter(self._max_line), self._row_check, expected.hash_sum is not None
        async for chunk in reader.plain():
            size += len(chunk)
            lines = cutter.cut(chunk)
            hash_rows(lines)
            for line in lines:
                rows += 1
                try:
                    row = orjson.loads(line)
                except orjson.JSONDecodeError as error:
                    _add(problems, f"{key}, line {rows}: no valid JSON: {error}")
                    continue
                if (problem := row_check.problem(row)) is not None:
                    _add(problems, f"{key}, line {rows}: {problem}")
                elif ids:
                    hash_sum += document_hash(row["document_id"].encode())
            cutter.check_rest()
        if cutter.rest:
            rows += 1
            _add(problems, f"{key}, line {rows}: the last row is cut off")
        plain, where = reader.plain_sha256, expected.where
        if plain != expected.sha256:
            _add(problems, f"{key}: its sha256 is {plain}, {where} says {expected.sha256}")
        if (rows, size) != (expected.rows, expected.bytes):
            _add(
                problems,
                f"{key}: {rows} rows and {size} bytes, {where} says {expected.rows} and {expected.bytes}",
            )
        if ids and hash_sum % MODULUS != expected.hash_sum:
            _add(problems, f"{key}: the hash sum of its document ids is not the one that {where} says")
        return plain

    async def _check_reasons(
        self, reader: ObjectReader, key: str, reasons: Mapping[str, int], problems: list[str]
    ) -> str:
        found = Counter[str]()
        cutter = LineCutter(self._max_line)
        async for chunk in reader.plain():
            found.update(map(_reason, cutter.cut(chunk)))
            cutter.check_rest()
        if cutter.rest:
            found[_reason(cutter.rest)] += 1
        if found != reasons:
            _add(problems, f"{key}: it has {dict(sorted(found.items()))}, the chain says {dict(reasons)}")
        return reader.plain_sha256


class _RowHashes:
    """Hashes the rows of a shard. `digest` is `CheckedSegment.row_hashes`."""

    def __init__(self) -> None:
        self._digest = sha256()

    def restart(self) -> None:
        """Forget the rows: the shard is read from its start."""
        self._digest = sha256()

    def add(self, lines: list[bytes]) -> None:
        """Add rows, given without their line ends."""
        self._digest.update(b"".join(sha256(line + b"\n").digest()[:_ROW_HASH_BYTES] for line in lines))

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()


@dataclass(frozen=True, slots=True)
class _ExpectedRows:
    """What a shard should hold, as `where` says. `hash_sum` is that of its ids; None: it is not compared."""

    where: str
    rows: int
    bytes: int
    sha256: str
    hash_sum: int | None

    @classmethod
    def of_segment(cls, record: ChainRecord) -> "_ExpectedRows":
        # The sum of a segment counts rejected documents as well.
        return cls("the chain", record.segment.rows, record.segment.bytes, record.sha256, None)

    @classmethod
    def of_shard(cls, record: ShardRecord) -> "_ExpectedRows":
        return cls("its record", record.rows, record.bytes, record.sha256, record.hash_sum)


def _where(record: ChainRecord) -> str:
    return f"partition {record.partition}, sequence {record.first}"


def _add(problems: list[str], problem: str) -> None:
    # A shard may have a million wrong rows.
    if len(problems) < _MAX_PROBLEMS:
        problems.append(problem)


def _reasons(record: ChainRecord, kind: str) -> Mapping[str, int]:
    return record.segment.rejected if kind == "rejected" else record.segment.dead


def _reason(line: bytes) -> str:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return "no JSON"
    reason = value.get("reason") if isinstance(value, dict) else None
    return reason if isinstance(reason, str) else "no reason"
