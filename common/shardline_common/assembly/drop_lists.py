"""The drop lists of a decision, as files."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, Self

from shardline_common.assembly.arrays import numbers_of
from shardline_common.assembly.cuts import check_rises, runs
from shardline_common.assembly.steps import text_of
from shardline_common.dataset.decision import Counted, DropList, Key, Reason, ShardCut

_REASONS = tuple(Reason)


@dataclass(slots=True)
class WrittenDrops:
    """Drop lists that were written: their files and heads by split and number, and the counts by reason."""

    files: dict[tuple[str, int], Path] = field(default_factory=dict)
    lists: dict[tuple[str, int], DropList] = field(default_factory=dict)
    dropped: dict[Reason, Counted] = field(default_factory=dict)


def write_drops(
    batches: Iterable[Any], folder: Path, splits: Mapping[str, Sequence[ShardCut]]
) -> WrittenDrops:
    """Write each drop list to `<split>/<number>.jsonl` in a folder.

    A dropped row is in the list of the last shard of its split that begins before its place in the order,
    else in that of the first one.

    Args:
        batches: Arrow batches with split, order, position, reason, id_hash and line, sorted by the first
            three.
        folder: where the files go.
        splits: the shards of each split.

    Raises:
        JobFailed: the drops are not sorted, or one comes twice (`conservation`).
    """
    written = WrittenDrops()
    names, starts = list(splits), [[shard.first for shard in shards] for shards in splits.values()]
    previous: Any = None
    with _ListWriter(folder, written) as writer:
        for batch in batches:
            if not batch.num_rows:
                continue
            split, order, position, reason, id_hash = map(numbers_of, batch.columns[:5])
            previous = check_rises((split, order, position), previous)
            _count(written.dropped, reason, id_hash)
            for begin, end in runs(split):
                keys = order[begin:end], position[begin:end]
                for number, first, next_first in _by_shard(starts[split[begin]], *keys):
                    writer.begin(names[split[begin]], number)
                    writer.add(batch.column("line").slice(begin + first, next_first - first))
    return written


def _by_shard(starts: Sequence[Key], order: Any, position: Any) -> Iterator[tuple[int, int, int]]:
    """The ranges of sorted keys by the shards whose lists they belong to: number, begin, end."""
    begin = 0
    while begin < len(order):
        key = (int(order[begin]), int(position[begin]))
        number = max(bisect_right(starts, key) - 1, 0)
        end = len(order)
        if number + 1 < len(starts):
            next_order, next_position = starts[number + 1]
            same = slice(order.searchsorted(next_order), order.searchsorted(next_order, "right"))
            end = int(same.start + position[same].searchsorted(next_position))
        yield number, begin, end
        begin = end


def _count(dropped: dict[Reason, Counted], reasons: Any, id_hashes: Any) -> None:
    for code, reason in enumerate(_REASONS):
        hashes = id_hashes[reasons == code]
        if len(hashes):
            # Sums of unsigned numbers are mod 2^64 in NumPy.
            found = Counted(len(hashes), int(hashes.sum()))
            dropped[reason] = dropped.get(reason, Counted()).plus(found)


class _ListWriter:
    """Writes one list after the other."""

    def __init__(self, folder: Path, written: WrittenDrops) -> None:
        self._folder, self._written = folder, written
        self._key: tuple[str, int] | None = None
        self._file: BinaryIO | None = None
        self._digest, self._count = sha256(), 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def begin(self, split: str, number: int) -> None:
        """Go on with this list, or begin it."""
        if self._key == (split, number):
            return
        self._end()
        self._key = (split, number)
        self._digest, self._count = sha256(), 0
        path = self._folder / split / f"{number:05d}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("wb")
        self._written.files[self._key] = path

    def add(self, lines: Any) -> None:
        """Add lines to the list."""
        text = text_of(lines)
        self._digest.update(text)
        self._count += len(lines)
        if self._file is not None:
            self._file.write(text)

    def _end(self) -> None:
        if self._file is not None and self._key is not None:
            self._file.close()
            self._written.lists[self._key] = DropList(self._count, self._digest.hexdigest())
            self._file = None
