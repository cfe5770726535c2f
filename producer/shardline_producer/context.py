"""The context of a producer, and its policy."""

import asyncio
from dataclasses import dataclass, field

from shardline_common.dataset.finished import OpenDataset
from shardline_common.dataset.publish import Sign
from shardline_common.job.filter_loading import FetchFile
from shardline_common.ports.broker import Broker
from shardline_common.ports.clock import Clock
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.attempt_watches import AttemptWatches
from shardline_common.runtime.decisions import Decisions
from shardline_common.runtime.unexpected import UnexpectedErrors
from shardline_common.telemetry.metrics import Metrics
from shardline_producer.notifications.outbox import Receiver
from shardline_producer.sources.source import OpenSource

_SLICE_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Pace:
    """The limit on the documents per second that a job reads; 0 is no limit."""

    rate: float = 0.0

    @property
    def slice(self) -> int:
        """Documents of one transaction under this limit; 0: a whole batch of the source."""
        return max(1, int(self.rate * _SLICE_SECONDS)) if self.rate else 0


@dataclass(frozen=True, slots=True)
class ProducerPolicy:
    """The limits of a producer, in bytes and seconds.

    `topic_bytes`: the limit of the backlog of a topic. `topic_grace`: the time from the end of an attempt to
    the deletion of its topic. `progress_seconds`: the interval of reading the chains. `catch_up_seconds`: the
    longest time to read the checkpoints. `sweep_seconds`: the interval of the sweep of orphan topics and
    staged rows.
    `source_seconds`: how long a source may be unreachable before its job fails. `publish_seconds`: how long
    a completed dataset may stay unpublished before the producer publishes it. `single_job`: this process
    works on one job only, so an unexpected error that cannot be recorded in the job may end it.
    `transaction_bytes`: how much is read while a transaction is sent; it is the next transaction.
    `transaction_seconds`: how long that is read, at the longest, from the begin of one transaction to the
    begin of the next.
    `follow_slices`: this process runs slices of jobs; a process with one job without slices need not look
    for them. `blocks`: the workers are in this process, and take documents in blocks.
    """

    topic_bytes: int = 1 << 30
    topic_grace: float = 60.0
    progress_seconds: float = 1.0
    catch_up_seconds: float = 120.0
    sweep_seconds: float = 300.0
    source_seconds: float = 900.0
    publish_seconds: float = 5.0
    single_job: bool = False
    transaction_bytes: int = 4 << 20
    transaction_seconds: float = 0.2
    follow_slices: bool = True
    blocks: bool = False
    pace: Pace = field(default_factory=Pace)


@dataclass(frozen=True, slots=True)
class ProducerContext:
    """The ports of a producer, its policy, and the objects that its jobs share.

    `slots` limits the jobs that run at once; further jobs are queued. `receiver` gets a notification of each
    attempt that ends; None: there are no notifications. `sign` signs the datasets that are published; None:
    they have no signature. `errors` logs what nobody has foreseen. `decisions` are those of attempts in this
    process. `watches` are its attempts, which share the requests by which they follow their jobs.
    `open_dataset` opens the datasets that a job compares with; None: it reads none. `fetch_file` copies the
    files that filters name; None: it reads none.
    """

    broker: Broker
    store: ObjectStore
    clock: Clock
    metrics: Metrics
    open_source: OpenSource
    policy: ProducerPolicy
    slots: asyncio.Semaphore
    receiver: Receiver | None = None
    sign: Sign | None = None
    errors: UnexpectedErrors = field(default_factory=UnexpectedErrors)
    decisions: Decisions = field(default_factory=Decisions)
    watches: AttemptWatches = field(default_factory=AttemptWatches)
    open_dataset: OpenDataset | None = None
    fetch_file: FetchFile | None = None
