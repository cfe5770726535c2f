"""Streams that share a render lock: each turn of the event loop renders one list at most."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from shardline.services.row_stream import StreamCounts, row_batches
from shardline_common.job.spec import JobSpec
from shardline_producer.sources.memory_database import MemoryDatabase
from shardline_producer.sources.planned import PlannedSource
from shardline_producer.sources.source import Document, PlanPages
from tests.make import job

STREAMS, DOCUMENTS, BATCH = 20, 200, 10
COLUMNS: Mapping[str, str] = {"title": "string"}


def rows_of(texts: list[str], counts: StreamCounts, lock: asyncio.Lock) -> AsyncGenerator[list[Any], None]:
    documents = {f"d{number:04d}": Document(f"d{number:04d}", text, {}) for number, text in enumerate(texts)}

    def open_source(spec: JobSpec, pages: PlanPages) -> PlannedSource:
        return PlannedSource(spec, MemoryDatabase(spec, documents, COLUMNS), pages)

    spec = job(source={"type": "uds3"}, quality={"min_score": 0.0})
    return row_batches(spec, open_source, BATCH, counts, lock)


async def test_a_turn_of_the_event_loop_renders_one_list() -> None:
    lock, turns = asyncio.Lock(), 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def read() -> int:
        async with aclosing(rows_of(["Ein Satz. " * 20] * DOCUMENTS, StreamCounts(), lock)) as lists:
            return len([rows async for rows in lists])

    counting = asyncio.ensure_future(count_turns())
    rendered = await asyncio.gather(*(read() for _ in range(STREAMS)))
    counting.cancel()
    assert min(rendered) >= DOCUMENTS // BATCH
    # Without it, each turn renders a list of every stream, and all other requests wait for all of them.
    assert turns >= sum(rendered) - 2 * STREAMS


async def test_large_documents_make_short_lists() -> None:
    counts = StreamCounts()
    async with aclosing(rows_of(["x" * 30_000] * 40, counts, asyncio.Lock())) as lists:
        sizes = [len(rows) async for rows in lists]
    assert sum(sizes) == counts.rows == 40
    assert max(sizes) == 3
