"""`shardline run`: a run that was killed or interrupted resumes, and ends with the same digest."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import shardline
from shardline.services.sample import write_sample
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


SECONDS = 60


def interrupted(job: Path, output: Path, ready: Callable[[], bool]) -> str:
    """Press Ctrl-C in a slow run once it is ready, and return what it says."""
    process = subprocess.Popen(
        command(job, output),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | {"SHARDLINE_SOURCE_RATE": "400"},
    )
    deadline = time.monotonic() + SECONDS
    while not ready():
        assert process.poll() is None, "it ended before it could be interrupted"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert b"Traceback" not in said
    return said.decode()


def test_ctrl_c_says_how_many_documents_are_kept_and_the_digest_is_the_undisturbed_one(
    tmp_path: Path,
) -> None:
    write_sample(tmp_path / "sample.jsonl", 1500)
    body = {
        "job_id": "sample",
        "name": "sample",
        "source": {"type": "files", "paths": [str(tmp_path / "sample.jsonl")]},
        "output": {"shard_bytes": 65_536},
    }
    job = tmp_path / "job.json"
    job.write_text(json.dumps(body))
    whole = shardline.sync.run(body, output=tmp_path / "undisturbed")
    chain = tmp_path / "out" / "sample" / "sample" / "_state" / "chain"
    said = interrupted(job, tmp_path / "out", lambda: len(list(chain.rglob("*.json"))) > 1)
    heads = {
        record.parent: json.loads(record.read_bytes())["next"] for record in sorted(chain.rglob("*.json"))
    }
    assert f"interrupted; {sum(heads.values()):,} documents are kept, run the same command again" in said
    resumed = shardline.sync.run(body, output=tmp_path / "out")
    assert (resumed.digest, resumed.rows) == (whole.digest, whole.rows)
    assert verified(resumed.dataset)["digest"] == whole.digest


def test_ctrl_c_before_the_first_segment_says_that_nothing_is_kept(tmp_path: Path) -> None:
    write_sample(tmp_path / "sample.jsonl", 3000)
    job = tmp_path / "job.json"
    source = {"type": "files", "paths": [str(tmp_path / "sample.jsonl")]}
    job.write_text(json.dumps({"job_id": "sample", "name": "sample", "source": source}))
    plan = tmp_path / "out" / "sample" / "sample" / "_state" / "plan.json"
    said = interrupted(job, tmp_path / "out", plan.exists)
    assert "no document is kept yet, because no segment has 64.0 MiB of rows" in said
    assert "run the same command again" in said
