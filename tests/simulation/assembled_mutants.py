"""Planted bugs of assembled jobs. They are caught in schedules of such jobs."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

from shardline_common.assembly import cuts, drop_lists, engine
from shardline_common.dataset.decision import Counted, Reason
from shardline_common.job.spec import JobSpec
from shardline_common.job.state import JobState, State
from shardline_common.runtime.create_or_read import create_or_get
from shardline_consumer.assembly import deciding, landed, stages
from shardline_consumer.assembly.landed import LandedSegment
from shardline_consumer.assembly.stages import Assembly
from shardline_consumer.commit import SegmentSink
from shardline_consumer.finish import Finisher
from shardline_consumer.staging import index
from shardline_consumer.staging.entries import IndexEntries
from shardline_producer import staged_sweep


def _segment_read_twice(stack: ExitStack) -> None:
    """The last segment with rows is there twice."""
    real = landed.read_landed

    async def read(sink: SegmentSink) -> list[LandedSegment]:
        segments = await real(sink)
        return [*segments, *[one for one in segments if one.rows_key is not None][-1:]]

    stack.enter_context(patch.object(stages, "read_landed", read))


def _boundary_off_by_one(stack: ExitStack) -> None:
    """The first row of each shard behind the first one is in the shard before it."""
    real = cuts._ends

    def ends(rows: int, shards: int, rules: Any) -> Any:
        found = real(rows, shards, rules)
        found[1:-1] += found[1:-1] + 1 < found[2:]
        return found

    stack.enter_context(patch.object(cuts, "_ends", ends))


def _standing_object_accepted(stack: ExitStack) -> None:
    """A drop list that is there is taken, whoever has put it."""

    async def create(sink: SegmentSink, key: str, body: bytes) -> None:
        await create_or_get(sink.context.store, key, body, sink.context.clock)

    stack.enter_context(patch.object(deciding, "_create", create))


def _late_rows_stay(stack: ExitStack) -> None:
    """Staged rows that a worker stores behind the end of the job are not swept."""

    async def remove(*_: object) -> None:
        return

    stack.enter_context(patch.object(staged_sweep, "remove_unneeded", remove))


def _decided_too_early(stack: ExitStack) -> None:
    """The decision does not wait for the last segment, which lands behind it."""
    real = Finisher._all_committed

    async def all_committed(self: Finisher, state: JobState) -> bool:
        if await real(self, state):
            return True
        try:
            if self._assembly is not None:
                await self._assembly.advance()
        finally:
            self._heads = [None] * len(self._heads)
        return False

    stack.enter_context(patch.object(Finisher, "_all_committed", all_committed))


def _drop_counted_twice(stack: ExitStack) -> None:
    """A row that is dropped is counted twice."""
    real = drop_lists._count

    def count(dropped: dict[Reason, Counted], reasons: Any, id_hashes: Any) -> None:
        real(dropped, reasons, id_hashes)
        real(dropped, reasons[:1], id_hashes[:1])

    stack.enter_context(patch.object(drop_lists, "_count", count))


def _rows_swept_early(stack: ExitStack) -> None:
    """The sweep removes the staged rows of jobs that were cancelled or have failed, too."""

    def needs(_: JobSpec, state: State) -> bool:
        return state in (State.RUNNING, State.COMPLETING)

    stack.enter_context(patch.object(staged_sweep, "needs_staged", needs))


def _rows_not_sorted(stack: ExitStack) -> None:
    """Staged rows are in the order in which they came."""

    def order(self: IndexEntries) -> Any:
        import numpy as np

        return np.arange(len(self.fields))

    stack.enter_context(patch.object(IndexEntries, "order", order))


def _last_copy_stays(stack: ExitStack) -> None:
    """Of texts that are equal the last one stays."""
    real = engine._text

    def text(name: str) -> str:
        found = real(name)
        return found.replace("min(position)", "max(position)") if name == "find_exact" else found

    stack.enter_context(patch.object(engine, "_text", text))


def _group_not_sent(stack: ExitStack) -> None:
    """The split follows the document instead of its group."""
    stack.enter_context(patch.object(index, "decode_group", lambda _: None))


def _chain_forgets_rows(stack: ExitStack) -> None:
    """A shard is made of the segments of the first partition alone."""
    real = LandedSegment.may_have

    def may_have(self: LandedSegment, cut: Any) -> bool:
        return self.record.partition == 0 and real(self, cut)

    stack.enter_context(patch.object(LandedSegment, "may_have", may_have))


def _everyone_decides(stack: ExitStack) -> None:
    """Every worker decides, and makes all shards."""

    class Everything:
        def __contains__(self, _: object) -> bool:
            return True

        def __iter__(self) -> Iterator[int]:
            return iter(())

        def __len__(self) -> int:
            return 0

    real = Assembly.__init__
    stack.enter_context(
        patch.object(Assembly, "__init__", lambda self, sink, _owned: real(self, sink, Everything()))
    )


ASSEMBLED: dict[str, Callable[[ExitStack], None]] = {
    "a staged segment is read twice": _segment_read_twice,
    "the boundary of a shard is off by one": _boundary_off_by_one,
    "a drop list of another attempt is taken": _standing_object_accepted,
    "late rows of a paused worker stay": _late_rows_stay,
    "the decision does not wait for the last segment": _decided_too_early,
    "a drop is counted twice": _drop_counted_twice,
    "a sweep removes rows that a retry needs": _rows_swept_early,
    "staged rows are not sorted": _rows_not_sorted,
    "of equal texts the last one stays": _last_copy_stays,
    "an assembled split ignores the group": _group_not_sent,
    "a shard lacks the rows of other partitions": _chain_forgets_rows,
}
"""Each of these breaks a guarantee in some schedules of assembled jobs."""

FIRST_LOOK = {
    "the boundary of a shard is off by one": 7,
    "a drop list of another attempt is taken": 43,
    "late rows of a paused worker stay": 7,
    "the decision does not wait for the last segment": 5,
    "an assembled split ignores the group": 11,
}
"""Schedules that catch these bugs: the tests begin with them, which takes a tenth of the time."""

HARMLESS_ASSEMBLED: dict[str, Callable[[ExitStack], None]] = {
    "every worker decides and assembles": _everyone_decides,
}
"""These break nothing, because whoever decides or assembles puts the same bytes."""
