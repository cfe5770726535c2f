"""The preview of a job: its result, estimated from its first documents. Nothing is written."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from shardline.services.filter_report import FilterReport
from shardline.services.judging import ContentJudge, JudgedContent, explain_score
from shardline.services.sample_drops import Compared, SampleDrops
from shardline.services.splits import split_names, split_of, split_warnings
from shardline.services.wiring.filter_files import file_fetcher
from shardline.services.wiring.sources import source_factory
from shardline.services.wiring.stores import open_source_s3
from shardline_common.job.clara_score import COUNTED_FIELDS
from shardline_common.job.field_faults import did_you_mean
from shardline_common.job.filter_loading import FetchFile
from shardline_common.job.findings import remarks
from shardline_common.job.messages import Position
from shardline_common.job.plan import Plan
from shardline_common.job.spec import JobSpec
from shardline_common.memory.store import MemoryStore
from shardline_common.runtime.threads import run_in_thread
from shardline_common.settings.load import Settings
from shardline_consumer.curation.opening import open_curator
from shardline_producer.plan import make_plan
from shardline_producer.plan_pages import StoredPlanPages
from shardline_producer.sources.source import Document, InvalidDocument, OpenSource, Source, SourceItem


@dataclass(frozen=True, slots=True)
class JudgedDocument:
    """The expected result of one document: a row of `bytes` bytes when `reason` is None.

    Otherwise there would be no row for this `reason`. `dead`: it would be a dead letter, not a rejection.
    `score_parts`: the parts whose sum, at most 1, is the score: length, metadata, relevance. `present`: the
    fields that the part metadata counts and that have a value. `split`: the split of the row. `value`: what
    a filter measured that dropped it, and `threshold` its bound.
    """

    document_id: str
    title: str | None
    chars: int
    words: int
    relevance_score: float
    quality_score: float | None
    reason: str | None
    dead: bool
    bytes: int
    score_parts: dict[str, float] = field(default_factory=dict)
    present: tuple[str, ...] = ()
    split: str = "train"
    value: float | None = None
    threshold: float | None = None


@dataclass(slots=True)
class PreviewSample:
    """The documents that were read, in source order. `complete`: the source has no more.

    `compared`: what each is compared by in an assembled job; None for one that is no row.
    """

    documents: list[JudgedDocument] = field(default_factory=list)
    compared: list[Compared | None] = field(default_factory=list)
    complete: bool = False
    position: Position | None = None
    fields: dict[str, None] = field(default_factory=dict)

    def reasons(self, *, dead: bool) -> dict[str, int]:
        """Count the rejections, or the dead letters, by reason."""
        found = Counter(one.reason for one in self.documents if one.reason and one.dead == dead)
        return dict(sorted((str(reason), number) for reason, number in found.items()))

    @property
    def repeated_ids(self) -> int:
        """How many ids more than one document of the sample has."""
        return sum(times > 1 for times in Counter(one.document_id for one in self.documents).values())

    @property
    def present(self) -> dict[str, int]:
        """The number of documents that have each field of the score."""
        found = Counter(name for one in self.documents for name in one.present)
        return {name: found[name] for name in COUNTED_FIELDS}

    @property
    def mean_score_parts(self) -> dict[str, float]:
        """The mean of each part of the score over all documents that have one."""
        scored = [one.score_parts for one in self.documents if one.score_parts]
        names = scored[0] if scored else ()
        return {name: round(sum(parts[name] for parts in scored) / len(scored), 4) for name in names}

    @property
    def rows(self) -> list[JudgedDocument]:
        """The documents that become rows."""
        return [one for one in self.documents if one.reason is None]

    def splits(self, spec: JobSpec) -> dict[str, int]:
        """The number of rows of each split."""
        found = Counter(one.split for one in self.rows)
        return {name: found[name] for name in split_names(spec)}

    @property
    def mean_quality_score(self) -> float | None:
        """The mean over all documents that have a score."""
        scores = [one.quality_score for one in self.documents if one.quality_score is not None]
        return round(sum(scores) / len(scores), 4) if scores else None


@dataclass(frozen=True, slots=True)
class Preview:
    """The expected result of a job.

    `documents`, `rows`, `bytes` and `splits` are estimates unless the sample is complete. They are None when
    the share of the source that the sample covers is not known. `renamed` maps fields to columns of another
    name; `fields_without_column` counts the fields that have none because there are too many.
    `has_splits`: the job has several splits. `keeps_repeated_ids`: a document whose id came before
    becomes a row too. `filters`: what the rules of the job measure in the sample.
    """

    source: dict[str, Any]
    columns: dict[str, str]
    documents: int | None
    rows: int | None
    bytes: int | None
    sample: PreviewSample
    filters: FilterReport
    renamed: dict[str, str] = field(default_factory=dict)
    fields_without_column: int = 0
    splits: dict[str, int] | None = None
    split_warnings: Sequence[str] = ()
    has_splits: bool = False
    unknown_fields: Sequence[str] = ()
    score_warnings: Sequence[str] = ()
    drop_warnings: Sequence[str] = ()
    keeps_repeated_ids: bool = True

    @property
    def warnings(self) -> list[str]:
        """What a user should know before a run, as sentences."""
        found = remarks(self.source)
        if (count := self.fields_without_column) > 0:
            found.append(f"{count:,} fields have no column and go into metadata.extra (format.max_columns)")
        if self.renamed:
            names = ", ".join(f"{name!r} is {column!r}" for name, column in self.renamed.items())
            found.append(f"columns with another name than their field: {names}")
        if (count := self.sample.repeated_ids) > 0 and self.keeps_repeated_ids:
            found.append(f"{count:,} ids of the sample come more than once; each document becomes a row")
        drops = self.drop_warnings
        return [*found, *self.split_warnings, *drops, *self.unknown_fields, *self.score_warnings]

    def to_json(self, shown: int) -> dict[str, Any]:
        """Return the preview as `preview --json` prints it, the first `shown` documents in detail."""
        sample = self.sample
        return {
            "source": self.source,
            "columns": self.columns,
            "renamed": self.renamed,
            "fields_without_column": self.fields_without_column,
            "exact": sample.complete,
            "documents": self.documents,
            "rows": self.rows,
            "bytes": self.bytes,
            "splits": self.splits,
            "warnings": self.warnings,
            "sample": {
                "documents": len(sample.documents),
                "rows": len(sample.rows),
                "repeated_ids": sample.repeated_ids,
                "bytes": sum(one.bytes for one in sample.rows),
                "rejected": sample.reasons(dead=False),
                "dead_letters": sample.reasons(dead=True),
                "mean_quality_score": sample.mean_quality_score,
                "mean_score_parts": sample.mean_score_parts,
                "present": sample.present,
            },
            "first": [asdict(one) for one in sample.documents[:shown]],
            "filters": self.filters.to_json(),
        }


async def preview_job(spec: JobSpec, settings: Settings, *, documents: int, seconds: float) -> Preview:
    """Preview a job over the sources of the settings; relative paths start from the working directory.

    Raises:
        JobFailed: the job would fail at planning.
        SourceUnavailable: the source cannot be reached.
    """
    async with open_source_s3(settings, spec) as remote:
        source = source_factory(settings, Path(), confined=False, remote=remote)
        fetch = file_fetcher(Path(), confined=False, remote=remote)
        return await preview(spec, source, documents=documents, seconds=seconds, fetch=fetch)


async def preview(
    spec: JobSpec,
    open_source: OpenSource,
    *,
    documents: int,
    seconds: float,
    fetch: FetchFile | None = None,
) -> Preview:
    """Plan the job, then judge its first documents: at most `documents`, for at most `seconds`.

    `fetch` copies the files that filters name; None: this process reads none.

    Raises:
        JobFailed: the job would fail at planning.
        SourceUnavailable: the source cannot be reached.
    """
    source = open_source(spec, StoredPlanPages(MemoryStore(), ""))
    plan = await make_plan(spec, source, fetch)
    sample, drops = PreviewSample(), SampleDrops(spec) if spec.assembled else None
    report = FilterReport(spec, None)
    try:
        async with open_curator(spec, plan, fetch) as curator, asyncio.timeout(seconds):
            report = FilterReport(spec, curator)
            judges = _Judges(ContentJudge(spec, plan, curator), report, drops)
            await _read(judges, source, plan, sample, documents)
    except TimeoutError:
        # The sample is the documents that were read in time.
        pass
    if drops is not None:
        reasons = drops.reasons(sample.compared, complete=sample.complete)
        sample.documents = [
            one if reason is None else replace(one, reason=reason)
            for one, reason in zip(sample.documents, reasons, strict=True)
        ]
    count = _count(source, plan, sample)
    scale = count / len(sample.documents) if count is not None and sample.documents else None
    empty = 0 if sample.complete else None
    splits = sample.splits(spec)
    if not sample.complete and scale is not None:
        splits = {name: round(rows * scale) for name, rows in splits.items()}
    return Preview(
        {"type": spec.source.type, **plan.notes},
        plan.columns,
        count,
        round(len(sample.rows) * scale) if scale is not None else empty,
        round(sum(one.bytes for one in sample.rows) * scale) if scale is not None else empty,
        sample,
        report,
        plan.renamed,
        plan.without_column,
        splits if sample.complete or scale is not None else None,
        # A sample of a large source says nothing about the share of all of it.
        split_warnings(spec, splits) if sample.complete else (),
        len(spec.splits) > 1,
        unknown_fields=_unknown_fields(spec, list(sample.fields)),
        score_warnings=_score_warnings(spec, sample),
        drop_warnings=_drop_warnings(spec, sample),
        keeps_repeated_ids=spec.quality.duplicate_ids == "keep",
    )


@dataclass(frozen=True, slots=True)
class _Judges:
    """What looks at each document of a sample. `drops` is None unless the job is assembled."""

    contents: ContentJudge
    report: FilterReport
    drops: SampleDrops | None

    @property
    def spec(self) -> JobSpec:
        """The job."""
        return self.contents.spec


async def _read(judges: _Judges, source: Source, plan: Plan, sample: PreviewSample, at_most: int) -> None:
    async with aclosing(source.read(plan.frozen, None)) as batches:
        async for batch in batches:
            items = batch[: at_most - len(sample.documents)]
            judged, compared = await run_in_thread(partial(_judge_all, judges, items))
            sample.documents += judged
            sample.compared += compared
            sample.position = items[-1].position
            names = (
                name for item in items if isinstance(item.content, Document) for name in item.content.metadata
            )
            sample.fields |= dict.fromkeys(names)
            if len(sample.documents) == at_most:
                sample.complete = at_most == (judges.spec.query.top_k or 0)
                return
    sample.complete = True


def _unknown_fields(spec: JobSpec, fields: Sequence[str]) -> list[str]:
    """A warning for each field that the job names, and that no document of the sample has."""
    named = {f"format.metadata: {name}": name for name in spec.format.metadata or ()}
    if spec.output.group_by is not None:
        named[f"output.group_by: {spec.output.group_by}"] = spec.output.group_by
    found = []
    for where, name in named.items():
        if fields and name not in fields:
            near = did_you_mean(name, fields)
            found.append(
                f"{where} is a field that no document of the sample has"
                + (f"; did you mean `{near}`?" if near else "")
            )
    return found


def _drop_warnings(spec: JobSpec, sample: PreviewSample) -> list[str]:
    """What the sample cannot show of the rules of an assembled dataset."""
    found, dedup = [], spec.dedup
    if not sample.complete and (dedup is not None or spec.quality.duplicate_ids != "keep"):
        found.append("duplicates are counted within the sample; among all documents there are more")
    if dedup is not None and dedup.against:
        found.append("dedup.against is not applied here: texts of these datasets are counted as rows")
    if not sample.complete and spec.sample is not None and spec.sample.rows is not None:
        found.append(f"sample.rows keeps {spec.sample.rows:,} of all rows; here it drops none")
    return found


def _score_warnings(spec: JobSpec, sample: PreviewSample) -> list[str]:
    """A warning when `quality.min_score` leaves no row of the sample."""
    scores = [one.quality_score for one in sample.documents if one.reason == "below_min_score"]
    highest = max((score for score in scores if score is not None), default=None)
    if sample.rows or highest is None:
        return []
    least = spec.quality.min_score
    return [f"no document is kept: the highest score is {highest}, below quality.min_score {least}: lower it"]


def _count(source: Source, plan: Plan, sample: PreviewSample) -> int | None:
    """Estimate the number of documents from the share of the source that the sample covers."""
    if sample.complete:
        return len(sample.documents)
    share = source.progress(plan.frozen, sample.position)
    # A share of 1 is a wrong estimate of the source, because there are further documents: it is of no use.
    usable = 0 < share < 1 and sample.documents
    return round(len(sample.documents) / share) if usable else None


def _judge_all(
    judges: _Judges, items: Sequence[SourceItem]
) -> tuple[list[JudgedDocument], list[Compared | None]]:
    judged, compared, drops = list[JudgedDocument](), list[Compared | None](), judges.drops
    for item in items:
        content, found = item.content, judges.contents.judge(item.content)
        if isinstance(content, InvalidDocument):
            judged.append(_dead(content.key, found))
            text = ""
        else:
            row = _shown(found, content)
            text = row["text"]
            judges.report.add(content.id, found, text, row["metadata"])
            judged.append(_judged(judges.spec, found, content, row["metadata"].get("title")))
        if drops is not None:
            compared.append(drops.compared(judged[-1].document_id, text) if found.reason is None else None)
    return judged, compared


def _shown(judged: JudgedContent, content: Document) -> dict[str, Any]:
    """The text and the metadata of a document, as they are in its row if a filter may have changed them."""
    if not judged.judged:
        return {"text": content.text, "metadata": content.metadata}
    row: dict[str, Any] = orjson.loads(judged.judged)
    return row


def _dead(key: str, judged: JudgedContent) -> JudgedDocument:
    return JudgedDocument(key, None, 0, 0, 0.0, None, judged.reason, dead=True, bytes=0)


def _judged(spec: JobSpec, judged: JudgedContent, content: Document, title: Any) -> JudgedDocument:
    if judged.facts is None:
        return _dead(content.id, judged)
    parts, present = explain_score(content, judged.facts)
    return JudgedDocument(
        document_id=content.id,
        title=title if isinstance(title, str) else None,
        chars=judged.facts.chars,
        words=judged.facts.words,
        relevance_score=round(judged.facts.relevance, spec.relevance_decimals),
        quality_score=judged.quality_score,
        reason=judged.reason,
        dead=judged.dead,
        bytes=len(judged.line),
        score_parts={name: round(part, 4) for name, part in asdict(parts).items()},
        present=tuple(present),
        split=split_of(spec, content),
        value=judged.value,
        threshold=judged.threshold,
    )
