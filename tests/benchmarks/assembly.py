"""`python -m tests.benchmarks.assembly`: what a decision costs, by synthetic sidecars, beside a script.

The script finds the same duplicates with dicts in memory. One in ten records repeats the content of
another, and in each band one in thirty has the hash of others. Each measurement runs in a process of its own,
whose peak memory is its own, and in turn with the others.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

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
    """Decide once, in this process: CPU-seconds of each step, in all, and the peak in MiB."""
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

    with tempfile.TemporaryDirectory(dir=folder) as work:
        decision = Decider(Path(work) / "decision", inputs, _RULES[kind], memory << 20, threads).run(
            _NoSteps(), on_progress
        )
    on_progress("end", 1, 1)
    cost = time.process_time() - before
    return {**steps, "all": cost, "peak": _peak(), "kept": decision.head.kept.records}


def prove(folder: Path) -> dict[str, float]:
    """Read and hash all sidecars, as a worker does before it decides."""
    before = time.process_time()
    for path in sorted(folder.glob("*.parquet")):
        read_sidecar(path, RECORDS if path.name.startswith("records") else BANDS)
    return {"all": time.process_time() - before, "peak": _peak()}


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
    return {"all": time.process_time() - before, "peak": _peak(), "dropped": len(others)}


def _note(first: dict[Any, int], others: set[int], value: Any, position: int) -> None:
    known = first.setdefault(value, position)
    if known != position:
        first[value] = min(known, position)
        others.add(max(known, position))


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _measure(*arguments: str) -> dict[str, float]:
    """Run one measurement in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.assembly", "--one", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def main() -> None:
    """Write sidecars, measure in turn, print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.assembly")
    parser.add_argument("--records", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--kinds", nargs="+", choices=["exact", "near"], default=["exact", "near"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", type=int, default=512, help="MiB that DuckDB may take")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--no-dicts", action="store_true", help="leave out the script, which needs the memory"
    )
    parser.add_argument("--one", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(_one(*asked.one)))  # noqa: T201 - for the process that started this one
        return
    console = Console()
    table = Table("records", "what", "CPU-s per million", "median", "peak MiB", "steps, CPU-s per million")
    for count in asked.records:
        with tempfile.TemporaryDirectory(prefix="shardline-bench-") as folder:
            write_sidecars(Path(folder), count, set(asked.kinds))
            limits = (str(asked.memory), str(asked.threads))
            runs: dict[str, tuple[str, ...]] = {"proof of the sidecars": ("prove", folder)}
            for kind in asked.kinds:
                runs[f"decide, {kind}"] = ("decide", folder, kind, *limits)
                if not asked.no_dicts:
                    runs[f"dicts, {kind}"] = ("dicts", folder, kind)
            found: dict[str, list[dict[str, float]]] = {name: [] for name in runs}
            for _ in range(asked.rounds):
                for name, arguments in runs.items():
                    found[name].append(_measure(*arguments))
        for name, results in found.items():
            _add_row(table, count, name, results)
    console.print(table)


def _one(what: str, folder: str, kind: str = "", memory: str = "", threads: str = "") -> dict[str, float]:
    if what == "prove":
        return prove(Path(folder))
    if what == "dicts":
        return by_dicts(Path(folder), kind)
    return decide(Path(folder), kind, int(memory), int(threads))


def _add_row(table: Table, count: int, name: str, results: list[dict[str, float]]) -> None:
    costs = [one["all"] / count * 1e6 for one in results]
    best = min(results, key=lambda one: one["all"])
    steps = {step: cost for step, cost in best.items() if step not in {"all", "peak", "kept", "dropped"}}
    table.add_row(
        f"{count:,}",
        name,
        f"{min(costs):.2f}",
        f"{statistics.median(costs):.2f}",
        f"{max(one['peak'] for one in results):.0f}",
        ", ".join(f"{step} {cost / count * 1e6:.2f}" for step, cost in steps.items()),
    )


if __name__ == "__main__":
    main()
