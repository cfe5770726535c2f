"""Runs at once into one output: different jobs do not disturb each other, the same job is refused."""

import asyncio
import fcntl
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import shardline
from shardline import errors
from shardline.services.output_lock import locked_output
from shardline.services.sample import write_sample
from shardline_common.errors import UsageError
from shardline_common.storage.directory import HIDDEN, LOCK, DirectoryStore

DOCUMENTS = 200
SECONDS = 60


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("AWS_", "S3_", "SHARDLINE_"))]:
        monkeypatch.delenv(name)
    write_sample(tmp_path / "sample.jsonl", DOCUMENTS)
    return tmp_path


def job(job_id: str, **changes: Any) -> dict[str, Any]:
    source = {"type": "files", "paths": ["sample.jsonl"]}
    output = {"shard_bytes": 65_536}
    return {"job_id": job_id, "name": "laws", "source": source, "output": output, "partitions": 2} | changes


async def at_once(output: str, settings: dict[str, Any], *names: str) -> None:
    alone = await shardline.run(job("alone"), output="alone")
    # Slow enough that each writes while the other does.
    pace = settings | {"source_rate": DOCUMENTS}
    results = await asyncio.gather(
        *(shardline.run(job(name), output=output, settings=pace) for name in names)
    )
    for result in results:
        report = await shardline.verify(result.dataset, settings=settings)
        assert (report.ok, report.digest) == (True, alone.digest), report.problems


async def test_different_jobs_write_to_one_folder_at_once(folder: Path) -> None:
    await at_once("out", {}, "first", "second", "third")
    assert {path.name for path in (folder / "out").iterdir()} >= {"laws", "_jobs", LOCK}
    # The locks of jobs are gone.
    assert not list((folder / "out").glob(f"{LOCK}-*"))
    (folder / "out" / f"{LOCK}-killed").touch()
    assert not [info.key async for info in DirectoryStore(folder / "out").list("") if LOCK in info.key]


def test_two_commands_with_different_jobs_write_to_one_folder_at_once(folder: Path) -> None:
    running = []
    for name in ("first", "second"):
        (folder / f"{name}.json").write_text(json.dumps(job(name)))
        command = [sys.executable, "-m", "shardline", "run", f"{name}.json", "--json"]
        running.append(
            subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=os.environ | {"SHARDLINE_SOURCE_RATE": str(DOCUMENTS)},
            )
        )
    for process in running:
        stdout, stderr = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, stderr
        assert shardline.sync.verify(json.loads(stdout)["dataset"]).ok


async def test_a_second_run_of_the_same_job_is_refused_by_name() -> None:
    started = asyncio.Event()
    first = asyncio.create_task(
        shardline.run(
            job("first"), output="out", settings={"source_rate": 40}, on_progress=lambda _: started.set()
        )
    )
    await started.wait()
    with pytest.raises(errors.UsageError, match="another run is writing the job first to out") as refused:
        await shardline.run(job("first"), output="out")
    assert refused.value.hint == "wait for it to end, or choose another --output"
    # Also with another body: --replace would delete what the other run writes.
    with pytest.raises(errors.UsageError, match="another run is writing the job first"):
        await shardline.run(job("first", partitions=3), output="out", replace=True)
    assert (await shardline.run(job("second"), output="out")).rows
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert (await shardline.run(job("first"), output="out")).rows


def test_temporary_files_are_removed_only_when_nobody_else_writes(tmp_path: Path) -> None:
    output, left = str(tmp_path / "out"), tmp_path / "out" / HIDDEN / "of-a-killed-run"
    with locked_output(output, "first"):
        left.parent.mkdir()
        left.touch()
        with locked_output(output, "second"):
            assert left.exists()
    with locked_output(output, "third"):
        assert not left.exists()


def test_a_run_of_version_0_1_holds_the_whole_output(tmp_path: Path) -> None:
    with (tmp_path / LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="another run is writing to"), locked_output(str(tmp_path), "a"):
            pass
    with (
        locked_output(str(tmp_path), "a"),
        (tmp_path / LOCK).open("w") as file,
        pytest.raises(BlockingIOError),
    ):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_lock_whose_file_was_removed_is_taken_once(tmp_path: Path) -> None:
    held, most, taken = 0, 0, 0
    guard = threading.Lock()

    def take() -> None:
        nonlocal held, most, taken
        for _ in range(100):
            try:
                with locked_output(str(tmp_path), "a"):
                    with guard:
                        held, taken = held + 1, taken + 1
                        most = max(most, held)
                    with guard:
                        held -= 1
            except UsageError:
                continue

    threads = [threading.Thread(target=take) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert taken > 1


async def test_a_folder_that_another_run_removes_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, link = DirectoryStore(tmp_path), os.link
    removed: list[Path] = []

    def remove_first(source: Path, target: Path) -> None:
        if not removed:
            # As a run does that has deleted the last object of the folder.
            removed.append(target.parent)
            target.parent.rmdir()
        link(source, target)

    monkeypatch.setattr(os, "link", remove_first)
    await store.create("_probe/a", b"here")
    assert await store.get("_probe/a") == b"here"
    assert removed == [tmp_path / "_probe"]
