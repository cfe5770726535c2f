"""Planted bugs that show only in some contents, or only when requests, topics and chains are looked at."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from shardline_common.dataset.chain import ChainRecord
from shardline_common.job.hashing import in_validation
from shardline_common.job.segment_limits import SegmentLimits
from shardline_common.job.spec import JobSpec
from shardline_common.job.state import JobState
from shardline_common.ports.broker import Record
from shardline_consumer.attempt_consumer import AttemptConsumer
from shardline_consumer.filters.clara import Judge
from shardline_consumer.partition import PartitionProcessor
from shardline_consumer.segment import OpenSegment, TakeResult
from shardline_consumer.spool.budget import SpoolBudget
from shardline_producer import encoder, resume
from shardline_producer.backlog import Backlog
from shardline_producer.encoder import Encoder
from shardline_producer.job_runner import JobRunner
from shardline_producer.sources.source import Document, SourceItem

if TYPE_CHECKING:
    from pathlib import Path

    from shardline_consumer.spool.file import SpoolFile


def request_offset_not_saved(stack: ExitStack) -> None:
    """The checkpoint does not say which requests were handled."""
    real = JobState.encode

    def encode(self: JobState) -> bytes:
        return real(replace(self, request_offset=-1))

    stack.enter_context(patch.object(JobState, "encode", encode))


def dead_letters_lost(stack: ExitStack) -> None:
    """Dead letters are counted, and published nowhere."""

    async def publish(_self: AttemptConsumer, _partition: int, _letters: Sequence[Any]) -> None:
        return

    stack.enter_context(patch.object(AttemptConsumer, "publish_dead_letters", publish))


def no_wait_for_room(stack: ExitStack) -> None:
    """The producer sends on while the topic is full."""

    async def wait(_self: Backlog) -> None:
        return

    stack.enter_context(patch.object(Backlog, "wait_for_room", wait))


def scanned_bound_once_a_fetch(stack: ExitStack) -> None:
    """The bound of scanned bytes is checked behind a batch of records, not behind each."""
    real = OpenSegment.take

    def take(self: OpenSegment, records: Sequence[Record]) -> TakeResult:
        limits = self._limits
        self._limits = replace(limits, scanned_bytes=1 << 62)
        result = real(self, records)
        self._limits = limits
        self.closed |= self.next > self.first and limits.reached(0, self._scanned, 0)
        return result

    stack.enter_context(patch.object(OpenSegment, "take", take))


def record_bound_ignored(stack: ExitStack) -> None:
    """The number of records does not close a segment."""
    real = SegmentLimits.reached

    def reached(self: SegmentLimits, row_bytes: int, scanned_bytes: int, _records: int) -> bool:
        return real(self, row_bytes, scanned_bytes, 0)

    stack.enter_context(patch.object(SegmentLimits, "reached", reached))


def tail_without_rows(stack: ExitStack) -> None:
    """A segment without rows is not committed at the end of its partition."""
    real = OpenSegment._take_end

    def take_end(self: OpenSegment, value: bytes) -> None:
        real(self, value)
        self.closed &= self._kept > 0

    stack.enter_context(patch.object(OpenSegment, "_take_end", take_end))


def dead_letter_without_position(stack: ExitStack) -> None:
    """A dead letter does not move the position of its segment."""
    real = OpenSegment._take_dead_letter

    def take(self: OpenSegment, key: bytes, value: bytes, dead: list[bytes]) -> Any:
        position = self._position
        taken = real(self, key, value, dead)
        self._position = position
        return taken

    stack.enter_context(patch.object(OpenSegment, "_take_dead_letter", take))


def trim_by_earlier_attempt(stack: ExitStack) -> None:
    """The topic is trimmed by the offsets of chain records, whichever attempt they are from."""

    async def trim(self: Backlog) -> None:
        below = {head.partition: head.offset for head in self.heads if head is not None}
        self._trimmed = self._trimmed or {}
        moved = {number: offset for number, offset in below.items() if self._trimmed.get(number) != offset}
        if moved:
            await self._broker.delete_records(self._topic, moved)
            self._trimmed |= moved

    stack.enter_context(patch.object(Backlog, "_trim", trim))


def spool_reused(stack: ExitStack) -> None:
    """The open segment of a partition that was lost goes on when the partition comes back."""
    kept: dict[tuple[Path, int], SpoolFile] = {}
    release, opened = PartitionProcessor._release, PartitionProcessor._open_segment

    def keep(self: PartitionProcessor, segment: OpenSegment) -> None:
        if segment is self._segment and segment.rows is not None:
            kept[self._context.spool, self._partition] = segment.rows
            segment.rows = None
        release(self, segment)

    async def reopen(self: PartitionProcessor, *arguments: Any) -> None:
        await opened(self, *arguments)
        if self._segment is not None:
            self._segment.rows = kept.pop((self._context.spool, self._partition), None)

    def discard() -> None:
        for file in kept.values():
            file.discard()

    stack.callback(discard)
    stack.enter_context(patch.object(PartitionProcessor, "_release", keep))
    stack.enter_context(patch.object(PartitionProcessor, "_open_segment", reopen))


def spool_never_yielded(stack: ExitStack) -> None:
    """An open segment keeps its spool while it gets no records and others wait for spool."""
    stack.enter_context(patch.object(SpoolBudget, "contended", property(lambda _: False)))


def doubles_dropped(stack: ExitStack) -> None:
    """A second document of an id is not sent."""
    real = Encoder.encode

    def encode(self: Encoder, items: Sequence[SourceItem]) -> Any:
        seen: set[str] = self.__dict__.setdefault("seen", set())
        ids = [item.content.id if isinstance(item.content, Document) else None for item in items]
        wanted = [item for item, name in zip(items, ids, strict=True) if name is None or name not in seen]
        seen.update(name for name in ids if name is not None)
        return real(self, wanted)

    stack.enter_context(patch.object(Encoder, "encode", encode))


def rejections_without_rows_lost(stack: ExitStack) -> None:
    """Rejected documents are kept only beside rows."""
    real = OpenSegment._write

    def write(self: OpenSegment, rows: list[bytes], rejected: list[bytes], dead: list[bytes]) -> None:
        real(self, rows, rejected if self._kept else [], dead)

    stack.enter_context(patch.object(OpenSegment, "_write", write))


def furthest_chain(stack: ExitStack) -> None:
    """A retry reads the source from the end of the furthest chain, not of the nearest."""
    real = resume.continue_chains

    def furthest(state: JobState, heads: Sequence[ChainRecord | None]) -> None:
        real(state, heads)
        positions = [head.position for head in heads if head is not None]
        state.cursor = max(positions, default=None)
        state.source_count = state.cursor[-1] if state.cursor else 0

    stack.enter_context(patch.object(resume, "continue_chains", furthest))


def verdicts_by_length(stack: ExitStack) -> None:
    """A verdict is found again by length and fields, without the relevance."""
    real = Judge.__call__

    def judge(self: Judge, chars: int, present: int, flags: int, relevance: float) -> Any:
        known: dict[Any, float] = self.__dict__.setdefault("known", {})
        return real(self, chars, present, flags, known.setdefault((chars, present, flags), relevance))

    stack.enter_context(patch.object(Judge, "__call__", judge))


def group_ignored(stack: ExitStack) -> None:
    """The split follows the document instead of its group."""

    def ignores(spec: JobSpec, key: bytes, _content: object) -> bool:
        return in_validation(key, spec.output.validation_fraction)

    stack.enter_context(patch.object(encoder, "is_validation", ignores))


def standing_record_accepted(stack: ExitStack) -> None:
    """A refused chain record is taken for one's own, whatever stands there."""
    stack.enter_context(patch.object(ChainRecord, "has_same_content", lambda _self, _other: True))


def publishing_error_not_recorded(stack: ExitStack) -> None:
    """A dataset that cannot be published behind its outcome leaves no word in the job's state."""

    async def record(_self: JobRunner, _attempt: int, _error: Exception) -> None:
        return

    stack.enter_context(patch.object(JobRunner, "record_blocked", record))


def dataset_not_proven(stack: ExitStack) -> None:
    """An attempt is completed by its counts, without a look at the objects of the dataset."""

    async def prove(*_: object) -> None:
        return

    stack.enter_context(patch("shardline_consumer.finish.prove_publishable", prove))
