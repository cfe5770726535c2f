"""Whether the cost of a document stays flat: `python -m tests.benchmarks.scale`.

More documents, more partitions, more jobs. The 10 million documents of 200 bytes, with --large, need
8 GB of disk.
"""

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from shardline_common.job.spec import JobSpec
from tests.benchmarks.aims.run import environment
from tests.benchmarks.common import usage, write_corpus
from tests.benchmarks.process_tree import TreeUsage, run_tree
from tests.e2e.system import System, running_system
from tests.make import job
from tests.services import S3, kafka_address, s3_store

START = 100
KINDS = ("documents", "small", "partitions", "jobs")
_SENTENCES = {"2 KB": 20, "200 B": 1}
_DOCUMENTS = (10_000, 100_000, 1_000_000)
_LARGE = 10_000_000
_PARTITIONS = (1, 4, 16, 64, 256)
_JOBS = (1, 4, 16, 64)
_SECONDS = 1800


@dataclass(frozen=True)
class Point:
    """What one size used, start taken off."""

    name: str
    per_million: float
    peak_mib: float

    def row(self, first: "Point") -> tuple[str, ...]:
        """For the table: with the change since the first size."""
        change = self.per_million / first.per_million - 1
        return (self.name, f"{self.per_million:.1f}", f"{change:+.0%}", f"{self.peak_mib:.0f} MiB")


def run(folder: Path, path: Path, partitions: int) -> TreeUsage:
    """`shardline run` over a file; the dataset is deleted."""
    output, spec = folder / "output", folder / "job.json"
    body = {
        "job_id": "scale",
        "name": "scale",
        "source": {"type": "files", "paths": [str(path)]},
        "quality": {"min_score": 0},
        "partitions": partitions,
        "output": {"shard_bytes": 8 << 20},
    }
    spec.write_text(json.dumps(body))
    command = [sys.executable, "-m", "shardline", "run", str(spec), "--output", str(output)]
    used = run_tree(command, folder / "run.log", environment())
    shutil.rmtree(output)
    return used


def by_documents(folder: Path, size: str, counts: Sequence[int]) -> Iterator[Point]:
    """More documents in one file."""
    path = folder / "corpus.jsonl"
    write_corpus(path, START, _SENTENCES[size])
    start = run(folder, path, 4).cpu
    for count in counts:
        write_corpus(path, count, _SENTENCES[size])
        used = run(folder, path, 4)
        cpu = (used.cpu - start) / (count - START) * 1e6
        yield Point(f"{count:,} documents of {size}", cpu, used.peak_mib)


def by_partitions(folder: Path, count: int) -> Iterator[Point]:
    """More partitions of the same documents. The start is that of the same partitions."""
    path, short = folder / "corpus.jsonl", folder / "short.jsonl"
    write_corpus(path, count)
    write_corpus(short, START)
    for partitions in _PARTITIONS:
        start, used = run(folder, short, partitions).cpu, run(folder, path, partitions)
        cpu = (used.cpu - start) / (count - START) * 1e6
        yield Point(f"{count:,} documents, {partitions} partitions", cpu, used.peak_mib)


def by_jobs(folder: Path, count: int) -> Iterator[Point]:
    """More jobs at once, each with as many documents, by one producer and one worker on Kafka."""
    with ExitStack() as servers:
        kafka = servers.enter_context(kafka_address(folder / "kafka"))
        s3 = servers.enter_context(s3_store(folder / "s3"))
        for jobs in _JOBS:
            place = folder / f"jobs-{jobs}"
            place.mkdir()
            write_corpus(place / "corpus.jsonl", count)
            used = asyncio.run(jobs_at_once(place, kafka, s3, jobs))
            cpu = used.cpu / (count * jobs) * 1e6
            yield Point(f"{jobs} jobs of {count:,} documents", cpu, used.peak_mib)


async def jobs_at_once(folder: Path, kafka: str, s3: S3, jobs: int) -> TreeUsage:
    """CPU of producer and worker together after their start, and the larger peak."""
    # The default interval: in the tests producers look at their jobs three times as often.
    env = {"SHARDLINE_MAX_JOBS": str(jobs), "SHARDLINE_PROGRESS_SECONDS": "1"}
    async with running_system(folder, kafka, s3, folder, **env) as system:
        processes = [system.start("producer"), system.start("worker")]
        for process in processes:
            await process.until_ready()
        before = sum(usage(process.popen.pid)[0] for process in processes)
        specs = [_spec(number) for number in range(jobs)]
        for spec in specs:
            await system.submit(spec)
        await _completed(system, specs)
        used = [usage(process.popen.pid) for process in processes]
    cpu = sum(cpu for cpu, _ in used) - before
    return TreeUsage(cpu, 0.0, max(peak for _, peak in used), cpu, len(used))


def _spec(number: int) -> JobSpec:
    name = f"scale-{number}"
    source = {"type": "files", "paths": ["corpus.jsonl"]}
    return job(job_id=name, name=name, source=source, output={"shard_bytes": 8 << 20})


async def _completed(system: System, specs: Sequence[JobSpec]) -> None:
    for spec in specs:
        view = await system.finished(spec.job_id, _SECONDS)
        if view.state.state != "completed":
            raise RuntimeError(f"{spec.job_id} is {view.state.state}: {view.to_json()}")


def points(kind: str, folder: Path, documents: int, large: bool) -> Iterator[Point]:
    """The measurements of one kind."""
    if kind == "documents":
        return by_documents(folder, "2 KB", _DOCUMENTS)
    if kind == "small":
        return by_documents(folder, "200 B", [*_DOCUMENTS, *([_LARGE] if large else [])])
    if kind == "partitions":
        return by_partitions(folder, documents)
    return by_jobs(folder, documents // 10)


def main() -> None:
    """Print a table for each kind."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.scale")
    parser.add_argument(
        "--documents", type=int, default=100_000, help="for the partitions; a tenth for a job"
    )
    parser.add_argument("--large", action="store_true", help="also 10 million small documents")
    parser.add_argument("--only", default=",".join(KINDS), help=f"of {', '.join(KINDS)}")
    given = parser.parse_args()
    for kind in given.only.split(","):
        table = Table(title=f"cost of a document by {kind}")
        for column in ("", "CPU-s/M", "to the first", "peak memory"):
            table.add_column(column, justify="right")
        first: Point | None = None
        with tempfile.TemporaryDirectory(prefix="shardline-scale-") as name:
            for point in points(kind, Path(name), given.documents, given.large):
                first = first or point
                table.add_row(*point.row(first))
                sys.stderr.write(f"{' | '.join(point.row(first))}\n")
        Console(width=100).print(table)


if __name__ == "__main__":
    main()
