"""The segments of a dataset that landed, as the chains name them, and their sidecars on a local disk."""

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from shardline_common.dataset.chain import ChainRecord, SegmentObject
from shardline_common.dataset.decision import ShardCut
from shardline_common.dataset.read import StoredBytes, download
from shardline_common.dataset.staged import staged_rows
from shardline_common.errors import FailureCode, JobFailed, ObjectMissing
from shardline_common.job.hashing import order_range
from shardline_common.job.messages import position_number
from shardline_common.runtime.tasks import gather_limited
from shardline_common.runtime.threads import run_in_thread
from shardline_consumer.commit import SegmentSink
from shardline_consumer.spool.file import spool_error

_CHAINS_AT_ONCE = 4
_DOWNLOADS_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class LandedSegment:
    """One segment: its chain record, the key of its staged rows (None without rows), and its sidecars.

    `orders` and `positions` are ranges in which the order keys and positions of its records lie.
    """

    record: ChainRecord
    orders: range
    positions: range
    rows_key: str | None
    records: SegmentObject
    bands: SegmentObject | None
    signatures: SegmentObject | None

    def may_have(self, cut: ShardCut) -> bool:
        """Whether rows of a shard may be in this segment, by the ranges alone."""
        (first_order, first_position), (last_order, last_position) = cut.first, cut.last
        if first_order >= self.orders.stop or last_order < self.orders.start:
            return False
        # Where all order keys are equal, positions alone order the rows.
        return first_order < last_order or (
            first_position < self.positions.stop and last_position >= self.positions.start
        )

    @property
    def sidecars(self) -> Sequence[SegmentObject]:
        """All its sidecars."""
        return [item for item in (self.records, self.bands, self.signatures) if item is not None]


async def read_landed(sink: SegmentSink) -> list[LandedSegment]:
    """The segments of all chains, by partition and sequence.

    Raises:
        JobFailed: a chain is broken, or names no sidecar.
        StoreUnavailable: the store cannot be read now.
    """
    reads = [partial(_read_chain, sink, number) for number in range(sink.spec.total_partitions)]
    return [segment for part in await gather_limited(reads, _CHAINS_AT_ONCE) for segment in part]


async def _read_chain(sink: SegmentSink, partition: int) -> list[LandedSegment]:
    found, spec = [], sink.spec
    number, place = divmod(partition, spec.slice_partitions)
    orders = range(1) if spec.order_seed is None else order_range(place, spec.slice_partitions)
    records = [record async for record in sink.chain(partition).records()]
    keys = {rows.record.first: rows.key for rows in staged_rows(records, sink.layout)}
    after = position_number(number, 0)
    for record in records:
        objects = record.objects
        if objects is None or objects.records is None:
            raise AssertionError("a record of a staged segment has a sidecar")
        upto = position_number(number, record.position[-1])
        found.append(
            LandedSegment(
                record,
                orders,
                range(after + 1, upto + 1),
                keys.get(record.first),
                objects.records,
                objects.bands,
                objects.signatures,
            )
        )
        after = upto
    return found


class SidecarFolder:
    """The sidecars of one job in a folder of the spool. Each is read once, and proven by its sha256.

    The bytes of all sidecars are reserved in the spool budget from `open` to `close`. Shards that are made of
    them need room besides, which is reserved by `open` or `take_room`.
    """

    def __init__(self, sink: SegmentSink, segments: Sequence[LandedSegment]) -> None:
        self._sink = sink
        self._context = sink.context
        self.path = sink.context.spool / f"assembly-{sink.spec.job_id}-{sink.attempt}"
        self._bytes = sum(item.stored_bytes for segment in segments for item in segment.sidecars)
        self._reads: dict[str, asyncio.Task[Path]] = {}
        self._reserved = 0

    async def open(self, room: int = 0) -> None:
        """Reserve the space, with some room besides, and make the folder.

        Raises:
            JobFailed: the budget is smaller than that (`spool`).
            SpoolError: the folder cannot be made.
        """
        await self._context.budget.reserve(self._bytes + room, self._sink.spec.job_id)
        self._reserved = self._bytes + room
        try:
            self.path.mkdir(exist_ok=True)
        except OSError as error:
            raise spool_error(self.path.parent, error) from error

    def take_room(self, room: int) -> bool:
        """Reserve room besides, unless it is not free now."""
        taken = self._context.budget.reserve_now(room, self._sink.spec.job_id)
        self._reserved += room if taken else 0
        return taken

    def release_room(self, room: int) -> None:
        """Release room that was reserved besides."""
        self._reserved -= room
        self._context.budget.release(room, self._sink.spec.job_id)

    async def close(self) -> None:
        """Remove the folder, and release its space."""
        for task in self._reads.values():
            task.cancel()
        await asyncio.gather(*self._reads.values(), return_exceptions=True)
        self._reads = {}
        await run_in_thread(partial(shutil.rmtree, self.path, ignore_errors=True))
        if self._reserved:
            reserved, self._reserved = self._reserved, 0
            self._context.budget.release(reserved, self._sink.spec.job_id)

    async def fetch(self, items: Sequence[SegmentObject]) -> list[Path]:
        """The files of sidecars, in the same order.

        Raises:
            JobFailed: a sidecar has other bytes than the chain says (`dataset_damaged`), or is not in the
                store (`object_lost`).
            StoreUnavailable: the store cannot be read now.
            SpoolError: a file cannot be written.
        """
        return await gather_limited([partial(self._fetch, item) for item in items], _DOWNLOADS_AT_ONCE)

    async def _fetch(self, item: SegmentObject) -> Path:
        task = self._reads.get(item.key)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = asyncio.create_task(self._download(item), name=f"sidecar {item.key}")
            self._reads[item.key] = task
        return await asyncio.shield(task)

    async def _download(self, item: SegmentObject) -> Path:
        key, path = self._sink.layout.root + item.key, self.path / item.key.replace("/", "-")
        hint = "restore it and retry the job, or submit a new job"
        damaged = f"{key} has other bytes than the chain says"
        wrong = JobFailed(FailureCode.DATASET_DAMAGED, damaged, hint=hint)
        expected = StoredBytes(item.stored_bytes, item.stored_sha256)
        try:
            await download(self._context.store, key, path, expected, wrong)
        except ObjectMissing:
            lost = f"{key} is not in the store, and the chain names it"
            raise JobFailed(FailureCode.OBJECT_LOST, lost, hint=hint) from None
        except OSError as error:
            raise spool_error(self.path, error) from error
        return path
