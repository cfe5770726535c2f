"""Many schedules, on all cores."""

import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

from tests.simulation.assembled_mutants import ASSEMBLED, FIRST_LOOK, HARMLESS_ASSEMBLED
from tests.simulation.mutants import CAUGHT, HARMLESS, planted
from tests.simulation.schedule import Verdict, run_schedule
from tests.simulation.slice_mutants import SLICED

_CHUNK = 25
SLICES = 3
"""Into how many slices the schedules of two producers cut their source."""


def run_many(seeds: Sequence[int], slices: int = 1, *, assembled: bool = False) -> Iterator[Verdict]:
    """The verdicts of schedules, in the order of their seeds. Arguments as those of `run_schedule`."""
    chunks = [seeds[start : start + _CHUNK] for start in range(0, len(seeds), _CHUNK)]
    with _processes() as pool:
        for verdicts in pool.map(partial(_run_chunk, slices=slices, assembled=assembled), chunks):
            yield from verdicts


def _run_chunk(seeds: Sequence[int], slices: int, *, assembled: bool) -> list[Verdict]:
    return [run_schedule(seed, slices=slices, assembled=assembled) for seed in seeds]


def catch_all(names: Collection[str], most: int, *, quick: bool = False) -> Iterator[tuple[str, int, str]]:
    """Plant each of these bugs: its name, and the result of `first_caught`."""
    with _processes() as pool:
        found = pool.map(partial(first_caught, most=most, quick=quick), names)
        for name, (schedules, problem) in zip(names, found, strict=True):
            yield name, schedules, problem


def first_caught(mutant: str, most: int, *, quick: bool = False) -> tuple[int, str]:
    """The first of `most` schedules that catches a bug, and by what; (0, "") when none does.

    `quick`: begin with a schedule that is known to catch it.
    """
    known = [FIRST_LOOK[mutant]] if quick and mutant in FIRST_LOOK else []
    slices, of_assembled = SLICES if mutant in SLICED else 1, ASSEMBLED | HARMLESS_ASSEMBLED
    assembled = mutant in of_assembled
    with planted((CAUGHT | HARMLESS | SLICED | of_assembled)[mutant]):
        for seed in (*known, *range(1, most + 1)):
            if problems := run_schedule(seed, slices=slices, assembled=assembled).problems:
                return seed, problems[0]
    return 0, ""


def _processes() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(os.cpu_count(), get_context("spawn"))


def sums(verdicts: Sequence[Verdict]) -> Counter[str]:
    """What happened in all of them."""
    found: Counter[str] = Counter()
    for verdict in verdicts:
        found.update(verdict.counts)
    return found
