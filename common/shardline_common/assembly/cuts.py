"""Cuts: into how many shards a split is cut, and where. Pure, over the rows of a split in their order."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shardline_common.assembly.arrays import numbers_of
from shardline_common.dataset.decision_rules import ShardRules
from shardline_common.errors import FailureCode, JobFailed
from shardline_common.job.hashing import MODULUS

# A row of a split as it is in the file: its key, and the sums of sizes and of id hashes up to and with it.
_ROW = [("order", "<u8"), ("position", "<i8"), ("bytes", "<i8"), ("hash_sum", "<u8")]
_STEPS = 256
_MOST_SHARDS = 2


class SplitRows:
    """The rows of one split in their order, in a file of 32 bytes a row. Memory holds none of them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._bytes = 0
        self._hash_sum = 0
        self._mapped: Any = None
        self.count = 0
        self.largest = 0
        path.unlink(missing_ok=True)

    def add(self, order: Any, position: Any, size: Any, id_hash: Any) -> None:
        """Append rows, by columns as NumPy arrays."""
        import numpy as np

        rows = np.empty(len(order), _ROW)
        rows["order"], rows["position"] = order, position
        rows["bytes"] = np.cumsum(size, dtype=np.int64) + self._bytes
        # Sums of unsigned numbers are mod 2^64 in NumPy, as the sums of the chains are.
        rows["hash_sum"] = np.cumsum(id_hash, dtype=np.uint64) + np.uint64(self._hash_sum)
        with self._path.open("ab") as file:
            file.write(rows.tobytes())
        self.count += len(rows)
        self.largest = max(self.largest, int(size.max()))
        self._bytes, self._hash_sum = int(rows["bytes"][-1]), int(rows["hash_sum"][-1])

    def sums(self, ends: Any) -> Any:
        """The bytes between each two neighbours of `ends`, which are numbers of rows that rise."""
        import numpy as np

        upto = self._rows()["bytes"][np.maximum(ends - 1, 0)]
        return np.diff(np.where(ends > 0, upto, 0))

    def cut(self, first: int, end: int) -> tuple[int, int, tuple[int, int], tuple[int, int]]:
        """Bytes and hash sum of the rows [first, end), and the keys of the first and the last one."""
        rows = self._rows()
        before = rows[first - 1] if first else None
        last = rows[end - 1]
        size = int(last["bytes"]) - (int(before["bytes"]) if before is not None else 0)
        hash_sum = (int(last["hash_sum"]) - (int(before["hash_sum"]) if before is not None else 0)) % MODULUS
        return size, hash_sum, self.key(first), self.key(end - 1)

    def key(self, place: int) -> tuple[int, int]:
        """The key of a row: (order, position)."""
        row = self._rows()[place]
        return int(row["order"]), int(row["position"])

    def close(self) -> None:
        """Remove the file."""
        self._mapped = None
        self._path.unlink(missing_ok=True)

    def _rows(self) -> Any:
        import numpy as np

        if self._mapped is None or len(self._mapped) != self.count:
            # An empty file cannot be mapped.
            self._mapped = np.memmap(self._path, _ROW, "r") if self.count else np.empty(0, _ROW)
        return self._mapped


def read_rows(batches: Iterable[Any], folder: Path, splits: int) -> list[SplitRows]:
    """The rows of each split.

    Args:
        batches: Arrow batches with split, order, position, size and id_hash, sorted by the first three.
        folder: where the files of the rows are.
        splits: how many splits there are.

    Raises:
        JobFailed: the rows are not sorted, or one comes twice (`conservation`).
    """
    rows = [SplitRows(folder / f"rows-{split}") for split in range(splits)]
    previous: Any = None
    for batch in batches:
        if not batch.num_rows:
            continue
        split, order, position, size, id_hash = map(numbers_of, batch.columns)
        previous = check_rises((split, order, position), previous)
        for start, end in runs(split):
            part = slice(start, end)
            rows[split[start]].add(order[part], position[part], size[part], id_hash[part])
    return rows


def runs(*columns: Any) -> Iterator[tuple[int, int]]:
    """The ranges in which the values of all columns stay the same."""
    import numpy as np

    changes = np.zeros(len(columns[0]) - 1, bool)
    for column in columns:
        changes |= column[1:] != column[:-1]
    ends = [*(np.flatnonzero(changes) + 1).tolist(), len(columns[0])]
    return zip([0, *ends], ends, strict=False)


def check_rises(columns: tuple[Any, Any, Any], previous: tuple[Any, ...] | None) -> tuple[Any, ...]:
    """Check that the lines of a batch rise by three columns, from the last line of the batch before on.

    Returns:
        The values of the last line.

    Raises:
        JobFailed: they do not, or two are equal (`conservation`).
    """
    rises = columns[2][1:] > columns[2][:-1]
    for column in (columns[1], columns[0]):
        rises = (column[1:] > column[:-1]) | ((column[1:] == column[:-1]) & rises)
    first = tuple(column[0] for column in columns)
    if not rises.all() or (previous is not None and first <= previous):
        raise JobFailed(
            FailureCode.CONSERVATION,
            "the sidecars have a record twice: two rows have the same place in the order",
            hint="run `shardline verify` on the dataset",
        )
    return tuple(column[-1] for column in columns)


@dataclass(frozen=True, slots=True)
class Cuts:
    """The cuts of a split: the ends of its shards as numbers of rows, from 0 on, and a warning or None."""

    ends: Any
    warning: str | None = None

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return len(self.ends) - 1

    @property
    def rows(self) -> int:
        """How many rows the shards have together; those behind them are the remainder."""
        return int(self.ends[-1])


def cut_split(name: str, rows: SplitRows, rules: ShardRules) -> Cuts:
    """Cut a split: shard i of n has the rows [i * R // n, (i + 1) * R // n) of R.

    A count that the job names is taken. Else n is the least multiple within the limit: the numbers from that
    of an average shard of `limit` bytes on are tried in steps of n // 256, and the first one is taken of
    which no shard is larger than the limit, or than the largest row. When none up to twice the first number
    is, the rows are too uneven, and the first number is taken, with a warning.

    Raises:
        JobFailed: equal shards are asked for, and there are fewer rows than shards (`too_few_rows`).
    """
    least = rules.multiple if rules.count is None and rules.multiple > 1 else rules.count or 0
    if rows.count < least:
        return _too_few_rows(name, rows, rules, least)
    if rules.count is not None:
        return Cuts(_ends(rows.count, rules.count, rules))
    total = int(rows.sums(_ends(rows.count, 1, rules))[0]) if rows.count else 0
    multiple = rules.multiple
    most = rows.count // multiple * multiple
    first = min(max(_rounded_up(-(-total // rules.limit), multiple), least), most)
    number, limit = first, max(rules.limit, rows.largest)
    while number <= min(most, _MOST_SHARDS * first) and number:
        ends = _ends(rows.count, number, rules)
        if rows.sums(ends).max() <= limit:
            return Cuts(ends)
        number += max(multiple, _rounded_up(number // _STEPS, multiple))
    ends = _ends(rows.count, first, rules)
    if not first:
        return Cuts(ends)
    largest = int(rows.sums(ends).max())
    return Cuts(
        ends,
        f"split {name}: its rows are too uneven for shards of at most {rules.limit:,} bytes; the largest of "
        f"{first:,} has {largest:,}",
    )


def _too_few_rows(name: str, rows: SplitRows, rules: ShardRules, least: int) -> Cuts:
    found = f"{rows.count:,} row{'s' * (rows.count != 1)}"
    text = f"split {name} has {found}, fewer than the {least:,} shards that the job asks for"
    if rules.equal:
        raise JobFailed(
            FailureCode.TOO_FEW_ROWS,
            text,
            hint="ask for fewer shards in output.shards, or leave out `equal`; submit it under a new id",
        )
    return Cuts(_ends(rows.count, rows.count, rules), f"{text}; each row is a shard")


def _ends(rows: int, shards: int, rules: ShardRules) -> Any:
    import numpy as np

    if not shards:
        return np.zeros(1, np.int64)
    used = rows // shards * shards if rules.equal else rows
    return np.arange(shards + 1, dtype=np.int64) * used // shards


def _rounded_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
