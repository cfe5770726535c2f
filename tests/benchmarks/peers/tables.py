"""The two tables: a file to a local folder, and a topic to S3. Every tool's rows are compared."""

import asyncio
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from aiokafka import AIOKafkaProducer

from shardline_common.job.names import Layout
from shardline_common.job.spec import JobSpec
from shardline_common.ports.broker import TopicSpec
from shardline_common.storage.s3 import S3Store
from tests.benchmarks.aims.run import corpus, environment, run_command
from tests.benchmarks.common import usage
from tests.benchmarks.peers.corpus import Rows, hash_of_rows, write_documents
from tests.benchmarks.peers.environments import CannotRun, Peer, install
from tests.benchmarks.process_tree import TreeUsage, run_tree
from tests.e2e.system import System, running_system
from tests.make import job
from tests.services import S3

OURS = "shardline"
_ENVIRONMENT = {"SHARDLINE_TOPIC_GRACE_SECONDS": "600", "SHARDLINE_TOPIC_LIMIT_BYTES": str(8 << 30)}
_SECONDS = 900


@dataclass
class Measurements:
    """What one tool used, by number of documents, a value a round; or why it did not run."""

    cpu: dict[int, list[float]] = field(default_factory=dict)
    peak_mib: dict[int, list[float]] = field(default_factory=dict)
    skipped: str = ""

    def add(self, count: int, used: TreeUsage) -> None:
        """Add a run."""
        self.cpu.setdefault(count, []).append(used.cpu)
        self.peak_mib.setdefault(count, []).append(used.peak_mib)


def compare(expected: Rows, lines: Iterator[bytes], name: str) -> None:
    """Fail if the rows of a tool are not those of the task."""
    found = hash_of_rows(lines)
    if found != expected:
        raise RuntimeError(f"{name} wrote {found}, not {expected}")


def installed(peers: Sequence[Peer], found: dict[str, Measurements]) -> list[Peer]:
    """The peers whose environment could be made. The reason is noted for the others."""
    able = []
    for peer in peers:
        found[peer.name] = Measurements()
        try:
            install(peer)
            able.append(peer)
        except CannotRun as error:
            found[peer.name].skipped = str(error)
    return able


class Files:
    """A JSONL file to rows in a local folder."""

    programs: ClassVar = {
        "script": "script.py",
        "hf": "hf.py",
        "datatrove": "trove.py",
        "spark": "spark.py",
        "flink": "peers.Files",
    }

    def __init__(self, folder: Path, sizes: Sequence[int]) -> None:
        self._folder = folder
        self._expected = {count: write_documents(corpus(folder, count), count) for count in sizes}

    def round(self, peers: Sequence[Peer], found: dict[str, Measurements]) -> None:
        """Run every tool once with each size."""
        for count in self._expected:
            found.setdefault(OURS, Measurements()).add(count, self._ours(count))
            for peer in peers:
                if not found[peer.name].skipped:
                    self._run(peer, count, found[peer.name])

    def _ours(self, count: int) -> TreeUsage:
        used = run_tree(run_command(self._folder, count, 8 << 20), self._folder / "run.log", environment())
        compare(self._expected[count], _lines(self._folder / "output" / "bench" / "bench" / "data"), OURS)
        return used

    def _run(self, peer: Peer, count: int, found: Measurements) -> None:
        output, cache = self._folder / f"{peer.name}-output", self._folder / "cache"
        for path in (output, cache, self._folder / f"{output.name}-logs"):
            shutil.rmtree(path, ignore_errors=True)
            path.unlink(missing_ok=True)
        # Without an empty cache, Hugging Face datasets would skip what an earlier round has done.
        env = environment() | {"HF_HOME": str(cache), "HF_HUB_OFFLINE": "1", "TMPDIR": str(self._folder)}
        command = [*peer.program(self.programs[peer.name]), str(corpus(self._folder, count)), str(output)]
        try:
            used = run_tree(command, self._folder / f"{peer.name}.log", env)
        except RuntimeError as error:
            found.skipped = str(error).strip().splitlines()[-1][:200]
            return
        compare(self._expected[count], _lines(output), peer.name)
        found.add(count, used)


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, or of all data files below a folder: hidden ones and those with `_` are none."""
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    for file in files:
        if file.is_file() and not file.name.startswith((".", "_")):
            with file.open("rb") as lines:
                yield from lines


class Topics:
    """A topic with a document a message to rows in S3. Shardline's topic is what its producer wrote."""

    programs: ClassVar = {"loop": "loop.py", "quix": "quix.py"}

    def __init__(self, folder: Path, sizes: Sequence[int], kafka: str, s3: S3) -> None:
        self._folder = folder
        self._kafka = kafka
        self._s3 = s3
        self._expected = {count: write_documents(corpus(folder, count), count) for count in sizes}

    async def round(self, number: int, peers: Sequence[Peer], found: dict[str, Measurements]) -> None:
        """Run every tool once with each size, over topics of this round."""
        for count in self._expected:
            place = self._folder / f"{number}-{count}"
            place.mkdir()
            async with running_system(place, self._kafka, self._s3, self._folder, **_ENVIRONMENT) as system:
                await self._ours(system, count, found)
                topic = await filled_topic(system, corpus(self._folder, count))
                for peer in peers:
                    if not found[peer.name].skipped:
                        await self._run(system, peer, topic, count, found[peer.name])

    async def _ours(self, system: System, count: int, found: dict[str, Measurements]) -> None:
        source = {"type": "files", "paths": [corpus(self._folder, count).name]}
        spec = job(job_id="bench", name="bench", source=source, output={"shard_bytes": 8 << 20})
        producer = system.start("producer")
        await producer.until_ready()
        await system.submit(spec)
        await system.until("bench", lambda view: view.state.state == "completing", _SECONDS)
        sent = TreeUsage(*_now(producer.popen.pid))
        worker = system.start("worker")
        await system.finished("bench", _SECONDS)
        found.setdefault(OURS, Measurements()).add(count, TreeUsage(*_now(worker.popen.pid)))
        found.setdefault(f"{OURS} producer", Measurements()).add(count, sent)
        await asyncio.to_thread(worker.end)
        await asyncio.to_thread(producer.end)
        await self._compare(system.store, _folder_of(spec), count, OURS)

    async def _run(self, system: System, peer: Peer, topic: str, count: int, found: Measurements) -> None:
        # Quix Streams counts rows, and makes folders of the topic's name.
        quix = peer.name == "quix"
        messages = self._expected[count].number if quix else count
        folder = system.prefix if quix else f"{system.prefix}/{peer.name}"
        arguments = [self._kafka, topic, str(messages), folder]
        command = [*peer.program(self.programs[peer.name]), *arguments]
        env = system.env(AWS_REGION="us-east-1", AWS_DEFAULT_REGION="us-east-1")
        try:
            used = await asyncio.to_thread(run_tree, command, self._folder / f"{peer.name}.log", env)
        except RuntimeError as error:
            found.skipped = str(error).strip().splitlines()[-1][:200]
            return
        await self._compare(system.store, f"{topic if quix else peer.name}/", count, peer.name)
        found.add(count, used)

    async def _compare(self, store: S3Store, prefix: str, count: int, name: str) -> None:
        lines: list[bytes] = []
        async for info in store.list(prefix):
            lines += (await store.get(info.key)).splitlines(keepends=True)
        compare(self._expected[count], iter(lines), name)


def _now(pid: int) -> tuple[float, float, float, float, int]:
    cpu, peak = usage(pid)
    return cpu, 0.0, peak, cpu, 1


def _folder_of(spec: JobSpec) -> str:
    return Layout.of(spec).root + "data/"


async def filled_topic(system: System, path: Path) -> str:
    """A topic of 4 partitions with a line of a file in each message."""
    await system.broker.create_topic(TopicSpec("documents", 4, {}))
    topic = f"{system.prefix}.documents"
    producer: AIOKafkaProducer = AIOKafkaProducer(
        bootstrap_servers=system.kafka, max_batch_size=1 << 20, linger_ms=20
    )
    await producer.start()
    sent: list[asyncio.Future[object]] = []
    with path.open("rb") as lines:
        for line in lines:
            sent.append(await producer.send(topic, line.rstrip(b"\n"), key=str(len(sent)).encode()))
    await asyncio.gather(*sent)
    await producer.stop()
    return topic
