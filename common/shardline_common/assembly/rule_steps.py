"""The rules of a decision, one after the other, each as a step with a result."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from shardline_common.assembly.arrays import arrow_numbers, arrow_texts, numbers_of
from shardline_common.assembly.cuts import Cuts, SplitRows, cut_split, read_rows
from shardline_common.assembly.engine import Engine
from shardline_common.assembly.near import check_clusters, find_components, find_pairs
from shardline_common.assembly.places import define_places
from shardline_common.assembly.steps import StepResult, Steps
from shardline_common.dataset.decision import (
    BOILERPLATE_RECORDS,
    Cluster,
    Clusters,
    DropList,
    Reason,
    ShardCut,
)
from shardline_common.dataset.decision_rules import NearRules, Rules
from shardline_common.errors import FailureCode, JobFailed
from shardline_common.job.hashing import MODULUS

_REASONS = tuple(Reason)
_LINES = 4096


def drop_duplicates(engine: Engine, rules: Rules, steps: Steps) -> None:
    """Drop rows with an id or a content that an earlier row or another dataset has."""
    engine.run("setup")
    engine.set(reasons=list(map(str, _REASONS)), datasets=list(rules.against))
    wanted = {
        "ids": (rules.duplicate_ids != "keep", Reason.DUPLICATE_ID),
        "exact": (rules.exact, Reason.DUPLICATE),
        "against": (bool(rules.against), Reason.DUPLICATE_OF_DATASET),
    }
    for name, (is_wanted, reason) in wanted.items():
        if not is_wanted:
            continue
        found = steps.take(name, partial(_repeats, engine, name))
        if name == "ids" and found.lines and rules.duplicate_ids == "fail":
            raise _ids_twice(engine, found.lines)
        _drop(engine, reason)


def _repeats(engine: Engine, name: str, _: dict[str, Any]) -> Iterable[Any]:
    engine.run(f"find_{name}")
    return engine.stream("repeats")


def find_clusters(engine: Engine, near: NearRules, steps: Steps, folder: Path) -> Clusters:
    """Find clusters of near duplicates, and drop all but their first records where the rules say so."""

    def on_band(done: int) -> None:
        steps.begin("pairs", done, near.bands)

    steps.take("pairs", lambda _: find_pairs(engine, near, folder, on_band))
    engine.run("load_edges")

    def components(_: dict[str, Any]) -> Iterable[Any]:
        find_components(engine)
        return engine.stream("components")

    members = steps.take("components", components)
    engine.run("load_clusters")
    check_clusters(engine)
    if near.remove:
        _drop(engine, Reason.NEAR_DUPLICATE)
    count = engine.value("SELECT count(DISTINCT stays) FROM clusters")
    largest = tuple(Cluster(records, document_id) for records, document_id in engine.rows("largest_clusters"))
    return Clusters(count, members.lines + count, largest)


def boilerplate_warnings(clusters: Clusters | None) -> tuple[str, ...]:
    """A warning about clusters that are too large to be copies of one document."""
    large = [one for one in clusters.largest if one.records > BOILERPLATE_RECORDS] if clusters else []
    if clusters is None or not large:
        return ()
    count = len(large) if len(large) < len(clusters.largest) else f"{len(large)} or more"
    text = (
        f"clusters of near duplicates with over {BOILERPLATE_RECORDS:,} documents: {count}; the largest has "
        f"{large[0].records:,}, which resemble {large[0].id!r}. Where they come from a template, "
        "dedup.near.verify keeps those apart that are less alike"
    )
    return (text,)


def take_sample(engine: Engine, rules: Rules, steps: Steps) -> None:
    """Define `in_sample`, and with it `chosen`: the kept rows that are in the sample."""
    condition, sample = "true", rules.sample
    if sample is not None and sample.below is not None:
        condition = f"sample_key < {sample.below}::UBIGINT"
    elif sample is not None and sample.rows is not None:
        rows = sample.rows

        def last_row(facts: dict[str, Any]) -> Iterable[Any]:
            engine.set(sample_rows=rows)
            engine.run("sample_keys")
            facts["last"] = next(iter(engine.rows("sample")), None)
            return ()

        last = steps.take("sample", last_row).facts["last"]
        if last is not None:
            condition = (
                f"sample_key < {last[0]}::UBIGINT OR (sample_key = {last[0]}::UBIGINT AND place <= {last[1]})"
            )
    engine.macro("in_sample", "sample_key, place", condition)
    engine.run("chosen")


def move_groups(engine: Engine, rules: Rules, steps: Steps) -> StepResult | None:
    """Where near duplicates stay: move groups that they connect into one split. None: there are none."""
    if rules.near is None or rules.near.remove:
        return None

    def groups(_: dict[str, Any]) -> Iterable[Any]:
        engine.run("group_edges")
        find_components(engine)
        return engine.stream("moved")

    moved = steps.take("groups", groups)
    engine.run("load_moved")
    return moved if moved.lines else None


def bound_splits(engine: Engine, rules: Rules, steps: Steps) -> tuple[int | None, ...]:
    """Define the places of records. Splits are shares of the range of hashes, or with `exact` of the rows."""
    bounds = rules.bounds()
    if rules.exact_splits:

        def by_rank(facts: dict[str, Any]) -> Iterable[Any]:
            facts["bounds"] = _bounds_by_rank(engine, rules)
            return ()

        bounds = tuple(steps.take("splits", by_rank).facts["bounds"])
    define_places(engine, bounds)
    return bounds


def _bounds_by_rank(engine: Engine, rules: Rules) -> list[int | None]:
    """The bounds at which the rows of groups, in the order of their hashes, reach the share of each split."""
    engine.run("count_groups")
    targets = rules.row_targets(engine.value("SELECT coalesce(sum(members), 0)::BIGINT FROM group_sizes"))
    bounds: list[int | None] = []
    upto = 0
    for batch in engine.stream("group_counts"):
        groups, sums = numbers_of(batch.column(0)), numbers_of(batch.column(1)).cumsum() + upto
        upto = int(sums[-1])
        while len(bounds) < len(targets) and targets[len(bounds)] <= upto:
            target = targets[len(bounds)]
            # The bound is behind the group with which the share is reached: a group is whole.
            below = int(groups[sums.searchsorted(target)]) + 1 if target else 0
            bounds.append(below if below < MODULUS else None)
    engine.drop("group_sizes")
    # Without rows, no share can be reached: the range of hashes decides nothing.
    return [*bounds, *[None] * (len(rules.splits) - len(bounds))]


@dataclass(frozen=True, slots=True)
class SplitCuts:
    """The shards of each split, without their drop lists, and what a person should know."""

    splits: list[list[ShardCut]]
    warnings: tuple[str, ...]


def cut_splits(engine: Engine, rules: Rules, steps: Steps, folder: Path) -> SplitCuts:
    """Cut each split into shards. Defines the macro `is_remainder`."""

    def cuts(facts: dict[str, Any]) -> Iterator[Any]:
        names = [name for name, _ in rules.splits]
        engine.run("place_rows")
        rows = read_rows(engine.stream("rows"), folder, len(names))
        found = [cut_split(name, own, rules.shards) for name, own in zip(names, rows, strict=True)]
        facts["warnings"] = [*_large_groups(engine, rules), *(one.warning for one in found if one.warning)]
        facts["remainders"] = [
            [split, own.key(one.rows)]
            for split, (own, one) in enumerate(zip(rows, found, strict=True))
            if one.rows < own.count
        ]
        for split, (own, one) in enumerate(zip(rows, found, strict=True)):
            yield from _shard_lines(split, own, one)
            own.close()

    step = steps.take("cuts", cuts)
    conditions = [
        f"(split_number = {split} AND key_of(sort_key, place) >= key_of({order}::UBIGINT, {position}))"
        for split, (order, position) in step.facts["remainders"]
    ]
    engine.macro("is_remainder", "split_number, sort_key, place", " OR ".join(conditions) or "false")
    splits: list[list[ShardCut]] = [[] for _ in rules.splits]
    for split, number, rows, size, hash_sum, *keys in step.entries():
        first, last = (keys[0], keys[1]), (keys[2], keys[3])
        splits[split].append(ShardCut(number, rows, size, hash_sum, first, last, DropList()))
    return SplitCuts(splits, tuple(step.facts["warnings"]))


def _shard_lines(split: int, rows: SplitRows, cuts: Cuts) -> Iterator[Any]:
    """Arrow batches of the lines of a split's shards."""
    import numpy as np
    import pyarrow as pa

    for start in range(0, cuts.shards, _LINES):
        lines = []
        for number in range(start, min(start + _LINES, cuts.shards)):
            begin, end = int(cuts.ends[number]), int(cuts.ends[number + 1])
            size, hash_sum, first, last = rows.cut(begin, end)
            values = [split, number, end - begin, size, hash_sum, *first, *last]
            lines.append(orjson.dumps(values, option=orjson.OPT_APPEND_NEWLINE))
        splits = arrow_numbers(np.full(len(lines), split), pa.int64())
        texts = arrow_texts(lines, pa.string())
        yield pa.RecordBatch.from_arrays([splits, texts], ["split", "line"])


def _large_groups(engine: Engine, rules: Rules) -> Iterator[str]:
    """Warnings about clusters that are kept in one split although they are a large part of all rows."""
    if rules.near is None or rules.near.remove:
        return
    for rows, share in engine.rows("large_groups"):
        yield (
            f"near duplicates connect {rows:,} rows, {share} % of all, which are kept in one split; "
            "the shares of the splits may be off by as much"
        )


def _drop(engine: Engine, reason: Reason) -> None:
    engine.set(reason=_REASONS.index(reason))
    engine.run("drop")


def _ids_twice(engine: Engine, count: int) -> JobFailed:
    shown = ", ".join(repr(document_id) for (document_id,) in engine.rows("ids_twice"))
    return JobFailed(
        FailureCode.DUPLICATE_IDS,
        f"{count:,} documents have the id of an earlier one, which quality.duplicate_ids forbids: {shown}",
        hint="mend the source, or set quality.duplicate_ids to `first`; submit it under a new id",
    )
