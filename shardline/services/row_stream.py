"""Rows directly from a source, rendered and filtered, without Kafka and without a dataset."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from functools import partial

from shardline.services.judging import LineJudge
from shardline.services.plan_scratch import ScratchPlanPages
from shardline_common.job.filter_loading import FetchFile
from shardline_common.job.spec import JobSpec
from shardline_common.runtime.threads import run_in_thread
from shardline_consumer.curation.opening import open_curator
from shardline_producer.plan import make_plan
from shardline_producer.sources.source import InvalidDocument, OpenSource, SourceItem

_log = logging.getLogger(__name__)
# Rendering more bytes than this takes more than a few milliseconds, so it is done on a thread.
_SHORT_BYTES = 1 << 18
# A list is held twice while a slow client reads it: here, and in the buffer of its connection.
_LIST_BYTES = 1 << 16


@dataclass(slots=True)
class StreamCounts:
    """The counts of documents so far: read, kept as rows, and by reason rejected or dead letters.

    `notes` are those of the plan, such as the searches that were left out.
    """

    read: int = 0
    rows: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    dead: Counter[str] = field(default_factory=Counter)
    notes: dict[str, object] = field(default_factory=dict)


async def row_batches(
    spec: JobSpec,
    open_source: OpenSource,
    batch_size: int,
    counts: StreamCounts,
    render_lock: asyncio.Lock | None = None,
    fetch: FetchFile | None = None,
) -> AsyncGenerator[list[bytes], None]:
    """Yield the rows of a job in source order, each a line of JSON.

    A list has those of `batch_size` documents, or of fewer large ones.

    A list may be empty. The first list is that of one document, so a reader sees it at once. Nothing is read
    ahead of the caller except by the source itself. Closing the generator closes the source. `counts` is
    updated before each list.

    Streams that share `render_lock` render one list at a time, except their first: a stream that starts
    waits for one list of another stream at each step, not for one list of every other stream. `fetch` copies
    the files that filters name; None: this process reads none.

    Raises:
        JobFailed: the query or the source is wrong.
        SourceUnavailable: the source cannot be reached.
    """
    # The ranking of a long search is kept on disk, so that memory does not grow with it.
    async with AsyncExitStack() as stack:
        pages = await stack.enter_async_context(ScratchPlanPages())
        source = open_source(spec, pages)
        plan = await make_plan(spec, source, fetch)
        counts.notes.update(plan.notes)
        curator = await stack.enter_async_context(open_curator(spec, plan, fetch))
        judge = LineJudge(spec, plan, curator)
        renderer = _Renderer(judge, counts, render_lock or asyncio.Lock())
        async with aclosing(source.read(plan.frozen, None)) as batches:
            async for batch in batches:
                if counts.read == 0 and batch:
                    yield renderer.render(batch[:1])
                    batch = batch[1:]  # noqa: PLW2901 - the rest of the batch
                for items in _pieces(batch, batch_size):
                    yield await renderer.render_in_turn(items)


def _pieces(batch: Sequence[SourceItem], most: int) -> Iterator[Sequence[SourceItem]]:
    """Cut a batch into pieces of up to `most` items, and of few bytes more than `_LIST_BYTES`."""
    start = size = 0
    for end, item in enumerate(batch, 1):
        size += item.size
        if end - start >= most or size >= _LIST_BYTES or end == len(batch):
            yield batch[start:end]
            start, size = end, 0


@dataclass(frozen=True, slots=True)
class _Renderer:
    judge: LineJudge
    counts: StreamCounts
    render_lock: asyncio.Lock

    async def render_in_turn(self, items: Sequence[SourceItem]) -> list[bytes]:
        # Tasks that wait for something else, or have just started, run first.
        await asyncio.sleep(0)
        async with self.render_lock:
            if sum(item.size for item in items) > _SHORT_BYTES:
                return await run_in_thread(partial(self.render, items))
            rows = self.render(items)
            # A lock that is held without an await keeps nobody waiting: every stream would render in one turn
            # of the event loop, and a request in between would wait for all of them.
            await asyncio.sleep(0)
            return rows

    def render(self, items: Sequence[SourceItem]) -> list[bytes]:
        counts, line_of, lines = self.counts, self.judge.line, list[bytes]()
        for item in items:
            line = line_of(item.content)
            if isinstance(line, bytes):
                lines.append(line)
            elif line.dead:
                counts.dead[line.reason] += 1
                if isinstance(item.content, InvalidDocument):
                    _log.debug("left out: %s", item.content.dead_letter.hint)
            else:
                counts.rejected[line.reason] += 1
        counts.read += len(items)
        counts.rows += len(lines)
        return lines
