"""How often `run` changes between the event loop and its threads. Each change costs as much as ten rows."""

import asyncio
import errno
import gc
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import aclosing
from contextvars import ContextVar
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardline_common.memory.store import MemoryStore
from shardline_common.runtime.threads import SharedCalls
from shardline_producer.sources.files import frozen_blocks, local_files
from shardline_producer.sources.files.file_documents import FileDocuments
from shardline_producer.sources.files.local_files import LocalFiles
from tests.make import job, memory_pages
from tests.support.embedded import run_embedded

ROW = b'{"document_id": "d%06d", "content": "' + b"text " * 400 + b'"}\n'


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """The calls on threads, by the name of what is called."""
    counted: Counter[str] = Counter()
    real = asyncio.BaseEventLoop.run_in_executor

    def count(loop: Any, executor: Any, call: Callable[..., Any], *args: Any) -> Any:
        # The context's `run` calls what comes behind it.
        work = args[0] if getattr(call, "__name__", "") == "run" else call
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
    # Once for the page of digests. Of each page, which has 6 blocks, 3 are held until they are parsed.
    assert calls["_read_on"] == blocks + 4
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


async def test_calls_that_come_together_share_a_call_of_a_thread(calls: Counter[str]) -> None:
    shared, name = SharedCalls(), ContextVar[int]("name")

    async def run(number: int) -> tuple[int, int]:
        name.set(number)
        return await shared.run(lambda: (name.get(), 1 // number))

    found = await asyncio.gather(*map(run, range(4)), return_exceptions=True)
    assert isinstance(found[0], ZeroDivisionError)
    assert found[1:] == [(1, 1), (2, 0), (3, 0)]
    assert calls.total() == 1


async def test_calls_that_come_while_others_run_are_the_next_group(calls: Counter[str]) -> None:
    shared, begun, go_on = SharedCalls(), threading.Event(), threading.Event()

    def block() -> bool:
        begun.set()
        return go_on.wait(60)

    first = asyncio.create_task(shared.run(block))
    assert await asyncio.to_thread(begun.wait, 60)
    more = [asyncio.create_task(shared.run(partial(int, number))) for number in range(3)]
    await asyncio.sleep(0)
    more[1].cancel()
    await asyncio.sleep(0)
    # A cancel waits for the end of its call, which uses what the caller would close.
    assert not more[1].done()
    calls.clear()
    go_on.set()
    assert await first
    assert await asyncio.gather(*more, return_exceptions=True) == [0, ANY, 2]
    assert more[1].cancelled()
    assert calls.total() == 1


async def test_the_error_of_a_call_whose_caller_is_cancelled_is_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shared, begun, go_on = SharedCalls(), threading.Event(), threading.Event()

    def fail() -> None:
        begun.set()
        go_on.wait(60)
        raise OSError(errno.ENOSPC, "no space")

    caller = asyncio.create_task(shared.run(fail))
    assert await asyncio.to_thread(begun.wait, 60)
    caller.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    del caller
    gc.collect()
    assert not caplog.records


async def test_a_run_fills_the_segments_of_all_partitions_by_one_call(
    tmp_path: Path, calls: Counter[str]
) -> None:
    blocks = 5
    (tmp_path / "a.jsonl").write_bytes(b"".join(ROW % number for number in range(2_500)))
    spec = job(source={"type": "files", "paths": ["a.jsonl"]}, quality={"min_score": 0}, partitions=8)
    view = await run_embedded(spec, MemoryStore(), tmp_path)
    assert (view.state.state, view.progress.rows) == ("completed", 2_500)
    # One for each block, one for the end markers; further ones when a segment of some partition opens later.
    assert calls["_run_all"] <= 2 * (blocks + 1)
