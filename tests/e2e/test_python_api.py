"""The Python API against a running system: submit, status, cancel and retry, and the example of its page."""

import asyncio
from pathlib import Path

import pytest

import shardline
from shardline import errors, sync
from shardline.services.sample import write_sample
from tests.docs.test_python_page import NEEDS_KAFKA, python_blocks, run_block
from tests.e2e.system import PARTITIONS, System, running_system
from tests.make import sample_job
from tests.services import S3


def settings_of(system: System) -> dict[str, object]:
    return {
        "kafka_bootstrap_servers": system.kafka,
        "kafka_topic_prefix": f"{system.prefix}.",
        "jobs_partitions": PARTITIONS,
        "aws_endpoint_url_s3": system.s3.endpoint,
        "aws_access_key_id": system.s3.access_key,
        "aws_secret_access_key": system.s3.secret_key,
        "aws_region": "us-east-1",
        "s3_addressing_style": "path",
    }


async def test_a_job_from_submit_to_retry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kafka: str, seaweed: S3
) -> None:
    monkeypatch.chdir(tmp_path)
    write_sample(tmp_path / "sample.jsonl", 3000, broken=True)
    job = shardline.Job.model_validate(sample_job("api"))
    async with running_system(tmp_path, kafka, seaweed, tmp_path, SHARDLINE_SOURCE_RATE="200") as system:
        settings = settings_of(system)
        with pytest.raises(errors.JobUnknown):
            await shardline.status("api", settings=settings)
        assert await shardline.submit(job, settings=settings) == "api"
        system.start("producer")
        system.start("worker")
        committed = await system.until("api", lambda view: view.progress.rows > 0)
        with pytest.raises(errors.UsageError, match="can be retried"):
            await shardline.retry("api", settings=settings)
        running = await shardline.status("api", settings=settings)
        assert (running.active, running.job, running.attempt) == (True, job, 1)
        assert running.rows >= committed.progress.rows

        await shardline.cancel("api", wait=True, settings=settings)
        cancelled = await shardline.status("api", wait=True, settings=settings)
        assert (cancelled.state, cancelled.active) == ("cancelled", False)
        with pytest.raises(errors.UsageError, match="nothing to cancel"):
            await shardline.cancel("api", settings=settings)
        with pytest.raises(errors.JobFailed):
            await shardline.submit(job, wait=True, settings=settings)

        await system.hurry()
        seen: list[shardline.Progress] = []
        await shardline.retry("api", wait=True, settings=settings, on_progress=seen.append)
        assert (seen[-1].state, seen[-1].attempt, seen[-1].ratio) == ("completed", 2, 1.0)
        done = await asyncio.to_thread(sync.status, "api", settings=settings)
        assert (done.state, done.source_documents) == ("completed", 3010)
        assert await asyncio.to_thread(sync.submit, job, wait=True, settings=settings) == "api"
        with pytest.raises(errors.JobConflict):
            await shardline.submit(sample_job("api", partitions=3), settings=settings)

        uri = f"s3://{seaweed.bucket}/{system.prefix}/sample/api"
        report = await shardline.verify(uri, settings=settings)
        assert (report.ok, report.rows, report.rejected) == (True, done.rows, done.rejected)
        embedded = await shardline.run(job)
        assert (embedded.digest, embedded.dead_letters) == (report.digest, done.dead_letters)
        missing = sample_job("missing", source={"type": "files", "paths": ["none.jsonl"]})
        with pytest.raises(errors.JobFailed, match=r"none.jsonl") as failed:
            await shardline.submit(missing, wait=True, settings=settings)
        assert failed.value.code is errors.FailureCode.SOURCE_INVALID


async def test_the_example_of_the_page(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kafka: str,
    seaweed: S3,
) -> None:
    write_sample(tmp_path / "sample.jsonl", 300)
    async with running_system(tmp_path, kafka, seaweed, tmp_path) as system:
        monkeypatch.chdir(tmp_path)
        for name, value in system.env().items():
            monkeypatch.setenv(name, value)
        system.start("producer")
        system.start("worker")
        seen: list[shardline.Progress] = []
        names = {"shardline": shardline, "job": sample_job("page"), "show": seen.append}
        (block,) = [block for block in python_blocks() if block.title == NEEDS_KAFKA]
        await asyncio.to_thread(run_block, block, names)
        assert seen[-1].state == "completed"
        assert capsys.readouterr().out.startswith("completed ")
