"""How often `run` changes between the event loop and its threads. Each change costs as much as ten rows."""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import aclosing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardline_producer.sources.files import frozen_blocks, local_files
from shardline_producer.sources.files.file_documents import FileDocuments
from shardline_producer.sources.files.local_files import LocalFiles
from tests.make import job, memory_pages

ROW = b'{"document_id": "d%06d", "content": "' + b"text " * 400 + b'"}\n'


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """The calls on threads, by the name of what is called."""
    counted: Counter[str] = Counter()
    real = asyncio.BaseEventLoop.run_in_executor

    def count(loop: Any, executor: Any, call: Callable[..., Any], *args: Any) -> Any:
        work = args[0] if args else call
        counted[getattr(getattr(work, "func", work), "__name__", "other")] += 1
        return real(loop, executor, call, *args)

    monkeypatch.setattr(asyncio.BaseEventLoop, "run_in_executor", count)
    return counted


async def test_a_block_of_a_file_is_read_hashed_and_parsed_by_two_calls(
    tmp_path: Path, calls: Counter[str]
) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"".join(ROW % number for number in range(5_000)))
    blocks = 10
    spec = job(source={"type": "files", "paths": ["a.jsonl"]})
    source = FileDocuments(spec, LocalFiles(tmp_path), None, memory_pages())
    frozen = await source.freeze()
    calls.clear()
    async with aclosing(source.read(frozen, None)) as batches:
        assert sum([len(batch) async for batch in batches]) == 5_000
    # Once for the page of digests, and once to parse it.
    assert calls["_read_on"] == 2 * blocks
    # And once at the end of the file.
    assert calls["_take_batch"] == blocks + 1
    assert calls["_sha256"] == 0


@given(size=st.integers(0, 200), block=st.integers(1, 64), chunk=st.integers(1, 64), first=st.integers(0, 4))
async def test_blocks_and_digests_do_not_depend_on_the_reads(
    tmp_path_factory: pytest.TempPathFactory, size: int, block: int, chunk: int, first: int
) -> None:
    folder = tmp_path_factory.mktemp("blocks")
    data = bytes(number % 251 for number in range(size))
    (folder / "a").write_bytes(data)
    source = LocalFiles(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frozen_blocks, "_BLOCK", block)
        patch.setattr(local_files, "_CHUNK", chunk)
        blocks = frozen_blocks.FrozenBlocks(await source.find("a"), source, memory_pages())
        begin = min(first * block, size)
        found = [pair async for pair in blocks._blocks(0, begin)]
    expected = [data[at : at + block] for at in range(begin, size, block)]
    assert found == [(each, sha256(each).hexdigest()) for each in expected]
