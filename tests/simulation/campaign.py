"""Many schedules, on all cores."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import partial
from multiprocessing import get_context

from tests.simulation.mutants import CAUGHT, HARMLESS, planted
from tests.simulation.schedule import Verdict, run_schedule, undisturbed

_CHUNK = 25


def run_many(seeds: Sequence[int], mutant: str = "") -> Iterator[Verdict]:
    """The verdicts of schedules, in the order of their seeds, with a bug planted or without."""
    chunks = [seeds[start : start + _CHUNK] for start in range(0, len(seeds), _CHUNK)]
    digest = undisturbed()
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        for verdicts in pool.map(partial(_run_chunk, digest, mutant), chunks):
            yield from verdicts


def _run_chunk(digest: str, mutant: str, seeds: Sequence[int]) -> list[Verdict]:
    with planted((CAUGHT | HARMLESS)[mutant]) if mutant else nullcontext():
        return [run_schedule(seed, digest) for seed in seeds]


def first_caught(mutant: str, most: int) -> tuple[int, str]:
    """How many schedules it takes to catch a bug, and by what; (0, "") when `most` do not."""
    digest = undisturbed()
    with planted((CAUGHT | HARMLESS)[mutant]):
        for seed in range(1, most + 1):
            if problems := run_schedule(seed, digest).problems:
                return seed, problems[0]
    return 0, ""


def sums(verdicts: Sequence[Verdict]) -> Counter[str]:
    """What happened in all of them."""
    found: Counter[str] = Counter()
    for verdict in verdicts:
        found.update(verdict.counts)
    return found
