"""The sizes of the splits, and what a user should know about them. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from shardline_common.dataset.decision_rules import split_bounds
from shardline_common.job.hashing import group_hash
from shardline_common.job.spec import JobSpec
from shardline_producer.encoder import group_of
from shardline_producer.sources.source import Document

_FAR = 2.0


def split_names(spec: JobSpec) -> list[str]:
    """The splits of a job: train first, then the others by name."""
    return sorted((name for name, _ in spec.splits), key=lambda name: (name != "train", name))


def split_of(spec: JobSpec, document: Document) -> str:
    """The split of a document by its hash; the splits of a job with `exact` are cut otherwise."""
    group = group_hash(group_of(spec, document.id.encode(), document))
    bounds = zip(spec.splits, split_bounds(spec.splits), strict=True)
    return next(name for (name, _), below in bounds if below is None or group < below)


def rows_of_splits(spec: JobSpec, shards: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """The rows of each split of a job, from the shards of a manifest."""
    rows = dict.fromkeys(split_names(spec), 0)
    for shard in shards:
        rows[shard["split"]] += shard["rows"]
    return rows


def format_splits(rows: Mapping[str, int], about: str = "") -> str:
    """Format the rows of each split in one line: `train 1,440, validation 76 (5.0%)`."""
    total = sum(rows.values()) or 1
    (first, most), *others = rows.items()
    parts = [f"{about}{name} {count:,} ({count / total:.1%})" for name, count in others]
    return ", ".join([f"{about}{first} {most:,}", *parts])


def split_warnings(spec: JobSpec, rows: Mapping[str, int]) -> list[str]:
    """Say that a split is empty, or that the validation split is far from the share that the job asks for.

    A hash decides for each document alone, or for each group, so that the split of a document never changes.
    The share is exact only on average: of 50 documents, 0.05 may be none or 7.
    """
    asked, total = spec.output.validation_fraction, sum(rows.values())
    if spec.output.splits is not None and total:
        return [f"no row is in the split {name}" for name, count in rows.items() if not count]
    if not asked or not total:
        return []
    by = f"the field '{spec.output.group_by}'" if spec.output.group_by else "each document id"
    why = f"a hash of {by} decides, and output.validation_fraction {asked:g} is an average"
    if not rows["validation"]:
        return [f"no row is in the validation split: {why}; raise it to get some"]
    if not rows["train"]:
        return [f"all rows are in the validation split: {why}; lower it to get some for training"]
    share = rows["validation"] / total
    if asked / _FAR <= share <= min(asked * _FAR, (1 + asked) / 2):
        return []
    return [f"{rows['validation']:,} of {total:,} rows ({share:.1%}) are in the validation split: {why}"]
