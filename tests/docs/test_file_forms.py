"""docs/sources.md, "Files": each file that the page shows has the documents that it shows."""

import json
from pathlib import Path

import pytest

from shardline_producer.sources.files.file_documents import FileDocuments
from shardline_producer.sources.files.local_files import LocalFiles
from shardline_producer.sources.source import Document
from tests.docs.blocks import DOCS, blocks
from tests.make import job, memory_pages

SHOWN = {block.title: block.text for block in blocks(DOCS / "sources.md")}
FILES = [title.removeprefix("documents of ") for title in SHOWN if title.startswith("documents of ")]


def test_there_are_examples() -> None:
    assert FILES == ["laws.json", "pretty.json", "laws.csv", "rows.csv", "laws/civil/bgb.md"]


@pytest.mark.parametrize("name", FILES)
async def test_the_documents_are_as_shown(name: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(SHOWN[name])
    given = SHOWN.get(f"source of {name}")
    source = json.loads(given) if given else {"type": "files", "paths": [name]}
    found = FileDocuments(job(source=source), LocalFiles(tmp_path), None, memory_pages())
    contents = [item.content async for batch in found.read(await found.freeze(), None) for item in batch]
    documents = [
        {"document_id": content.id, "content": content.text} | content.metadata
        for content in contents
        if isinstance(content, Document)
    ]
    assert documents == json.loads(SHOWN[f"documents of {name}"])
