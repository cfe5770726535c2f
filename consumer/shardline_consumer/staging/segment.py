"""The open segment of an assembled job: as of any job, with an index of its records."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from shardline_common.assembly.extra import require_extra_on_worker
from shardline_common.dataset.chain import Totals
from shardline_common.job.segment_limits import SegmentLimits, max_original_bytes
from shardline_common.job.spec import JobSpec
from shardline_common.ports.broker import Record
from shardline_consumer.filters.clara import Judge
from shardline_consumer.rejected_lines import RejectedLines
from shardline_consumer.segment import OpenSegment, TakeResult
from shardline_consumer.staging.index import IndexRules, SegmentIndex

if TYPE_CHECKING:
    from shardline_consumer.curation.curator import Curator
    from shardline_consumer.staging.files import StagedFiles


class StagedSegment(OpenSegment):
    """A segment whose rows and index are staged when it is closed.

    Args:
        first: sequence of the first message.
        before: the totals of the chain up to `first`.
        judge: decides which documents become rows.
        limits: when the segment closes.
        spool: folder of the spool files.
        spec: the job.
        partition: the partition of the messages.

    Raises:
        JobFailed: a package of the extra `assembly` is not installed (`extra_missing`).
    """

    def __init__(
        self,
        first: int,
        before: Totals,
        judge: "Judge | Curator",
        limits: SegmentLimits,
        spool: Path,
        *,
        spec: JobSpec,
        partition: int,
    ) -> None:
        require_extra_on_worker()
        lines, originals = RejectedLines.of(spec), max_original_bytes(spec)
        super().__init__(first, before, judge, limits, spool, rejected_lines=lines, original_bytes=originals)
        slice_number = partition // spec.slice_partitions
        curator = None if isinstance(judge, Judge) else judge
        self._index = SegmentIndex(IndexRules.of(spec, curator), judge, slice_number, spool)
        self._curated = None if curator is None else []
        self._files: StagedFiles | None = None

    def take(self, records: Sequence[Record]) -> TakeResult:
        """Take records until the segment closes or all are used. Raises as `OpenSegment.take`."""
        first = self.next
        result = super().take(records)
        # The index is made behind it, so that the loop of the other jobs knows nothing of it.
        self._index.add(records[: result.used], first, self.next, self._curated or ())
        if self._curated is not None:
            self._curated.clear()
        return result

    def stage(self) -> "StagedFiles":
        """Sort the rows of the closed segment, and write its sidecars. Blocks. Raises as `stage`."""
        from shardline_consumer.staging.files import stage

        self._files = stage(self.rows, self._index, self.totals, self._spool)
        return self._files

    def discard(self) -> None:
        """Close and remove the spool files. May be repeated."""
        with ExitStack() as stack:
            stack.callback(super().discard)
            stack.callback(self._index.discard)
            if self._files is not None:
                stack.callback(self._files.discard)
