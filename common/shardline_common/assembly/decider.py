"""The decision: from the sidecars of all segments, which records stay, in which split, shard and place.

It is a pure function of the sidecars and the rules. Every order is total, hashes are those of the sidecars,
and sums are of integers. No function of the engine that could change with its version decides: none of its
hashes, no float and nothing approximate.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from itertools import repeat
from pathlib import Path

import orjson

from shardline_common.assembly.drop_lists import write_drops
from shardline_common.assembly.engine import Engine
from shardline_common.assembly.inputs import Inputs, Landed, check_inputs, define_inputs
from shardline_common.assembly.rule_steps import (
    boilerplate_warnings,
    bound_splits,
    cut_splits,
    drop_duplicates,
    find_clusters,
    move_groups,
    take_sample,
)
from shardline_common.assembly.steps import Progress, Steps, StepStore
from shardline_common.dataset.decision import (
    Counted,
    DecisionHead,
    DropList,
    Reason,
    ShardCut,
    SplitCut,
    total,
)
from shardline_common.dataset.decision_rules import Rules
from shardline_common.errors import FailureCode, JobFailed, SpoolError


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision, and the local files of its lists.

    `drops` has the file of each drop list that is not empty, by split and number. `moved` is the file of the
    moved groups; None where the head has none.
    """

    head: DecisionHead
    drops: dict[tuple[str, int], Path]
    moved: Path | None


class Decider:
    """Makes one decision, on one thread.

    Args:
        folder: a folder of its own for temporary files and the lists of the decision; emptied first.
        inputs: the sidecars, which the caller has proven.
        rules: what to decide by.
        memory_bytes: how much memory DuckDB may take.
        threads: how many threads it may use.
    """

    def __init__(self, folder: Path, inputs: Inputs, rules: Rules, memory_bytes: int, threads: int) -> None:
        self._folder, self._inputs, self._rules = folder, inputs, rules
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._engine = Engine(folder / "engine", memory_bytes, threads)
        of_rules = orjson.dumps(asdict(rules), option=orjson.OPT_SORT_KEYS)
        self._made_from = sha256(inputs.sha256.encode() + of_rules).hexdigest()

    def interrupt(self) -> None:
        """Stop `run`, which raises DecisionInterrupted. May be called from any thread, at any time."""
        self._engine.interrupt()

    def statement_progress(self) -> float:
        """The share of the running statement that is done, 0 to 1. May be called from any thread."""
        return self._engine.progress()

    def run(self, steps: StepStore, on_progress: Progress = lambda *_: None) -> Decision:
        """Decide; only once. Steps of which `steps` has a result are not made again.

        Args:
            steps: where the results of steps are kept.
            on_progress: called with the name of the running step, and how many of how many parts are done.

        Raises:
            JobFailed: the sidecars are not those that the chains describe, an id comes twice although the job
                forbids it, or there are too few rows for equal shards.
            DecisionInterrupted: `interrupt` was called.
            SpoolError: the folder cannot be written.
        """
        try:
            return self._decide(Steps(self._engine, self._folder, self._made_from, steps, on_progress))
        except OSError as error:
            raise SpoolError(
                f"the files of the decision cannot be written: {error}",
                hint="free space on the disk of the spool folder",
            ) from error
        finally:
            self._engine.close()

    def _decide(self, steps: Steps) -> Decision:
        rules, engine, folder = self._rules, self._engine, self._folder
        names = [name for name, _ in rules.splits]
        define_inputs(engine, self._inputs)
        landed = check_inputs(engine, self._inputs, rules)
        drop_duplicates(engine, rules, steps)
        clusters = find_clusters(engine, rules.near, steps, folder) if rules.near is not None else None
        take_sample(engine, rules, steps)
        moved = move_groups(engine, rules, steps)
        bounds = bound_splits(engine, rules, steps)
        cuts = cut_splits(engine, rules, steps, folder)
        steps.begin("drops")
        engine.run("place_drops")
        drops = write_drops(
            engine.stream("drops"), folder / "drops", dict(zip(names, cuts.splits, strict=True))
        )
        shards = (shard for split in cuts.splits for shard in split)
        head = DecisionHead(
            inputs_sha256=self._inputs.sha256,
            rules=rules,
            kept=total(Counted(shard.rows, shard.hash_sum) for shard in shards),
            dropped={reason: drops.dropped[reason] for reason in Reason if reason in drops.dropped},
            rejected=landed.rejected,
            dead=landed.dead,
            splits=tuple(map(_split, names, bounds, cuts.splits, repeat(drops.lists))),
            clusters=clusters,
            moved=DropList(moved.lines, moved.sha256) if moved else None,
            warnings=(*boilerplate_warnings(clusters), *cuts.warnings),
        )
        _check_conservation(head, landed)
        return Decision(head, drops.files, moved.without_trailer(folder / "moved.jsonl") if moved else None)


def _split(
    name: str, below: int | None, shards: Sequence[ShardCut], lists: Mapping[tuple[str, int], DropList]
) -> SplitCut:
    """A split, with the drop lists that were written."""
    listed = tuple(replace(shard, drops=lists.get((name, shard.number), shard.drops)) for shard in shards)
    return SplitCut(
        name=name,
        below=below,
        rows=sum(shard.rows for shard in shards),
        bytes=sum(shard.bytes for shard in shards),
        shards=listed,
        drops=DropList() if shards else lists.get((name, 0), DropList()),
    )


def _check_conservation(head: DecisionHead, landed: Landed) -> None:
    """Each row is kept or dropped, once: counts and sums of hashes are those of the sidecars."""
    found = total((head.kept, *head.dropped.values()))
    if found != landed.rows:
        raise JobFailed(
            FailureCode.CONSERVATION,
            f"the decision has {found.records} rows with hash sum {found.hash_sum}, the sidecars have "
            f"{landed.rows.records} with {landed.rows.hash_sum}",
            hint="report this as a bug of Shardline",
        )
