"""The context of a worker, shared by all its attempts and partitions."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

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
from shardline_consumer.spool.budget import SpoolBudget


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """The ports of a worker, its metrics, and the limits that its attempts share.

    `spool` is the folder of open segments, `budget` the bytes that they may take over all jobs, `uploads`
    limits the shards that are put at once. `keep_originals`: dead letters carry the original bytes.
    `finish_seconds`: the interval between two checks whether an attempt can be finished. `sign` signs the
    datasets that are published; None: they have no signature. `single_job`: this process works on one job
    only, so an unexpected error that cannot be recorded in the job may end it. `errors` logs what nobody has
    foreseen. `decisions` are those of attempts in this process, `watches` its attempts: each of many is
    checked at a longer interval, as they share the requests. `decide_memory` and
    `decide_threads`: the bytes and threads that the decision about an assembled dataset may take.
    `open_dataset` opens the datasets that a job compares with; None: it reads none. `fetch_file` copies the
    files that filters name; None: it reads none.
    """

    broker: Broker
    store: ObjectStore
    clock: Clock
    metrics: Metrics
    spool: Path
    budget: SpoolBudget
    uploads: asyncio.Semaphore
    keep_originals: bool = True
    finish_seconds: float = 2.0
    sign: Sign | None = None
    single_job: bool = False
    errors: UnexpectedErrors = field(default_factory=UnexpectedErrors)
    decisions: Decisions = field(default_factory=Decisions)
    watches: AttemptWatches = field(default_factory=AttemptWatches)
    decide_memory: int = 512 << 20
    decide_threads: int = 1
    open_dataset: OpenDataset | None = None
    fetch_file: FetchFile | None = None
