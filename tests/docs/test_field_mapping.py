"""docs/sources.md, "Field mapping": each job over each document gives the row that the page shows."""

import json
from pathlib import Path

import pytest

from shardline_common.job.names import Layout
from shardline_common.memory.store import MemoryStore
from tests.docs.blocks import DOCS, Block, blocks
from tests.make import job
from tests.support.embedded import run_embedded

SHOWN = [block for block in blocks(DOCS / "sources.md") if block.language == "json"]
TITLES = ("in.jsonl", "source of the job", "its row")
EXAMPLES = [SHOWN[number : number + 3] for number, block in enumerate(SHOWN) if block.title == TITLES[0]]


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 3
    assert all(tuple(block.title for block in one) == TITLES for one in EXAMPLES)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda one: one[0].place)
async def test_the_row_is_as_shown(example: list[Block], tmp_path: Path) -> None:
    line, source, row = (block.text for block in example)
    (tmp_path / "in.jsonl").write_text(line)
    spec = job(source=json.loads(source), quality={"min_score": 0})
    store = MemoryStore()
    assert (await run_embedded(spec, store, tmp_path)).state.state == "completed"
    keys = [info.key async for info in store.list(Layout.of(spec).root + "data/")]
    assert json.loads(await store.get(keys[0])) == json.loads(row)
