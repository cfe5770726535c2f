"""`python -m tests.simulation`: many schedules, one seed, or how soon each planted bug is caught."""

import argparse
import time
from functools import partial

from rich.console import Console

from tests.simulation.assembled_mutants import ASSEMBLED
from tests.simulation.campaign import catch_all, run_many, sums
from tests.simulation.mutants import CAUGHT, CAUGHT_BY_TEST
from tests.simulation.scenario import scenario
from tests.simulation.slice_mutants import SLICED

say = partial(Console(soft_wrap=True).print, markup=False, highlight=False)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=1, help="first seed")
    parser.add_argument("--schedules", type=int, default=1000, help="how many seeds")
    parser.add_argument("--slices", type=int, default=1, help="into how many slices the source is cut")
    parser.add_argument("--assembled", action="store_true", help="jobs whose dataset is assembled")
    parser.add_argument("--trace", action="store_true", help="print what identifies a schedule")
    parser.add_argument(
        "--mutants", action="store_true", help="plant each bug, and print how many schedules catch it"
    )
    options = parser.parse_args()
    if options.mutants:
        _print_mutants(options.schedules)
    else:
        seeds = range(options.first, options.first + options.schedules)
        _run(seeds, trace=options.trace, slices=options.slices, assembled=options.assembled)


def _print_mutants(most: int) -> None:
    say("| planted bug | schedules until caught | by |\n|---|---|---|")
    for name, schedules, problem in catch_all([*CAUGHT, *SLICED, *ASSEMBLED], most):
        say(f"| {name} | {schedules or f'none of {most}'} | {problem[:160]} |")
    for name, (_, test) in CAUGHT_BY_TEST.items():
        say(f"| {name} | by a test | {test} |")


def _run(seeds: range, *, trace: bool, slices: int, assembled: bool) -> None:
    started = time.monotonic()
    verdicts = list(run_many(seeds, slices, assembled=assembled))
    seconds = time.monotonic() - started
    broken = [verdict for verdict in verdicts if verdict.problems]
    say(
        f"{len(broken)} of {len(seeds)} schedules break a guarantee; {60 * len(seeds) / seconds:.0f} "
        f"schedules a minute, {sum(verdict.seconds for verdict in verdicts):.0f} virtual seconds"
    )
    for verdict in broken[:10]:
        spec = scenario(verdict.seed, slices, assembled=assembled).spec
        say(f"  seed {verdict.seed}: {verdict.problems[0][:300]}\n    its job: {spec}")
    say("  " + ", ".join(f"{count} {what}" for what, count in sorted(sums(verdicts).items())))
    if trace:
        for verdict in verdicts:
            say(f"  seed {verdict.seed}: trace {verdict.trace}")


if __name__ == "__main__":
    main()
