"""Which rows of a split one of several readers reads. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from shardline_common.dataset.published import Shard


@dataclass(frozen=True, slots=True)
class ShardRows:
    """The rows [first, after) of a shard."""

    shard: Shard
    first: int
    after: int

    @property
    def rows(self) -> int:
        """How many they are."""
        return self.after - self.first


def part_of(rows: int, number: int, count: int) -> tuple[int, int]:
    """The rows [first, after) of part `number` of `count`: each row is in one part, parts differ by one row.

    Assembled datasets cut shards by the same rule. So where the shards divide by the parts, a part is whole
    shards.
    """
    return rows * number // count, rows * (number + 1) // count


def shard_rows(shards: Sequence[Shard], first: int, after: int) -> list[ShardRows]:
    """The rows [first, after) of a split, by shard. A shard without any of them is left out."""
    found, start = [], 0
    for shard in shards:
        low, high = max(first, start), min(after, start + shard.rows)
        if low < high:
            found.append(ShardRows(shard, low - start, high - start))
        start += shard.rows
    return found
