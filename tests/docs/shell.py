"""Run the commands of a page, unchanged and in order, in a folder of their own."""

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from deploy.dev.service import free_ports
from tests.docs.blocks import ROOT, Block, agrees

_PORT = "45681"
_SECONDS = 600.0
_TAKEN_FROM_THE_CLONE = (
    "Makefile",
    "pyproject.toml",
    "uv.lock",
    "common",
    "producer",
    "consumer",
    "shardline",
    "deploy",
    "tools",
)


def clone(folder: Path) -> None:
    """Make a copy of what a reader's clone holds, with the installed packages of this one."""
    for name in _TAKEN_FROM_THE_CLONE:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, folder / name)
    (folder / ".venv").symlink_to(ROOT / ".venv")


def follow(blocks: Sequence[Block], folder: Path, env: Mapping[str, str]) -> None:
    """Save the files and run the commands. Fail at the first command that fails or prints something else.

    Only the gateway's port is replaced, because it may be in use on this machine.
    """
    port = str(free_ports(1)[0])
    shown: list[tuple[str, str | None]] = []
    outputs = folder / ".page"
    outputs.mkdir()
    lines = ["set -eu"]
    for number, block in enumerate(blocks):
        if block.file is not None:
            (outputs / f"{number}-{block.file}").write_text(block.text)
            lines.append(f"cp {outputs}/{number}-{block.file} {block.file}")
        for command, output in block.steps() if block.commands else ():
            lines.append(f"{{\n{command.replace(_PORT, port)}}} > {outputs}/{len(shown)}.txt 2>&1")
            shown.append((f"{block.place}: {command}", output))
    code = _type("\n".join(lines), folder, os.environ | env | {"CLARA_DATASET_PORT": port})
    _compare(shown, outputs, failed=code != 0)


def _type(script: str, folder: Path, env: Mapping[str, str]) -> int:
    # A session of its own, so that processes that the page left running can be ended with it.
    shell = subprocess.Popen(
        ["bash", "-c", script], cwd=folder, env=dict(env), start_new_session=True, stdin=subprocess.DEVNULL
    )
    try:
        return shell.wait(_SECONDS)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()


def _compare(shown: Sequence[tuple[str, str | None]], outputs: Path, *, failed: bool) -> None:
    ran = [number for number in range(len(shown)) if (outputs / f"{number}.txt").exists()]
    for number in ran:
        command, output = shown[number]
        printed = (outputs / f"{number}.txt").read_text()
        assert not (failed and number == ran[-1]), f"{command}failed:\n{printed}"
        assert output is None or agrees(output, printed), f"{command}printed:\n{printed}"
    assert len(ran) == len(shown), f"only {len(ran)} of {len(shown)} commands ran"
