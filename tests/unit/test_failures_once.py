"""A failure is printed once: by the command, and not by a line of the log before."""

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from deploy.dev.service import free_ports


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
    job = {"name": "laws", "source": {"type": "files", "paths": ["away/laws.jsonl"]}}
    (tmp_path / "job.json").write_bytes(orjson.dumps(job))
    done = shell(tmp_path, command, "job.json")
    assert done.returncode == 1
    assert done.stderr.count("away/laws.jsonl") == 1, done.stderr
    assert "[error" not in done.stderr


def test_a_broker_that_is_down_is_told_once_by_doctor(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    done = shell(tmp_path, "doctor", "--json", KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{port}")
    found = {check["name"]: check["found"] for check in orjson.loads(done.stdout)["checks"]}
    assert found["kafka"].count("is Kafka up at") == 1, found["kafka"]
    assert done.stderr == ""
