"""Checks a decision against the sidecars it was made from: of a finished dataset, for `verify`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import zip_longest
from pathlib import Path

import orjson

from shardline_common.assembly.arrays import numbers_of
from shardline_common.assembly.decider import Decider, Decision
from shardline_common.assembly.engine import Engine
from shardline_common.assembly.inputs import Inputs, define_inputs
from shardline_common.assembly.places import define_places, load_moved
from shardline_common.assembly.shard_rows import ShardReader
from shardline_common.dataset.decision import Counted, DecisionHead, Reason
from shardline_common.dataset.decision_rules import Rules
from shardline_common.errors import JobFailed

Number = tuple[str, int]


@dataclass(frozen=True, slots=True)
class StoredDecision:
    """A decision as it is in a dataset, in local files.

    `drops` has the file of each drop list that is not empty, by split and number; the names of the files are
    `<number of the split>-<number>.jsonl`. `moved` is None where the head has none.
    """

    head: DecisionHead
    drops: Mapping[Number, Path]
    moved: Path | None


@dataclass(frozen=True, slots=True)
class Limits:
    """The bytes of memory that DuckDB may take, and its threads."""

    memory_bytes: int
    threads: int


def decision_problems(
    folder: Path,
    stored: StoredDecision,
    inputs: Inputs,
    row_hashes: Mapping[Number, str],
    limits: Limits,
) -> Iterator[str]:
    """What contradicts the sidecars, as sentences.

    1. Each line of a drop list drops a row of its shard, and no row is dropped twice. The lists have the
    rows by reason that the head counts. 2. No text, and no id, is kept twice, where the rules forbid it. No
    group is in two splits. 3. The rows of each shard are those that sidecars, cuts and lists give, in order.

    Args:
        folder: a folder of its own for temporary files.
        stored: the decision.
        inputs: the sidecars, which the caller has proven.
        row_hashes: for each shard the sha256 over the first 8 bytes of the sha256 of each row.
        limits: those of the engine.

    Raises:
        UsageError: DuckDB is not installed.
        SpoolError: the folder cannot be written.
    """
    engine = Engine(folder / "check", limits.memory_bytes, limits.threads)
    try:
        _load(engine, folder, stored, inputs)
        yield from _drop_problems(engine, stored.head)
        yield from _kept_problems(engine, stored.head)
    finally:
        engine.close()
    yield from _shard_problems(folder, stored, inputs, row_hashes, limits)


def _load(engine: Engine, folder: Path, stored: StoredDecision, inputs: Inputs) -> None:
    head = stored.head
    define_inputs(engine, inputs)
    define_places(engine, [split.below for split in head.splits])
    engine.run("check_setup")
    if stored.drops:
        engine.set(drops_files=[str(path) for path in stored.drops.values()])
        engine.run("check_load")
    if stored.moved is not None:
        load_moved(engine, stored.moved)
    starts = [
        orjson.dumps([place, cut.number, *cut.first]) + b"\n"
        for place, split in enumerate(head.splits)
        for cut in split.shards
    ]
    if starts:
        path = folder / "starts.jsonl"
        path.write_bytes(b"".join(starts))
        engine.set(step=[str(path)])
        engine.run("load_step")
        engine.run("check_starts")


def _drop_problems(engine: Engine, head: DecisionHead) -> Iterator[str]:
    for place, number, position, is_row, again in engine.rows("check_drops"):
        where = f"the drop list of shard {number} of {head.splits[place].name}"
        if not is_row:
            yield f"{where} drops position {position}, which is no row"
        elif again:
            yield f"{where} drops position {position}, which another list drops too"
        else:
            yield f"{where} drops position {position}, which is not in the range of the shard"
    found = {Reason(reason): Counted(count, total) for reason, count, total in engine.rows("check_counts")}
    counted = {reason: one for reason, one in head.dropped.items() if one.records}
    for reason in Reason:
        lists, said = found.get(reason, Counted()), counted.get(reason, Counted())
        if lists != said:
            yield (
                f"the drop lists drop {lists.records} rows as {reason} with hash sum {lists.hash_sum}, the "
                f"decision says {said.records} with {said.hash_sum}"
            )


def _kept_problems(engine: Engine, head: DecisionHead) -> Iterator[str]:
    if head.rules.exact:
        for first, second in engine.rows("check_contents"):
            yield f"documents {first!r} and {second!r} are kept, and have the same text"
    if head.rules.duplicate_ids != "keep":
        for (document_id,) in engine.rows("check_ids"):
            yield f"several documents with the id {document_id!r} are kept"
    for (group,) in engine.rows("check_groups"):
        yield f"the group with the hash {group} is in two splits"


def _shard_problems(
    folder: Path,
    stored: StoredDecision,
    inputs: Inputs,
    row_hashes: Mapping[Number, str],
    limits: Limits,
) -> Iterator[str]:
    sidecars = [one.path for one in inputs.records]
    reader = ShardReader(folder / "rows", stored.head, stored.moved, limits.memory_bytes, limits.threads)
    try:
        for split in stored.head.splits:
            for cut in split.shards:
                shard, digest = (split.name, cut.number), sha256()
                try:
                    for batch in reader.rows(*shard, sidecars, stored.drops.get(shard)):
                        # As bytes they are the beginnings of the hashes.
                        digest.update(numbers_of(batch.column("row_hash")).astype(">u8").tobytes())
                except JobFailed as error:
                    yield str(error)
                    continue
                # One that cannot be read is a problem of its own.
                if row_hashes.get(shard, digest.hexdigest()) != digest.hexdigest():
                    yield (
                        f"shard {cut.number} of {split.name} has other rows than the sidecars and the "
                        "decision give"
                    )
    finally:
        reader.close()


class _NoSteps:
    """Implements `StepStore` without memory: every step is decided again."""

    def load(self, _name: str) -> Path | None:
        return None

    def save(self, _name: str, _path: Path) -> None:
        pass


def recomputed_problems(
    folder: Path, stored: StoredDecision, inputs: Inputs, rules: Rules, limits: Limits
) -> Iterator[str]:
    """Decide again, and compare head and lists to the byte. What differs, as sentences.

    Raises:
        UsageError: DuckDB is not installed.
        SpoolError: the folder cannot be written.
    """
    decider = Decider(folder / "decision", inputs, rules, limits.memory_bytes, limits.threads)
    try:
        decision = decider.run(_NoSteps())
    except JobFailed as error:
        yield f"the sidecars cannot be decided: {error}"
        return
    yield from _head_problems(stored.head, decision.head)
    yield from _list_problems(stored, decision)


def _head_problems(stored: DecisionHead, decided: DecisionHead) -> Iterator[str]:
    if stored.encode() == decided.encode():
        return
    left, right = orjson.loads(stored.encode()), orjson.loads(decided.encode())
    names = [name for name in left if left[name] != right[name]]
    yield f"the decision recomputed from the sidecars differs in: {', '.join(names)}"
    for one, other in zip(stored.splits, decided.splits, strict=False):
        for cut, own in zip(one.shards, other.shards, strict=False):
            if (cut.first, cut.last) != (own.first, own.last):
                yield f"shard {cut.number} of {one.name} should hold {own.rows} rows with other ends"
                return


def _list_problems(stored: StoredDecision, decided: Decision) -> Iterator[str]:
    for split, number in sorted(stored.drops.keys() | decided.drops.keys()):
        found, wanted = (_lines(lists, (split, number)) for lists in (stored.drops, decided.drops))
        if found != wanted:
            yield (
                f"the drop list of shard {number} of {split} is not the recomputed one: "
                f"{_first_difference(found, wanted)}"
            )
    if _content(stored.moved) != _content(decided.moved):
        yield "the list of moved groups is not the recomputed one"


def _first_difference(found: Sequence[bytes], wanted: Sequence[bytes]) -> str:
    for has, needs in zip_longest(found, wanted):
        if has != needs:
            return f"it has {_shown(has)} instead of {_shown(needs)}"
    raise AssertionError("the lists differ")


def _shown(line: bytes | None) -> str:
    return "no more line" if line is None else line.decode()


def _lines(drops: Mapping[Number, Path], shard: Number) -> list[bytes]:
    return _content(drops.get(shard)).splitlines()


def _content(path: Path | None) -> bytes:
    return b"" if path is None else path.read_bytes()
