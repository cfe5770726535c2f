"""Decisions by synthetic sidecars, beside dicts in memory that find the same duplicates.

One in ten records repeats the content of another, and in each band one in thirty has the hash of others.
"""

import json
import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import Any, Self

from shardline_common.assembly.decider import Decider
from shardline_common.assembly.inputs import Input, Inputs
from shardline_common.assembly.sidecar import BANDS, RECORDS, read_sidecar, sidecar_batches, write_sidecar
from shardline_common.dataset.chain import Totals
from shardline_common.dataset.decision_rules import NearRules, Rules, ShardRules

_SEGMENT = 250_000
_BANDS = 14
_ALIKE = 30
_EXACT = Rules(
    duplicate_ids="first",
    exact=True,
    ignore_case=False,
    against=(),
    near=None,
    sample=None,
    splits=(("validation", 0.05), ("train", 0.95)),
    exact_splits=False,
    order_seed=0,
    shards=ShardRules(count=None, multiple=1, limit=64 << 20, equal=False),
)
_RULES = {
    "exact": _EXACT,
    "near": replace(_EXACT, exact=False, near=NearRules(_BANDS, 8, 0, verify=None, remove=True)),
}


class _NoSteps:
    """Keeps no results."""

    def load(self, name: str) -> Path | None:
        """Nothing was stored."""

    def save(self, name: str, path: Path) -> None:
        """Nothing is stored."""


def write_sidecars(folder: Path, count: int, kinds: set[str]) -> None:
    """Sidecars of so many records in segments of 250,000, and their totals."""
    import numpy as np

    random = np.random.default_rng(1)
    positions = random.permutation(count)
    contents = np.arange(count)
    repeats = random.random(count) < 0.1
    contents[repeats] = random.integers(0, count, int(repeats.sum()))
    totals = Totals()
    for start in range(0, count, _SEGMENT):
        own = positions[start : start + _SEGMENT]
        rows = len(own)
        order, group, hashes = (random.integers(0, 2**64, rows, "uint64") for _ in range(3))
        own = own[np.argsort(order)]
        order.sort()
        sizes = random.integers(1000, 3000, rows)
        columns: dict[str, Any] = dict.fromkeys((name for name, _ in RECORDS.columns), [None] * rows)
        columns |= {
            "position": own,
            "id": [f"document-{position:012d}" for position in own.tolist()],
            "status": np.zeros(rows, "int8"),
            "order": order,
            "content": [int(content).to_bytes(16, "big") for content in contents[own]],
            "group": group,
            "id_hash": hashes,
            "offset": np.cumsum(sizes) - sizes,
            "size": sizes,
        }
        write_sidecar(folder / f"records-{start}.parquet", RECORDS, [list(columns.values())])
        sums = Totals(rows=rows, bytes=int(sizes.sum()), hash_sum=int(hashes.sum()))
        totals = totals.plus(sums)
        if "near" in kinds:
            write_sidecar(folder / f"bands-{start}.parquet", BANDS, _bands(own, count, random))
    (folder / "totals.json").write_text(json.dumps([totals.rows, totals.bytes, totals.hash_sum]))


def _bands(positions: Any, count: int, random: Any) -> Iterator[list[Any]]:
    import numpy as np

    for band in range(_BANDS):
        hashes = random.integers(0, 2**64, len(positions), "uint64")
        alike = random.integers(0, _ALIKE, len(positions)) == 0
        hashes[alike] = (positions[alike] % (count // _ALIKE + 1)).astype("uint64") * 2654435761 + band
        order = np.lexsort((positions, hashes))
        yield [np.full(len(positions), band, "int16"), hashes[order], positions[order]]


def decide(folder: Path, kind: str, memory: int, threads: int) -> dict[str, float]:
    """Decide once, in this process: CPU-seconds of each step and in all, peaks of memory and spill in MiB."""
    rows, size, hash_sum = json.loads((folder / "totals.json").read_text())
    files = {
        name: [Input(path.name, path, "") for path in sorted(folder.glob(f"{name}-*"))]
        for name in ("records", "bands")
    }
    totals = Totals(rows=rows, bytes=size, hash_sum=hash_sum)
    inputs = Inputs(totals, files["records"], files["bands"] if kind == "near" else ())
    steps: dict[str, float] = {}
    before = last = time.process_time()
    running = "inputs"

    def on_progress(name: str, _done: int, _parts: int) -> None:
        nonlocal running, last
        now = time.process_time()
        steps[running] = steps.get(running, 0.0) + now - last
        running, last = name, now

    with tempfile.TemporaryDirectory(dir=folder) as work, _Spill(Path(work)) as spill:
        decision = Decider(Path(work) / "decision", inputs, _RULES[kind], memory << 20, threads).run(
            _NoSteps(), on_progress
        )
    on_progress("end", 1, 1)
    cost = time.process_time() - before
    return {**steps, "all": cost, "peak": peak(), "spill": spill.peak, "kept": decision.head.kept.records}


class _Spill(Thread):
    """Looks every half second how many MiB the files of a decision have."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.peak = 0.0
        self._folder = folder
        self._done = Event()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()

    def run(self) -> None:
        """Look until the end."""
        while not self._done.wait(0.5):
            self.peak = max(self.peak, sum(map(_size, self._folder.rglob("*"))) / (1 << 20))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def prove(folder: Path) -> dict[str, float]:
    """Read and hash all sidecars, as a worker does before it decides."""
    before = time.process_time()
    for path in sorted(folder.glob("*.parquet")):
        read_sidecar(path, RECORDS if path.name.startswith("records") else BANDS)
    return {"all": time.process_time() - before, "peak": peak()}


def by_dicts(folder: Path, kind: str) -> dict[str, float]:
    """The same duplicates by dicts: the first position of each content, or of each hash of a band."""
    before = time.process_time()
    first: dict[Any, int] = {}
    others: set[int] = set()
    if kind == "exact":
        for path in sorted(folder.glob("records-*")):
            for batch in sidecar_batches(path, RECORDS):
                positions = batch.column("position").to_pylist()
                for content, position in zip(batch.column("content").to_pylist(), positions, strict=True):
                    _note(first, others, content, position)
    else:
        for path in sorted(folder.glob("bands-*")):
            for batch in sidecar_batches(path, BANDS):
                band, hashes, positions = (column.to_pylist() for column in batch.columns)
                for value, position in zip(zip(band, hashes, strict=True), positions, strict=True):
                    _note(first, others, value, position)
    return {"all": time.process_time() - before, "peak": peak(), "dropped": len(others)}


def _note(first: dict[Any, int], others: set[int], value: Any, position: int) -> None:
    known = first.setdefault(value, position)
    if known != position:
        first[value] = min(known, position)
        others.add(max(known, position))


def peak() -> float:
    """The peak memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
