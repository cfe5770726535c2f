"""What landing leaves in the spool."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from shardline_common.memory.broker import MemoryBroker
from shardline_common.memory.store import MemoryStore
from shardline_consumer import commit
from shardline_consumer.commit import SegmentSink
from shardline_consumer.spool.file import SpoolFile, compress
from tests.make import job, worker_context


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
async def test_a_copy_that_is_being_packed_goes_with_the_upload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: str
) -> None:
    begun, goes_on = threading.Event(), threading.Event()

    def slowly(*arguments: Any) -> None:
        begun.set()
        goes_on.wait(30)
        compress(*arguments)

    monkeypatch.setattr(commit, "compress", slowly)
    spec = job(output={"compression": compression})
    sink = SegmentSink(worker_context(MemoryBroker(), MemoryStore(), tmp_path), spec, 1)
    file = SpoolFile(tmp_path)
    file.write([b'{"a":1}\n'])
    putting = asyncio.create_task(sink.put("data/x", file))
    await asyncio.to_thread(begun.wait, 30)
    putting.cancel()
    goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await putting
    assert list(tmp_path.iterdir()) == [file.path]
    file.discard()
