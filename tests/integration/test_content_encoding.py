"""Objects on S3 with a Content-Encoding: read as they are stored, and never as a store sends them instead."""

import gzip
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from shardline_common.memory.store import MemoryStore
from shardline_common.runtime.retry import Backoff
from shardline_common.storage.s3 import open_s3
from tests.integration.test_short_sources import options
from tests.make import job
from tests.support.embedded import run_embedded
from tests.support.lying_store import Answer, Lie, LyingStore

ROWS = b"".join(b'{"document_id": "d%03d", "content": "text"}\n' % number for number in range(400))
SPEC = job(source={"type": "files", "paths": ["s3://b/in/a.jsonl"]})
STORED = {
    "gzip": gzip.compress(ROWS),
    "zstd": zstandard.compress(ROWS),
    "aws-chunked,gzip": gzip.compress(ROWS),
    "aws-chunked": ROWS,
    "br, gzip": ROWS,
}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pause", "longest"):
        monkeypatch.setattr(Backoff, name, lambda *_: 0.0)


def always(lie: Lie) -> list[Lie]:
    return [lie] * 100


@pytest.mark.parametrize("encoding", STORED)
async def test_an_object_is_read_as_it_is_stored(tmp_path: Path, encoding: str) -> None:
    store = LyingStore(
        {"in/a.jsonl": STORED[encoding]}, lies=always(lambda answer: answer.having(Content_Encoding=encoding))
    )
    async with store.running() as url, open_s3(options(url)) as client:
        state = (await run_embedded(SPEC, MemoryStore(), tmp_path, remote=client)).state
    assert (state.state, state.source_count) == ("completed", 400)


def decompressed(answer: Answer) -> Answer:
    """Google's store does this for a client that accepts no gzip."""
    return replace(answer, body=gzip.decompress(STORED["gzip"])) if answer.status == 200 else answer


@pytest.mark.parametrize("framed", [True, False], ids=["with its length", "without a length"])
async def test_a_store_that_decompresses_on_its_way_is_named(tmp_path: Path, framed: bool) -> None:
    store = LyingStore(
        {"in/a.jsonl": STORED["gzip"]},
        lies=always(lambda answer: replace(decompressed(answer), framed=framed)),
    )
    async with store.running() as url, open_s3(options(url)) as client:
        state = (await run_embedded(SPEC, MemoryStore(), tmp_path, remote=client, source_seconds=0.0)).state
    assert (state.state, state.code) == ("failed", "source_changed")
    assert "s3://b/in/a.jsonl" in str(state.message)
    assert "was it unpacked on its way?" in str(state.message)
