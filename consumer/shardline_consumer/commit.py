"""Landing a closed segment: objects, then its chain record. Every put is create-only."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from shardline_common.dataset.chain import EMPTY_SHA256, Chain, ChainRecord
from shardline_common.dataset.read import object_sha256
from shardline_common.errors import FailureCode, JobFailed, ObjectExists, ShardlineError
from shardline_common.job.names import Layout
from shardline_common.job.spec import JobSpec
from shardline_common.ports.clock import Clock
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.failpoints import failpoint
from shardline_common.runtime.retry import retry_forever
from shardline_common.runtime.threads import run_in_thread
from shardline_common.telemetry.metrics import Metrics
from shardline_common.telemetry.tracing import span
from shardline_consumer.segment import OpenSegment
from shardline_consumer.spool.file import SpoolFile, compress, packed_path

_log = logging.getLogger(__name__)
_TYPES = {"none": "application/x-ndjson", "gzip": "application/gzip", "zstd": "application/zstd"}


@dataclass(frozen=True, slots=True)
class Landing:
    """Where the segments of one job attempt land."""

    store: ObjectStore
    clock: Clock
    metrics: Metrics
    spec: JobSpec
    attempt: int

    @property
    def layout(self) -> Layout:
        """The dataset's keys."""
        return Layout.of(self.spec)

    def chain(self, partition: int) -> Chain:
        """A partition's chain."""
        return Chain(self.store, self.layout, partition)

    def store_error(self, error: ShardlineError) -> None:
        """Count an error of the store."""
        self.metrics.store_error(self.spec.job_id)
        _log.debug("store: %s", error)


async def land(
    landing: Landing, partition: int, segment: OpenSegment, valid: Callable[[], None]
) -> tuple[ChainRecord, bool]:
    """Land a closed segment; gives the chain record that stands and whether it is the one written here.

    1. the rows, 2. the rejected, 3. the chain record. `valid` is asked before each and raises
    when the partition has gone to another worker meanwhile. Store errors are waited out.

    Raises:
        JobFailed: other content stands under one of the keys (`not_reproducible`).
        SpoolError: the compressed copy cannot be written.
    """
    layout, split = landing.layout, landing.spec.split_of(partition)
    key = layout.data(split, partition, segment.first) if segment.rows else None
    rejected_key = layout.rejected(partition, segment.first) if segment.rejected else None
    if key and segment.rows:
        valid()
        failpoint("worker.before_data")
        await put_rows(landing, key, segment.rows)
        failpoint("worker.after_data")
    if rejected_key and segment.rejected:
        valid()
        await put_rows(landing, rejected_key, segment.rejected)
    totals = segment.totals
    record = ChainRecord(
        split=split,
        partition=partition,
        first=segment.first,
        next=segment.next,
        key=key,
        rejected_key=rejected_key,
        sha256=segment.rows.sha256 if segment.rows else EMPTY_SHA256,
        segment=totals,
        upto=segment.before.plus(totals),
        position=segment.position,
        attempt=landing.attempt,
        offset=segment.offset,
    )
    valid()
    append = partial(landing.chain(partition).append, record)
    failpoint("worker.before_chain")
    with span("chain"):
        standing = await retry_forever(
            append, landing.clock, f"chain record of {layout.root}", landing.store_error
        )
    failpoint("worker.after_chain")
    if standing is not record:
        landing.metrics.create_refused(landing.spec.job_id)
    return standing, standing is record


async def put_rows(landing: Landing, key: str, file: SpoolFile) -> None:
    """Put a spool file under its key, compressed where the job says so; a copy of ours there is a success.

    Raises:
        JobFailed: other content stands under the key.
        SpoolError: the compressed copy cannot be written.
    """
    with span("put", object=key, bytes=file.size):
        await _put_now(landing, key, file)


async def _put_now(landing: Landing, key: str, file: SpoolFile) -> None:
    compression = landing.spec.output.compression
    if compression == "none":
        await _create(landing, key, file.path, file.sha256)
        return
    packed = packed_path(file.path, compression)
    try:
        await run_in_thread(partial(compress, file.path, packed, file.size, compression))
        await _create(landing, key, packed, file.sha256)
    finally:
        # Also when we are cancelled while it is written: then it is whole by now, and nobody's.
        packed.unlink(missing_ok=True)


async def _create(landing: Landing, key: str, path: Path, digest: str) -> None:
    started = time.perf_counter()
    content_type = _TYPES[landing.spec.output.compression]
    create = partial(landing.store.create, key, path, content_type=content_type)
    try:
        await retry_forever(create, landing.clock, f"put {key}", landing.store_error)
    except ObjectExists:
        landing.metrics.create_refused(landing.spec.job_id)
        await _expect_same(landing, key, digest)
    landing.metrics.put_duration(landing.spec.job_id, time.perf_counter() - started)


async def _expect_same(landing: Landing, key: str, digest: str) -> None:
    # A refused create is our own success when the bytes are ours: a retry whose first answer was
    # lost, a crash between put and chain record, or another worker with the same segment.
    compare = partial(object_sha256, landing.store, key, landing.spec.output.compression)
    if await retry_forever(compare, landing.clock, f"compare {key}", landing.store_error) != digest:
        raise JobFailed(
            FailureCode.NOT_REPRODUCIBLE,
            f"{key} was written before with other content; nothing was overwritten",
            hint="the source gave other documents this time; submit a new job",
        )
