"""Memory does not grow with the dataset. `python -m tests.benchmarks.memory` measures a million documents."""

from pathlib import Path

import pytest

from tests.benchmarks.memory import measure
from tests.services import S3

SMALL, LARGE = 40_000, 200_000
MOST_MIB = 200 * 1e6 / (1 << 20)


@pytest.mark.timeout(900)
def test_memory_does_not_grow_with_the_documents(tmp_path: Path, kafka: str, seaweed: S3) -> None:
    found = measure(tmp_path, [SMALL, LARGE], kafka, seaweed)
    for process in ("producer", "worker", "run"):
        small, large = found[SMALL][process], found[LARGE][process]
        assert max(small + large) < MOST_MIB, found
        # A run may have had a large backlog once: what grows with the documents does so in every run.
        assert min(large) <= 1.15 * max(small), found
