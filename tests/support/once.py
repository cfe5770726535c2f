"""Results that are expensive to compute: one worker computes each, for all workers of a run."""

import os
from collections.abc import Callable
from fcntl import LOCK_EX, flock

import pytest


def once_per_run(factory: pytest.TempPathFactory, name: str, compute: Callable[[], str]) -> str:
    """Return the text that `compute` gives, from the first worker that asks for it."""
    folder = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    found = folder / f"{name}.txt"
    with (folder / f"{name}.lock").open("w") as lock:
        flock(lock, LOCK_EX)
        if not found.exists():
            found.write_text(compute())
        return found.read_text()
