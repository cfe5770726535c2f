"""The rows of one shard of a decision: in which segments they are, where, and in which order."""

from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from shardline_common.assembly.arrays import numbers_of
from shardline_common.assembly.engine import Engine
from shardline_common.assembly.extra import assembly_extra
from shardline_common.assembly.places import define_places, load_moved
from shardline_common.assembly.sidecar import RECORDS, damaged_sidecar
from shardline_common.dataset.decision import Counted, DecisionHead, DropList, Key, ShardCut
from shardline_common.errors import FailureCode, JobFailed

_CHUNK = 1 << 20


def key_range(path: Path) -> tuple[Key, Key] | None:
    """Bounds of the keys (order, position) of a sidecar of records, by its statistics; None without lines.

    All keys are within these bounds, which may be wider than the keys are.

    Raises:
        JobFailed: the file is no sidecar (`dataset_damaged`).
        UsageError: pyarrow is not installed.
    """
    with assembly_extra():
        import pyarrow as pa
        from pyarrow.parquet import ParquetFile
    try:
        with ParquetFile(path) as file:
            metadata = file.metadata
            places = [file.schema_arrow.names.index(name) for name in ("order", "position")]
            groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
            columns = [[group.column(place).statistics for place in places] for group in groups]
    except (pa.ArrowException, OSError, ValueError) as error:
        raise damaged_sidecar(path, RECORDS, str(error)) from None
    if not columns:
        return None
    order, position = zip(*columns, strict=True)
    first = (min(one.min for one in order), min(one.min for one in position))
    last = (max(one.max for one in order), max(one.max for one in position))
    return first, last


def overlaps(bounds: tuple[Key, Key] | None, shard: ShardCut) -> bool:
    """Whether a sidecar with these bounds may have rows of the shard."""
    return bounds is not None and bounds[0] <= shard.last and shard.first <= bounds[1]


class ShardReader:
    """Reads the rows of shards of one decision, on one thread.

    Args:
        folder: a folder of its own for temporary files; removed by `close`.
        head: the decision.
        moved: the list of the moved groups; None where the head has none.
        memory_bytes: how much memory DuckDB may take.
        threads: how many threads it may use.

    Raises:
        JobFailed: the moved groups are not those of the decision (`dataset_damaged`).
    """

    def __init__(
        self, folder: Path, head: DecisionHead, moved: Path | None, memory_bytes: int, threads: int
    ) -> None:
        self._head = head
        _prove(moved, head.moved or DropList(), "the list of moved groups")
        self._engine = Engine(folder, memory_bytes, threads)
        self._engine.run("shard_setup")
        define_places(self._engine, [split.below for split in head.splits])
        if moved is not None:
            load_moved(self._engine, moved)

    def rows(self, split: str, number: int, sidecars: Sequence[Path], drops: Path | None) -> Iterator[Any]:
        """The rows of a shard in their order, as Arrow batches.

        Args:
            split: the split.
            number: the number of the shard.
            sidecars: the sidecars of records that may have rows of the shard, which the caller has proven.
            drops: its drop list; None when it is empty.

        Yields:
            Batches with `segment` (the index in `sidecars`), `offset` and `size` in the staged rows of that
            segment, `id_hash`, `order` and `position`.

        Raises:
            JobFailed: the drop list is not that of the decision (`dataset_damaged`), or, behind the last
                batch, the rows are not those that were decided (`conservation`).
        """
        cut = self._head.split(split).shards[number]
        _prove(drops, cut.drops, f"the drop list of shard {number} of {split}")
        engine, place = self._engine, [one.name for one in self._head.splits].index(split)
        engine.set(records_files=[str(path) for path in sidecars])
        engine.define("records", "SELECT *, file_index FROM read_parquet(getvariable('records_files'))")
        engine.clear("drops")
        if drops is not None:
            engine.set(drops_file=[str(drops)])
            engine.run("load_drops")
        engine.set(split=place, first_order=cut.first[0], first_position=cut.first[1])
        engine.set(last_order=cut.last[0], last_position=cut.last[1])
        engine.run("shard")
        found, size, keys = Counted(), 0, []
        for batch in engine.stream("shard_rows"):
            if batch.num_rows:
                hashes = numbers_of(batch.column("id_hash"))
                # Sums of unsigned numbers are mod 2^64 in NumPy.
                found = found.plus(Counted(len(hashes), int(hashes.sum())))
                size += int(numbers_of(batch.column("size")).sum())
                order, position = batch.column("order"), batch.column("position")
                keys.append([(order[at].as_py(), position[at].as_py()) for at in (0, -1)])
                yield batch
        ends = (keys[0][0], keys[-1][1]) if keys else None
        if (found, size, ends) != (Counted(cut.rows, cut.hash_sum), cut.bytes, (cut.first, cut.last)):
            raise JobFailed(
                FailureCode.CONSERVATION,
                f"shard {number} of {split} should have {cut.rows} rows of {cut.bytes} bytes, the sidecars "
                f"give {found.records} of {size}",
                hint="run `shardline verify` on the dataset",
            )

    def interrupt(self) -> None:
        """Stop reading, which raises DecisionInterrupted. May be called from any thread, at any time."""
        self._engine.interrupt()

    def close(self) -> None:
        """Remove the temporary files."""
        self._engine.close()


def _prove(path: Path | None, expected: DropList, what: str) -> None:
    """Check that a file has the lines that were decided."""
    digest, count = sha256(), 0
    if path is not None:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                count += chunk.count(b"\n")
    if DropList(count, digest.hexdigest()) != expected:
        raise JobFailed(
            FailureCode.DATASET_DAMAGED,
            f"{what} is not that of the decision: it has {count} lines, and {expected.count} were written",
            hint="restore the objects below _state/decision/ from a backup",
        )
