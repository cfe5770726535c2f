"""diff: what differs between two finished datasets: their rows, and what they left out and why."""

import tempfile
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from shardline.services.finished import open_published
from shardline.services.finished_rows import row_lines
from shardline_common.assembly.row_diff import RowDiff, Side
from shardline_common.dataset.published import PublishedDataset
from shardline_common.dataset.row_ranges import shard_rows
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.cores import available_cores
from shardline_common.runtime.threads import run_in_thread
from shardline_common.settings.load import Settings

OnRows = Callable[[int, int], None]
"""Called with the rows that were read, and those of both datasets."""


@dataclass(frozen=True, slots=True)
class DatasetDiff:
    """The difference. `documents` counts ids by kind, `first` names some of each kind but `same`.

    `left_out`: for each reason of a rejection or dead letter the counts in the old and the new dataset.
    """

    old: str
    new: str
    rows: tuple[int, int]
    documents: Mapping[str, int]
    first: Mapping[str, list[str]]
    left_out: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def same(self) -> bool:
        """Whether both have the same rows."""
        return not any(count for kind, count in self.documents.items() if kind != "same")

    def to_json(self) -> dict[str, Any]:
        """The difference as `diff --json` prints it."""
        return {
            "same": self.same,
            "digests": [self.old, self.new],
            "rows": list(self.rows),
            "documents": dict(self.documents),
            "first": dict(self.first),
            "left_out": {reason: list(counts) for reason, counts in self.left_out.items()},
        }


async def diff_datasets(
    old: str, new: str, settings: Settings, *, show: int = 10, on_rows: OnRows = lambda *_: None
) -> DatasetDiff:
    """Compare the rows of two finished datasets. All shards of both are read and proven.

    Args:
        old: the folder of a dataset: a directory, or `s3://bucket/prefix/…`.
        new: that of the other.
        settings: the settings of the stores.
        show: how many ids of each kind are named.
        on_rows: called while rows are read.

    Raises:
        UsageError: one is no finished dataset, or the extra `assembly` is missing.
        JobFailed: a shard is missing or damaged.
        StoreUnavailable: a store cannot be read now.
    """
    async with open_published(old, settings) as one, open_published(new, settings) as other:
        datasets: dict[Side, tuple[ObjectStore, PublishedDataset]] = {"old": one, "new": other}
        rows = [dataset.manifest.totals["rows"] for _, dataset in (one, other)]
        with tempfile.TemporaryDirectory(prefix="diff-", dir=settings.spool_dir) as name:
            folder, memory = Path(name) / "rows", settings.decide_memory_bytes
            diff = await run_in_thread(partial(RowDiff, folder, memory, available_cores()), RowDiff.close)
            try:
                read = 0
                for side, (store, dataset) in datasets.items():
                    async with aclosing(_add(diff, side, store, dataset)) as counts:
                        async for count in counts:
                            read += count
                            on_rows(read, sum(rows))
                documents = await run_in_thread(diff.compare)
                first = {
                    kind: await run_in_thread(partial(diff.first, kind, show))
                    for kind, count in documents.items()
                    if count and kind != "same"
                }
            finally:
                await run_in_thread(diff.close)
        return DatasetDiff(
            one[1].manifest.digest,
            other[1].manifest.digest,
            (rows[0], rows[1]),
            documents,
            first,
            _left_out(one[1], other[1]),
        )


async def _add(
    diff: RowDiff, side: Side, store: ObjectStore, dataset: PublishedDataset
) -> AsyncGenerator[int, None]:
    """Add all rows of a dataset; yields how many came."""
    for split, shards in dataset.splits.items():
        ranges = shard_rows(shards, 0, sum(shard.rows for shard in shards))
        async with aclosing(row_lines(store, dataset.compression, ranges)) as lists:
            async for lines in lists:
                await run_in_thread(partial(diff.add, side, split, lines))
                yield len(lines)


def _left_out(old: PublishedDataset, new: PublishedDataset) -> dict[str, tuple[int, int]]:
    counts = [{**one.manifest.rejected, **one.manifest.dead_letters} for one in (old, new)]
    reasons = sorted({*counts[0], *counts[1]})
    return {reason: (counts[0].get(reason, 0), counts[1].get(reason, 0)) for reason in reasons}
