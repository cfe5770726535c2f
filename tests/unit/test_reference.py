"""Generated pages are of today, and the house keeps its shape."""

import json
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest

from common.errors import FailureCode
from consumer.filters import Rejection
from producer.documents import DeadReason
from shardline.reference import DOCS, pages
from tests.make import job


@pytest.mark.parametrize("name", sorted(pages()))
def test_generated_pages_are_of_today(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == pages()[name], "run `make docs`"


def test_the_schema_takes_real_jobs() -> None:
    schema = json.loads(pages()["job.schema.json"])
    jsonschema.validate(job(quality={"min_score": 0.2}).model_dump(mode="json"), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"name": "x"}, schema)


def test_every_reason_and_code_is_explained() -> None:
    text = (DOCS / "datasets.md").read_text(encoding="utf-8")
    for name in [*FailureCode, *DeadReason, *Rejection]:
        assert f"`{name}`" in text, name


def test_help_is_quick() -> None:
    times = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "shardline.cli", "--help"], check=True, capture_output=True)
        times.append(time.perf_counter() - started)
    baseline = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import typer"], check=True, capture_output=True)
        baseline.append(time.perf_counter() - started)
    # A ratio in one run: nothing heavy is imported beside what Typer itself needs.
    assert min(times) < 2.5 * min(baseline)


def test_the_wheel_holds_the_four_packages() -> None:
    text = (Path(__file__).parent.parent.parent / "pyproject.toml").read_text()
    assert 'packages = ["common", "producer", "consumer", "shardline"]' in text
