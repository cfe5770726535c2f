"""`shardline run`: a run that was killed or interrupted resumes, and ends with the same digest."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.laws import Laws


def write_job(folder: Path, laws: Laws) -> Path:
    spec = laws.job("laws").model_dump(mode="json")
    spec["source"]["paths"] = [str(laws.folder / "laws.jsonl.zst")]
    path = folder / "job.json"
    path.write_text(json.dumps(spec))
    return path


def command(job: Path, output: Path) -> list[str]:
    return [sys.executable, "-m", "shardline", "run", str(job), "--output", str(output), "--json"]


def verified(dataset: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-m", "shardline", "verify", dataset, "--json"], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.corpus
def test_a_run_killed_five_times_has_the_undisturbed_digest(tmp_path: Path, laws: Laws) -> None:
    job, output = write_job(tmp_path, laws), tmp_path / "out"
    slow = os.environ | {"SHARDLINE_SOURCE_RATE": "2000"}
    chain = output / "laws" / "laws" / "_state" / "chain"
    grown = 0
    for _ in range(5):
        process = subprocess.Popen(command(job, output), stdout=subprocess.DEVNULL, env=slow)
        until_grown(process, chain, grown)
        process.send_signal(signal.SIGKILL)
        process.wait()
        grown = len(list(chain.rglob("*.json")))
        assert not (output / "laws" / "laws" / "_SUCCESS").exists()
    done = subprocess.run(command(job, output), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    dataset = json.loads(done.stdout)["dataset"]
    assert verified(dataset)["digest"] == laws.digest
    again = subprocess.run(command(job, output), capture_output=True, check=False)
    assert again.returncode == 0, again.stderr


def until_grown(process: subprocess.Popen[bytes], chain: Path, before: int) -> None:
    deadline = time.monotonic() + 60
    while len(list(chain.rglob("*.json"))) <= before + 8:
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.corpus
def test_ctrl_c_keeps_committed_segments_and_says_how_to_resume(tmp_path: Path, laws: Laws) -> None:
    job, output = write_job(tmp_path, laws), tmp_path / "out"
    process = subprocess.Popen(
        command(job, output),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | {"SHARDLINE_SOURCE_RATE": "2000"},
    )
    until_grown(process, output / "laws" / "laws" / "_state" / "chain", 0)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"run the same command again" in said
    assert b"Traceback" not in said
