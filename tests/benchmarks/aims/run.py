"""`shardline run` over local files, beside a script that does the same work and guarantees nothing."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.benchmarks.aims.rounds import Aim, Figures, Options
from tests.benchmarks.common import write_corpus
from tests.benchmarks.process_tree import TreeUsage, run_tree

START, FIRST_ROW = 100, 10_000
"""Documents of a run that shows the start, and of one that shows the first row."""

AIMS = (
    Aim("run, files → local shards, one core", "run", "CPU-s/M", "script", 2, note="naive script"),
    Aim("run --processes: speed-up on all cores", "speed-up", "times", "cores", 0.8, least=True),
    Aim("start of run: 100 documents", "start", "CPU-s", bound=0.6),
    Aim("run before", "run before", "CPU-s/M", "script", note="naive script"),
    Aim("start of run before", "start before", "CPU-s"),
    Aim("first row before", "first row before", "s"),
    Aim("first row of 10,000 documents visible", "first row", "s", bound=0.5),
)
SCRIPT = Path(__file__).parent.parent / "peers" / "script.py"
_POLL_SECONDS = 0.005
_QUIET: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


class Run:
    """Whole processes, their start included; the cost of a document is the slope between two sizes."""

    aims = AIMS

    @contextmanager
    def measuring(self, folder: Path, options: Options) -> Iterator[Callable[[int], Figures]]:
        """Write the corpora."""
        sizes = (START, options.documents)
        for count in {*sizes, FIRST_ROW}:
            write_corpus(corpus(folder, count), count)

        def once(_: int) -> Figures:
            found: dict[str, float] = {}
            script = [script_usage(folder, count) for count in sizes]
            single = [run_usage(folder, count) for count in sizes]
            found["script"] = slope([one.cpu for one in script], sizes)
            found["run"] = slope([one.cpu for one in single], sizes)
            found["start"] = single[0].cpu
            found["first row"] = first_row(folder)
            if options.before:
                earlier = [run_usage(folder, count, python=options.before) for count in sizes]
                found["run before"] = slope([one.cpu for one in earlier], sizes)
                found["start before"] = earlier[0].cpu
                found["first row before"] = first_row(folder, options.before)
            if takes_processes():
                several = [run_usage(folder, count, "--processes", str(options.cores)) for count in sizes]
                one, most = (slope([each.busiest for each in both], sizes) for both in (single, several))
                found |= {"speed-up": one / most, "cores": options.cores}
            return found

        yield once


def slope(cpu: list[float], sizes: tuple[int, int]) -> float:
    """CPU-seconds per million documents, without what does not grow with them."""
    return (cpu[1] - cpu[0]) / (sizes[1] - sizes[0]) * 1e6


def corpus(folder: Path, count: int) -> Path:
    """The file of a corpus."""
    return folder / f"corpus-{count}.jsonl"


def script_usage(folder: Path, count: int) -> TreeUsage:
    """The naive script over a corpus."""
    command = [sys.executable, str(SCRIPT), str(corpus(folder, count)), str(folder / "script.jsonl")]
    return run_tree(command, folder / "script.log")


def run_usage(folder: Path, count: int, *more: str, python: str = sys.executable) -> TreeUsage:
    """`shardline run` over a corpus, into an empty folder."""
    command = run_command(folder, count, 8 << 20, *more)
    return run_tree([python, *command[1:]], folder / "run.log", environment())


def run_command(folder: Path, count: int, shard_bytes: int, *more: str) -> list[str]:
    """A `shardline run` whose output folder does not exist yet."""
    output, spec = folder / "output", folder / "job.json"
    shutil.rmtree(output, ignore_errors=True)
    source = {"type": "files", "paths": [str(corpus(folder, count))]}
    body = {"job_id": "bench", "name": "bench", "source": source, "output": {"shard_bytes": shard_bytes}}
    spec.write_text(json.dumps(body))
    return [sys.executable, "-m", "shardline", "run", str(spec), "--output", str(output), *more]


def environment() -> dict[str, str]:
    """One process, unless an option says otherwise, and bytecode: each start would compile its imports."""
    found = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    # The option --processes is stronger. An earlier version does not know the setting, and takes no notice.
    return found | {"SHARDLINE_PROCESSES": "1"}


def takes_processes() -> bool:
    """Whether `run` has the option --processes."""
    command = [sys.executable, "-m", "shardline", "run", "--help"]
    return "--processes" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


def first_row(folder: Path, python: str = sys.executable) -> float:
    """Seconds from the start of the process to the first shard that a glob finds."""
    command = [python, *run_command(folder, FIRST_ROW, 1 << 20)[1:]]
    started, first = time.perf_counter(), 0.0
    with subprocess.Popen(command, env=environment(), cwd=folder, **_QUIET) as process:
        while process.poll() is None:
            if not first and any((folder / "output").glob("bench/*/data/train/*.jsonl")):
                first = time.perf_counter() - started
            time.sleep(_POLL_SECONDS)
    if process.returncode or not first:
        raise RuntimeError(f"run exits with {process.returncode}; its first row came after {first} s")
    return first
