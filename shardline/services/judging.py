"""The result of one source item: a row, a rejection or a dead letter. Preview and streams use it."""

from dataclasses import dataclass
from math import isnan
from typing import TYPE_CHECKING, NamedTuple

from shardline_common.job.clara_score import ScoreParts, present_fields, score_parts
from shardline_common.job.messages import Facts
from shardline_common.job.plan import Plan
from shardline_common.job.spec import JobSpec
from shardline_consumer.filters.clara import Judge, judge
from shardline_producer.rows import RenderedRow, RowRenderer
from shardline_producer.sources.documents import DeadLetterReason
from shardline_producer.sources.source import Document, InvalidDocument

if TYPE_CHECKING:
    from shardline_consumer.curation.curator import Curator


@dataclass(frozen=True, slots=True)
class JudgedContent:
    """The result of one item. `line` is its row when `reason` is None. Otherwise there is no row.

    `dead`: it is a dead letter, not a rejection. `facts` and `quality_score` are None when the item is not a
    document. `value` is what a rule measured that dropped it, and `threshold` its bound; None: none did.
    `judged` is the row as the filters saw it, also of a document that has none; b"" in a job without them.
    """

    line: bytes
    reason: str | None
    dead: bool
    facts: Facts | None
    quality_score: float | None
    value: float | None = None
    threshold: float | None = None
    judged: bytes = b""


def explain_score(document: Document, facts: Facts) -> tuple[ScoreParts, list[str]]:
    """What the quality score of a document is made of, and which of the fields it counts are present."""
    return score_parts(facts), present_fields(document.metadata)


class ContentJudge:
    """Renders and judges the source items of one job, with the same results as producer and worker.

    `curator`: that of the job; None: it has no filters.
    """

    def __init__(self, spec: JobSpec, plan: Plan, curator: "Curator | None" = None) -> None:
        self.spec = spec
        self._curator = curator
        self._renderer = RowRenderer(spec, plan.row_columns, plan.rules)
        self._min_score = spec.quality.min_score

    def judge(self, content: Document | InvalidDocument) -> JudgedContent:
        """Judge the content of one source item."""
        if isinstance(content, InvalidDocument):
            return JudgedContent(b"", content.dead_letter.reason, dead=True, facts=None, quality_score=None)
        facts, head, tail = row = self._renderer.render(content)
        if self._curator is not None:
            return self._curated(self._curator, row, content.id)
        verdict = judge(facts, self._min_score)
        score = float(verdict.text)
        # As in a job, where the producer checks the size before a worker applies the filter.
        if (dead_letter := self._renderer.check_size(row, content.id)) is not None:
            return JudgedContent(b"", dead_letter.reason, True, facts, score)
        if verdict.reason is not None:
            return JudgedContent(b"", verdict.reason.value, False, facts, score)
        return JudgedContent(b"".join((head, verdict.text, tail)), None, False, facts, score)

    def _curated(self, curator: "Curator", row: RenderedRow, key: str) -> JudgedContent:
        found = curator.judge(row.facts, row.head, row.tail)
        score = float(found.score_text)
        line = b"".join((found.head, found.score_text, found.tail))
        if (dead_letter := self._renderer.check_size(row, key)) is not None:
            return JudgedContent(b"", dead_letter.reason, True, found.facts, score, judged=line)
        if found.reason is not None:
            value, limit = (None, None) if isnan(found.value) else (found.value, found.threshold)
            return JudgedContent(b"", found.reason, False, found.facts, score, value, limit, line)
        return JudgedContent(line, None, False, found.facts, score, judged=line)


class Left(NamedTuple):
    """A source item that has no row: a dead letter, or a rejection."""

    reason: str
    dead: bool


class LineJudge:
    """Gives the lines of `ContentJudge`, faster, and nothing else."""

    # A ranked search has another relevance for each document. A stream keeps the verdicts of others.
    _CACHED = 128

    def __init__(self, spec: JobSpec, plan: Plan, curator: "Curator | None" = None) -> None:
        self._curator = curator
        self._parts = RowRenderer(spec, plan.row_columns, plan.rules, words=False).parts
        self._max_bytes = spec.max_document_bytes
        self._judge = Judge(spec.quality.min_score, self._CACHED)

    def line(self, content: Document | InvalidDocument) -> bytes | Left:
        """The row of the content of one source item as a line of JSON, or why it has none."""
        if isinstance(content, InvalidDocument):
            return Left(content.dead_letter.reason, dead=True)
        (chars, _, present, blank, relevance), head, tail = self._parts(content)
        # As in a job, where the producer checks the size before a worker applies the filter.
        if len(head) + len(tail) > self._max_bytes:
            return Left(DeadLetterReason.TOO_LARGE.value, dead=True)
        if self._curator is not None:
            found = self._curator.judge(Facts(chars, 0, present, blank, relevance), head, tail)
            if found.reason is not None:
                return Left(found.reason, dead=False)
            return b"".join((found.head, found.score_text, found.tail))
        verdict = self._judge(chars, present, blank, relevance)
        if verdict.reason is not None:
            return Left(verdict.reason.value, dead=False)
        return b"".join((head, verdict.text, tail))
