"""One final shard: its rows are read from the staged segments, proven one by one, and put create-only."""

import asyncio
import mmap
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from shardline_common.assembly.arrays import numbers_of
from shardline_common.assembly.shard_rows import ShardReader
from shardline_common.dataset.decision import DecisionHead, DropList, ShardCut
from shardline_common.dataset.read import ObjectReader
from shardline_common.dataset.shard_record import ShardRecord, append_shard_record
from shardline_common.errors import FailureCode, JobFailed, ObjectMissing
from shardline_common.job.spec import JobSpec
from shardline_common.runtime.failpoints import failpoint
from shardline_common.runtime.read_again import read_again
from shardline_common.runtime.tasks import gather_limited
from shardline_common.runtime.threads import run_in_thread
from shardline_common.telemetry.tracing import span
from shardline_consumer.assembly.landed import LandedSegment, SidecarFolder
from shardline_consumer.assembly.ranges import Range, ShardRows, plan_ranges, wanted_bytes
from shardline_consumer.commit import SegmentSink
from shardline_consumer.spool.file import SpoolFile, spool_error

if TYPE_CHECKING:
    from shardline_common.assembly.arrays import Numbers

_READS_AT_ONCE = 4
_BATCH_BYTES = 1 << 20
_HASH_BYTES = 8


@dataclass(frozen=True, slots=True)
class ShardSource:
    """What final shards are made from: the decision with its sha256, the landed segments, their sidecars.

    `reader` finds the rows of one shard at a time: hold `reading` meanwhile.
    """

    sink: SegmentSink
    head: DecisionHead
    head_sha256: str
    segments: Sequence[LandedSegment]
    sidecars: SidecarFolder
    reader: ShardReader
    reading: asyncio.Lock


def shard_room(spec: JobSpec, cut: ShardCut) -> int:
    """The bytes of spool that `build_shard` needs: its rows as they were read, in order, and compressed."""
    return (2 if spec.output.compression == "none" else 3) * cut.bytes


async def build_shard(source: ShardSource, split: str, cut: ShardCut, count: int) -> ShardRecord:
    """Make a final shard and its record. What exists with the same content is a success.

    1. Find its rows. 2. Read the ranges that hold them. 3. Write them in order. 4. Put shard and record.
    The caller has reserved its `shard_room`.

    Raises:
        JobFailed: staged rows are missing or damaged, or a key exists with other content.
        StoreUnavailable: the store cannot be read now.
        SpoolError: the spool cannot be written.
    """
    sink, context = source.sink, source.sink.context
    file: SpoolFile | None = None
    try:
        with span("assemble", split=split, number=cut.number, rows=cut.rows):
            # 1.
            used = [item for item in source.segments if item.rows_key is not None and item.may_have(cut)]
            paths = await source.sidecars.fetch([item.records for item in used])
            drops = await fetch_list(
                sink, sink.layout.drops(split, cut.number), cut.drops, source.sidecars.path
            )
            find = partial(_find_rows, source.reader, split, cut.number, paths, drops)
            async with source.reading:
                rows = await run_in_thread(find)
            # 2. and 3. Once more after a damaged answer of the store.
            file = await read_again(partial(_write_rows, sink, used, rows))
            # 4.
            failpoint("assembly.before_shard")
            key = sink.layout.shard(split, cut.number, count)
            stored = await sink.put(key, file)
            failpoint("assembly.after_shard")
            record = ShardRecord(
                split=split,
                number=cut.number,
                count=count,
                rows=cut.rows,
                bytes=file.size,
                sha256=file.sha256,
                hash_sum=cut.hash_sum,
                words=rows.words,
                quality=rows.quality,
                decision=source.head_sha256,
                object=stored,
            )
            return await append_shard_record(context.store, sink.layout, record, context.clock)
    finally:
        if file is not None:
            file.discard()


def _find_rows(
    reader: ShardReader, split: str, number: int, sidecars: Sequence[Path], drops: Path | None
) -> ShardRows:
    """The rows of a shard. Blocks.

    The reader has compared their number, bytes and hash sum with the decision when it ends.
    """
    import numpy as np

    names = ("segment", "offset", "size", "row_hash")
    parts: list[list[Numbers]] = [[] for _ in names]
    words = quality = 0
    for batch in reader.rows(split, number, sidecars, drops):
        for name, part in zip(names, parts, strict=True):
            part.append(numbers_of(batch.column(name)))
        words += int(numbers_of(batch.column("words")).sum())
        quality += int(numbers_of(batch.column("score")).sum())
    segment, offset, size, hashes = map(np.concatenate, parts)
    return ShardRows(segment, offset, size, hashes, words, quality)


async def fetch_list(sink: SegmentSink, key: str, listed: DropList, folder: Path) -> Path | None:
    """A list of the decision as a local file; None for an empty one.

    Raises:
        JobFailed: it is not in the store (`object_lost`), or is another one, also when it is read again
            (`dataset_damaged`).
        StoreUnavailable: the store cannot be read now.
    """
    if not listed.count:
        return None
    path = folder / key.removeprefix(sink.layout.root).replace("/", "-")

    async def read() -> None:
        reader = ObjectReader(sink.context.store, key, "none")
        await reader.save(path)
        if reader.plain_sha256 != listed.sha256:
            raise JobFailed(
                FailureCode.DATASET_DAMAGED,
                f"{key} has other bytes than the list that was decided",
                hint="restore this object, then retry the job",
            )

    try:
        await read_again(read)
    except ObjectMissing:
        raise JobFailed(
            FailureCode.OBJECT_LOST,
            f"{key} is not in the store, and the decision names it",
            hint="restore it, then retry the job",
        ) from None
    except OSError as error:
        raise spool_error(folder, error) from error
    return path


async def _write_rows(sink: SegmentSink, segments: Sequence[LandedSegment], rows: ShardRows) -> SpoolFile:
    """Read the ranges that hold the rows, prove each row, and write them in order."""
    spool = sink.context.spool
    ranges, places = plan_ranges(rows)
    with tempfile.TemporaryFile(prefix="ranges-", dir=spool) as raw:
        reads = [partial(_read_range, sink, segments[item.segment], item, raw.fileno()) for item in ranges]
        await gather_limited(reads, _READS_AT_ONCE)
        return await run_in_thread(
            partial(_write_in_order, spool, raw.fileno(), rows, places), lambda file: file.discard()
        )


async def _read_range(sink: SegmentSink, segment: LandedSegment, wanted: Range, raw: int) -> None:
    store, key = sink.context.store, segment.rows_key or ""
    place, offset = wanted.start, wanted.offset
    try:
        async for chunk in store.stream(key, offset=wanted.offset, size=wanted.size):
            write = partial(_write_wanted, raw, chunk, offset, wanted, place, sink.context.spool)
            place, offset = await run_in_thread(write), offset + len(chunk)
    except ObjectMissing:
        raise JobFailed(
            FailureCode.OBJECT_LOST,
            f"{key} is not in the store, and the chain names it",
            hint="submit a new job",
        ) from None


def _write_wanted(file: int, chunk: bytes, offset: int, wanted: Range, place: int, spool: Path) -> int:
    """Write what is wanted of a chunk, which lies at `offset`. Returns the place behind it. Blocks."""
    data = wanted_bytes(chunk, offset, wanted.runs)
    try:
        while data:
            written = os.pwrite(file, data, place)
            data, place = data[written:], place + written
    except OSError as error:
        raise spool_error(spool, error) from error
    return place


def _write_in_order(spool: Path, raw: int, rows: ShardRows, places: "Numbers") -> SpoolFile:
    """Write the rows to a new spool file in their order, each compared with its hash. Blocks."""
    target = SpoolFile(spool)
    try:
        with mmap.mmap(raw, 0, access=mmap.ACCESS_READ) as found:
            ends = rows.size.cumsum()
            batches = range(0, int(ends[-1]), _BATCH_BYTES)
            bounds = [*ends.searchsorted(batches).tolist(), len(ends)]
            for first, after in pairwise(bounds):
                starts = places[first:after].tolist()
                sizes = rows.size[first:after].tolist()
                lines = [found[start : start + size] for start, size in zip(starts, sizes, strict=True)]
                _check_rows(lines, rows.hash[first:after])
                target.write(lines)
    except BaseException:
        target.discard()
        raise
    return target


def _check_rows(lines: Sequence[bytes], hashes: "Numbers") -> None:
    import numpy as np

    digests = b"".join([sha256(line).digest()[:_HASH_BYTES] for line in lines])
    differs = np.flatnonzero(np.frombuffer(digests, ">u8") != hashes)
    if len(differs):
        raise JobFailed(
            FailureCode.DATASET_DAMAGED,
            f"a staged row of {len(lines[differs[0]])} bytes has other bytes than its sidecar says",
            hint="submit a new job",
        )
