"""`run` in one process obeys the settings of a producer and of a worker."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import shardline
from shardline import errors
from shardline.services.local_run import run_job
from shardline.services.sample import write_sample
from shardline_common.job.spec import parse_job
from shardline_common.settings.core import CoreSettings
from shardline_common.settings.load import Settings, load_settings

# What these settings are about does not exist in a process that runs one job into one output.
WITHOUT_MEANING = {
    "s3_bucket": "--output names the bucket",
    "s3_prefix": "--output names the prefix",
    "files_root": "relative paths start at the working directory",
    "max_jobs": "there is one job",
    "stuck_seconds": "there is no /readyz",
    "metrics_port": "there is no /metrics",
    "metrics_host": "there is no /metrics",
    "shutdown_grace_seconds": "SIGTERM ends the process at once, and what is committed is kept",
    "topic_grace_seconds": "the topic is in memory",
    "dead_letter_originals": "it is a default of the job, which the command fills in",
    "log_level": "the command configures the log",
    "log_format": "the command configures the log",
}


def job(folder: Path) -> dict[str, Any]:
    path = folder / "sample.jsonl"
    write_sample(path, 20, 1)
    return {"name": "laws", "source": {"type": "files", "paths": [str(path)]}}


async def test_a_run_reads_every_setting_of_producer_and_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: set[str] = set()

    def recorded(settings: Settings, name: str) -> Any:
        read.add(name)
        return object.__getattribute__(settings, name)

    found = load_settings({}, environ={}, folder=tmp_path).settings
    spec = parse_job(json.dumps(job(tmp_path)), default_id=True)
    monkeypatch.setattr(Settings, "__getattribute__", recorded, raising=False)
    await run_job(spec, str(tmp_path / "out"), found, lambda _: None)
    monkeypatch.undo()
    of_a_store = {name for name in CoreSettings.model_fields if name.startswith(("aws_", "s3_"))}
    ignored = CoreSettings.model_fields.keys() - read - of_a_store
    assert ignored <= WITHOUT_MEANING.keys()


async def test_a_run_leaves_the_reserve_of_the_disk_free(tmp_path: Path) -> None:
    reserve = {"spool_dir": str(tmp_path), "spool_reserve_bytes": 1 << 60}
    with pytest.raises(errors.SpoolError, match="less than") as refused:
        await shardline.run(job(tmp_path), output=tmp_path / "out", settings=reserve)
    assert "SHARDLINE_SPOOL_RESERVE_BYTES" in (refused.value.hint or "")


async def test_the_spool_of_a_run_shrinks_to_what_the_disk_has_beyond_the_reserve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=3 << 20))
    body = job(tmp_path) | {"partitions": 1, "max_document_bytes": 1 << 20}
    settings = {"spool_dir": str(tmp_path), "spool_reserve_bytes": 1 << 20}
    with pytest.raises(errors.JobFailed, match="the worker has 2097152"):
        await shardline.run(body, output=tmp_path / "out", settings=settings)
