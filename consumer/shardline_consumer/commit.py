"""Committing a closed segment: its objects, then its chain record. Every put is create-only."""

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from shardline_common.dataset.chain import EMPTY_SHA256, Chain, ChainRecord
from shardline_common.dataset.read import object_sha256
from shardline_common.errors import FailureCode, JobFailed, ObjectExists, ShardlineError
from shardline_common.job.names import Layout
from shardline_common.job.spec import JobSpec
from shardline_common.runtime.failpoints import failpoint
from shardline_common.runtime.retry import retry_forever
from shardline_common.runtime.threads import run_in_thread
from shardline_common.telemetry.tracing import span
from shardline_consumer.context import WorkerContext
from shardline_consumer.segment import OpenSegment
from shardline_consumer.spool.file import SpoolFile, compress, packed_path

T = TypeVar("T")
_log = logging.getLogger(__name__)
_CONTENT_TYPES = {"none": "application/x-ndjson", "gzip": "application/gzip", "zstd": "application/zstd"}


@dataclass(frozen=True, slots=True)
class SegmentSink:
    """Commits the segments of one attempt. Errors of the store are retried without a limit."""

    context: WorkerContext
    spec: JobSpec
    attempt: int

    @property
    def layout(self) -> Layout:
        """The keys of the dataset."""
        return Layout.of(self.spec)

    def chain(self, partition: int) -> Chain:
        """The chain of a partition."""
        return Chain(self.context.store, self.layout, partition)

    def count_store_error(self, error: ShardlineError) -> None:
        """Count an error of the store that is retried."""
        self.context.metrics.store_error(self.spec.job_id)
        _log.debug("store: %s", error)

    async def commit_segment(
        self, partition: int, segment: OpenSegment, check_assigned: Callable[[], None]
    ) -> tuple[ChainRecord, bool]:
        """Commit a closed segment. Returns the chain record in the store, and whether this call created it.

        1. Put the rows. 2. Put the rejected documents. 3. Append the chain record.
        `check_assigned` is called before each step; it raises when the partition was revoked.

        Raises:
            JobFailed: one of the keys exists with other content (`not_reproducible`).
            SpoolError: the compressed copy cannot be written.
        """
        spec, layout, metrics = self.spec, self.layout, self.context.metrics
        split = spec.split_of(partition)
        key = layout.data(split, partition, segment.first) if segment.rows else None
        rejected_key = layout.rejected(partition, segment.first) if segment.rejected else None
        # 1. The rows.
        if key and segment.rows:
            check_assigned()
            failpoint("worker.before_data")
            await self.put(key, segment.rows)
            failpoint("worker.after_data")
        # 2. The rejected documents.
        if rejected_key and segment.rejected:
            check_assigned()
            await self.put(rejected_key, segment.rejected)
        # 3. The chain record.
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
            attempt=self.attempt,
            offset=segment.offset,
        )
        check_assigned()
        append = partial(self.chain(partition).append, record)
        failpoint("worker.before_chain")
        with span("chain"):
            stored = await self._retry(append, f"chain record of {layout.root}")
        failpoint("worker.after_chain")
        if stored is not record:
            metrics.create_refused(spec.job_id)
        return stored, stored is record

    async def put(self, key: str, file: SpoolFile) -> None:
        """Put a spool file, compressed if the job says so. An existing object with these rows is a success.

        Raises:
            JobFailed: the key exists with other content (`not_reproducible`).
            SpoolError: the compressed copy cannot be written.
        """
        compression, metrics, job_id = self.spec.output.compression, self.context.metrics, self.spec.job_id
        plain = compression == "none"
        path = file.path if plain else packed_path(file.path, compression)
        create = partial(self.context.store.create, key, path, content_type=_CONTENT_TYPES[compression])
        with span("put", object=key, bytes=file.size):
            try:
                if not plain:
                    await run_in_thread(partial(compress, file.path, path, file.size, compression))
                started = time.perf_counter()
                try:
                    await self._retry(create, f"put {key}")
                except ObjectExists:
                    metrics.create_refused(job_id)
                    await self._expect_same_rows(key, file.sha256)
                metrics.put_duration(job_id, time.perf_counter() - started)
            finally:
                # A cancel during the compression leaves a complete copy that nothing else removes.
                if not plain:
                    path.unlink(missing_ok=True)

    async def _expect_same_rows(self, key: str, digest: str) -> None:
        # A refused create is a success when the object holds these rows. It occurs in a retry after a lost
        # response, after a crash between put and chain record, or when another worker put the segment.
        compare = partial(object_sha256, self.context.store, key, self.spec.output.compression)
        if await self._retry(compare, f"compare {key}") != digest:
            raise JobFailed(
                FailureCode.NOT_REPRODUCIBLE,
                f"{key} exists with other content; nothing was overwritten",
                hint="the source gave other documents this time; submit a new job",
            )

    async def _retry(self, call: Callable[[], Awaitable[T]], what: str) -> T:
        return await retry_forever(call, self.context.clock, what, self.count_store_error)
