"""Notifications of a running system: signed, and delivered at least once, also when producers are killed."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.dev.service import free_ports
from shardline.services.sample import write_sample
from shardline_common.job.names import attempt_topic
from shardline_common.job.spec import Request
from shardline_common.runtime.failpoints import VARIABLE
from tests.e2e.system import DEADLINE, Process, System, running_system
from tests.faults.oracle import SHORT
from tests.make import job, sample_job
from tests.services import S3
from tests.support.receiver import SECRET, Delivery, Hook, receiving

DATA_LOCATIONS = ("webhook.before_checkpoint", "webhook.before_send", "webhook.after_send")


async def delivered(hook: Hook, message_id: str, times: int = 1) -> list[Delivery]:
    return await asyncio.to_thread(hook.until_delivered, message_id, times)


async def test_notifications_are_signed_and_retried(tmp_path: Path, kafka: str, seaweed: S3) -> None:
    write_sample(tmp_path / "sample.jsonl", 300, broken=True)
    with receiving((500, {}), (500, {})) as hook:
        async with running_system(tmp_path, kafka, seaweed, tmp_path, **hook.env) as system:
            producer = system.start("producer")
            system.start("worker")
            spec = job(**sample_job("sample"))
            await system.submit(spec)
            posts = await delivered(hook, "sample_1", 3)
            manifest = await system.manifest(spec)
            assert posts[-1].verified() == {
                "event": "job.completed",
                "job_id": "sample",
                "name": "sample",
                "state": "completed",
                "attempt": 1,
                "code": None,
                "message": None,
                "warning": None,
                "dataset": f"s3://{seaweed.bucket}/{system.prefix}/sample/sample",
                "digest": manifest["digest"],
                "rows": manifest["totals"]["rows"],
                "rejected": manifest["rejected"],
                "dead_letters": manifest["dead_letters"],
                "finished_at": manifest["completed_at"],
            }
            assert manifest["dead_letters"]
            assert list(posts[-1].verified()) == list(json.loads(documented("json")))
            assert len({post.body for post in posts}) == 1
            await system.until("sample", lambda view: not view.state.pending_notifications)
            assert producer.metric("webhooks_total") == 3
            await fails_then_completes(system, hook)
            # One post for each end, and nothing for anything else.
            ids = [post.id for post in hook.deliveries]
            assert sorted(ids) == ["late_1", "late_2", *["sample_1"] * 3]


def documented(kind: str) -> str:
    """The page's block of a kind."""
    page = (Path(__file__).parent.parent.parent / "docs" / "webhooks.md").read_text(encoding="utf-8")
    (block,) = re.findall(rf"^```{kind}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return str(block)


async def fails_then_completes(system: System, hook: Hook) -> None:
    """A job fails because its file is missing. The file is written, and the job is retried."""
    spec = job(**sample_job("late", source={"type": "files", "paths": ["late.jsonl"]}))
    await system.submit(spec)
    (failed,) = await delivered(hook, "late_1")
    notification = failed.verified()
    assert (notification["event"], notification["code"], notification["attempt"]) == (
        "job.failed",
        "source_invalid",
        1,
    )
    assert "late.jsonl" in notification["message"]
    assert (notification["dataset"], notification["rows"], notification["digest"]) == (None, None, None)
    write_sample(system.files_root / "late.jsonl", 100)
    await system.client.request(Request(job_id="late", action="retry"))
    (done,) = await delivered(hook, "late_2")
    assert (done.verified()["state"], done.verified()["attempt"]) == ("completed", 2)
    await system.until("late", lambda view: not view.state.pending_notifications)


async def test_an_unreachable_receiver_does_not_delay_jobs(tmp_path: Path, kafka: str, seaweed: S3) -> None:
    write_sample(tmp_path / "sample.jsonl", 200)
    (port,) = free_ports(1)
    env = Hook(port=port).env
    async with running_system(tmp_path, kafka, seaweed, tmp_path, **env) as system:
        producer = system.start("producer")
        system.start("worker")
        for name in ("kept", "unwanted"):
            await system.submit(job(**sample_job(name)))
        for name in ("kept", "unwanted"):
            view = await system.until(name, lambda view: view.state.topic_removed)
            assert (view.state.state, view.state.pending_notifications) == ("completed", [1])
            assert await system.broker.describe_topic(attempt_topic(name, 1)) is None
        # No notification is sent for a deleted job.
        await system.client.request(Request(job_id="unwanted", action="delete"))
        view = await system.until("unwanted", lambda view: view.state.state == "deleted")
        assert view.state.pending_notifications == []
        # A producer that goes and one that comes: both know what is pending.
        assert await asyncio.to_thread(producer.end) == 0
        assert SECRET[6:] not in producer.log_text()
        with receiving(port=port) as hook:
            system.start("producer")
            (post,) = await delivered(hook, "kept_1")
            assert post.verified()["state"] == "completed"
            await system.until("kept", lambda view: not view.state.pending_notifications)
            assert [post.id for post in hook.deliveries] == ["kept_1"]


async def dead(process: Process) -> None:
    async with asyncio.timeout(DEADLINE):
        while process.popen.poll() is None:
            await asyncio.sleep(0.05)
    assert process.popen.returncode == -signal.SIGKILL, process.log_text()


@pytest.mark.timeout(600)
async def test_killed_producers_deliver_a_notification_at_least_once(
    tmp_path: Path, kafka: str, seaweed: S3
) -> None:
    write_sample(tmp_path / "sample.jsonl", 100)
    with receiving() as hook:
        async with running_system(tmp_path, kafka, seaweed, tmp_path, **hook.env, **SHORT) as system:
            system.start("worker")
            await system.submit(job(**sample_job("sample")))
            for place in DATA_LOCATIONS:
                await dead(system.start("producer", **{VARIABLE: f"{place}=kill"}))
                assert len(hook.deliveries) == (place == "webhook.after_send")
            system.start("producer")
            posts = await delivered(hook, "sample_1", 2)
            await system.until("sample", lambda view: not view.state.pending_notifications)
            assert [post.id for post in hook.deliveries] == ["sample_1"] * 2
            assert len({post.body for post in posts}) == 1
            assert all(post.verified()["state"] == "completed" for post in posts)


def run(folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "shardline", "run", "job.json", "--json"]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


def test_run_notifies_and_keeps_its_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "S3_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    write_sample(tmp_path / "sample.jsonl", 100)
    (tmp_path / "job.json").write_text(json.dumps(sample_job("alone")))
    # As the page says how to make one.
    made = next(line for line in documented("sh").splitlines() if "whsec_" in line)
    subprocess.run(["bash", "-c", made], cwd=tmp_path, check=True)
    assert (tmp_path / "webhook.secret").stat().st_mode & 0o777 == 0o600
    secret = (tmp_path / "webhook.secret").read_text()
    base = dict(os.environ) | {"SHARDLINE_WEBHOOK_SECRET_FILE": "webhook.secret"}
    with receiving((500, {})) as hook:
        done = run(tmp_path, base | {"SHARDLINE_WEBHOOK_URL": hook.url})
        assert done.returncode == 0, done.stderr
        assert [post.id for post in hook.deliveries] == ["alone_1"] * 2
        notification = hook.deliveries[-1].verified(secret.strip())
    view = json.loads(done.stdout)
    assert (notification["dataset"], notification["rows"]) == (view["dataset"], view["rows"])
    # The receiver is gone: the run is the same, and it names the notification that was not delivered.
    away = run(
        tmp_path, base | {"SHARDLINE_WEBHOOK_URL": hook.url, "SHARDLINE_WEBHOOK_PATIENCE_SECONDS": "0.2"}
    )
    assert away.returncode == 0, away.stderr
    assert json.loads(away.stdout)["state"] == "completed"
    assert "webhook alone_1: given up" in away.stderr
    assert "hidden-path" not in away.stderr
