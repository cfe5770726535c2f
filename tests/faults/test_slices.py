"""Two producers send one job, and each of them is killed: the dataset is that of an undisturbed run."""

import signal
from pathlib import Path

from tests.e2e.system import multiset, running_system
from tests.faults.oracle import SHORT, rejected_ids
from tests.laws import embedded_digest
from tests.sampled import Sampled
from tests.services import S3


async def test_either_producer_of_a_job_with_slices_is_killed(
    tmp_path: Path, kafka: str, seaweed: S3, sampled: Sampled
) -> None:
    spec = sampled.job("sample", slices=4)
    async with running_system(
        tmp_path, kafka, seaweed, sampled.folder, SHARDLINE_SOURCE_RATE="40", **SHORT
    ) as system:
        first, second = system.start("producer"), system.start("producer")
        system.start("worker")
        for producer in (first, second):
            await producer.until_ready()
        await system.submit(spec)
        # Each of them reads slices of the job. One of them owns the job too.
        for producer in (first, second):
            await producer.until_metric("documents_produced_total", "sample", 20)
        first.end(signal.SIGKILL)
        third = system.start("producer")
        await third.until_metric("documents_produced_total", "sample", 20)
        second.end(signal.SIGKILL)
        view = await system.until("sample", lambda view: view.state.slices == {"running": 4})
        assert view.state.produced < sum(sampled.ids.values()), "the kills came too late"
        await system.hurry()
        view = await system.finished("sample")
        assert view.state.state == "completed", view.to_json()
        report = await system.verify(spec)
        assert report.ok, report.problems
        assert multiset(await system.rows(spec)) + await rejected_ids(system, spec) == sampled.ids
        assert report.digest == await embedded_digest(spec, sampled.folder, tmp_path / "run")
