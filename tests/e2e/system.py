"""Shardline as real processes on real Kafka and a real S3 store."""

import asyncio
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import orjson

from shardline.services.client import Client
from shardline.services.job_view import JobView
from shardline_common.dataset.chain import Chain
from shardline_common.dataset.verify import Report, Verifier
from shardline_common.errors import BrokerUnavailable
from shardline_common.job.names import Layout
from shardline_common.job.spec import JobSpec
from shardline_common.kafka.broker import KafkaBroker, open_kafka
from shardline_common.kafka.options import KafkaOptions
from shardline_common.runtime.clock import SystemClock
from shardline_common.storage.probe import record_pass
from shardline_common.storage.s3 import S3Options, S3Store, open_s3
from tests.services import S3

PARTITIONS = 4
DEADLINE = 180.0
_PORT = re.compile(rb"on port (\d+)")


@dataclass
class Process:
    """One producer or worker."""

    kind: str
    popen: subprocess.Popen[bytes]
    log: Path

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if self.popen.poll() is None:
            self.popen.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGTERM, wait: float = 30.0) -> int:
        """Send a signal and wait for the end."""
        self.send(signal.SIGCONT)
        self.send(number)
        return self.popen.wait(wait)

    @property
    def port(self) -> int:
        """The port of its metrics."""
        deadline = time.monotonic() + 90
        while (found := _PORT.search(self.log.read_bytes())) is None:
            assert self.popen.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)
        return int(found[1])

    def get(self, path: str) -> str:
        """A page of its metrics server."""
        with urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as answer:
            return str(answer.read().decode())

    def metric(self, name: str, job: str | None = None) -> float:
        """The sum of a metric's series, of one job or of all."""
        total = 0.0
        for line in self.get("/metrics").splitlines():
            if re.match(rf"shardline_{name}[{{ ]", line) and (job is None or f'dataset_job="{job}"' in line):
                total += float(line.rsplit(" ", 1)[1])
        return total

    async def until_ready(self) -> None:
        """Return when it says that it is ready."""
        said = ""
        try:
            async with asyncio.timeout(90):
                while '"ready":true' not in (said := await asyncio.to_thread(self.readiness)):
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"{self.kind} is not ready: {said}\n{self.log_text()[-3000:]}") from None

    async def until_metric(self, name: str, job: str, least: float) -> None:
        """Return when a metric of a job has reached a value."""
        said = 0.0
        try:
            async with asyncio.timeout(90):
                while (said := await asyncio.to_thread(self._metric_by_now, name, job)) < least:
                    await asyncio.sleep(0.1)
        except TimeoutError:
            log = self.log_text()[-3000:]
            raise AssertionError(f"{name} of {self.kind} is {said}, not {least}\n{log}") from None

    def _metric_by_now(self, name: str, job: str) -> float:
        assert self.popen.poll() is None, self.log_text()[-3000:]
        try:
            return self.metric(name, job)
        except TimeoutError:
            # The machine is busy: the caller asks again.
            return 0.0

    def readiness(self) -> str:
        """The response of /readyz, or why there is none."""
        try:
            return self.get("/readyz")
        except HTTPError as error:
            with error:
                return str(error.read().decode())
        except OSError as error:
            return str(error)

    def log_text(self) -> str:
        """What it logged."""
        return self.log.read_text(errors="replace")


@dataclass
class System:
    """The system of one test: its topic prefix, its S3 prefix and its processes."""

    folder: Path
    kafka: str
    s3: S3
    broker: KafkaBroker
    store: S3Store
    prefix: str
    files_root: Path
    environment: dict[str, str] = field(default_factory=dict)
    processes: list[Process] = field(default_factory=list)
    python: str = sys.executable

    @property
    def client(self) -> Client:
        """A client of the system."""
        return Client(self.broker, PARTITIONS)

    def env(self, **more: str) -> dict[str, str]:
        """The environment of a process of the system."""
        # These would send the test's writes to a developer's own store, or past the test's proxy.
        aws = {"AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"}
        return (
            {name: value for name, value in os.environ.items() if name not in aws}
            | self.s3.env
            | {
                "KAFKA_BOOTSTRAP_SERVERS": self.kafka,
                "KAFKA_TOPIC_PREFIX": self.prefix + ".",
                "AWS_REGION": "us-east-1",
                "S3_PREFIX": self.prefix,
                "S3_ADDRESSING_STYLE": "path",
                "SHARDLINE_JOBS_PARTITIONS": str(PARTITIONS),
                "SHARDLINE_SPOOL_DIR": str(self.folder),
                "SHARDLINE_TOPIC_GRACE_SECONDS": "1",
                "SHARDLINE_PROGRESS_SECONDS": "0.3",
                "FILES_ROOT": str(self.files_root),
                "PYTHONUNBUFFERED": "1",
            }
            | self.environment
            | more
        )

    def start(self, kind: str, **more: str) -> Process:
        """Start a producer or a worker."""
        log = self.folder / f"{kind}-{len(self.processes)}.log"
        command = [self.python, "-m", "shardline", kind, "--metrics-port", "0"]
        with log.open("wb") as out:
            popen = subprocess.Popen(
                command, env=self.env(**more), stdout=out, stderr=subprocess.STDOUT, cwd=self.folder
            )
        process = Process(kind, popen, log)
        self.processes.append(process)
        return process

    async def hurry(self) -> None:
        """Remove the limit of the source's rate: replace the producers by one without it."""
        for process in [item for item in self.processes if item.kind == "producer"]:
            await asyncio.to_thread(process.end)
            self.processes.remove(process)
        self.start("producer", SHARDLINE_SOURCE_RATE="0")

    def stop_all(self) -> None:
        """Kill what still runs."""
        for process in self.processes:
            if process.popen.poll() is None:
                process.end(signal.SIGKILL)

    async def submit(self, spec: JobSpec) -> None:
        """Submit a job."""
        await self.client.submit(spec)

    async def until(
        self, job_id: str, wanted: Callable[[JobView], bool], deadline: float = DEADLINE
    ) -> JobView:
        """The job's view, once it is as wanted."""
        last = None
        try:
            async with asyncio.timeout(deadline), aclosing(self._views(job_id)) as views:
                async for last in views:
                    if wanted(last):
                        return last
        except TimeoutError:
            logs = "\n".join(f"--- {item.log.name}\n{item.log_text()[-3000:]}" for item in self.processes)
            raise AssertionError(f"{job_id} is {last and last.to_json()}\n{logs}") from None
        raise AssertionError("unreachable")

    async def _views(self, job_id: str) -> AsyncGenerator[JobView, None]:
        while True:
            # What a killed producer left open hides all that stands behind it, until the broker ends it.
            with suppress(BrokerUnavailable):
                async with aclosing(self.client.follow(0.1)) as tables:
                    async for table in tables:
                        for view in table.jobs():
                            if view.state.spec.job_id == job_id:
                                yield view

    async def finished(self, job_id: str, deadline: float = DEADLINE) -> JobView:
        """The job's view once it has ended."""
        return await self.until(job_id, lambda view: not view.state.active, deadline)

    async def until_chains_move(self, spec: JobSpec) -> None:
        """Return when the chain of every partition is longer than at the call."""
        before = await self._chain_ends(spec)
        async with asyncio.timeout(90):
            while not all(now > then for now, then in zip(await self._chain_ends(spec), before, strict=True)):
                await asyncio.sleep(0.1)

    async def _chain_ends(self, spec: JobSpec) -> list[int]:
        chains = [Chain(self.store, Layout.of(spec), number) for number in range(spec.total_partitions)]
        tips = [await chain.head() for chain in chains]
        return [tip.next if tip else 0 for tip in tips]

    async def verify(self, spec: JobSpec) -> Report:
        """`verify` of a dataset."""
        return await Verifier(self.store, Layout.of(spec).root).run()

    async def rows(self, spec: JobSpec) -> list[dict[str, Any]]:
        """All rows of a dataset, read with a plain glob, as any reader would."""
        found = []
        async for info in self.store.list(Layout.of(spec).root + "data/"):
            body = (await self.store.get(info.key)).decode()
            found += [json.loads(line) for line in body.splitlines()]
        return found

    async def manifest(self, spec: JobSpec) -> dict[str, Any]:
        """A dataset's manifest."""
        return dict(orjson.loads(await self.store.get(Layout.of(spec).manifest)))


@asynccontextmanager
async def running_system(
    folder: Path, kafka: str, s3: S3, files_root: Path, **env: str
) -> AsyncIterator[System]:
    """A system for one test. All its processes are killed at the end."""
    prefix = "t" + secrets.token_hex(4)
    options = S3Options(
        s3.bucket,
        endpoint_url=s3.endpoint,
        region="us-east-1",
        access_key_id=s3.access_key,
        secret_access_key=s3.secret_key,
        addressing_style="path",
    )
    async with open_kafka(KafkaOptions(kafka, prefix=prefix + ".")) as broker, open_s3(options) as client:
        store = S3Store(client, s3.bucket, prefix)
        # The probe has its own tests. Here each process would wait seconds for it.
        await record_pass(store, s3.endpoint, SystemClock())
        system = System(folder, kafka, s3, broker, store, prefix, files_root, env)
        try:
            yield system
        finally:
            system.stop_all()


def multiset(rows: list[dict[str, Any]]) -> Counter[str]:
    """The ids of rows, with how often each is there."""
    return Counter(row["document_id"] for row in rows)
