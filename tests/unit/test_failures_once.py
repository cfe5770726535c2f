"""A failure is printed once: by the command, and not by a line of the log before."""

import io
import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from rich.console import Console

from deploy.dev.service import free_ports
from shardline.cli.panel import job_panel
from shardline.services.job_rates import JobRates
from shardline.services.job_view import JobView
from shardline_common.dataset.events import EventTotals
from shardline_common.job.state import JobState, State
from tests.make import job


def shell(folder: Path, *arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    own = {name: value for name, value in os.environ.items() if "AWS" not in name and "KAFKA" not in name}
    return subprocess.run(
        [sys.executable, "-m", "shardline", *arguments],
        cwd=folder,
        env=own | environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("command", ["run", "preview"])
def test_a_job_that_fails_is_told_once(tmp_path: Path, command: str) -> None:
    body = {"name": "laws", "source": {"type": "files", "paths": ["away/laws.jsonl"]}}
    (tmp_path / "job.json").write_bytes(orjson.dumps(body))
    done = shell(tmp_path, command, "job.json")
    assert done.returncode == 1
    assert done.stderr.count("away/laws.jsonl") == 1, done.stderr
    assert "[error" not in done.stderr


def test_the_panel_leaves_the_reason_to_the_error_of_the_command() -> None:
    state = JobState(job(), State.FAILED, code="source_invalid", message="laws.jsonl cannot be read")
    view = JobView(state, EventTotals())
    for shows_failure in (True, False):
        output = io.StringIO()
        panel = job_panel(view, JobRates(), shows_failure=shows_failure)
        Console(file=output, width=120).print(panel)
        assert ("laws.jsonl cannot be read" in output.getvalue()) is shows_failure
        assert "failed" in output.getvalue()


def test_a_broker_that_is_down_is_told_once_by_doctor(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    done = shell(tmp_path, "doctor", "--json", KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{port}")
    found = {check["name"]: check["found"] for check in orjson.loads(done.stdout)["checks"]}
    assert found["kafka"].count("is Kafka up at") == 1, found["kafka"]
    assert done.stderr == ""
