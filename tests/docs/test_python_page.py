"""The examples of docs/python.md and the walk through the API, run as a reader runs them."""

import ast
import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shardline.services.sample import write_sample
from tests.docs.blocks import DOCS, ROOT, Block, blocks

PAGE = DOCS / "python.md"
WALK = DOCS / "examples" / "walkthrough.py"
NEEDS_KAFKA = "With a running system"


def run_block(block: Block, names: dict[str, object]) -> None:
    """Run a block; one that awaits runs in an event loop, as in a notebook."""
    code = compile(block.text, block.place, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    awaited = eval(code, names)  # noqa: S307 - our own page
    if awaited is not None:
        asyncio.run(awaited)


def python_blocks() -> list[Block]:
    return [block for block in blocks(PAGE) if block.language == "python"]


def test_the_examples_run_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_sample(tmp_path / "laws.jsonl", 2000)
    names: dict[str, object] = {}
    found = [block for block in python_blocks() if block.title != NEEDS_KAFKA]
    assert len(found) >= 8
    for block in found:
        run_block(block, names)
    said = capsys.readouterr().out
    assert "completed 100%" in said
    assert "source_invalid" in said


def test_the_walk_through_runs(tmp_path: Path) -> None:
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", str(WALK)]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "dead letters {'invalid_json': 1}" in done.stdout
    assert "source_invalid: " in done.stdout
    assert "sauce: unknown field; did you mean `source`?" in done.stdout
    assert "completed: 100%" in done.stderr
