"""The results of the Python API: frozen dataclasses of plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from pydantic import JsonValue

from shardline.api.inputs import Job

StateName: TypeAlias = Literal[
    "queued", "running", "completing", "completed", "failed", "cancelled", "deleted"
]

StageName: TypeAlias = Literal["landing", "deciding", "assembling"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Progress of a running job. Rates are those of the last 15 seconds; None while they are not known.

    Attributes:
        job_id: the job.
        state: its state.
        attempt: the number of its attempt, from 1.
        ratio: the share of the job that is done, 0 to 1. `run` counts what is read, the others what is in
            finished segments.
        stage: `landing`, `deciding` or `assembling`, of an assembled job; else None.
        source_documents: documents read from the source.
        rows: rows in finished shards.
        bytes: bytes of these rows, uncompressed.
        rejected: documents that a filter dropped, by reason.
        dead_letters: input that could not be a document, by reason.
        lag: documents read that are in no finished shard yet.
        documents_per_second: documents filtered into finished shards.
        bytes_per_second: bytes written to finished shards.
        seconds_left: estimated time to the end of the job.
    """

    job_id: str
    state: StateName
    attempt: int
    ratio: float
    source_documents: int
    rows: int
    bytes: int
    rejected: Mapping[str, int]
    dead_letters: Mapping[str, int]
    lag: int
    documents_per_second: float | None
    bytes_per_second: float | None
    seconds_left: float | None
    stage: StageName | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyProgress:
    """Progress of `verify`: `shards` of `total` shards are checked."""

    shards: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """A dataset that `run` completed.

    Attributes:
        dataset: the URI of its folder: a path, or `s3://bucket/prefix/…`.
        job_id: the job.
        digest: the dataset digest.
        rows: rows of all splits.
        bytes: bytes of these rows, uncompressed.
        shards: number of shards.
        source_documents: the source's own count of documents.
        rejected: documents that a filter dropped, by reason.
        dead_letters: input that could not be a document, by reason.
        warnings: sentences about what the dataset lacks, such as a search that was not configured.
    """

    dataset: str
    job_id: str
    digest: str
    rows: int
    bytes: int
    shards: int
    source_documents: int
    rejected: Mapping[str, int]
    dead_letters: Mapping[str, int]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewDocument:
    """The expected result of one document: a row of `bytes` bytes when `reason` is None.

    Otherwise there would be no row for this `reason`. `dead`: it would be a dead letter, not a rejection.
    `score_parts`: the parts whose sum, at most 1, is the score: length, metadata, relevance. `present`: the
    fields that the part metadata counts and that have a value. `split`: the split of the row. `value`: what a
    filter measured that dropped it, and `threshold` its bound.
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
    score_parts: Mapping[str, float] = field(default_factory=dict)
    present: tuple[str, ...] = ()
    split: str = "train"
    value: float | None = None
    threshold: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewResult:
    """The expected result of a job.

    Attributes:
        source: the type of the source, and notes about it, such as searches that are not configured.
        columns: the metadata columns and their types, in row order.
        exact: the sample holds all documents. Otherwise the next three are estimates.
        documents: documents that would be read; None when there is no estimate.
        rows: rows that would be written.
        bytes: bytes of these rows, uncompressed.
        sample: the documents that were read, in source order.
        rejected: documents of the sample that a filter would drop, by reason.
        dead_letters: documents of the sample that would be dead letters, by reason.
        mean_quality_score: the mean over the documents of the sample that have a score.
    """

    source: Mapping[str, JsonValue]
    columns: Mapping[str, str]
    exact: bool
    documents: int | None
    rows: int | None
    bytes: int | None
    sample: tuple[PreviewDocument, ...]
    rejected: Mapping[str, int]
    dead_letters: Mapping[str, int]
    mean_quality_score: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainRecord:
    """What became of one record of the source.

    Attributes:
        document_id: its id.
        outcome: what it became.
        shard: of a row: the key of its shard in the dataset.
        line: of a row: its line in the shard, from 1.
        reason: of any other: why.
        value: the value that a filter compared; None where it is not known.
        threshold: what it was compared with.
        instead: the record of which this one is a duplicate.
        dataset: the address of the dataset that has its text.
    """

    document_id: str
    outcome: Literal["row", "rejected", "dead_letter"]
    shard: str | None = None
    line: int | None = None
    reason: str | None = None
    value: float | None = None
    threshold: float | None = None
    instead: "ExplainRecord | None" = None
    dataset: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainResult:
    """The result of `explain`: all records with the id, in the order of the source; none: it had none.

    `notes` say what a dataset that is not assembled does not keep.
    """

    document_id: str
    records: tuple[ExplainRecord, ...]
    notes: tuple[str, ...] = ()


class RowFeatures(Protocol):
    """The `datasets.Features` of a dataset's rows. The package datasets has no types of its own."""

    @property
    def arrow_schema(self) -> object:
        """The same as a `pyarrow.Schema`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyResult:
    """The result of `verify`. `problems` are up to 20 sentences in reading order; `ok` when there is none.

    `source` is that of the manifest: type, count, and how each store's count is proven. `notes` say what the
    proof does not cover. `signed`: the dataset has a signature, which only the argument `key` checks.
    `decision`: the decision of an assembled dataset was recomputed, as the argument `decision` asks.
    """

    ok: bool
    digest: str
    rows: int
    shards: int
    rejected: Mapping[str, int]
    dead_letters: Mapping[str, int]
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()
    signed: bool = False
    decision: bool = False
    source: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """A job as `shardline status` shows it.

    Attributes:
        job: the job as it was accepted.
        state: its state; `active` says whether it has work left.
        attempt: the number of its attempt, from 1.
        accepted_at: when it was accepted, as RFC 3339.
        updated_at: when its state was last written, as RFC 3339.
        ratio: the share of the job that is done, 0 to 1 (`progress` of `status --json`).
        stage: `landing`, `deciding` or `assembling`, of an assembled job that is not completed; else None.
        source_documents: documents read from the source.
        produced: messages sent to the job's topic.
        chained: messages that finished segments hold.
        lag: `produced` - `chained`, or 0.
        rows: rows in finished shards.
        bytes: bytes of these rows, uncompressed.
        rejected: documents that a filter dropped, by reason.
        dead_letters: input that could not be a document, by reason.
        code: why the job failed; one of `shardline.errors.FailureCode`.
        message: the same as a sentence.
        warning: a warning about a completed job, such as `empty`.
        source: the type of the source, and notes about it.
    """

    job: Job
    state: StateName
    attempt: int
    accepted_at: str
    updated_at: str
    ratio: float
    source_documents: int
    produced: int
    chained: int
    lag: int
    rows: int
    bytes: int
    rejected: Mapping[str, int]
    dead_letters: Mapping[str, int]
    code: str | None
    message: str | None
    warning: str | None
    source: Mapping[str, JsonValue]
    stage: StageName | None = None

    @property
    def job_id(self) -> str:
        """The job's id."""
        return self.job.job_id

    @property
    def active(self) -> bool:
        """Whether the job is queued, running or completing."""
        return self.state in {"queued", "running", "completing"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of a shard, with its fields in the order of the line."""

    text: str
    metadata: Mapping[str, str | int | float | bool | None]
    source: str
    quality_score: float
    document_id: str
    relevance_score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RowCounts:
    """The counts of the documents that a stream has read so far."""

    read: int
    rows: int
    rejected: Mapping[str, int]
    dead_letters: Mapping[str, int]
