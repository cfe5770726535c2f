"""The metrics: a typed catalogue, one registry per process part, updated per batch and never per document."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.metrics import MetricWrapperBase

from common import __version__
from common.aio import longest_in_vain
from common.chain import Totals
from common.clock import SystemClock
from common.jobstate import State

_SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


@dataclass(frozen=True, slots=True)
class Definition:
    """A metric: its kind, what it means, and the labels beside `dataset_job`."""

    kind: type[MetricWrapperBase]
    meaning: str
    labels: tuple[str, ...] = ()
    per_job: bool = True


CATALOGUE: dict[str, Definition] = {
    "documents_produced_total": Definition(Counter, "Messages sent to the job's topic"),
    "documents_dropped_total": Definition(Counter, "Documents read again that an earlier attempt had sent"),
    "documents_consumed_total": Definition(Counter, "Messages read from the job's topic, replays included"),
    "documents_written_total": Definition(Counter, "Rows in landed shards"),
    "documents_rejected_total": Definition(Counter, "Documents dropped by the filters", ("reason",)),
    "documents_dead_lettered_total": Definition(Counter, "Documents that could not be rows", ("reason",)),
    "bytes_written_total": Definition(Counter, "Uncompressed bytes of rows in landed shards"),
    "shards_written_total": Definition(Counter, "Landed shards"),
    "shard_put_duration_seconds": Definition(Histogram, "Time of a shard's put, with its retries"),
    "source_batch_duration_seconds": Definition(Histogram, "Time the source took for a batch"),
    "transaction_duration_seconds": Definition(Histogram, "Time of a Kafka transaction"),
    "lag_documents": Definition(Gauge, "Messages produced that no chain holds yet"),
    "job_progress_ratio": Definition(Gauge, "Share of the job that is done, 0 to 1"),
    "job_eta_seconds": Definition(Gauge, "Seconds left at the rate since the job was taken up"),
    "last_document_timestamp_seconds": Definition(Gauge, "When a message was last sent or landed"),
    "records_replayed_total": Definition(Counter, "Messages read again after a crash or rebalance"),
    "creates_refused_total": Definition(Counter, "Creates that found the object there already"),
    "store_errors_total": Definition(Counter, "Errors of the object store that are tried again"),
    "jobs": Definition(Gauge, "Jobs this producer owns", ("state",), per_job=False),
    "job_stalled_seconds": Definition(Gauge, "Since when a job with work left has not moved"),
    "in_vain_seconds": Definition(
        Gauge, "For how long the oldest retry of this process has had no success", per_job=False
    ),
    "tasks": Definition(Gauge, "Asyncio tasks of this process", per_job=False),
    "spool_bytes": Definition(Gauge, "Spool reserved by open segments", per_job=False),
    "gateway_requests_total": Definition(
        Counter, "HTTP requests answered by the gateway", ("status",), per_job=False
    ),
    "gateway_streams_total": Definition(
        Counter, "Streams that ended, by how (docs/http.md)", ("outcome",), per_job=False
    ),
    "gateway_rows_total": Definition(Counter, "Rows streamed to clients", per_job=False),
    "webhooks_total": Definition(
        Counter,
        "Tries of the webhook: delivered, failed (tried again), given_up",
        ("outcome",),
        per_job=False,
    ),
    "build_info": Definition(Gauge, "1; the version is the label", ("version",), per_job=False),
}


class Metrics:
    """One process's metrics. All names have the prefix `shardline_`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._metrics = {name: self._make(name, item) for name, item in CATALOGUE.items()}
        self._labels: dict[str, set[tuple[str, tuple[str, ...]]]] = {}
        self._started: dict[str, tuple[float, float]] = {}
        self._gauge("build_info", __version__).set(1)
        self._job_states: Callable[[], Sequence[str]] = tuple
        self.refresh()

    def _make(self, name: str, item: Definition) -> MetricWrapperBase:
        labels = (("dataset_job",) if item.per_job else ()) + item.labels
        full = f"shardline_{name}".removesuffix("_total")
        if item.kind is Histogram:
            return Histogram(full, item.meaning, labels, registry=self.registry, buckets=_SECONDS)
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

    def _time(self, name: str, seconds: float, job: str) -> None:
        series = self._series(name, job)
        if isinstance(series, Histogram):
            series.observe(seconds)

    def forget_job(self, job: str) -> None:
        """Drop all series of a job that has ended."""
        for name, labels in self._labels.pop(job, set()):
            self._metrics[name].remove(*labels)
        self._started.pop(job, None)

    def produced(self, job: str, count: int, *, dropped: int = 0) -> None:
        """Messages were sent, and documents dropped that had been sent before."""
        self._count("documents_produced_total", count, job)
        self._count("documents_dropped_total", dropped, job)
        self._gauge("last_document_timestamp_seconds", job).set(time.time())

    def consumed(self, job: str, count: int, replayed: int) -> None:
        """Messages were read, some of them again."""
        self._count("documents_consumed_total", count, job)
        self._count("records_replayed_total", replayed, job)

    def landed(self, job: str, segment: Totals) -> None:
        """A segment is in the chain."""
        self._count("documents_written_total", segment.rows, job)
        self._count("bytes_written_total", segment.bytes, job)
        self._count("shards_written_total", 1 if segment.rows else 0, job)
        for reason, count in segment.rejected.items():
            self._count("documents_rejected_total", count, job, reason)
        for reason, count in segment.dead.items():
            self._count("documents_dead_lettered_total", count, job, reason)
        self._gauge("last_document_timestamp_seconds", job).set(time.time())

    def put_duration(self, job: str, seconds: float) -> None:
        """A shard was put."""
        self._time("shard_put_duration_seconds", seconds, job)

    def source_batch(self, job: str, seconds: float) -> None:
        """The source gave a batch."""
        self._time("source_batch_duration_seconds", seconds, job)

    def transaction(self, job: str, seconds: float) -> None:
        """A transaction was committed."""
        self._time("transaction_duration_seconds", seconds, job)

    def create_refused(self, job: str) -> None:
        """A create found the key taken."""
        self._count("creates_refused_total", 1, job)

    def store_error(self, job: str) -> None:
        """The store failed a request that is tried again."""
        self._count("store_errors_total", 1, job)

    def progress(self, job: str, *, lag: int, ratio: float) -> None:
        """Where a job stands."""
        now = time.monotonic()
        started, first = self._started.setdefault(job, (now, ratio))
        self._gauge("lag_documents", job).set(lag)
        self._gauge("job_progress_ratio", job).set(ratio)
        if ratio > first:
            left = (1.0 - ratio) * (now - started) / (ratio - first)
            self._gauge("job_eta_seconds", job).set(left)

    def stalled(self, job: str, seconds: float) -> None:
        """How long nothing of a job was sent or landed, though there is work left."""
        self._gauge("job_stalled_seconds", job).set(seconds)

    def follow_jobs(self, states: Callable[[], Sequence[str]]) -> None:
        """Ask at every scrape for the states of the jobs that this producer owns: never a stale count."""
        self._job_states = states

    def refresh(self) -> None:
        """Bring what is asked for at scrapes up to date; call it on the event loop."""
        vain = longest_in_vain(SystemClock())
        self._gauge("in_vain_seconds").set(vain[1] if vain else 0.0)
        self._gauge("tasks").set(len(asyncio.all_tasks()))
        states = self._job_states()
        for state in State:
            self._gauge("jobs", state.value).set(states.count(state.value))

    def requested(self, status: int) -> None:
        """The gateway answered a request."""
        self._count("gateway_requests_total", 1, str(status))

    def streamed(self, outcome: str, rows: int) -> None:
        """A stream of the gateway ended."""
        self._count("gateway_streams_total", 1, outcome)
        self._count("gateway_rows_total", rows)

    def webhook(self, outcome: str) -> None:
        """The webhook was tried."""
        self._count("webhooks_total", 1, outcome)

    def spool(self, reserved: int) -> None:
        """Spool bytes reserved now."""
        self._gauge("spool_bytes").set(reserved)


def metrics_reference() -> str:
    """The catalogue as a Markdown table."""
    lines = ["| metric | kind | labels | meaning |", "|---|---|---|---|"]
    for name, item in CATALOGUE.items():
        labels = ", ".join((("dataset_job",) if item.per_job else ()) + item.labels)
        lines.append(f"| `shardline_{name}` | {item.kind.__name__.lower()} | {labels} | {item.meaning} |")
    return "\n".join(lines) + "\n"
