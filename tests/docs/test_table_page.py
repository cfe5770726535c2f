"""docs/sources.md, "Parquet and Arrow": the job over the file gives the row that the page shows."""

import json
from pathlib import Path

import pytest

from shardline_common.job.names import Layout
from shardline_common.memory.store import MemoryStore
from tests.docs.blocks import DOCS, blocks
from tests.make import job
from tests.support.embedded import run_embedded


async def test_the_row_is_as_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = {block.title: block for block in blocks(DOCS / "sources.md")}
    program = shown["make_laws.py"]
    monkeypatch.chdir(tmp_path)
    exec(compile(program.text, program.place, "exec"), {})  # noqa: S102 - our own page
    spec, store = job(**json.loads(shown["job.json"].text)), MemoryStore()
    assert (await run_embedded(spec, store, tmp_path)).state.state == "completed"
    [key] = [info.key async for info in store.list(Layout.of(spec).root + "data/")]
    assert json.loads(await store.get(key)) == json.loads(shown["the row of laws.parquet"].text)
