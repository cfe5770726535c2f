"""`make soak`: jobs of mixed size under random faults. Every dataset is verified; no figure may grow."""

import argparse
import asyncio
import logging
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import psutil
from aiokafka.admin import AIOKafkaAdminClient
from rich.console import Console
from rich.table import Table

from shardline.services.sample import write_sample
from shardline_common.job.spec import JobSpec, Request
from tests.e2e.system import Process, System, running_system
from tests.faults.oracle import SHORT
from tests.faults.proxies import Fault, S3Proxy, TcpProxy
from tests.laws import embedded_digest
from tests.make import job, sample_job
from tests.services import S3, ProxiedKafka, s3_store, service_started

_SIZES = {"small": 300, "middle": 3_000, "large": 12_000}
_AT_ONCE = 3
_SAMPLE_SECONDS = 5.0
_JOB_SECONDS = 300.0
_WARM_SECONDS = 1200.0
_MOST_MIB = 200e6 / (1 << 20)
_KINDS = ("producer", "worker")


class SoakKafka(ProxiedKafka):
    """A broker that removes idle groups within the soak, so that a growing number of groups shows."""

    def command(self, ports: Mapping[str, int]) -> list[str]:
        """Add the retention of groups."""
        command = super().command(ports)
        with Path(command[-1]).open("a") as config:
            config.write("offsets.retention.minutes=1\noffsets.retention.check.interval.ms=5000\n")
        return command


@dataclass(frozen=True)
class Shape:
    """A kind of job, and the digest of its undisturbed run."""

    name: str
    changes: Mapping[str, object]
    digest: str

    def spec(self, job_id: str) -> JobSpec:
        """A job of this shape."""
        return job(**sample_job(job_id, **self.changes))


async def shapes(folder: Path) -> list[Shape]:
    """The kinds of jobs, each with the digest of a run without faults."""
    found = []
    for name, documents in _SIZES.items():
        write_sample(folder / f"{name}.jsonl", documents, broken=name == "small")
        source = {"type": "files", "paths": [f"{name}.jsonl"]}
        for label, more in (
            ("plain", {}),
            ("zstd", {"output": {"shard_bytes": 131_072, "compression": "zstd"}}),
            ("none kept", {"quality": {"min_score": 1.0, "keep_rejected": True}, "partitions": 3}),
        ):
            changes = {"name": name, "source": source} | more
            with tempfile.TemporaryDirectory(dir=folder) as output:
                digest = await embedded_digest(job(**sample_job("calm", **changes)), folder, Path(output))
            found.append(Shape(f"{name} {label}", changes, digest))
    return found


@dataclass
class Report:
    """The result: figures over time by name, counts of events, and problems."""

    figures: dict[str, list[float]] = field(default_factory=dict)
    done: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    left: dict[str, int] = field(default_factory=dict)

    def count(self, what: str) -> None:
        """Count an event."""
        self.done[what] = self.done.get(what, 0) + 1

    def thirds(self, name: str) -> tuple[float, float]:
        """Medians of a figure's first and last third, after a warm-up of a tenth."""
        values = self.figures[name][len(self.figures[name]) // 10 :]
        size = max(1, len(values) // 3)
        return statistics.median(values[:size]), statistics.median(values[-size:])


class Soak:
    """One soak. The permanent processes run from start to end; the others are killed and replaced."""

    def __init__(self, system: System, store: S3Proxy, kafka: TcpProxy, jobs: list[Shape], seed: int) -> None:
        self._system = system
        self._store = store
        self._kafka = kafka
        self._shapes = jobs
        self._dice = random.Random(seed)
        self._permanent: list[Process] = []
        self._replaceable: list[Process] = []
        self._numbers = count(1)
        self._deadline = 0.0
        self.report = Report()

    def _start(self, kind: str) -> Process:
        kafka = f"127.0.0.1:{self._kafka_port}"
        return self._system.start(kind, S3_ENDPOINT_URL=self._store_endpoint, KAFKA_BOOTSTRAP_SERVERS=kafka)

    async def run(self, seconds: float, store_endpoint: str, kafka_port: int) -> Report:
        """Run jobs and inject faults for `seconds`, then let all jobs end."""
        self._store_endpoint, self._kafka_port = store_endpoint, kafka_port
        self._permanent = [self._start(kind) for kind in _KINDS]
        self._replaceable = [self._start(kind) for kind in ("producer", "worker", "worker")]
        for process in self._permanent:
            await process.until_ready()
        self._deadline = time.monotonic() + seconds
        lanes = asyncio.gather(*(self._jobs() for _ in range(_AT_ONCE)))
        aside = [asyncio.create_task(self._inject_faults()), asyncio.create_task(self._watch())]
        try:
            both: list[asyncio.Future[Any]] = [lanes, *aside]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            # A soak without faults or without figures proves nothing.
            if over := [task.exception() for task in aside if task.done()]:
                self.report.problems.append(f"the soak broke off: {over[0]!r}")
                return self.report
            await lanes
            await self._look_for_leftovers()
        finally:
            lanes.cancel()
            for task in aside:
                task.cancel()
            await asyncio.gather(lanes, *aside, return_exceptions=True)
        return self.report

    async def _jobs(self) -> None:
        while time.monotonic() < self._deadline:
            shape = self._dice.choice(self._shapes)
            spec = shape.spec(f"soak-{next(self._numbers)}")
            try:
                await self._one_job(shape, spec)
            except (AssertionError, TimeoutError) as error:
                self.report.problems.append(f"{spec.job_id} ({shape.name}): {str(error)[:4000]}")

    async def _one_job(self, shape: Shape, spec: JobSpec) -> None:
        system = self._system
        await system.submit(spec)
        if self._dice.random() < 0.15:
            await system.until(spec.job_id, lambda _: True)
            await asyncio.sleep(self._dice.uniform(0.0, 4.0))
            await system.client.request(Request(job_id=spec.job_id, action="cancel"))
        view = await system.finished(spec.job_id, _JOB_SECONDS)
        self.report.count(view.state.state.value)
        if view.state.state == "cancelled":
            await system.until(spec.job_id, lambda view: view.state.topic_removed, _JOB_SECONDS)
            await system.client.request(Request(job_id=spec.job_id, action="retry"))
            view = await system.until(
                spec.job_id, lambda view: view.state.attempt == 2 and not view.state.active, _JOB_SECONDS
            )
        assert view.state.state == "completed", view.to_json()
        report = await system.verify(spec)
        assert report.ok, report.problems
        assert report.digest == shape.digest, f"the digest is {report.digest}, not {shape.digest}"
        await system.client.request(Request(job_id=spec.job_id, action="delete"))
        await system.until(spec.job_id, lambda view: view.state.state == "deleted", _JOB_SECONDS)

    async def _inject_faults(self) -> None:
        acts = {
            "kill": (self._kill, 5),
            "end": (self._end, 2),
            "stop": (self._stop, 3),
            "cut Kafka": (self._cut, 3),
            "store errors": (self._errors, 4),
            "store away": (self._away, 1),
        }
        while True:
            await asyncio.sleep(self._dice.expovariate(0.4))
            name = self._dice.choices(list(acts), [weight for _, weight in acts.values()])[0]
            self.report.count(name)
            await acts[name][0]()
            for process in self._permanent:
                assert process.popen.poll() is None, (
                    f"a permanent process ended by itself: {process.log_text()[-3000:]}"
                )

    async def _replace(self, how: signal.Signals) -> None:
        place = self._dice.randrange(len(self._replaceable))
        victim = self._replaceable[place]
        code = await asyncio.to_thread(victim.end, how, 60)
        # A process that has just started has no handler of SIGTERM yet.
        expected = (0, -signal.SIGKILL, -signal.SIGTERM)
        assert code in expected, f"{victim.kind} ended with {code}: {victim.log_text()[-3000:]}"
        victim.log.unlink()
        self._system.processes.remove(victim)
        self._replaceable[place] = self._start(victim.kind)

    async def _kill(self) -> None:
        await self._replace(signal.SIGKILL)

    async def _end(self) -> None:
        await self._replace(signal.SIGTERM)

    async def _stop(self) -> None:
        victim = self._dice.choice([*self._permanent, *self._replaceable])
        victim.send(signal.SIGSTOP)
        await asyncio.sleep(self._dice.uniform(0.5, 5.0))
        victim.send(signal.SIGCONT)

    async def _cut(self) -> None:
        self._kafka.down = True
        await asyncio.sleep(self._dice.choice((0.0, 0.5, 4.0)))
        self._kafka.down = False

    async def _errors(self) -> None:
        dice = self._dice
        faults = [Fault("PUT", ".", dice.choice((409, 429, 500, 503, "reset", "lost")), 3) for _ in range(4)]
        self._store.faults = [*faults, Fault("GET", ".", dice.choice((500, 503, "half", "reset")), 3)]
        self._store.seen.clear()
        await asyncio.sleep(dice.uniform(0.0, 2.0))

    async def _away(self) -> None:
        self._store.down = True
        await asyncio.sleep(self._dice.uniform(1.0, 8.0))
        self._store.down = False

    async def _watch(self) -> None:
        while True:
            for process in self._permanent:
                await self._measure(process)
            for name, value in (await self._outside()).items():
                self.report.figures.setdefault(name, []).append(value)
            await asyncio.sleep(_SAMPLE_SECONDS)

    async def _measure(self, process: Process) -> None:
        seen = psutil.Process(process.popen.pid)
        try:
            tasks = await asyncio.to_thread(process.metric, "tasks")
        except OSError:
            return  # stopped just now
        for name, value in (
            ("RSS MiB", seen.memory_info().rss / (1 << 20)),
            ("file descriptors", seen.num_fds()),
            ("threads", seen.num_threads()),
            ("tasks", tasks),
        ):
            self.report.figures.setdefault(f"{process.kind}: {name}", []).append(value)

    async def _outside(self) -> dict[str, int]:
        system = self._system
        prefix = system.prefix + "."
        admin = AIOKafkaAdminClient(bootstrap_servers=system.kafka)
        await admin.start()
        try:
            groups = [name for name, *_ in await admin.list_consumer_groups() if name.startswith(prefix)]
            topics = [name for name in await admin.list_topics() if name.startswith(prefix)]
        finally:
            await admin.close()
        keys = await self._objects()
        spools = list(system.folder.glob("shardline-*/segment-*"))
        return {
            "topics": len(topics),
            "groups": len(groups),
            "objects": len(keys),
            "spool files": len(spools),
        }

    async def _objects(self) -> list[str]:
        # A process killed while it tries the store leaves the byte it tried it with.
        kept = ("_jobs/", "_probe/")
        return [info.key async for info in self._system.store.list("") if not info.key.startswith(kept)]

    async def _delete_what_came_late(self, asked: set[str]) -> None:
        # A worker that slept through a deletion can have put one object since (docs/data-protection.md).
        late = {key.split("/")[1] for key in await self._objects()} - asked
        for job_id in late:
            self.report.count("delete once more")
            await self._system.client.request(Request(job_id=job_id, action="delete"))
        asked |= late

    async def _look_for_leftovers(self) -> None:
        # Idle groups end by the broker's retention, late topics by the sweep: within a minute or two.
        deadline = time.monotonic() + 150
        asked: set[str] = set()
        while time.monotonic() < deadline:
            await self._delete_what_came_late(asked)
            self.report.left = await self._outside()
            if self.report.left["topics"] == 4 and not self.report.left["objects"]:
                return
            await asyncio.sleep(2.0)
        self.report.problems.append(f"left over: {self.report.left}")


def growth(report: Report, seconds: float) -> list[str]:
    """Figures over their limit, and those that grew by over a fifth and noise from first to last third."""
    noise = {"RSS MiB": 12.0, "file descriptors": 12.0, "threads": 3.0, "tasks": 25.0, "objects": 400.0}
    if seconds < _WARM_SECONDS:
        noise["RSS MiB"] = 60.0  # caches and heaps still fill
        # In which minute a large job lives is chance; what stays is counted at the end, to the last object.
        noise["objects"] = 2000.0
    grown = []
    for name, values in report.figures.items():
        first, last = report.thirds(name)
        if last > 1.2 * first and last - first > noise.get(name.rpartition(": ")[2], 20.0):
            grown.append(f"{name} grew from {first:.0f} to {last:.0f}")
        if name.endswith("RSS MiB") and max(values) > _MOST_MIB:
            grown.append(f"{name} reached {max(values):.0f}")
    return grown


async def soak(folder: Path, s3: S3, seconds: float, seed: int) -> Report:
    """Run a soak on its own broker and proxies."""
    with ExitStack() as stack:
        kafka = SoakKafka(folder / "kafka")
        stack.enter_context(service_started(kafka))
        proxy = TcpProxy(kafka.ports["behind"], kafka.proxy_port)
        stack.enter_context(proxy.running())
        store = S3Proxy(s3.endpoint)
        endpoint = stack.enter_context(store.running())
        jobs = await shapes(folder)
        async with running_system(
            folder,
            kafka.bootstrap,
            s3,
            folder,
            SHARDLINE_SWEEP_SECONDS="20",
            SHARDLINE_SOURCE_RATE="1500",
            **SHORT,
        ) as system:
            report = await Soak(system, store, proxy, jobs, seed).run(seconds, endpoint, kafka.proxy_port)
        report.problems += growth(report, seconds)
        return report


def show(report: Report, seconds: float, seed: int) -> None:
    """Print the figures."""
    table = Table(title=f"{seconds / 60:.0f} minutes, seed {seed}")
    for column in ("figure", "first third", "last third", "most"):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for name, values in report.figures.items():
        first, last = report.thirds(name)
        table.add_row(name, f"{first:.0f}", f"{last:.0f}", f"{max(values):.0f}")
    console = Console(width=100, highlight=False)
    console.print(table)
    console.print("done: " + ", ".join(f"{number} {what}" for what, number in sorted(report.done.items())))
    console.print(f"left at the end: {report.left}")
    for problem in report.problems:
        console.print(f"PROBLEM {problem}", markup=False)


def main() -> None:
    """Run the soak that the command line asks for."""
    parser = argparse.ArgumentParser(prog="make soak")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=None, help="printed; the same one makes the same trouble")
    options = parser.parse_args()
    # The proxies log every connection that they cut.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 31)
    with tempfile.TemporaryDirectory(prefix="shardline-soak-") as name:
        folder = Path(name)
        with s3_store(folder / "s3") as s3:
            report = asyncio.run(soak(folder, s3, options.minutes * 60, seed))
    show(report, options.minutes * 60, seed)
    sys.exit(1 if report.problems else 0)


if __name__ == "__main__":
    main()
