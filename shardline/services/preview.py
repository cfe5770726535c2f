"""`shardline preview`: what a job would do, from its first documents. Writes nothing, and needs no Kafka."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from shardline_common.job.columns import Columns
from shardline_common.job.messages import Position
from shardline_common.job.plan import Plan
from shardline_common.job.spec import JobSpec
from shardline_common.memory.store import MemoryStore
from shardline_common.runtime.threads import run_in_thread
from shardline_consumer.filters.clara import judge
from shardline_producer.plan import make_plan
from shardline_producer.plan_pages import StoredPlanPages
from shardline_producer.rows import RowRenderer
from shardline_producer.sources.source import InvalidDocument, OpenSource, Source, SourceItem


@dataclass(frozen=True, slots=True)
class JudgedDocument:
    """What would become of one document. `reason` None: a row of `bytes` bytes; else why it is none."""

    document_id: str
    title: str | None
    chars: int
    words: int
    relevance_score: float
    quality_score: float | None
    reason: str | None
    dead: bool
    bytes: int


@dataclass(slots=True)
class PreviewSample:
    """What was read of the source, in its order; `whole`: that is all there is."""

    documents: list[JudgedDocument] = field(default_factory=list)
    whole: bool = False
    position: Position | None = None

    def add(self, judged: Sequence[JudgedDocument], items: Sequence[SourceItem]) -> None:
        """Add what was made of items."""
        self.documents += judged
        self.position = items[len(judged) - 1].position

    def reasons(self, *, dead: bool) -> dict[str, int]:
        """Rejections, or dead letters, by reason."""
        found = Counter(one.reason for one in self.documents if one.reason and one.dead == dead)
        return dict(sorted((str(reason), number) for reason, number in found.items()))

    @property
    def rows(self) -> list[JudgedDocument]:
        """Those that become rows."""
        return [one for one in self.documents if one.reason is None]


@dataclass(frozen=True, slots=True)
class Preview:
    """What a job would do. `documents`, `rows` and `bytes` are estimates unless the sample is whole."""

    source: dict[str, Any]
    columns: dict[str, str]
    documents: int | None
    rows: int | None
    bytes: int | None
    sample: PreviewSample

    def to_json(self, shown: int) -> dict[str, Any]:
        """For programs; the first `shown` documents in detail."""
        sample = self.sample
        scores = [one.quality_score for one in sample.documents if one.quality_score is not None]
        return {
            "source": self.source,
            "columns": self.columns,
            "exact": sample.whole,
            "documents": self.documents,
            "rows": self.rows,
            "bytes": self.bytes,
            "sample": {
                "documents": len(sample.documents),
                "rows": len(sample.rows),
                "bytes": sum(one.bytes for one in sample.rows),
                "rejected": sample.reasons(dead=False),
                "dead_letters": sample.reasons(dead=True),
                "mean_quality_score": round(sum(scores) / len(scores), 4) if scores else None,
            },
            "first": [asdict(one) for one in sample.documents[:shown]],
        }


async def preview(spec: JobSpec, open_source: OpenSource, *, documents: int, seconds: float) -> Preview:
    """Plan the job and judge its first documents, at most so many and for at most so long.

    Raises:
        JobFailed: what would fail the job.
        SourceUnavailable: the source is away.
    """
    source = open_source(spec, StoredPlanPages(MemoryStore(), ""))
    plan = await make_plan(spec, source)
    sample = PreviewSample()
    try:
        async with asyncio.timeout(seconds):
            await _read(spec, source, plan, sample, documents)
    except TimeoutError:
        # A slow source: what came in time is the sample.
        pass
    count = _count(source, plan, sample)
    share = count / len(sample.documents) if count is not None and sample.documents else None
    empty = 0 if sample.whole else None
    return Preview(
        {"type": spec.source.type, **plan.notes},
        plan.columns,
        count,
        round(len(sample.rows) * share) if share is not None else empty,
        round(sum(one.bytes for one in sample.rows) * share) if share is not None else empty,
        sample,
    )


async def _read(spec: JobSpec, source: Source, plan: Plan, sample: PreviewSample, most: int) -> None:
    columns = Columns.from_json(plan.columns)
    async with aclosing(source.read(plan.frozen, None)) as batches:
        async for batch in batches:
            wanted = batch[: most - len(sample.documents)]
            sample.add(await run_in_thread(partial(_judge_all, spec, columns, wanted)), wanted)
            if len(sample.documents) == most:
                sample.whole = most == (spec.query.top_k or 0)
                return
    sample.whole = True


def _count(source: Source, plan: Plan, sample: PreviewSample) -> int | None:
    """How many documents there are, by how far into the source the sample reaches."""
    if sample.whole:
        return len(sample.documents)
    share = source.progress(plan.frozen, sample.position)
    # At its end by its own estimate, and there is more: the estimate says nothing.
    usable = 0 < share < 1 and sample.documents
    return round(len(sample.documents) / share) if usable else None


def _judge_all(spec: JobSpec, columns: Columns, items: Sequence[SourceItem]) -> list[JudgedDocument]:
    return [_judged(spec, columns, item) for item in items]


def _judged(spec: JobSpec, columns: Columns, item: SourceItem) -> JudgedDocument:
    content = item.content
    if isinstance(content, InvalidDocument):
        return JudgedDocument(
            content.key, None, 0, 0, 0.0, None, content.dead_letter.reason, dead=True, bytes=0
        )
    renderer = RowRenderer(spec, columns)
    facts, head, tail = row = renderer.render(content)
    verdict = judge(facts, spec.quality.min_score)
    dead_letter = renderer.check_size(row)
    reason = verdict.reason.value if verdict.reason else None
    title = content.metadata.get("title")
    return JudgedDocument(
        document_id=content.id,
        title=title if isinstance(title, str) else None,
        chars=facts.chars,
        words=facts.words,
        relevance_score=round(facts.relevance, spec.relevance_decimals),
        quality_score=float(verdict.text),
        reason=dead_letter.reason if dead_letter else reason,
        dead=dead_letter is not None,
        bytes=len(head) + len(verdict.text) + len(tail) if reason is None and dead_letter is None else 0,
    )
