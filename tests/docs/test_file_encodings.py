"""docs/sources.md, "Encodings": the error is as shown, and the job below it reads the file."""

import json
from pathlib import Path

from shardline_common.memory.store import MemoryStore
from tests.docs.blocks import DOCS, blocks
from tests.make import job
from tests.support.embedded import run_embedded

SHOWN = {block.title: block.text for block in blocks(DOCS / "sources.md")}
LINE = '{"document_id": "a", "content": "Beh\u00f6rde"}\n'


async def test_the_error_is_as_shown_and_the_job_reads_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(LINE.encode("cp1252") * 20)
    source = {"type": "files", "paths": ["a.jsonl"]}
    failed = (await run_embedded(job(source=source), MemoryStore(), tmp_path)).state
    assert str(failed.message).replace("; set ", "\ntry: set ") + "\n" == SHOWN["the error"]
    named = json.loads(SHOWN["source of the job that reads cp1252"])
    read = await run_embedded(job(source=named, quality={"min_score": 0}), MemoryStore(), tmp_path)
    assert (read.state.state, read.state.source_count) == ("completed", 20)
