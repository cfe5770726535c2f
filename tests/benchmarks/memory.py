"""Peak memory of producer, worker and `run` at two sizes: `python -m tests.benchmarks.memory`."""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from shardline_common.job.spec import JobSpec
from tests.benchmarks.common import usage, write_corpus
from tests.e2e.system import running_system
from tests.make import job
from tests.services import S3, kafka_address, s3_store

SHARD = 8 << 20
BACKLOG = 15_000
# How often each size runs. On Kafka, which takes much longer, the largest runs but once.
LEAST_RUNS, MOST_RUNS, MOST_ON_KAFKA = 2, 5, 3


def memory_job(name: str, path: Path) -> JobSpec:
    """A job over a file."""
    source = {"type": "files", "paths": [path.name]}
    return job(job_id=name, name=name, source=source, output={"shard_bytes": SHARD})


async def on_kafka(folder: Path, path: Path, kafka: str, s3: S3) -> dict[str, float]:
    """Peak MiB of a producer and a worker of their own."""
    async with running_system(folder, kafka, s3, folder) as system:
        processes = {"producer": system.start("producer")}
        spec = memory_job("memory", path)
        await system.submit(spec)
        # The worker meets a backlog at every size: how much it may fetch is what its memory hangs on.
        await system.until("memory", lambda view: view.state.produced >= BACKLOG)
        processes["worker"] = system.start("worker")
        view = await system.finished("memory", 1800)
        assert view.state.state == "completed", view.to_json()
        peaks = {kind: usage(process.popen.pid)[1] for kind, process in processes.items()}
        await system.until("memory", lambda view: view.state.topic_removed)
    return peaks


def embedded(folder: Path, path: Path, number: int) -> float:
    """Peak MiB of `run`."""
    body = memory_job("embedded", path).model_dump(mode="json")
    body["source"]["paths"] = [str(path)]
    spec = folder / "job.json"
    spec.write_text(json.dumps(body))
    output = folder / f"out-{path.stem}-{number}"
    command = [sys.executable, "-m", "shardline", "run", str(spec), "--output", str(output)]
    # Both sizes in one process: only a large file starts others.
    one = os.environ | {"SHARDLINE_PROCESSES": "1"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=one) as process:
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, _peak(process.pid, peak))
            time.sleep(0.05)
    assert process.returncode == 0
    return peak


def _peak(pid: int, known: float) -> float:
    try:
        return usage(pid)[1]
    except (OSError, StopIteration):
        # It ended between our look at it and the reading of its figures.
        return known


def measure(folder: Path, sizes: list[int], kafka: str, s3: S3) -> dict[int, dict[str, list[float]]]:
    """The peaks in MiB of each run, by number of documents and by process."""
    found = {}
    for count in sizes:
        path = folder / f"corpus-{count}.jsonl"
        write_corpus(path, count)
        # How much is under way hangs on chance: a small job gets as many chances as a large one.
        chances = max(sizes) // count
        places = [folder / f"{count}-{number}" for number in range(min(MOST_ON_KAFKA, chances))]
        peaks = [asyncio.run(on_kafka_in(place, path, kafka, s3)) for place in places]
        found[count] = {kind: [peak[kind] for peak in peaks] for kind in ("producer", "worker")}
        runs = range(max(LEAST_RUNS, min(MOST_RUNS, chances)))
        found[count]["run"] = [embedded(folder, path, number) for number in runs]
        path.unlink()
    return found


async def on_kafka_in(place: Path, path: Path, kafka: str, s3: S3) -> dict[str, float]:
    """As on_kafka, with the corpus moved to where the producer may read."""
    place.mkdir()
    os.link(path, place / path.name)
    return await on_kafka(place, path, kafka, s3)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.memory")
    parser.add_argument("--documents", type=int, nargs="+", default=[50_000, 1_000_000])
    sizes = parser.parse_args().documents
    with tempfile.TemporaryDirectory(prefix="shardline-memory-") as name:
        folder = Path(name)
        with kafka_address(folder / "kafka") as kafka, s3_store(folder / "s3") as s3:
            found = measure(folder, sizes, kafka, s3)
    table = Table(title="peak RSS in MiB, documents of 2 KB, shards of 8 MiB")
    for column in ("documents", "producer", "worker", "run"):
        table.add_column(column, justify="right")
    for count, peaks in found.items():
        table.add_row(f"{count:,}", *(f"{max(peaks[name]):.0f}" for name in ("producer", "worker", "run")))
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
