"""`make bench-assembly`: what each stage of an assembled dataset costs, beside a script and datatrove.

Each measurement runs in a process of its own, whose peak memory is its own, and in turn with the others.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks.assembly.documents import write_documents
from tests.benchmarks.assembly.script import by_script
from tests.benchmarks.assembly.sidecars import by_dicts, decide, peak, prove, write_sidecars
from tests.benchmarks.assembly.stages import KINDS, run_stage
from tests.benchmarks.peers.environments import CannotRun, Peer, install

Figures = Mapping[str, float]
_NO_COST = {"all", "peak", "spill", "kept", "dropped"}
Rounds = dict[str, list[Figures]]
# Their versions are not those of peers.toml: its hash does not work with xxhash 4.
_TROVE = Peer(
    "datatrove-minhash",
    {
        "title": "datatrove: MinHash",
        "pip": ["datatrove[io]==0.10.1", "regex==2026.11.19", "tokenizers==0.23.3", "xxhash==3.6.0"],
    },
)


def main() -> None:
    """Measure in turn, print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.assembly")
    parser.add_argument("--documents", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--records", type=int, nargs="*", default=[10_000_000], help="of synthetic sidecars")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", type=int, default=512, help="MiB that DuckDB may take")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peers", type=int, default=100_000, help="up to so many documents others run too")
    parser.add_argument("--one", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(_one(asked.one)))  # noqa: T201 - for the process that started this one
        return
    limits = (str(asked.memory), str(asked.threads))
    table = Table("documents", "what", "CPU-s/M", "median", "peak MiB", "parts, CPU-s/M")
    for count in asked.documents:
        _show(table, count, _stages(count, asked.rounds, limits, with_peers=count <= asked.peers))
    for count in asked.records:
        _show(table, count, _synthetic(count, asked.rounds, limits, with_dicts=count <= asked.peers))
    Console(width=150).print(table)


def _stages(count: int, rounds: int, limits: Sequence[str], *, with_peers: bool) -> Rounds:
    found: Rounds = {}
    with tempfile.TemporaryDirectory(prefix="shardline-bench-") as name:
        folder = Path(name)
        others = _others(folder, count) if with_peers else {}
        for _ in range(rounds):
            for kind in KINDS:
                place = str(folder / kind)
                shutil.rmtree(place, ignore_errors=True)
                _note(found, f"land, {kind}", _measure("stage", "land", place, kind, str(count), *limits))
            signing = {key: found["land, near"][-1][key] - found["land, exact"][-1][key] for key in ("all",)}
            _note(found, "sign: near less exact", signing | {"peak": found["land, near"][-1]["peak"]})
            for stage, kind in (("decide", "exact"), ("decide", "near"), ("assemble", "exact")):
                place = str(folder / kind)
                _note(found, f"{stage}, {kind}", _measure("stage", stage, place, kind, str(count), *limits))
            for what, run in others.items():
                _note(found, what, run())
    return found


def _others(folder: Path, count: int) -> dict[str, Callable[[], Figures]]:
    """The script and datatrove over the same documents."""
    path, output = folder / "documents.jsonl", folder / "output"
    write_documents(path, count)

    def emptied() -> Path:
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir()
        return output

    found: dict[str, Callable[[], Figures]] = {
        "script: exact, shuffle, shards": lambda: _measure("script", str(path), str(emptied()))
    }
    try:
        install(_TROVE)
    except CannotRun as error:
        Console(stderr=True).print(f"datatrove does not run: {error}")
        return found
    python = str(_TROVE.folder / "bin" / "python")
    program = str(Path(__file__).parent / "trove_minhash.py")

    def trove() -> Figures:
        parts = _output([python, program, str(path), str(emptied())])
        return parts | {"all": sum(cost for name, cost in parts.items() if name != "peak")}

    return found | {"datatrove, near": trove}


def _synthetic(count: int, rounds: int, limits: Sequence[str], *, with_dicts: bool) -> Rounds:
    found: Rounds = {}
    with tempfile.TemporaryDirectory(prefix="shardline-bench-") as folder:
        write_sidecars(Path(folder), count, {"exact", "near"})
        for _ in range(rounds):
            _note(found, "proof of the sidecars", _measure("prove", folder))
            for kind in ("exact", "near"):
                _note(found, f"decide, {kind}", _measure("decide", folder, kind, *limits))
                if with_dicts:
                    _note(found, f"dicts, {kind}", _measure("dicts", folder, kind))
    return found


def _note(found: Rounds, what: str, figures: Figures) -> None:
    found.setdefault(what, []).append(figures)


def _measure(*arguments: str) -> dict[str, float]:
    """Run one measurement in a process of its own."""
    return _output([sys.executable, "-m", "tests.benchmarks.assembly", "--one", *arguments])


def _output(command: Sequence[str]) -> dict[str, float]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} exits with {done.returncode}:\n{done.stderr[-3000:]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def _one(asked: Sequence[str]) -> dict[str, float]:
    match asked:
        case ["stage", stage, folder, kind, count, memory, threads]:
            cost = run_stage(stage, Path(folder), kind, int(count), int(memory), int(threads))
            return {"all": cost, "peak": peak()}
        case ["script", path, folder]:
            return {"all": by_script(Path(path), Path(folder)), "peak": peak()}
        case ["prove", folder]:
            return prove(Path(folder))
        case ["decide", folder, kind, memory, threads]:
            return decide(Path(folder), kind, int(memory), int(threads))
        case ["dicts", folder, kind]:
            return by_dicts(Path(folder), kind)
    raise ValueError(asked)


def _show(table: Table, count: int, found: Rounds) -> None:
    for what, results in found.items():
        costs = [one["all"] / count * 1e6 for one in results]
        best = min(results, key=lambda one: one["all"])
        parts = {name: cost for name, cost in best.items() if name not in _NO_COST}
        spill = [f"spill {best['spill']:.0f} MiB"] if "spill" in best else []
        table.add_row(
            f"{count:,}",
            what,
            f"{min(costs):.2f}",
            f"{statistics.median(costs):.2f}",
            f"{max(one['peak'] for one in results):.0f}",
            ", ".join([*(f"{name} {cost / count * 1e6:.2f}" for name, cost in parts.items()), *spill]),
        )
    table.add_section()


if __name__ == "__main__":
    main()
