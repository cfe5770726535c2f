"""`make bench`: CPU-seconds per million documents, documents/s and peak memory, beside ceilings."""

import argparse
import asyncio
import resource
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from rich.console import Console
from rich.table import Table

from shardline_common.job.columns import infer
from shardline_common.job.names import attempt_topic
from shardline_common.job.spec import JobSpec
from shardline_common.kafka.broker import open_kafka
from shardline_common.kafka.options import KafkaOptions
from shardline_common.ports.broker import GroupListener
from shardline_consumer.filters.clara import judge
from shardline_producer.rows import RowRenderer
from shardline_producer.sources.documents import parse_document
from shardline_producer.sources.source import Document
from tests.benchmarks.common import usage, write_corpus
from tests.e2e.system import System, running_system
from tests.make import job
from tests.services import kafka_address, s3_store


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    name: str
    documents: int
    cpu: float
    wall: float
    peak_mib: float | None = None

    def row(self) -> tuple[str, ...]:
        """For the table."""
        peak = f"{self.peak_mib:.0f} MiB" if self.peak_mib else ""
        rate = self.documents / self.wall
        return (self.name, f"{self.cpu / self.documents * 1e6:.1f}", f"{rate:,.0f}", peak)


async def measured(name: str, count: int, work: Callable[[], Awaitable[None]]) -> Figure:
    """CPU and time of work in this process."""
    cpu, wall = time.process_time(), time.perf_counter()
    await work()
    return Figure(name, count, time.process_time() - cpu, time.perf_counter() - wall)


def in_memory(path: Path) -> Callable[[], Awaitable[None]]:
    """Decode, score, render, sha256: no network, no disk but the input."""

    async def work() -> None:
        digest = sha256()
        with path.open("rb") as lines:
            first = parse_document(next(lines), "corpus:1")
            assert isinstance(first, Document)
            renderer = RowRenderer(job(), infer([first]))
            for line in lines:
                document = parse_document(line, "corpus")
                assert isinstance(document, Document)
                facts, head, tail = renderer.render(document)
                digest.update(b"".join((head, judge(facts, 0.5).text, tail)))

    return work


def discard(system: System, topic: str, count: int) -> Callable[[], Awaitable[None]]:
    """Poll everything and do nothing with it."""

    async def work() -> None:
        async with open_kafka(KafkaOptions(system.kafka, prefix=system.prefix + ".")) as broker:

            async def assigned(_: object) -> None:
                for number in range(4):
                    reader.seek(number, -1)

            async def revoked(_: object) -> None:
                return None

            seen = 0
            async with broker.group_reader(topic, "discard", GroupListener(assigned, revoked)) as reader:
                while seen < count:
                    found = await reader.poll(None, timeout=1.0, max_records=4000)
                    seen += sum(map(len, found.values()))

    return work


async def bench(folder: Path, count: int) -> list[Figure]:
    """All lines of the table, from one run."""
    path = folder / "corpus.jsonl"
    write_corpus(path, count)
    with kafka_address(folder / "kafka") as kafka, s3_store(folder / "s3") as s3:
        grace = {"SHARDLINE_TOPIC_GRACE_SECONDS": "600", "SHARDLINE_TOPIC_LIMIT_BYTES": str(8 << 30)}
        async with running_system(folder, kafka, s3, folder, **grace) as system:
            spec = job(
                job_id="bench",
                name="bench",
                source={"type": "files", "paths": [path.name]},
                output={"shard_bytes": 8 << 20},
            )
            producer = await produced(system, spec, count)
            figures = [producer]
            topic = attempt_topic("bench", 1)
            figures.append(await measured("getmany and discard", count, discard(system, topic, count)))
            figures.append(await consumed(system, spec, count))
            figures.append(
                await measured("decode + score + render + sha256 in memory", count, in_memory(path))
            )
    return figures


async def produced(system: System, spec: JobSpec, count: int) -> Figure:
    """The producer alone: no worker runs yet."""
    process = system.start("producer")
    await process.until_ready()
    before, _ = usage(process.popen.pid)
    started = time.perf_counter()
    await system.submit(spec)
    await system.until("bench", lambda view: view.state.state == "completing", 900)
    wall = time.perf_counter() - started
    cpu, peak = usage(process.popen.pid)
    return Figure("shardline producer (JSONL file to topic)", count, cpu - before, wall, peak)


async def consumed(system: System, spec: JobSpec, count: int) -> Figure:
    """One worker over the whole topic."""
    started = time.perf_counter()
    process = system.start("worker")
    await system.finished(spec.job_id, 900)
    wall = time.perf_counter() - started
    cpu, peak = usage(process.popen.pid)
    return Figure("shardline worker (topic to S3, start-up included)", count, cpu, wall, peak)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--documents", type=int, default=200_000, help="of 2 KB each")
    count = parser.parse_args().documents
    with tempfile.TemporaryDirectory(prefix="shardline-bench-") as folder:
        figures = asyncio.run(bench(Path(folder), count))
    table = Table(title=f"{count:,} documents of 2 KB, 4 partitions, shards of 8 MiB")
    for column in ("what", "CPU-s per million", "documents/s", "peak RSS"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for figure in figures:
        table.add_row(*figure.row())
    Console(width=110).print(table)
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(f"(this bench process itself peaked at {own:.0f} MiB)\n")


if __name__ == "__main__":
    main()
