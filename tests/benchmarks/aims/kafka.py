"""Producer and worker on Kafka, beside what a client needs at least."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from shardline_common.job.names import attempt_topic
from shardline_common.job.spec import JobSpec
from shardline_common.kafka.broker import open_kafka
from shardline_common.kafka.options import KafkaOptions
from shardline_common.ports.broker import GroupListener, Record
from tests.benchmarks.aims.bare_kafka import polls, send_batches, send_each, transactions
from tests.benchmarks.aims.rounds import Aim, Figures, Options
from tests.benchmarks.common import usage, write_corpus
from tests.e2e.system import System, running_system
from tests.make import job
from tests.services import S3, kafka_address, s3_store

AIMS = (
    Aim("producer, JSONL → Kafka", "producer", "CPU-s/M", "polls", 3, note="bare aiokafka: `getmany`"),
    Aim("producer, JSONL → Kafka", "producer", "CPU-s/M", "sends", 1.5, note="bare aiokafka: `send`"),
    Aim("producer, JSONL → Kafka", "producer", "CPU-s/M", "batches", note="bare aiokafka: `send_batch`"),
    Aim("producer before", "producer before", "CPU-s/M", "polls", note="bare aiokafka: `getmany`"),
    Aim("worker before", "worker before", "CPU-s/M", "polls", note="bare aiokafka: `getmany`"),
    Aim("worker, Kafka → JSONL in S3", "worker", "CPU-s/M", "polls", 1.6, note="bare aiokafka: `getmany`"),
    Aim("worker, Kafka → JSONL in S3", "worker", "CPU-s/M", "discard", note="our reader, nothing done"),
)
_ENVIRONMENT = {
    # Longer than a benchmark runs: the topic is read again after the producer has finished.
    "SHARDLINE_TOPIC_GRACE_SECONDS": "600",
    "SHARDLINE_TOPIC_LIMIT_BYTES": str(8 << 30),
    # The default. In the tests producers read the chains three times as often, whatever they send.
    "SHARDLINE_PROGRESS_SECONDS": "1",
}
_SECONDS = 900
_SENT_AGAIN = 8_000


class OnKafka:
    """One job: its producer alone, then clients that read its topic, then one worker."""

    aims = AIMS

    @contextmanager
    def measuring(self, folder: Path, options: Options) -> Iterator[Callable[[int], Figures]]:
        """Start Kafka and S3, once for all rounds."""
        path = folder / "corpus.jsonl"
        write_corpus(path, options.documents)
        with kafka_address(folder / "kafka") as kafka, s3_store(folder / "s3") as s3:

            def once(number: int) -> Figures:
                place = folder / str(number)
                place.mkdir()
                found = asyncio.run(one_round(place, path, kafka, s3, options.documents))
                if options.before is None:
                    return found
                (earlier := folder / f"{number}-before").mkdir()
                made = asyncio.run(one_round(earlier, path, kafka, s3, options.documents, options.before))
                return {**{f"{name} before": figure for name, figure in made.items()}, **found}

            yield once


async def one_round(
    folder: Path, path: Path, kafka: str, s3: S3, count: int, python: str = sys.executable
) -> Figures:
    """CPU-seconds per million documents of each step."""
    async with running_system(folder, kafka, s3, path.parent, **_ENVIRONMENT) as system:
        system.python = python
        spec = job(
            job_id="bench",
            name="bench",
            source={"type": "files", "paths": [path.name]},
            output={"shard_bytes": 8 << 20},
        )
        start = await started_worker(system)
        found = {"producer": await produced(system, spec)}
        topic = attempt_topic("bench", 1)
        found["discard"] = await measured(discard(system, topic, count))
        found["polls"] = await polls(system, topic, count)
        records = await first_records(system, topic, min(count, _SENT_AGAIN))
        for name, send in (("sends", send_each), ("batches", send_batches)):
            found[name] = await transactions(system, records, count, send)
        found["worker"] = await consumed(system, spec) - start
    return {name: cpu / count * 1e6 for name, cpu in found.items()}


async def measured(work: Callable[[], Awaitable[None]]) -> float:
    """CPU-seconds of work in this process."""
    cpu = time.process_time()
    await work()
    return time.process_time() - cpu


def discard(
    system: System, topic: str, count: int, use: Callable[[Sequence[Record]], object] = len
) -> Callable[[], Awaitable[None]]:
    """Poll so many records and do nothing with them, or `use` them."""

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
                    for records in found.values():
                        use(records)

    return work


async def first_records(system: System, topic: str, count: int) -> list[Record]:
    """So many records of a topic, or some more."""
    records: list[Record] = []
    await discard(system, topic, count, records.extend)()
    return records


async def started_worker(system: System) -> float:
    """CPU-seconds of a worker until it is ready: it has no job."""
    process = system.start("worker")
    await process.until_ready()
    cpu, _ = usage(process.popen.pid)
    await asyncio.to_thread(process.end)
    return cpu


async def produced(system: System, spec: JobSpec) -> float:
    """CPU-seconds of the producer alone: no worker runs yet."""
    process = system.start("producer")
    await process.until_ready()
    before, _ = usage(process.popen.pid)
    await system.submit(spec)
    await system.until("bench", lambda view: view.state.state == "completing", _SECONDS)
    cpu, _ = usage(process.popen.pid)
    return cpu - before


async def consumed(system: System, spec: JobSpec) -> float:
    """CPU-seconds of one worker over the whole topic, its start included."""
    process = system.start("worker")
    await system.finished(spec.job_id, _SECONDS)
    cpu, _ = usage(process.popen.pid)
    return cpu
