"""The Dockerfile: its content, and that the installed tree runs without write access.

The tests need no Docker engine: they run the commands of the build stage in a temporary folder.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import psutil
import pytest

from deploy.dev.service import ROOT, free_ports
from shardline_common import __version__
from tests.deploy.composed import composed
from tests.gateway.system import eventually

_USER = 10001


@dataclass(frozen=True)
class Stage:
    """The instructions of one stage."""

    image: str
    instructions: list[tuple[str, str]]

    def all(self, name: str) -> list[str]:
        """The arguments of every instruction of a name."""
        return [rest for word, rest in self.instructions if word == name]

    def one(self, name: str) -> str:
        """The arguments of the only one."""
        (found,) = self.all(name)
        return found

    def environment(self) -> dict[str, str]:
        """What ENV sets."""
        return dict(pair.split("=", 1) for text in self.all("ENV") for pair in text.split())


def stages() -> list[Stage]:
    """The Dockerfile's stages."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    found: list[Stage] = []
    for line in re.sub(r"\\\n", " ", text).splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            found.append(Stage(rest.split(" ")[0], []))
        elif word:
            found[-1].instructions.append((word, rest.strip()))
    return found


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_both_stages_have_the_same_pinned_python() -> None:
    build, last = stages()
    assert build.image == last.image
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", build.image)


def test_the_image_installs_the_locked_versions() -> None:
    build, last = stages()
    syncs = [command for command in build.all("RUN") if "uv sync" in command]
    assert len(syncs) == 2
    assert all(command.startswith("uv sync --locked --no-dev ") for command in syncs)
    pinned = re.search(r"^UV_VERSION := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert pinned is not None
    assert f"uv=={pinned[1]}" in build.all("RUN")[0]
    assert not re.search(r"\b(pip|apt-get|uv|gcc|curl)\b", " ".join(last.all("RUN")))


def test_the_image_runs_as_a_numeric_user() -> None:
    last = stages()[-1]
    assert last.one("USER") == f"{_USER}:{_USER}"
    assert f"--owner={_USER}" in last.one("RUN")


def test_commands_run_without_a_shell() -> None:
    last = stages()[-1]
    # A shell in between would take the signal, and the worker would be killed.
    assert json.loads(last.one("ENTRYPOINT")) == ["shardline"]
    assert json.loads(last.one("CMD")) == ["--help"]
    assert last.one("STOPSIGNAL") == "SIGTERM"
    check = last.one("HEALTHCHECK").partition(" CMD ")[2]
    assert "/healthz" in json.loads(check)[-1]


def test_the_working_directory_is_not_writable() -> None:
    last = stages()[-1]
    written = {last.environment()[name] for name in ("SHARDLINE_SPOOL_DIR", "FILES_ROOT")}
    assert last.one("WORKDIR") not in written


def test_labels_of_the_image() -> None:
    names = re.findall(r"org\.opencontainers\.image\.(\w+)=", stages()[-1].one("LABEL"))
    assert names == ["title", "description", "licenses", "version", "revision"]


def test_the_build_context_equals_what_is_copied() -> None:
    patterns = (ROOT / ".dockerignore").read_text().splitlines()
    let_in = {line[1:] for line in patterns if line.startswith("!")}
    copied = {word for text in stages()[0].all("COPY") for word in text.split()[:-1]}
    assert copied == let_in
    assert "*" in patterns
    assert all((ROOT / name).exists() for name in copied)
    assert not any(fnmatch(secret, name) for secret in (".env", ".run", ".git") for name in let_in)


def test_compose_mounts_the_writable_folders() -> None:
    written = stages()[-1].environment()["SHARDLINE_SPOOL_DIR"]
    services = composed()["services"]
    for name in ("producer", "worker", "gateway"):
        mounts = [str(mount).split(":")[1:] for mount in services[name]["volumes"]]
        assert [written, "rw"] in mounts
        assert [mount.split(":")[0] for mount in services[name]["tmpfs"]] == ["/tmp"]  # noqa: S108 - in a container


@dataclass(frozen=True)
class Tree:
    """The installed tree, in place of `/`."""

    folder: Path

    @property
    def place(self) -> Path:
        """The working directory."""
        return Path(f"{self.folder}{stages()[-1].one('WORKDIR')}")

    def command(self, *words: str) -> list[str]:
        """A command of the image, as its user where we may become that."""
        program = [str(self.folder / "opt" / "shardline" / "bin" / words[0]), *words[1:]]
        if os.geteuid() != 0:
            return program
        return ["setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--clear-groups", "--", *program]

    def environment(self, **more: str) -> dict[str, str]:
        """The image's own variables, its folders being those of the test."""
        found = stages()[-1].environment()
        spool = {name: f"{self.folder}/spool" for name, value in found.items() if value == "/spool"}
        path = {"PATH": f"{self.folder}/opt/shardline/bin:/usr/bin:/bin"}
        return found | spool | path | {"FILES_ROOT": f"{self.folder}/data"} | more

    def run(self, *words: str, **more: str) -> str:
        """A command to its end; its output."""
        done = subprocess.run(
            self.command(*words),
            env=self.environment(**more),
            cwd=self.place,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def tree() -> Iterator[Tree]:
    """What the build stage installs, with everything but the spool closed to writing."""
    folder = Path(tempfile.mkdtemp(prefix="shardline-image-"))
    try:
        for name in ("src", "opt", "spool", "data"):
            (folder / name).mkdir()
        _build(folder)
        folder.chmod(0o755)
        for path in (folder, *folder.rglob("opt/**/*"), folder / "data"):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode & 0o7555)
        if os.geteuid() == 0:
            os.chown(folder / "spool", _USER, _USER)
        yield Tree(folder)
    finally:
        for path in (folder, *(one for one in folder.rglob("*") if one.is_dir() and not one.is_symlink())):
            path.chmod(0o755)
        shutil.rmtree(folder)


def _build(folder: Path) -> None:
    """Each COPY and each `uv sync` of the build stage, in its order."""
    build = stages()[0]
    # Bytecode takes long, and changes nothing that is tested here.
    quick = {"UV_COMPILE_BYTECODE": "0", "UV_PYTHON": sys.executable}
    env = dict(os.environ) | build.environment() | quick
    env |= {"UV_PROJECT_ENVIRONMENT": f"{folder}/opt/shardline", "EXTRAS": ""}
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    env.pop("VIRTUAL_ENV", None)
    for word, rest in build.instructions:
        if word == "COPY":
            _copy(rest.split()[:-1], folder / "src")
        elif word == "RUN" and rest.startswith("uv sync"):
            done = subprocess.run(
                ["sh", "-c", rest], cwd=folder / "src", env=env, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr


def _copy(names: list[str], target: Path) -> None:
    for name in names:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, target)


def test_the_tree_has_no_development_packages(tree: Tree) -> None:
    assert tree.run("shardline", "--version") == f"shardline {__version__}\n"
    (site,) = tree.folder.glob("opt/shardline/lib/python*/site-packages")
    there = {path.name for path in site.iterdir()}
    assert {"shardline_common", "shardline_producer", "shardline_consumer", "shardline", "asyncpg"} <= there
    assert not {"pytest", "mypy", "chromadb", "tests", "deploy", "uv"} & there
    # Not editable: the sources are in the tree, nothing points out of it.
    assert not list(site.glob("*shardline*.pth"))


def test_a_job_runs_with_a_read_only_tree(tree: Tree) -> None:
    before = _files(tree.folder)
    spool = tree.folder / "spool"
    tree.run("shardline", "sample", f"{spool}/in.jsonl", "--documents", "200")
    job = {"job_id": "image", "name": "image", "source": {"type": "files", "paths": [f"{spool}/in.jsonl"]}}
    (tree.folder / "src" / "job.json").write_text(json.dumps(job))
    ran = json.loads(
        tree.run("shardline", "run", f"{tree.folder}/src/job.json", "--output", f"{spool}/out", "--json")
    )
    assert json.loads(tree.run("shardline", "verify", ran["dataset"], "--json"))["ok"] is True
    assert _files(tree.folder) == before


def _files(folder: Path) -> set[Path]:
    return {path for name in ("opt", "data") for path in (folder / name).rglob("*")}


def test_the_health_check_reports_a_running_process(tree: Tree) -> None:
    check = json.loads(stages()[-1].one("HEALTHCHECK").partition(" CMD ")[2])
    (port, other) = map(str, free_ports(2))
    env = {"SHARDLINE_METRICS_PORT": port, "CLARA_SECURITY_MODE": "debug", "CLARA_DATASET_PORT": other}
    settings = tree.environment(**env)

    def healthy() -> bool:
        asked = subprocess.run(tree.command(*check), env=settings, capture_output=True, check=False)
        return asked.returncode == 0

    assert not healthy()
    command = tree.command(*json.loads(stages()[-1].one("ENTRYPOINT")), "gateway")
    with (tree.folder / "src" / "gateway.log").open("wb") as log:
        process = psutil.Popen(command, env=settings, cwd=tree.place, stderr=log)
    try:
        eventually(healthy)
        assert process.uids().real == (_USER if os.geteuid() == 0 else os.geteuid())
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        if process.is_running():
            process.kill()
            process.wait()


def test_the_seed_imports_as_compose_mounts_it(tree: Tree) -> None:
    place = tree.folder / "src" / "seed"
    shutil.copytree(
        ROOT / "deploy" / "seed", place / "deploy" / "seed", ignore=shutil.ignore_patterns("__pycache__")
    )
    service = composed()["services"]["seed"]
    assert any(
        str(mount).endswith(f"{service['working_dir']}/deploy/seed:ro") for mount in service["volumes"]
    )
    modules = [service["entrypoint"][-1], composed()["services"]["embedding"]["entrypoint"][-1]]
    first = f"import sys; sys.path.insert(0, {str(place)!r})"
    code = f"{first}; import {', '.join(modules)}; print(deploy.seed.__file__)"
    assert tree.run("python", "-c", code) == f"{place}/deploy/seed/__init__.py\n"
