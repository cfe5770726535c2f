"""`python -m tests.simulation`: many schedules, one seed, or how often each planted bug is caught."""

import argparse
import time
from functools import partial

from rich.console import Console

from tests.simulation.campaign import run_many, sums
from tests.simulation.mutants import CAUGHT, HARMLESS

say = partial(Console(soft_wrap=True).print, markup=False, highlight=False)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=1, help="first seed")
    parser.add_argument("--schedules", type=int, default=1000, help="how many seeds")
    parser.add_argument("--trace", action="store_true", help="print what identifies a schedule")
    parser.add_argument(
        "--mutants", action="store_true", help="plant each bug, and count the schedules that catch it"
    )
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.schedules)
    for mutant in [*CAUGHT, *HARMLESS] if options.mutants else [""]:
        _report(seeds, mutant, trace=options.trace)


def _report(seeds: range, mutant: str, *, trace: bool) -> None:
    started = time.monotonic()
    verdicts = list(run_many(seeds, mutant))
    seconds = time.monotonic() - started
    broken = [verdict for verdict in verdicts if verdict.problems]
    say(
        f"{mutant or 'as it is'}: {len(broken)} of {len(seeds)} schedules break a guarantee; "
        f"{60 * len(seeds) / seconds:.0f} schedules a minute, {sum(v.seconds for v in verdicts):.0f} "
        f"virtual seconds"
    )
    for verdict in broken[: 1 if mutant else 10]:
        say(f"  seed {verdict.seed}: {verdict.problems[0][:300]}")
    if not mutant:
        say("  " + ", ".join(f"{count} {what}" for what, count in sorted(sums(verdicts).items())))
    if trace:
        for verdict in verdicts:
            say(f"  seed {verdict.seed}: trace {verdict.trace}")


if __name__ == "__main__":
    main()
