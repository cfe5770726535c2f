"""The drop lists of a decision, as files."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, Self

from shardline_common.assembly.cuts import runs
from shardline_common.assembly.steps import text_of
from shardline_common.dataset.decision import Counted, DropList, Reason
from shardline_common.errors import FailureCode, JobFailed

_REASONS = tuple(Reason)


@dataclass(slots=True)
class WrittenDrops:
    """Drop lists that were written: their files and heads by split and number, and the counts by reason."""

    files: dict[tuple[str, int], Path] = field(default_factory=dict)
    lists: dict[tuple[str, int], DropList] = field(default_factory=dict)
    dropped: dict[Reason, Counted] = field(default_factory=dict)


def write_drops(batches: Iterable[Any], folder: Path, splits: Sequence[str]) -> WrittenDrops:
    """Write each drop list to `<split>/<number>.jsonl` in a folder.

    Args:
        batches: Arrow batches with split, number, position, reason, id_hash and line, sorted by the first
            three.
        folder: where the files go.
        splits: the names of the splits.

    Raises:
        JobFailed: the drops are not sorted, or one comes twice (`conservation`).
    """
    written = WrittenDrops()
    with _ListWriter(folder, written) as writer:
        for batch in batches:
            split, number, position, reason, id_hash = (batch.column(place).to_numpy() for place in range(5))
            _count(written.dropped, reason, id_hash)
            for start, end in runs(split, number):
                writer.begin(splits[split[start]], int(number[start]))
                writer.add(position[start:end], batch.column("line").slice(start, end - start))
    return written


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
        self._digest, self._count, self._last = sha256(), 0, -1

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
        self._digest, self._count, self._last = sha256(), 0, -1
        path = self._folder / split / f"{number:05d}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("wb")
        self._written.files[self._key] = path

    def add(self, positions: Any, lines: Any) -> None:
        """Add lines to the list."""
        if positions[0] <= self._last or (positions[1:] <= positions[:-1]).any():
            raise JobFailed(FailureCode.CONSERVATION, f"a record is in the drop list of {self._key} twice")
        self._last = positions[-1]
        text = text_of(lines)
        self._digest.update(text)
        self._count += len(positions)
        if self._file is not None:
            self._file.write(text)

    def _end(self) -> None:
        if self._file is not None and self._key is not None:
            self._file.close()
            self._written.lists[self._key] = DropList(self._count, self._digest.hexdigest())
            self._file = None
