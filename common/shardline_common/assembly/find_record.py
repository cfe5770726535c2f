"""Finds what became of a document of an assembled dataset, from its sidecars and drop lists."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson

from shardline_common.assembly.engine import Engine
from shardline_common.assembly.places import define_places, load_moved
from shardline_common.assembly.sidecar import Status
from shardline_common.dataset.decision import DecisionHead, Key, ShardCut
from shardline_common.job.hashing import order_key, order_partition, order_range, partition_of
from shardline_common.job.messages import slice_of_position
from shardline_common.job.names import Layout
from shardline_common.job.spec import JobSpec

_PART = re.compile(r"part-(\d+)-\d+\.parquet")
_OUTCOMES: dict[int, Literal["row", "rejected", "dead_letter"]] = {
    Status.ROW: "row",
    Status.REJECTED: "rejected",
    Status.DEAD_LETTER: "dead_letter",
}


@dataclass(frozen=True, slots=True)
class FoundRecord:
    """What became of one record of the source.

    A row has its shard, by its key in the dataset, and its line from 1. Any other record has the reason, and
    of a filter the value and the threshold. A duplicate has the record that stays `instead`, or the digest
    of the `dataset` that has its text.
    """

    document_id: str
    outcome: Literal["row", "rejected", "dead_letter"]
    shard: str | None = None
    line: int | None = None
    reason: str | None = None
    value: float | None = None
    threshold: float | None = None
    instead: "FoundRecord | None" = None
    dataset: str | None = None


class RecordFinder:
    """Finds records, on one thread.

    Args:
        folder: a folder of its own for temporary files; removed by `close`.
        spec: the job of the dataset.
        head: its decision.
        keys: the keys of all its sidecars of records.
        fetch: gives a local file of an object by its key in the dataset, and may block.
        memory_bytes: how much memory DuckDB may take.
        threads: how many threads it may use.

    Raises:
        UsageError: DuckDB is not installed.
    """

    def __init__(
        self,
        folder: Path,
        spec: JobSpec,
        head: DecisionHead,
        keys: Iterable[str],
        fetch: Callable[[str], Path],
        memory_bytes: int,
        threads: int,
    ) -> None:
        self._spec, self._head, self._fetch = spec, head, fetch
        self._keys = [(int(match[1]), key) for key in keys if (match := _PART.search(key))]
        self._layout = Layout("", spec.output.compression)
        self._engine = Engine(folder, memory_bytes, threads)
        self._engine.run("shard_setup")
        define_places(self._engine, [split.below for split in head.splits])
        if head.moved is not None:
            load_moved(self._engine, fetch(self._layout.moved))

    def close(self) -> None:
        """Remove the temporary files."""
        self._engine.close()

    def find(self, document_id: str) -> list[FoundRecord]:
        """What became of every record with this id, in the order of the source."""
        key, parts = document_id.encode(), self._spec.slice_partitions
        seed = self._spec.order_seed
        order = 0 if seed is None else order_key(seed, key)
        place = partition_of(key, parts) if seed is None else order_partition(order, parts)
        if not self._open(number for number, _ in self._keys if number % parts == place):
            return []
        self._engine.set(ids=[document_id], own_order=order)
        return [self._found(*row) for row in self._engine.rows("find_by_id")]

    def _open(self, partitions: Iterable[int]) -> bool:
        """Make the sidecars of these partitions known to SQL as `records`; False: there is none."""
        wanted = set(partitions)
        paths = [str(self._fetch(key)) for number, key in self._keys if number in wanted]
        if paths:
            self._engine.set(records_files=paths)
            self._engine.define(
                "records", "SELECT *, file_index FROM read_parquet(getvariable('records_files'))"
            )
        return bool(paths)

    def _found(  # noqa: PLR0913, PLR0917 - the columns of a record
        self,
        position: int,
        document_id: str,
        status: int,
        reason: str | None,
        value: float | None,
        threshold: float | None,
        order: int,
        split: int,
    ) -> FoundRecord:
        outcome = _OUTCOMES[status]
        if outcome != "row":
            return FoundRecord(document_id, outcome, reason=reason, value=value, threshold=threshold)
        name, shards = self._head.splits[split].name, self._head.splits[split].shards
        cut = _cut_of(shards, (order, position))
        listed = cut.drops if cut is not None else self._head.splits[split].drops
        drops = self._fetch(self._layout.drops(name, cut.number if cut else 0)) if listed.count else None
        if drops is not None and (drop := _drop_of(drops, position)) is not None:
            _, why, of = drop
            instead = self._at(of) if isinstance(of, int) else None
            dataset = of if isinstance(of, str) else None
            return FoundRecord(document_id, "rejected", reason=why, instead=instead, dataset=dataset)
        if cut is None:
            return FoundRecord(document_id, "row")
        shard = self._layout.shard(name, cut.number, len(shards))
        return FoundRecord(document_id, "row", shard, self._line(split, cut, (order, position), drops))

    def _at(self, position: int) -> FoundRecord | None:
        """What became of the record at a position of the source."""
        parts, own = self._spec.slice_partitions, slice_of_position(position)
        self._open(number for number, _ in self._keys if number // parts == own)
        self._engine.set(position=position)
        for row in self._engine.rows("find_by_position"):
            return self._found(*row)
        return None

    def _line(self, split: int, cut: ShardCut, key: Key, drops: Path | None) -> int:
        """The line of a row of a shard, from 1."""
        engine, parts = self._engine, self._spec.slice_partitions
        numbers = {number for number, _ in self._keys}
        if self._spec.order_seed is not None:
            ranges = {number: order_range(number % parts, parts) for number in numbers}
            numbers = {n for n, own in ranges.items() if own.start <= key[0] and cut.first[0] < own.stop}
        self._open(numbers)
        engine.clear("drops")
        if drops is not None:
            engine.set(drops_file=[str(drops)])
            engine.run("load_drops")
        engine.set(split=split, first_order=cut.first[0], first_position=cut.first[1])
        engine.set(last_order=key[0], last_position=key[1])
        engine.run("shard")
        return int(engine.rows("find_line")[0][0])


def _cut_of(shards: Sequence[ShardCut], key: Key) -> ShardCut | None:
    """The shard whose range has a key; the first one begins, and the last one ends, where the split does."""
    found = shards[0] if shards else None
    for cut in shards:
        if cut.first <= key:
            found = cut
    return found


def _drop_of(path: Path, position: int) -> Any:
    start = b"[%d," % position
    with path.open("rb") as file:
        return next((orjson.loads(line) for line in file if line.startswith(start)), None)
