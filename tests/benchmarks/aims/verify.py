"""`shardline verify` of a local dataset, beside the sha256 of the same bytes."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.aims.rounds import Aim, Figures, Options
from tests.benchmarks.aims.run import START, corpus, environment, run_usage, slope
from tests.benchmarks.common import write_corpus
from tests.benchmarks.process_tree import TreeUsage, run_tree

AIMS = (
    Aim("verify", "verify", "CPU-s/M", bound=8),
    Aim("verify, beside sha256", "verify", "CPU-s/M", "sha256"),
    Aim("verify before", "verify before", "CPU-s/M", "sha256"),
    Aim("verify: its busiest process", "busiest", "CPU-s/M"),
)
_SHA256 = """
import hashlib, pathlib, sys
for path in pathlib.Path(sys.argv[1]).rglob("*.jsonl"):
    with path.open("rb") as file:
        hashlib.file_digest(file, "sha256")
"""


class Verify:
    """A small and a large dataset; the cost of a document is the slope between them."""

    aims = AIMS

    @contextmanager
    def measuring(self, folder: Path, options: Options) -> Iterator[Callable[[int], Figures]]:
        """Make both datasets."""
        sizes = (START, options.documents)
        for count in sizes:
            write_corpus(corpus(folder, count), count)
            run_usage(folder, count)
            (folder / "output").rename(folder / str(count))

        def once(_: int) -> Figures:
            verify, hashed = [], []
            datasets = [str(folder / str(count) / "bench" / "bench") for count in sizes]
            for dataset in datasets:
                verify.append(verified(sys.executable, dataset, folder))
                hashed.append(run_tree([sys.executable, "-c", _SHA256, dataset], folder / "sha256.log"))
            earlier = [verified(options.before, one, folder) for one in datasets if options.before]
            before = {"verify before": slope([one.cpu for one in earlier], sizes)} if earlier else {}
            return before | {
                "verify": slope([one.cpu for one in verify], sizes),
                "busiest": slope([one.busiest for one in verify], sizes),
                "sha256": slope([one.cpu for one in hashed], sizes),
            }

        yield once


def verified(python: str, dataset: str, folder: Path) -> TreeUsage:
    """`shardline verify` of a dataset."""
    command = [python, "-m", "shardline", "verify", dataset]
    return run_tree(command, folder / "verify.log", environment())
