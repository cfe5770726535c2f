"""The examples of docs/training.md, run as a reader runs them."""

from pathlib import Path

import pytest

from shardline import sync
from shardline.services.sample import write_sample
from tests.docs.blocks import DOCS, blocks


def test_the_examples_run_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_sample(tmp_path / "laws.jsonl", 400)
    source = {"type": "files", "paths": ["laws.jsonl"]}
    sync.run({"name": "laws", "job_id": "laws-2026", "source": source})
    names: dict[str, object] = {}
    found = [
        block
        for block in blocks(DOCS / "training.md")
        if block.language == "python" and not block.title.startswith("Not run")
    ]
    assert len(found) == 2
    for block in found:
        exec(compile(block.text, block.place, "exec"), names)  # noqa: S102 - our own page
