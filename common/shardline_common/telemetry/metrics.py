"""The metrics: a typed catalogue, and the registry of one process. They are updated per batch."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.metrics import MetricWrapperBase

from shardline_common import __version__
from shardline_common.dataset.chain import Totals
from shardline_common.dataset.stage_events import Stage
from shardline_common.job.state import State
from shardline_common.runtime.clock import SystemClock
from shardline_common.runtime.retry import longest_failing

_SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_BYTES = tuple(float(1 << power) for power in range(16, 33))


@dataclass(frozen=True, slots=True)
class Definition:
    """A metric: kind, help text, and the labels besides `dataset_job`, which only `per_job` metrics have."""

    kind: type[MetricWrapperBase]
    meaning: str
    labels: tuple[str, ...] = ()
    per_job: bool = True
    buckets: tuple[float, ...] = _SECONDS


CATALOGUE: dict[str, Definition] = {
    "documents_produced_total": Definition(Counter, "Messages sent to the job's topic"),
    "documents_dropped_total": Definition(Counter, "Documents read again that an earlier attempt had sent"),
    "documents_consumed_total": Definition(Counter, "Messages read from the job's topic, replays included"),
    "documents_written_total": Definition(Counter, "Rows in committed shards"),
    "documents_rejected_total": Definition(Counter, "Documents dropped by the filters", ("reason",)),
    "documents_dead_lettered_total": Definition(Counter, "Documents that could not be rows", ("reason",)),
    "bytes_written_total": Definition(Counter, "Uncompressed bytes of rows in committed shards"),
    "shards_written_total": Definition(Counter, "Committed shards"),
    "shard_bytes": Definition(Histogram, "Uncompressed bytes of a committed shard", buckets=_BYTES),
    "shard_put_duration_seconds": Definition(Histogram, "Time of the put of a shard, with its retries"),
    "source_batch_duration_seconds": Definition(Histogram, "Time the source took for a batch"),
    "source_wait_seconds": Definition(
        Gauge, "Seconds since the oldest unanswered request to the source, failed attempts included"
    ),
    "transaction_duration_seconds": Definition(Histogram, "Time of a Kafka transaction"),
    "lag_documents": Definition(Gauge, "Messages produced that no chain holds yet"),
    "lag_seconds": Definition(
        Gauge, "Age of the oldest message that no chain holds yet, since this producer owns the job"
    ),
    "backlog_ratio": Definition(
        Gauge, "Share of the topic's limit that no chain holds yet; at 1 the producer waits"
    ),
    "slowest_partition": Definition(Gauge, "Number of the partition with the most lag; -1 when none lags"),
    "slowest_partition_lag_documents": Definition(
        Gauge, "Messages of that partition that no chain holds yet"
    ),
    "job_left_alone": Definition(
        Gauge, "1 while this worker takes no part in the job: its filters are not those of the plan"
    ),
    "job_documents": Definition(Gauge, "Messages of a job by stage, over all attempts", ("stage",)),
    "job_progress_ratio": Definition(Gauge, "Share of the job that is done, 0 to 1"),
    "stage_progress_ratio": Definition(
        Gauge, "Share of a stage of an assembled job that is done, 0 to 1", ("stage",)
    ),
    "job_eta_seconds": Definition(Gauge, "Seconds left at the rate since this producer owns the job"),
    "checkpoint_timestamp_seconds": Definition(
        Gauge, "When the last checkpoint was committed; only while documents are still being sent"
    ),
    "last_document_timestamp_seconds": Definition(Gauge, "When a message was last sent or committed"),
    "records_replayed_total": Definition(Counter, "Messages read again after a crash or rebalance"),
    "creates_refused_total": Definition(Counter, "Creates that found an object under the key"),
    "store_errors_total": Definition(Counter, "Errors of the object store that are retried"),
    "jobs": Definition(Gauge, "Jobs this producer owns", ("state",), per_job=False),
    "attempts_ended_total": Definition(
        Counter, "Attempts that ended on this producer", ("ending",), per_job=False
    ),
    "dead_letters_sent_total": Definition(
        Counter,
        "Dead letters of documents and of job messages, repeats after a crash included",
        ("of",),
        per_job=False,
    ),
    "job_stalled_seconds": Definition(Gauge, "Seconds since an unfinished job made progress"),
    "in_vain_seconds": Definition(
        Gauge,
        "Seconds for which the longest failing call of this process has been retried, Kafka's included",
        per_job=False,
    ),
    "tasks": Definition(Gauge, "Asyncio tasks of this process", per_job=False),
    "spool_bytes": Definition(Gauge, "Spool reserved by open segments", per_job=False),
    "spool_written_bytes": Definition(Gauge, "Bytes of open segments on the disk", per_job=False),
    "spool_limit_bytes": Definition(Gauge, "Bytes that the spool may take; 0 without one", per_job=False),
    "spool_disk_free_bytes": Definition(Gauge, "Bytes free on the disk of the spool", per_job=False),
    "gateway_requests_total": Definition(
        Counter, "HTTP requests answered by the gateway", ("status",), per_job=False
    ),
    "gateway_answer_seconds": Definition(
        Histogram, "Time until the response to a request begins", ("route",), per_job=False
    ),
    "gateway_streams_open": Definition(
        Gauge, "Streams open now: of rows, or of events", ("kind",), per_job=False
    ),
    "gateway_streams_total": Definition(
        Counter, "Streams that ended, by outcome (docs/http.md)", ("outcome",), per_job=False
    ),
    "gateway_rows_total": Definition(Counter, "Rows streamed to clients", per_job=False),
    "gateway_actions_total": Definition(
        Counter,
        "Actions in the audit log, by the highest role of the user; the log has the user and the dataset",
        ("action", "role", "outcome"),
        per_job=False,
    ),
    "webhooks_total": Definition(
        Counter,
        "Attempts of the webhook: delivered, failed (retried), given_up",
        ("outcome",),
        per_job=False,
    ),
    "build_info": Definition(Gauge, "1; the version is the label", ("version",), per_job=False),
}


_PRODUCING = ("documents_produced_total", "documents_dropped_total", "store_errors_total")
_CONSUMING = (
    "documents_consumed_total",
    "documents_written_total",
    "bytes_written_total",
    "shards_written_total",
    "records_replayed_total",
    "creates_refused_total",
    "store_errors_total",
)


@dataclass(frozen=True, slots=True)
class JobSnapshot:
    """The progress of a job, measured by its producer.

    `lag` in messages; `lag_seconds`: the age of the oldest of them; `backlog`: the share of the topic's limit
    that they take; `slowest`: the partition with the most lag, and its lag; `documents` by stage; `ratio`:
    the share of the job that is done, 0 to 1.
    """

    lag: int
    lag_seconds: float
    backlog: float
    slowest: tuple[int, int]
    documents: Mapping[str, int]
    ratio: float


class Metrics:
    """The metrics of one process. All names have the prefix `shardline_`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._metrics = {name: self._make(name, item) for name, item in CATALOGUE.items()}
        self._labels: dict[str, set[tuple[str, tuple[str, ...]]]] = {}
        self._started: dict[str, tuple[float, float]] = {}
        self._waiting_since: dict[str, float] = {}
        self._followed: list[tuple[Gauge, Callable[[], float]]] = []
        self._gauge("build_info", __version__).set(1)
        self._job_states: Callable[[], Sequence[str]] = tuple
        self._failing_seconds: Callable[[], float] = lambda: 0.0
        self.refresh()

    def _make(self, name: str, item: Definition) -> MetricWrapperBase:
        labels = (("dataset_job",) if item.per_job else ()) + item.labels
        full = f"shardline_{name}".removesuffix("_total")
        if item.kind is Histogram:
            return Histogram(full, item.meaning, labels, registry=self.registry, buckets=item.buckets)
        return item.kind(full, item.meaning, labels, registry=self.registry)

    def _series(self, name: str, *labels: str) -> MetricWrapperBase:
        metric = self._metrics[name]
        if CATALOGUE[name].per_job:
            self._labels.setdefault(labels[0], set()).add((name, labels))
        return metric.labels(*labels) if labels else metric

    def _count(self, name: str, amount: float, *labels: str) -> None:
        series = self._series(name, *labels)
        if isinstance(series, Counter):
            series.inc(amount)

    def _gauge(self, name: str, *labels: str) -> Gauge:
        series = self._series(name, *labels)
        if not isinstance(series, Gauge):
            raise TypeError(name)
        return series

    def _observe(self, name: str, amount: float, *labels: str) -> None:
        series = self._series(name, *labels)
        if isinstance(series, Histogram):
            series.observe(amount)

    def _drop(self, name: str, job: str) -> None:
        known = self._labels.get(job, set())
        if (name, (job,)) in known:
            known.remove((name, (job,)))
            self._metrics[name].remove(job)

    def begin_producing(self, job: str) -> None:
        """An attempt starts on this producer. Its counters begin at 0: a rate needs two values."""
        for name in _PRODUCING:
            self._count(name, 0, job)

    def begin_consuming(self, job: str, reasons: Iterable[str]) -> None:
        """An attempt starts on this worker; `reasons` are the possible reasons of its rejections."""
        for name in _CONSUMING:
            self._count(name, 0, job)
        for reason in reasons:
            self._count("documents_rejected_total", 0, job, reason)

    def left_alone(self, job: str) -> None:
        """This worker takes no part in a job."""
        self._gauge("job_left_alone", job).set(1)

    def remove_job(self, job: str) -> None:
        """Remove all series of a job that this process no longer works on."""
        for name, labels in self._labels.pop(job, set()):
            self._metrics[name].remove(*labels)
        self._started.pop(job, None)
        self._waiting_since.pop(job, None)

    def produced(self, job: str, count: int, *, dropped: int = 0, dead: int = 0) -> None:
        """`count` messages were sent, `dead` of them dead letters; `dropped` more had been sent before."""
        self._count("documents_produced_total", count, job)
        self._count("documents_dropped_total", dropped, job)
        self._count("dead_letters_sent_total", dead, "document")
        self._gauge("last_document_timestamp_seconds", job).set(time.time())

    def consumed(self, job: str, count: int, replayed: int) -> None:
        """`count` messages were read, `replayed` of them not for the first time."""
        self._count("documents_consumed_total", count, job)
        self._count("records_replayed_total", replayed, job)

    def segment_committed(self, job: str, segment: Totals) -> None:
        """A segment was committed."""
        self._count("documents_written_total", segment.rows, job)
        self._count("bytes_written_total", segment.bytes, job)
        self._count("shards_written_total", 1 if segment.rows else 0, job)
        if segment.rows:
            self._observe("shard_bytes", segment.bytes, job)
        for reason, count in segment.rejected.items():
            self._count("documents_rejected_total", count, job, reason)
        for reason, count in segment.dead.items():
            self._count("documents_dead_lettered_total", count, job, reason)
        self._gauge("last_document_timestamp_seconds", job).set(time.time())

    def put_duration(self, job: str, seconds: float) -> None:
        """The put of a shard took `seconds`, retries included."""
        self._observe("shard_put_duration_seconds", seconds, job)

    def source_requested(self, job: str) -> None:
        """A request to the source begins. Until a response, further requests are part of the same wait."""
        self._waiting_since.setdefault(job, time.monotonic())

    def source_responded(self, job: str) -> None:
        """The source has responded."""
        self._waiting_since.pop(job, None)
        self._gauge("source_wait_seconds", job).set(0.0)

    def source_batch(self, job: str, seconds: float) -> None:
        """The source returned a batch after `seconds`."""
        self.source_responded(job)
        self._observe("source_batch_duration_seconds", seconds, job)

    def transaction(self, job: str, seconds: float) -> None:
        """A transaction that took `seconds` was committed."""
        self._observe("transaction_duration_seconds", seconds, job)

    def checkpointed(self, job: str, at: datetime) -> None:
        """A checkpoint was committed at `at`, and there is more to send."""
        self._gauge("checkpoint_timestamp_seconds", job).set(at.timestamp())

    def all_sent(self, job: str) -> None:
        """The last documents were sent: remove the time of the checkpoint, whose age has no meaning now."""
        self._drop("checkpoint_timestamp_seconds", job)

    def create_refused(self, job: str) -> None:
        """A create found an object under its key."""
        self._count("creates_refused_total", 1, job)

    def store_error(self, job: str) -> None:
        """The store failed a request that is retried."""
        self._count("store_errors_total", 1, job)

    def progress(self, job: str, snapshot: JobSnapshot) -> None:
        """Set the gauges of a job's progress."""
        now = time.monotonic()
        started, first = self._started.setdefault(job, (now, snapshot.ratio))
        self._gauge("lag_documents", job).set(snapshot.lag)
        self._gauge("lag_seconds", job).set(snapshot.lag_seconds)
        self._gauge("backlog_ratio", job).set(snapshot.backlog)
        self._gauge("slowest_partition", job).set(snapshot.slowest[0])
        self._gauge("slowest_partition_lag_documents", job).set(snapshot.slowest[1])
        for stage, count in snapshot.documents.items():
            self._gauge("job_documents", job, stage).set(count)
        self._gauge("job_progress_ratio", job).set(snapshot.ratio)
        if snapshot.ratio > first:
            left = (1.0 - snapshot.ratio) * (now - started) / (snapshot.ratio - first)
            self._gauge("job_eta_seconds", job).set(left)

    def stage(self, job: str, stage: Stage, share: float) -> None:
        """An assembled job is in this stage, of which `share` is done. Those before it are done."""
        stages = list(Stage)
        for number, one in enumerate(stages):
            before = 1.0 if number < stages.index(stage) else 0.0
            self._gauge("stage_progress_ratio", job, one.value).set(share if one is stage else before)

    def stalled(self, job: str, seconds: float) -> None:
        """Nothing of an unfinished job was sent, committed, decided or assembled for `seconds`."""
        self._gauge("job_stalled_seconds", job).set(seconds)

    def follow_jobs(self, states: Callable[[], Sequence[str]]) -> None:
        """Count the jobs by state at every scrape; `states` returns the state of each of its jobs."""
        self._job_states = states
        for ending in ("completed", "failed", "cancelled"):
            self._count("attempts_ended_total", 0, ending)
        for of in ("document", "message"):
            self._count("dead_letters_sent_total", 0, of)
        for outcome in ("delivered", "failed", "given_up"):
            self._count("webhooks_total", 0, outcome)

    def attempt_ended(self, ending: str) -> None:
        """An attempt ended."""
        self._count("attempts_ended_total", 1, ending)

    def message_refused(self) -> None:
        """A message of dataset.jobs became a dead letter."""
        self._count("dead_letters_sent_total", 1, "message")

    def follow(self, name: str, read: Callable[[], float], *labels: str) -> None:
        """Set a gauge at every scrape; `read` returns its value."""
        self._followed.append((self._gauge(name, *labels), read))

    def follow_failing(self, read: Callable[[], float]) -> None:
        """Include the calls of Kafka in `in_vain_seconds`; `read` returns how long the longest one fails."""
        self._failing_seconds = read

    def refresh(self) -> None:
        """Set the gauges that are computed at a scrape. Call it on the event loop."""
        failing = longest_failing(SystemClock())
        self._gauge("in_vain_seconds").set(max(failing[1] if failing else 0.0, self._failing_seconds()))
        self._gauge("tasks").set(len(asyncio.all_tasks()))
        states = self._job_states()
        for state in State:
            self._gauge("jobs", state.value).set(states.count(state.value))
        for job, since in self._waiting_since.items():
            self._gauge("source_wait_seconds", job).set(time.monotonic() - since)
        for gauge, read in self._followed:
            gauge.set(read())

    def requested(self, status: int, route: str, seconds: float) -> None:
        """The gateway served a request. `seconds`: until the response began; `status` 0: there was none."""
        self._count("gateway_requests_total", 1, str(status))
        if status:
            self._observe("gateway_answer_seconds", seconds, route)

    def begin_streams(self, outcomes: Iterable[str]) -> None:
        """Start the counters of these outcomes at 0."""
        for outcome in outcomes:
            self._count("gateway_streams_total", 0, outcome)

    def streamed(self, outcome: str, rows: int) -> None:
        """A stream of the gateway ended after `rows` rows."""
        self._count("gateway_streams_total", 1, outcome)
        self._count("gateway_rows_total", rows)

    def acted(self, action: str, role: str, outcome: str) -> None:
        """An action of a user of the gateway was recorded."""
        self._count("gateway_actions_total", 1, action, role, outcome)

    def webhook(self, outcome: str) -> None:
        """An attempt to deliver a notification ended."""
        self._count("webhooks_total", 1, outcome)

    def spool(self, reserved: int) -> None:
        """Set the bytes of spool that are reserved."""
        self._gauge("spool_bytes").set(reserved)
