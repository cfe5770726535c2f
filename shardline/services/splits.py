"""The sizes of the train and the validation split, and what a user should know about them. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from shardline_common.job.spec import JobSpec

_FAR = 2.0


def rows_of_splits(shards: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """The rows of each split, from the shards of a manifest."""
    rows = {"train": 0, "validation": 0}
    for shard in shards:
        rows[shard["split"]] = rows.get(shard["split"], 0) + shard["rows"]
    return rows


def format_splits(rows: Mapping[str, int], about: str = "") -> str:
    """Format the rows of each split in one line: `train 1,440, validation 76 (5.0%)`."""
    share = rows["validation"] / (sum(rows.values()) or 1)
    return f"{about}train {rows['train']:,}, {about}validation {rows['validation']:,} ({share:.1%})"


def split_warnings(spec: JobSpec, rows: Mapping[str, int]) -> list[str]:
    """Say that a split is empty, or that the validation split is far from the share that the job asks for.

    A hash decides for each document alone, or for each group, so that the split of a document never changes.
    The share is exact only on average: of 50 documents, 0.05 may be none or 7.
    """
    asked, total = spec.output.validation_fraction, sum(rows.values())
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
