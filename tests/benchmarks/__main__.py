"""`make bench`: what Shardline costs now, beside ceilings from the same round, and what is aimed at."""

import argparse
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.benchmarks.aims.gateway import GatewayStream
from tests.benchmarks.aims.kafka import OnKafka
from tests.benchmarks.aims.postgres import FromPostgres
from tests.benchmarks.aims.rounds import Group, Options, measure, show
from tests.benchmarks.aims.run import Run
from tests.benchmarks.aims.slices import Slices
from tests.benchmarks.aims.verify import Verify

GROUPS: Mapping[str, type[Group]] = {
    "run": Run,
    "verify": Verify,
    "kafka": OnKafka,
    "postgres": FromPostgres,
    "slices": Slices,
    "gateway": GatewayStream,
}


def main() -> None:
    """Measure the groups that are asked for, and print each table, then all in one."""
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--documents", type=int, default=100_000, help="of 2 KB each")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join(GROUPS), help=f"of {', '.join(GROUPS)}")
    parser.add_argument("--before", help="python of an earlier version, measured in the same rounds")
    given = parser.parse_args()
    names = given.only.split(",")
    if unknown := set(names) - set(GROUPS):
        parser.error(f"--only: there is no {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")
    options = Options(given.documents, given.rounds, os.cpu_count() or 1, given.before)
    found = []
    with tempfile.TemporaryDirectory(prefix="shardline-bench-") as folder:
        for name in names:
            found.append(measure(GROUPS[name](), Path(folder) / name, options))
            show(found[-1:], options)
    if len(found) > 1:
        show(found, options)


if __name__ == "__main__":
    main()
