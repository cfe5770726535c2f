"""Generated pages are up to date, and `--help` stays quick."""

import json
import resource
import subprocess
import sys

import jsonschema
import pytest

from shardline_common.errors import FailureCode
from shardline_consumer.filters.clara import Rejection
from shardline_producer.sources.documents import DeadLetterReason
from tests.make import job
from tools.reference import DOCS, pages


@pytest.mark.parametrize("name", sorted(pages()))
def test_generated_pages_are_up_to_date(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == pages()[name], "run `make docs`"


def test_the_schema_accepts_real_jobs() -> None:
    schema = json.loads(pages()["job.schema.json"])
    jsonschema.validate(job(quality={"min_score": 0.2}).model_dump(mode="json"), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"name": "x"}, schema)


def test_every_reason_and_code_is_explained() -> None:
    text = (DOCS / "datasets.md").read_text(encoding="utf-8")
    for name in [*FailureCode, *DeadLetterReason, *Rejection]:
        assert f"`{name}`" in text, name


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['shardline', '--help']\n"
        "from shardline.cli.app import main\n"
        "try: main()\n"
        "except SystemExit: print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    found = set(done.stderr.split()) - sys.stdlib_module_names
    assert {"shardline", "typer"} <= found
    assert found <= {
        "__main__",
        "_distutils_hack",
        "annotated_doc",
        "shardline",
        "shardline_common",
        "shellingham",
        "typer",
    }


def cpu_seconds(*arguments: str) -> float:
    """Return the CPU-seconds of the quickest of five runs of Python, which other programs disturb least."""
    times = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times)


def test_help_is_quick() -> None:
    # A ratio within one run: the command needs little more than Typer itself.
    assert cpu_seconds("-m", "shardline", "--help") < 2.5 * cpu_seconds("-c", "import typer")
