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
from shardline_consumer.assembly.final_shard import ShardSource, build_shard, fetch_list, shard_room
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
        missing = await self._missing(head)
        if own := [one for one in missing if self._is_own(one[0])]:
            await self._assemble(head, hash_of(body), own)
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

    async def _open(self, room: int = 0) -> tuple[list[LandedSegment], SidecarFolder]:
        if self._segments is None:
            self._segments = await read_landed(self._sink)
        if self._sidecars is None:
            sidecars = self._sidecars = SidecarFolder(self._sink, self._segments)
            await sidecars.open(room)
        return self._segments, self._sidecars

    async def _open_with_room(self, room: int) -> tuple[list[LandedSegment], SidecarFolder, int]:
        """Open, with room for some shards of this size at once; returns for how many."""
        segments, sidecars = await self._open()
        for shards in range(_SHARDS_AT_ONCE, 0, -1):
            if sidecars.take_room(shards * room):
                return segments, sidecars, shards
        # To wait for room while the sidecars hold theirs could last for ever: another assembled job may do
        # the same, or both may not fit into the budget beside each other. All is reserved at once instead.
        await self.close()
        segments, sidecars = await self._open(room)
        return segments, sidecars, 1

    async def _assemble(
        self, head: DecisionHead, head_sha256: str, own: list[tuple[int, str, ShardCut, int]]
    ) -> None:
        room = max(shard_room(self._sink.spec, cut) for _, _, cut, _ in own)
        segments, sidecars, at_once = await self._open_with_room(room)
        try:
            reader = await self._open_reader(head, sidecars)
            try:
                reading = asyncio.Lock()
                source = ShardSource(self._sink, head, head_sha256, segments, sidecars, reader, reading)
                await gather_limited([partial(self._build, source, *item) for item in own], at_once)
            finally:
                await run_in_thread(reader.close)
        finally:
            sidecars.release_room(at_once * room)

    async def _open_reader(self, head: DecisionHead, sidecars: SidecarFolder) -> ShardReader:
        sink, context = self._sink, self._sink.context
        moved = None
        if head.moved is not None:
            moved = await fetch_list(sink, sink.layout.moved, head.moved, sidecars.path)
        memory, threads = context.decide_memory, context.decide_threads
        make = partial(ShardReader, sidecars.path / "shards", head, moved, memory, threads)
        return await run_in_thread(make, lambda reader: reader.close())

    async def _build(self, source: ShardSource, index: int, split: str, cut: ShardCut, count: int) -> None:
        # Asked again for each: a partition may have moved meanwhile.
        if self._is_own(index):
            await build_shard(source, split, cut, count)

    def _is_own(self, index: int) -> bool:
        return index % self._sink.spec.total_partitions in self._owned
