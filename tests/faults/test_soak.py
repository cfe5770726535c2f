"""The soak for three minutes; `make soak` runs it for an hour."""

import os
from pathlib import Path

import pytest

from tests.faults.soak import show, soak
from tests.services import S3

SECONDS = float(os.environ.get("SHARDLINE_SOAK_SECONDS", "180"))
SEED = int(os.environ.get("SHARDLINE_SOAK_SEED", "1"))


@pytest.mark.timeout(SECONDS + 900)
async def test_datasets_are_correct_and_resources_bounded(tmp_path: Path, seaweed: S3) -> None:
    report = await soak(tmp_path, seaweed, SECONDS, SEED)
    show(report, SECONDS, SEED)
    assert not report.problems
    assert report.done["completed"] >= SECONDS / 30, report.done
    assert all(report.done.get(what) for what in ("kill", "stop", "cut Kafka", "store errors")), report.done
