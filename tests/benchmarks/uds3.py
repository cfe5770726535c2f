"""PostgreSQL as a source: `python -m tests.benchmarks.uds3`, also a part of `make bench`."""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from aiokafka import AIOKafkaProducer
from rich.console import Console
from rich.table import Table

from deploy.dev.postgres import PASSWORD, USER
from shardline_common.job.names import attempt_topic
from shardline_common.job.spec import JobSpec
from shardline_common.kafka.options import KafkaOptions
from shardline_common.ports.broker import Message, TopicSpec
from shardline_common.storage.directory import DirectoryStore
from shardline_producer.plan import make_plan
from shardline_producer.plan_pages import StoredPlanPages
from shardline_producer.sources.planned import PlannedSource
from shardline_producer.sources.uds3.planned_store import Stores, Uds3Store
from shardline_producer.sources.uds3.postgres.connection import Postgres
from tests.benchmarks.common import WORDS, usage
from tests.corpus import corpus_file, lines
from tests.databases import Database, local_postgres
from tests.e2e.system import System, running_system
from tests.make import job
from tests.services import kafka_address, s3_store
from tests.uds3 import make_uds3

SIZES = [5_000, 1_000_000]
SEARCHED = 20_000
AGAIN = 50_000
BATCH = 500


@dataclass(frozen=True)
class Reading:
    """One scan in a process of its own."""

    documents: int
    first: float
    wall: float
    cpu: float
    peak_mib: float

    def row(self) -> tuple[str, ...]:
        """For the table."""
        return (
            f"scan of {self.documents:,}, discarded",
            f"{self.first:.2f} s",
            f"{self.cpu / self.documents * 1e6:.1f}",
            f"{self.documents / self.wall:,.0f}",
            f"{self.peak_mib:.0f} MiB",
        )


async def fill(database: Database, name: str, count: int) -> Database:
    """A database with documents of 2 KB, in UDS3's shape, made by the server itself."""
    await database.execute(f"CREATE DATABASE {name}")
    found = replace(database, name=name)
    await found.execute(
        "CREATE TABLE documents (document_id text PRIMARY KEY, title text, classification text,"
        " created_at text, processing_status text, content text)",
        "INSERT INTO documents SELECT 'd/' || n, 'Satzung ' || n, 'baurecht', '2020-01-01', 'completed',"
        f" n || ': ' || repeat('{WORDS}', 20) FROM generate_series(1, {count}) AS n",
        "VACUUM ANALYZE documents",
    )
    return found


def uds3_job(job_id: str) -> JobSpec:
    """A filtered scan of everything."""
    source = {"type": "uds3"}
    return job(job_id=job_id, name=job_id, source=source, output={"shard_bytes": 8 << 20})


async def scan(database: Database, folder: Path, spec: JobSpec) -> Reading:
    """Read everything and do nothing with it."""
    cpu, started = time.process_time(), time.perf_counter()
    store = Uds3Store(spec, Stores(Postgres(database.options)))
    source = PlannedSource(spec, store, StoredPlanPages(DirectoryStore(folder), ""))
    plan = await make_plan(spec, source)
    first, count = 0.0, 0
    async for batch in source.read(plan.frozen, None):
        first = first or time.perf_counter() - started
        count += len(batch)
    peak = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")
    )
    wall, used = time.perf_counter() - started, time.process_time() - cpu
    return Reading(count, first, wall, used, int(peak.split()[1]) / 1024)


async def search(database: Database, folder: Path, text: str) -> tuple[str, ...]:
    """A keyword search over documents of the corpus, from the question to its first and its last document."""
    await database.execute("CREATE DATABASE search")
    found = replace(database, name="search")
    await make_uds3(found)
    corpus = lines(corpus_file(folder))[:SEARCHED]
    await found.load(
        "documents", ("document_id", "content"), [(one["document_id"], one["content"]) for one in corpus]
    )
    await found.execute("VACUUM ANALYZE documents")
    query = {"text": text, "top_k": 1000, "search_types": ["keyword"]}
    spec = job(job_id="search", name="search", source={"type": "uds3"}, query=query)
    reading = await scan(found, folder / "search", spec)
    return (f"search, {reading.documents:,} of {len(corpus):,}", *reading.row()[1:4], "")


def scan_apart(database: Database) -> Reading:
    """The same in a fresh process, so that its peak is its own."""
    arguments = [str(database.port), database.name]
    command = [sys.executable, "-m", "tests.benchmarks.uds3", "--scan", *arguments]
    done = subprocess.run(command, capture_output=True, check=True)
    return Reading(**json.loads(done.stdout))


async def to_kafka(database: Database, folder: Path, count: int) -> list[tuple[str, ...]]:
    """The producer alone, from the table to the topic; and its messages again, without transactions."""
    with kafka_address(folder / "kafka") as kafka, s3_store(folder / "s3") as s3:
        env = database.env | {"SHARDLINE_TOPIC_LIMIT_BYTES": str(8 << 30)}
        async with running_system(folder, kafka, s3, folder, **env) as system:
            process = system.start("producer")
            await process.until_ready()
            before, _ = usage(process.popen.pid)
            started = time.perf_counter()
            await system.submit(uds3_job("bench"))
            await system.until("bench", lambda view: view.state.produced > 0)
            first = time.perf_counter() - started
            await system.until("bench", lambda view: view.state.state == "completing", 1800)
            wall = time.perf_counter() - started
            cpu, peak = usage(process.popen.pid)
            plain = await without_transactions(system, attempt_topic("bench", 1))
    rate, per_million = count / wall, (cpu - before) / count * 1e6
    name = f"producer, {count:,} to a topic"
    return [(name, f"{first:.2f} s", f"{per_million:.1f}", f"{rate:,.0f}", f"{peak:.0f} MiB"), plain]


async def without_transactions(system: System, topic: str) -> tuple[str, ...]:
    """What the client alone costs: the same messages in the same batches, only acknowledged."""
    messages: list[Message] = []
    async with system.broker.table_reader(topic) as reader:
        while len(messages) < AGAIN:
            records = await reader.poll(timeout=1.0)
            messages += [Message(one.key or b"", one.value, one.partition, one.headers) for one in records]
    await system.broker.create_topic(TopicSpec("again", 4, {"max.message.bytes": str(8 << 20)}))
    producer = KafkaOptions(system.kafka, prefix=system.prefix + ".").producer()
    await producer.start()
    try:
        cpu, wall = time.process_time(), time.perf_counter()
        for begin in range(0, len(messages), BATCH):
            await sent_plainly(producer, f"{system.prefix}.again", messages[begin : begin + BATCH])
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    finally:
        await producer.stop()
    count = len(messages)
    name = f"the same messages, {count:,}, no transactions"
    return (name, "", f"{cpu / count * 1e6:.1f}", f"{count / wall:,.0f}", "")


async def sent_plainly(producer: AIOKafkaProducer, topic: str, messages: list[Message]) -> None:
    """A batch for each partition, delivered."""
    batches = {one.partition: producer.create_batch() for one in messages}
    sent = []
    for one in messages:
        batch = batches[one.partition]
        while not batch.append(key=one.key, value=one.value, timestamp=None, headers=list(one.headers)):
            sent.append(await producer.send_batch(batch, topic, partition=one.partition))
            batches[one.partition] = batch = producer.create_batch()
    sent += [await producer.send_batch(batch, topic, partition=number) for number, batch in batches.items()]
    await asyncio.gather(*sent)


def table(sizes: list[int], produced: int, folder: Path) -> Table:
    """All figures, from one run."""
    found = Table(title="UDS3 on PostgreSQL, documents of 2 KB")
    for column in ("what", "first document", "CPU-s per million", "documents/s", "peak RSS"):
        found.add_column(column, justify="left" if column == "what" else "right")
    with local_postgres(folder / "postgres") as server:
        database = Database("127.0.0.1", server.ports["sql"], USER, PASSWORD)
        for count in sizes:
            filled = asyncio.run(fill(database, f"scan_{count}", count))
            found.add_row(*scan_apart(filled).row())
        found.add_row(*asyncio.run(search(database, folder, "Antrag der Behörde")))
        filled = asyncio.run(fill(database, "produced", produced))
        for row in asyncio.run(to_kafka(filled, folder, produced)):
            found.add_row(*row)
    return found


def main() -> None:
    """Print the table; with --scan only one scan's figures, as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.uds3")
    parser.add_argument("--documents", type=int, nargs="+", default=SIZES)
    parser.add_argument("--produced", type=int, default=200_000)
    parser.add_argument("--scan", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="shardline-uds3-") as name:
        folder = Path(name)
        if options.scan:
            database = Database("127.0.0.1", int(options.scan[0]), USER, PASSWORD, options.scan[1])
            sys.stdout.write(json.dumps(asdict(asyncio.run(scan(database, folder, uds3_job("scan"))))))
        else:
            Console(width=110).print(table(options.documents, options.produced, folder))


if __name__ == "__main__":
    main()
