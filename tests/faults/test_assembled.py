"""Assembled jobs on Kafka and S3: killed, cancelled and retried in each stage, the dataset is the same."""

import asyncio
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from shardline_common.dataset.verify import Report, Verifier
from shardline_common.job.names import Layout
from shardline_common.job.spec import JobSpec, Request
from shardline_common.memory.store import MemoryStore
from shardline_common.runtime.failpoints import VARIABLE
from tests.e2e.system import Process, System, multiset, running_system
from tests.faults.oracle import SHORT, rejected_ids
from tests.sampled import Sampled
from tests.services import S3
from tests.support.embedded import run_embedded

CHANGES: dict[str, Any] = {
    "dedup": {"exact": True},
    "sample": {"fraction": 0.9, "seed": 4},
    "output": {
        "shard_bytes": 262_144,
        "shards": {"multiple_of": 2},
        "splits": {"train": 0.9, "validation": 0.1},
    },
}


def assembled(sampled: Sampled, partitions: int = 2) -> JobSpec:
    return sampled.job("sample", partitions=partitions, **CHANGES)


@pytest.fixture(scope="module")
def expected(sampled: Sampled) -> Report:
    """The report of an embedded run without faults, with other partitions."""

    async def run() -> Report:
        spec, store = assembled(sampled, 3), MemoryStore()
        await run_embedded(spec, store, sampled.folder)
        return await Verifier(store, Layout.of(spec).root).run()

    report = asyncio.run(run())
    assert report.ok, report.problems
    return report


async def judge(system: System, sampled: Sampled, spec: JobSpec, expected: Report) -> None:
    """The digest is that of the undisturbed run, and no id is lost or in two rows that should be in one."""
    view = await system.finished("sample")
    assert view.state.state == "completed", view.to_json()
    report = await system.verify(spec)
    assert report.ok, report.problems
    assert (report.digest, report.rows, report.rejected) == (
        expected.digest,
        expected.rows,
        expected.rejected,
    )
    found = multiset(await system.rows(spec)) + await rejected_ids(system, spec)
    assert found <= sampled.ids
    # The staged rows are removed with the topic.
    await system.until("sample", lambda view: view.state.topic_removed)
    assert [info.key async for info in system.store.list(Layout.of(spec).staged_root)] == []


async def ended_by(process: Process, number: int) -> None:
    """Return when the process has killed itself."""
    async with asyncio.timeout(180):
        while process.popen.poll() is None:
            await asyncio.sleep(0.05)
    assert process.popen.returncode == number, process.log_text()


async def stopped(process: Process) -> None:
    seen = psutil.Process(process.popen.pid)
    async with asyncio.timeout(180):
        while seen.status() != psutil.STATUS_STOPPED:
            await asyncio.sleep(0.05)


@pytest.mark.timeout(600)
async def test_workers_are_killed_in_every_stage(
    tmp_path: Path, kafka: str, seaweed: S3, sampled: Sampled, expected: Report
) -> None:
    points = (
        "staging.before_sidecar=kill@2",
        "assembly.before_decision=kill",
        "assembly.after_decision=kill",
        "assembly.before_shard=kill@2",
        "assembly.after_shard=kill@2",
        "worker.before_outcome=kill",
    )
    async with running_system(tmp_path, kafka, seaweed, sampled.folder, **SHORT) as system:
        spec = assembled(sampled)
        producer = system.start("producer")
        await system.submit(spec)
        for point in points:
            await ended_by(system.start("worker", **{VARIABLE: point}), -signal.SIGKILL)
        producer.end(signal.SIGKILL)
        for kind in ("producer", "worker", "worker"):
            system.start(kind)
        await judge(system, sampled, spec, expected)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("point", ["assembly.before_decision", "assembly.before_shard"])
async def test_a_cancel_in_each_stage_is_retried_and_a_zombie_changes_nothing(
    tmp_path: Path, kafka: str, seaweed: S3, sampled: Sampled, expected: Report, point: str
) -> None:
    async with running_system(tmp_path, kafka, seaweed, sampled.folder, **SHORT) as system:
        spec = assembled(sampled)
        system.start("producer")
        zombie = system.start("worker", **{VARIABLE: f"{point}=stop"})
        await system.submit(spec)
        await stopped(zombie)
        await system.client.request(Request(job_id="sample", action="cancel"))
        view = await system.finished("sample")
        assert view.state.state == "cancelled", view.to_json()
        staged = [info.key async for info in system.store.list(Layout.of(spec).staged_root)]
        assert staged, "a retry goes on with the staged rows"
        await system.client.request(Request(job_id="sample", action="retry"))
        system.start("worker")
        await system.until("sample", lambda view: view.state.state == "completed")
        zombie.send(signal.SIGCONT)
        await judge(system, sampled, spec, expected)
