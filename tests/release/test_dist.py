"""Wheel and sdist as `make dist` builds them, and the wheel beside what is locked for it and nothing else."""

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
    """Output of a command that must end well, without the environment of the tests."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=clean | env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (command, done.stdout[-3000:], done.stderr[-3000:])
    return done.stdout


@dataclass(frozen=True)
class Dist:
    """What was built."""

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
    """The programs of a clean environment: the locked runtime dependencies, and the wheel."""
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


def test_the_wheel_holds_the_packages_and_nothing_else(dist: Dist) -> None:
    with zipfile.ZipFile(dist.wheel) as wheel:
        names = wheel.namelist()
        metadata = wheel.read(f"shardline-{__version__}.dist-info/METADATA").decode()
    assert {name.partition("/")[0] for name in names} == {*PACKAGES, f"shardline-{__version__}.dist-info"}
    for name in ("static/page.css", "static/page.js", "templates/base.html"):
        assert f"shardline/gateway/{name}" in names
    assert f"\nVersion: {__version__}\n" in metadata
    assert "\nClassifier: Private :: Do Not Upload\n" in metadata
    assert f"shardline-{__version__}.dist-info/licenses/LICENSE" in names


def test_the_sdist_holds_what_the_tests_need_and_nothing_that_was_made(dist: Dist) -> None:
    with tarfile.open(dist.sdist) as sdist:
        names = {name.split("/")[1] for name in sdist.getnames() if "/" in name}
    assert {*FOLDERS, "tests", "docs", "deploy", "Makefile", "uv.lock", "CHANGELOG.md"} <= names
    assert not names & {".venv", ".run", "dist", "datasets", ".env"}


def test_tree_and_sdist_build_the_same_wheel(dist: Dist, tmp_path: Path) -> None:
    # That of the fixture was built from the sdist.
    run(UV, "build", "--quiet", "--wheel", "--no-build-isolation", "--out-dir", tmp_path)
    assert (tmp_path / dist.wheel.name).read_bytes() == dist.wheel.read_bytes()


def test_the_installed_wheel_makes_a_dataset(installed: Path, tmp_path: Path) -> None:
    shardline = installed / "shardline"
    assert run(shardline, "--version", cwd=tmp_path) == f"shardline {__version__}\n"
    run(shardline, "sample", "sample.jsonl", "--documents", "200", cwd=tmp_path)
    job = {"name": "sample", "source": {"type": "files", "paths": ["sample.jsonl"]}}
    (tmp_path / "job.json").write_text(json.dumps(job))
    view = json.loads(run(shardline, "run", "job.json", "--json", cwd=tmp_path))
    assert (view["state"], view["source_documents"]) == ("completed", 200)
    report = json.loads(run(shardline, "verify", view["dataset"], "--json", cwd=tmp_path))
    assert (report["ok"], report["rows"]) == (True, view["rows"])


def test_every_module_imports_without_extras_or_development_tools(installed: Path, tmp_path: Path) -> None:
    imported = run(installed / "python", "-c", IMPORT_ALL, cwd=tmp_path).split()
    assert len(imported) > 100
    listed = json.loads(run(UV, "pip", "list", "--format", "json", "--python", installed / "python"))
    names = {one["name"] for one in listed}
    assert "shardline" in names
    assert not names & {"pytest", "mypy", "pyarrow", "onnxruntime", "chromadb", "hatchling"}
