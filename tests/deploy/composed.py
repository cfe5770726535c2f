"""docker-compose.yml as docker-compose reads it, and its settings adapted to this machine."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import pytest
import yaml

from deploy.dev.service import ROOT

FILE, PROFILES = ROOT / "docker-compose.yml", ROOT / "deploy" / "compose.profiles.yml"
# The settings that say where another container is.
_ADDRESS = re.compile(r"(_HOST|_URL|_URI|_SERVERS|_URL_S3)$")


def composed(*files: Path, environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The merged file with its defaults filled in; what docker-compose refuses fails the test."""
    found: dict[str, Any] = yaml.safe_load(_config(files or (FILE,), tuple((environ or {}).items())))
    return found


@cache
def _config(files: tuple[Path, ...], environ: tuple[tuple[str, str], ...]) -> str:
    program = shutil.which("docker-compose")
    if program is None:
        pytest.fail("docker-compose is not there; on Debian: apt-get install docker-compose", pytrace=False)
    options = [part for file in files for part in ("-f", str(file))]
    env = {"PATH": os.environ["PATH"], **dict(environ)}
    # A developer's own .env must not change what is read.
    with NamedTemporaryFile() as none:
        command = [program, "--project-directory", str(ROOT), "--env-file", none.name, *options, "config"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def carried_over(file: Mapping[str, Any], service: str, local: Mapping[str, str]) -> dict[str, str]:
    """The environment of a service, with what `local` names in place of what only containers can reach."""
    env = {name: str(value) for name, value in file["services"][service]["environment"].items()}
    hosts = "|".join(file["services"])
    elsewhere = {
        name
        for name, value in env.items()
        if _ADDRESS.search(name) and re.search(rf"(^|//)({hosts})(:|/|$)", value)
    }
    assert elsewhere <= local.keys(), f"{service}: {elsewhere - local.keys()} lead to another container"
    return env | {name: value for name, value in local.items() if name in env}
