"""Documents straight from a source, through filter and format: what a dataset would hold, without Kafka."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial

from shardline.services.plan_scratch import ScratchPlanPages
from shardline_common.job.columns import Columns
from shardline_common.job.spec import JobSpec
from shardline_common.runtime.threads import run_in_thread
from shardline_consumer.filters.clara import judge
from shardline_producer.plan import make_plan
from shardline_producer.rows import RowRenderer
from shardline_producer.sources.source import Document, OpenSource, SourceItem

_log = logging.getLogger(__name__)
# What takes longer to render than a few milliseconds does so on a thread.
_SHORT_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class StreamRow:
    """A document that is kept: its line, and what the line was made of."""

    line: bytes
    document: Document
    quality: float


@dataclass(slots=True)
class StreamCounts:
    """What became of the documents so far."""

    read: int = 0
    rows: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    dead: Counter[str] = field(default_factory=Counter)
    notes: dict[str, object] = field(default_factory=dict)


async def row_pieces(
    spec: JobSpec,
    open_source: OpenSource,
    batch_size: int,
    tally: StreamCounts,
    render_lock: asyncio.Lock | None = None,
) -> AsyncGenerator[list[StreamRow], None]:
    """The rows of a job in source order, in pieces of what `batch_size` documents give; some are empty.

    The first piece is that of one document, so that a reader sees it at once. Nothing is read ahead of
    the caller but what the source itself prefetches; closing the generator closes the source.
    Streams that share `render_lock` render one after the other, but for their first pieces: so a stream that
    begins waits for one piece of another at each of its steps, not for one of each.

    Raises:
        JobFailed: the query or the source is wrong.
        SourceUnavailable: the source cannot be reached.
    """
    # A long search keeps its ranking on disk: memory does not grow with it.
    async with ScratchPlanPages() as parts:
        source = open_source(spec, parts)
        plan = await make_plan(spec, source)
        tally.notes.update(plan.notes)
        renderer = _Renderer(spec, Columns.from_json(plan.columns), tally, render_lock or asyncio.Lock())
        async with aclosing(source.read(plan.frozen, None)) as batches:
            async for batch in batches:
                if tally.read == 0 and batch:
                    yield renderer.render(batch[:1])
                    batch = batch[1:]  # noqa: PLW2901 - what is left of it
                for start in range(0, len(batch), batch_size):
                    yield await renderer.rows(batch[start : start + batch_size])


@dataclass(frozen=True, slots=True)
class _Renderer:
    spec: JobSpec
    columns: Columns
    tally: StreamCounts
    render_lock: asyncio.Lock

    async def rows(self, items: Sequence[SourceItem]) -> list[StreamRow]:
        # Whoever waits for something else, or has just begun, goes first.
        await asyncio.sleep(0)
        async with self.render_lock:
            if sum(item.size for item in items) > _SHORT_BYTES:
                return await run_in_thread(partial(self.render, items))
            return self.render(items)

    def render(self, items: Sequence[SourceItem]) -> list[StreamRow]:
        return [row for item in items if (row := self._row(item)) is not None]

    def _row(self, item: SourceItem) -> StreamRow | None:
        spec, tally, content = self.spec, self.tally, item.content
        tally.read += 1
        if not isinstance(content, Document):
            tally.dead[content.dead_letter.reason] += 1
            _log.debug("left out: %s", content.dead_letter.hint)
            return None
        renderer = RowRenderer(spec, self.columns)
        facts, head, tail = row = renderer.render(content)
        if (dead_letter := renderer.check_size(row)) is not None:
            tally.dead[dead_letter.reason] += 1
            return None
        verdict = judge(facts, spec.quality.min_score)
        if verdict.reason is not None:
            tally.rejected[verdict.reason.value] += 1
            return None
        tally.rows += 1
        return StreamRow(b"".join((head, verdict.text, tail)), content, float(verdict.text))
