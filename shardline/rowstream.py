"""Documents straight from a source, through filter and format: what a dataset would hold, without Kafka."""

import asyncio
import logging
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from common.aio import blocking
from common.columns import Columns
from common.directory import DirectoryStore
from common.models import JobSpec
from consumer.filters import judge
from producer.documents import DeadReason
from producer.plan import make_plan
from producer.plan_parts import StoredParts
from producer.rows import render
from producer.sources.port import Document, Item, OpenSource

_log = logging.getLogger(__name__)
# What takes longer to render than a few milliseconds does so on a thread.
_SHORT_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class Row:
    """A document that is kept: its line, and what the line was made of."""

    line: bytes
    document: Document
    quality: float


@dataclass(slots=True)
class Tally:
    """What became of the documents so far."""

    read: int = 0
    rows: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    dead: Counter[str] = field(default_factory=Counter)
    notes: dict[str, object] = field(default_factory=dict)


async def row_pieces(
    spec: JobSpec, open_source: OpenSource, batch_size: int, tally: Tally
) -> AsyncGenerator[list[Row], None]:
    """The rows of a job in source order, in pieces of what `batch_size` documents give; some are empty.

    The first piece is that of one document, so that a reader sees it at once. Nothing is read ahead of
    the caller but what the source itself prefetches; closing the generator closes the source.

    Raises:
        JobFailed: the query or the source is wrong.
        SourceUnavailable: the source cannot be reached.
    """
    async with _scratch() as folder:
        source = open_source(spec, StoredParts(DirectoryStore(folder), "plan/"))
        plan = await make_plan(spec, source)
        tally.notes.update(plan.notes)
        columns = Columns.from_json(plan.columns)
        async with aclosing(source.read(plan.frozen, None)) as batches:
            async for batch in batches:
                first = tally.read == 0
                for part in _sliced(batch, batch_size, first=first):
                    yield await _rows(part, spec, columns, tally)


@asynccontextmanager
async def _scratch() -> AsyncIterator[Path]:
    # A search keeps its ranking on disk: memory does not grow with it.
    scratch = await asyncio.to_thread(tempfile.TemporaryDirectory, prefix="shardline-stream-")
    try:
        yield Path(scratch.name)
    finally:
        await blocking(scratch.cleanup)


def _sliced(batch: Sequence[Item], size: int, *, first: bool) -> list[Sequence[Item]]:
    start = 1 if first else 0
    return [batch[:start]] * start + [batch[at : at + size] for at in range(start, len(batch), size)]


async def _rows(items: Sequence[Item], spec: JobSpec, columns: Columns, tally: Tally) -> list[Row]:
    work = partial(_render_all, items, spec, columns, tally)
    if sum(item.size for item in items) > _SHORT_BYTES:
        return await blocking(work)
    # Other streams have their turn between two pieces.
    await asyncio.sleep(0)
    return work()


def _render_all(items: Sequence[Item], spec: JobSpec, columns: Columns, tally: Tally) -> list[Row]:
    rows = []
    for item in items:
        tally.read += 1
        content = item.content
        if not isinstance(content, Document):
            tally.dead[content.dead.reason] += 1
            _log.info("left out: %s", content.dead.hint)
            continue
        facts, head, tail = render(content, columns, spec.source_label, spec.relevance_decimals)
        if len(head) + len(tail) > spec.max_document_bytes:
            tally.dead[DeadReason.TOO_LARGE.value] += 1
            continue
        verdict = judge(facts, spec.quality.min_score)
        if verdict.reason is not None:
            tally.rejected[verdict.reason.value] += 1
            continue
        tally.rows += 1
        rows.append(Row(b"".join((head, verdict.text, tail)), content, float(verdict.text)))
    return rows
