"""The results of the steps of a decision: JSON lines, create-only, from which another decider goes on.

The last line is an object with the step, what it was made from, facts, and the number and sha256 of the lines
before it. A result of other sidecars or other rules, or one that was cut off, is therefore refused.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import orjson

from shardline_common.assembly.arrays import numbers_of
from shardline_common.assembly.engine import Engine
from shardline_common.errors import FailureCode, JobFailed
from shardline_common.runtime.read_again import is_damaged

_MAX_TRAILER = 1 << 20
_CHUNK = 1 << 20
_LOADS = 3
Progress = Callable[[str, int, int], None]


class StepStore(Protocol):
    """Where results of steps are kept, for the decider that goes on after this one."""

    def load(self, name: str) -> Path | None:
        """The stored result of a step as a local file; None when there is none."""

    def save(self, name: str, path: Path) -> None:
        """Store a result, create-only. One that exists must be equal, because a step is a pure function.

        Raises:
            JobFailed: another result exists (`not_reproducible`).
        """


@dataclass(frozen=True, slots=True)
class StepResult:
    """A result of a step: its file, the number and sha256 of its lines, their bytes, and the facts."""

    path: Path
    lines: int
    sha256: str
    size: int
    facts: dict[str, Any]

    def entries(self) -> Iterator[list[Any]]:
        """The lines, one at a time."""
        with self.path.open("rb") as file:
            yield from map(orjson.loads, islice(file, self.lines))

    def without_trailer(self, path: Path) -> Path:
        """Write the lines alone to a file."""
        with self.path.open("rb") as file, path.open("wb") as copy:
            left = self.size
            while chunk := file.read(min(_CHUNK, left)):
                copy.write(chunk)
                left -= len(chunk)
        return path


class Steps:
    """Takes the result of a step from the store, or makes and stores it.

    Args:
        engine: reads the lines of results.
        folder: where results are written.
        made_from: a hash of sidecars and rules.
        store: where results are kept.
        on_progress: called with the name of the running step, and how many of how many parts of it are done.
    """

    def __init__(
        self, engine: Engine, folder: Path, made_from: str, store: StepStore, on_progress: Progress
    ) -> None:
        self._engine, self._folder, self._made_from = engine, folder, made_from
        self._store, self._on_progress = store, on_progress

    def begin(self, name: str, done: int = 0, parts: int = 1) -> None:
        """Say which step runs, and how far it is."""
        self._engine.check()
        self._on_progress(name, done, parts)

    def take(self, name: str, make: Callable[[dict[str, Any]], Iterable[Any]]) -> StepResult:
        """The result of a step, whose lines SQL then reads as `step`.

        Args:
            name: the name of the step.
            make: gives the lines as Arrow batches, and fills the facts.
        """
        self.begin(name)
        result = self._stored(name)
        if result is None:
            facts: dict[str, Any] = {}
            result = write_step(self._folder / f"{name}.jsonl", self._made_from, make(facts), facts)
            self._store.save(name, result.path)
        self._engine.set(step=[str(result.path)])
        self._engine.run("load_step")
        return result

    def _stored(self, name: str) -> StepResult | None:
        """The stored result of a step. A damaged one is loaded again: one answer is no fact about it."""
        for left in reversed(range(_LOADS)):
            if (stored := self._store.load(name)) is None:
                return None
            try:
                return read_step(stored, name, self._made_from)
            except JobFailed as error:
                if not (is_damaged(error) and left):
                    raise
        raise AssertionError("the last load returns or raises")


def write_step(path: Path, made_from: str, batches: Iterable[Any], facts: dict[str, Any]) -> StepResult:
    """Write the result of a step.

    Args:
        path: the file; its stem is the name of the step.
        made_from: what the step was made from: a hash of sidecars and rules.
        batches: Arrow batches of lines, whose first column rises, with the text of the line in `line`.
        facts: what the last line says besides; filled until `batches` end.

    Raises:
        JobFailed: the first column falls, or a line comes twice (`conservation`).
    """
    digest, count, size = sha256(), 0, 0
    with path.open("wb") as file:
        previous: Any = None
        for batch in batches:
            if not batch.num_rows:
                continue
            previous = _check_rises(path.stem, numbers_of(batch.column(0)), previous)
            text = text_of(batch.column("line"))
            digest.update(text)
            file.write(text)
            count, size = count + batch.num_rows, size + len(text)
        trailer = {
            "step": path.stem,
            "made_from": made_from,
            "facts": facts,
            "lines": count,
            "sha256": digest.hexdigest(),
        }
        file.write(orjson.dumps(trailer) + b"\n")
    return StepResult(path, count, digest.hexdigest(), size, facts)


def read_step(path: Path, name: str, made_from: str) -> StepResult:
    """Prove a stored result of the step `name`.

    Raises:
        JobFailed: it is that of another step, of other sidecars or rules (`not_reproducible`), or its lines
        are not
            those that were written (`dataset_damaged`).
    """
    with path.open("rb") as file:
        length = file.seek(0, os.SEEK_END)
        file.seek(max(0, length - _MAX_TRAILER))
        tail = file.read().removesuffix(b"\n")
        last = tail.rpartition(b"\n")[2]
        size = length - len(last) - 1
        try:
            trailer = orjson.loads(last)
            found = (trailer["step"], trailer["made_from"])
            wanted = (trailer["lines"], trailer["sha256"])
            facts = trailer["facts"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise _damaged(name, "its last line is not that of a step") from None
        if found != (name, made_from):
            raise JobFailed(
                FailureCode.NOT_REPRODUCIBLE,
                f"the step {name} was decided from other sidecars or by other rules",
                hint="the source gave other documents this time; submit a new job",
            )
        file.seek(0)
        digest, lines, left = sha256(), 0, size
        while left > 0 and (chunk := file.read(min(_CHUNK, left))):
            digest.update(chunk)
            lines, left = lines + chunk.count(b"\n"), left - len(chunk)
    if (lines, digest.hexdigest()) != wanted:
        raise _damaged(
            name, f"it has {lines} lines with another sha256 than the {wanted[0]} that were written"
        )
    return StepResult(path, lines, digest.hexdigest(), size, facts)


def text_of(lines: Any) -> memoryview:
    """The bytes of all lines of an Arrow array of text, which are one behind the other in memory."""
    offsets = memoryview(lines.buffers()[1]).cast("i")
    return memoryview(lines.buffers()[2])[offsets[lines.offset] : offsets[lines.offset + len(lines)]]


def _check_rises(name: str, values: Any, previous: Any) -> Any:
    rises = previous is None or values[0] >= previous
    if not rises or (values[1:] < values[:-1]).any():
        raise JobFailed(FailureCode.CONSERVATION, f"the lines of the step {name} are not in order")
    return values[-1]


def _damaged(name: str, what: str) -> JobFailed:
    return JobFailed(
        FailureCode.DATASET_DAMAGED,
        f"the result of the step {name} is damaged: {what}",
        hint=f"delete the object of the step {name} below _staged/, then retry the job",
    )
