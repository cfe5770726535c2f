"""Wheel and sdist as `make dist` builds them, and the wheel in an environment of its locked dependencies."""

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from shardline_common import __version__

ROOT = Path(__file__).parent.parent.parent
UV = Path(sys.executable).parent / "uv"
PACKAGES = {"shardline", "shardline_common", "shardline_consumer", "shardline_producer"}
FOLDERS = {"common", "consumer", "producer", "shardline"}
FOREIGN = """
import shardline
from shardline import sync
from shardline.clara import DatasetSearchAPI, DatasetSearchQuery
from shardline.errors import JobFailed

assert "site-packages" in shardline.__file__, shardline.__file__
assert callable(shardline.run)
job = {"name": "mine", "source": {"type": "files", "paths": ["mine.jsonl"]}}
result = sync.run(job, output="out")
assert sync.verify(result.dataset).ok
print(result.rows, DatasetSearchAPI().search_api)
"""
# Each line is checked by itself. `reveal_type` shows what a user's editor shows.
TYPED = """
import asyncio
import shardline
from shardline import errors, sync

def show(progress: shardline.Progress) -> None:
    print(progress.ratio + 1.0, progress.rows + 1, progress.seconds_left)

async def main() -> None:
    job = shardline.Job(name="a", source=shardline.FilesSource(type="files", paths=["a.jsonl"]))
    result = await shardline.run(job, output="out", settings={"uploads": 2}, on_progress=show)
    report = await shardline.verify(result.dataset)
    print(report.ok, report.problems[0].upper(), result.rejected["empty"] + 1, job.source.type)
    async for row in shardline.stream({"name": "a", "source": {"type": "uds3"}}):
        value: str | int | float | bool | None = row.metadata["title"]
        print(row.text.upper(), value)
    looked = await shardline.preview(job)
    print([one.document_id for one in looked.sample], looked.source["type"])
    status = await shardline.status(await shardline.submit(job, wait=True), wait=True)
    await shardline.cancel(status.job_id)
    await shardline.retry(status.job_id)
    print(status.job.name, status.state == "failed", status.source)

try:
    asyncio.run(main())
    stream = sync.stream({"name": "a", "source": {"type": "uds3"}})
    print([row.quality_score for row in stream], stream.counts.rejected)
except errors.JobFailed as error:
    print(error.code is errors.FailureCode.INTERNAL, error.hint)
"""
MISTAKES = """
import shardline
shardline.rnu
shardline.Job(name="a")
async def main() -> None:
    await shardline.run(5)
    (await shardline.status("a")).stat
    shardline.RunResult.rows = 5
"""
TOP_LEVEL = """
import json
from importlib.metadata import files
found = {path.parts[0] for path in files("shardline") if ".." not in path.parts}
print(json.dumps([name for name in found if not name.endswith(".dist-info")]))
"""
IMPORT_ALL = """
import importlib, pkgutil
for name in ("shardline_common", "shardline_consumer", "shardline_producer", "shardline"):
    package = importlib.import_module(name)
    assert "site-packages" in package.__file__, package.__file__
    for module in pkgutil.walk_packages(package.__path__, name + "."):
        # The one module that its extra is for.
        if module.name != "shardline_common.telemetry.otel":
            importlib.import_module(module.name)
            print(module.name)
"""


def run(*command: str | Path, cwd: Path = ROOT, **env: str) -> str:
    """The output of a command that must succeed, without the environment of the tests."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=clean | env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (command, done.stdout[-3000:], done.stderr[-3000:])
    return done.stdout


@dataclass(frozen=True)
class Dist:
    """The two files that `make dist` builds."""

    wheel: Path
    sdist: Path


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Dist:
    folder = tmp_path_factory.mktemp("dist")
    run("make", "dist", f"DIST={folder}")
    return Dist(
        folder / f"shardline-{__version__}-py3-none-any.whl", folder / f"shardline-{__version__}.tar.gz"
    )


@pytest.fixture(scope="module")
def installed(dist: Dist, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a clean environment with the locked runtime dependencies and the wheel."""
    venv = tmp_path_factory.mktemp("clean") / "venv"
    wanted = ("--frozen", "--no-dev", "--no-install-project", "--python", sys.executable)
    run(UV, "sync", "--quiet", *wanted, UV_PROJECT_ENVIRONMENT=str(venv))
    run(
        UV,
        "pip",
        "install",
        "--quiet",
        "--offline",
        "--no-deps",
        "--python",
        venv / "bin" / "python",
        dist.wheel,
    )
    return venv / "bin"


def test_the_wheel_contains_the_packages_only(dist: Dist) -> None:
    with zipfile.ZipFile(dist.wheel) as wheel:
        names = wheel.namelist()
        metadata = wheel.read(f"shardline-{__version__}.dist-info/METADATA").decode()
    assert {name.partition("/")[0] for name in names} == {*PACKAGES, f"shardline-{__version__}.dist-info"}
    for name in ("static/page.css", "static/page.js", "templates/base.html"):
        assert f"shardline/gateway/{name}" in names
    assert f"\nVersion: {__version__}\n" in metadata
    assert "\nClassifier: Private :: Do Not Upload\n" in metadata
    assert f"shardline-{__version__}.dist-info/licenses/LICENSE" in names


def test_the_sdist_holds_what_the_tests_need(dist: Dist) -> None:
    with tarfile.open(dist.sdist) as sdist:
        names = {name.split("/")[1] for name in sdist.getnames() if "/" in name}
    assert {*FOLDERS, "tests", "docs", "deploy", "Makefile", "uv.lock", "CHANGELOG.md"} <= names
    assert not names & {".venv", ".run", "dist", "datasets", ".env"}


def test_tree_and_sdist_build_the_same_wheel(dist: Dist, tmp_path: Path) -> None:
    # That of the fixture was built from the sdist.
    run(UV, "build", "--quiet", "--wheel", "--no-build-isolation", "--out-dir", tmp_path)
    assert (tmp_path / dist.wheel.name).read_bytes() == dist.wheel.read_bytes()


def test_the_installed_wheel_builds_a_dataset(installed: Path, tmp_path: Path) -> None:
    shardline = installed / "shardline"
    assert run(shardline, "--version", cwd=tmp_path) == f"shardline {__version__}\n"
    run(shardline, "sample", "sample.jsonl", "--documents", "200", cwd=tmp_path)
    job = {"name": "sample", "source": {"type": "files", "paths": ["sample.jsonl"]}}
    (tmp_path / "job.json").write_text(json.dumps(job))
    view = json.loads(run(shardline, "run", "job.json", "--json", cwd=tmp_path))
    assert (view["state"], view["source_documents"]) == ("completed", 200)
    report = json.loads(run(shardline, "verify", view["dataset"], "--json", cwd=tmp_path))
    assert (report["ok"], report["rows"]) == (True, view["rows"])


def test_packages_of_a_users_folder_are_not_imported(installed: Path, tmp_path: Path) -> None:
    for name in ("common", "producer", "consumer", "tests"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise RuntimeError('{name} of the user')\n")
    (tmp_path / "mine.jsonl").write_text('{"document_id": "1", "content": "a"}\n')
    (tmp_path / "script.py").write_text(FOREIGN)
    assert run(installed / "python", "script.py", cwd=tmp_path) == "0 None\n"
    (tmp_path / "shadow").mkdir()
    names = json.loads(run(installed / "python", "-c", TOP_LEVEL, cwd=tmp_path / "shadow"))
    assert set(names) == PACKAGES


def test_a_users_program_is_typed_by_the_wheel(installed: Path, tmp_path: Path) -> None:
    site = next((installed.parent / "lib").glob("python*/site-packages"))
    assert all((site / name / "py.typed").is_file() for name in PACKAGES)
    (tmp_path / "typed.py").write_text(TYPED)
    (tmp_path / "walkthrough.py").write_text((ROOT / "docs" / "examples" / "walkthrough.py").read_text())
    public = run(
        installed / "python",
        "-c",
        "import shardline, shardline.sync as s, shardline.errors as e\n"
        "print(*shardline.__all__, *('sync.' + n for n in s.__all__), *('errors.' + n for n in e.__all__))",
    ).split()
    names = [f"reveal_type(shardline.{name})\n" for name in public]
    (tmp_path / "names.py").write_text("import shardline\n" + "".join(names))
    shown = mypy(installed, tmp_path, "--disallow-any-expr", "typed.py", "names.py")
    assert "Success" in shown
    revealed = [line for line in shown.splitlines() if "Revealed type is" in line]
    assert len(revealed) == len(names) > 50
    # The two of a coroutine are Python's own: what is sent to it, and what it yields to the loop.
    untyped = [line for line in revealed if "Any" in line.replace("Coroutine[Any, Any, ", "")]
    assert untyped == []
    # `json` gives Any by itself.
    assert "Success" in mypy(installed, tmp_path, "walkthrough.py")
    (tmp_path / "mistakes.py").write_text(MISTAKES)
    found = mypy(installed, tmp_path, "mistakes.py", code=1)
    assert [int(line.split(":")[1]) for line in found.splitlines() if ": error:" in line] == [3, 4, 6, 7, 8]


def mypy(installed: Path, folder: Path, *arguments: str, code: int = 0) -> str:
    """What mypy, which a user has in another environment, says of programs beside the wheel."""
    options = ("--strict", "--config-file=", "--python-executable", str(installed / "python"))
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, (done.stdout, done.stderr)
    return done.stdout


def test_every_module_imports_without_extras_or_development_tools(installed: Path, tmp_path: Path) -> None:
    imported = run(installed / "python", "-c", IMPORT_ALL, cwd=tmp_path).split()
    assert len(imported) > 100
    listed = json.loads(run(UV, "pip", "list", "--format", "json", "--python", installed / "python"))
    names = {one["name"] for one in listed}
    assert "shardline" in names
    assert not names & {"pytest", "mypy", "pyarrow", "onnxruntime", "chromadb", "hatchling"}
