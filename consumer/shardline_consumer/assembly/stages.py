"""The stages behind the landing of an assembled dataset, as far as the partitions of this worker go."""

import asyncio
from collections.abc import Collection
from functools import partial

from shardline_common.assembly.shard_rows import ShardReader
from shardline_common.dataset.assembled import read_head
from shardline_common.dataset.decision import DecisionHead, ShardCut
from shardline_common.dataset.success import hash_of
from shardline_common.errors import ObjectMissing
from shardline_common.runtime.tasks import gather_limited
from shardline_common.runtime.threads import run_in_thread
from shardline_consumer.assembly.deciding import decide
from shardline_consumer.assembly.final_shard import ShardSource, build_shard, fetch_list
from shardline_consumer.assembly.landed import LandedSegment, SidecarFolder, read_landed
from shardline_consumer.commit import SegmentSink

_SHARDS_AT_ONCE = 2
_DECIDING_PARTITION = 0


class Assembly:
    """Decides and assembles one attempt, when its chains are complete.

    `owned` are the partitions of this worker, as they change: the one with partition 0 decides, and shard n,
    counted over all splits, is made by the one with partition n mod P. Two workers that think so make the
    same objects.
    """

    def __init__(self, sink: SegmentSink, owned: Collection[int]) -> None:
        self._sink = sink
        self._owned = owned
        self._segments: list[LandedSegment] | None = None
        self._sidecars: SidecarFolder | None = None

    async def advance(self) -> bool:
        """Do what is left for this worker to do. True when all shards of the dataset are made.

        Raises:
            JobFailed: the dataset cannot be decided or assembled.
            StoreUnavailable: call again.
            SpoolError, UsageError: this worker cannot work.
        """
        try:
            head, body = await read_head(self._sink.context.store, self._sink.layout)
        except ObjectMissing:
            if _DECIDING_PARTITION not in self._owned:
                return False
            segments, sidecars = await self._open()
            head = await decide(self._sink, segments, sidecars)
            body = head.encode()
        if missing := await self._missing(head):
            await self._assemble(head, hash_of(body), missing)
            missing = await self._missing(head)
        return not missing

    async def _missing(self, head: DecisionHead) -> list[tuple[int, str, ShardCut, int]]:
        """Of each shard without a record: its index over all splits, split, cut, and the split's shards."""
        layout = self._sink.layout
        made = {info.key async for info in self._sink.context.store.list(layout.shard_records)}
        cuts = [(split.name, cut, len(split.shards)) for split in head.splits for cut in split.shards]
        return [
            (index, split, cut, count)
            for index, (split, cut, count) in enumerate(cuts)
            if layout.shard_record(split, cut.number) not in made
        ]

    async def close(self) -> None:
        """Remove what is in the spool."""
        if self._sidecars is not None:
            sidecars, self._sidecars = self._sidecars, None
            await sidecars.close()

    async def _open(self) -> tuple[list[LandedSegment], SidecarFolder]:
        if self._segments is None:
            self._segments = await read_landed(self._sink)
        if self._sidecars is None:
            sidecars = self._sidecars = SidecarFolder(self._sink, self._segments)
            await sidecars.open()
        return self._segments, self._sidecars

    async def _assemble(
        self, head: DecisionHead, head_sha256: str, missing: list[tuple[int, str, ShardCut, int]]
    ) -> None:
        sink, context = self._sink, self._sink.context
        segments, sidecars = await self._open()
        moved = None
        if head.moved is not None:
            moved = await fetch_list(sink, sink.layout.moved, head.moved, sidecars.path)
        memory, threads = context.decide_memory, context.decide_threads
        make = partial(ShardReader, sidecars.path / "shards", head, moved, memory, threads)
        reader = await run_in_thread(make, lambda reader: reader.close())
        try:
            source = ShardSource(sink, head, head_sha256, segments, sidecars, reader, asyncio.Lock())
            builds = [partial(self._build, source, *item) for item in missing]
            await gather_limited(builds, _SHARDS_AT_ONCE)
        finally:
            await run_in_thread(reader.close)

    async def _build(self, source: ShardSource, index: int, split: str, cut: ShardCut, count: int) -> None:
        # Asked again for each: a partition may have moved meanwhile.
        if index % self._sink.spec.total_partitions in self._owned:
            await build_shard(source, split, cut, count)
