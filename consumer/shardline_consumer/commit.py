"""Committing a closed segment: its objects, then its chain record. Every put is create-only."""

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from shardline_common.dataset.chain import EMPTY_SHA256, Chain, ChainRecord, SegmentObject, SegmentObjects
from shardline_common.dataset.read import StoredBytes, read_hashes
from shardline_common.errors import FailureCode, JobFailed, ShardlineError, StoreUnavailable
from shardline_common.job.names import Layout
from shardline_common.job.spec import JobSpec
from shardline_common.ports.store import HashedFile
from shardline_common.runtime.create_or_read import create_or_read
from shardline_common.runtime.failpoints import failpoint
from shardline_common.runtime.retry import retry_forever
from shardline_common.runtime.threads import run_in_thread
from shardline_common.telemetry.tracing import span
from shardline_consumer.context import WorkerContext
from shardline_consumer.segment import OpenSegment
from shardline_consumer.spool.file import SpoolDamaged, SpoolFile, compress, is_damaged, packed_path

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

        1. Put the rows. 2. Put the rejected documents and the dead letters. 3. Append the chain record.
        `check_assigned` is called before each step; it raises when the partition was revoked.

        Raises:
            JobFailed: one of the keys exists with other content (`not_reproducible`), or the store refuses it
                and has no such object (`store_inconsistent`).
            SpoolError: the compressed copy cannot be written.
            SpoolDamaged: a spool file has other bytes than were written to it.
        """
        layout, split, first = self.layout, self.spec.split_of(partition), segment.first
        data = rejected = dead_letters = None
        # 1.
        if segment.rows:
            check_assigned()
            failpoint("worker.before_data")
            data = await self.put(layout.data(split, partition, first), segment.rows)
            failpoint("worker.after_data")
        # 2.
        if segment.rejected:
            check_assigned()
            rejected = await self.put(layout.rejected(partition, first), segment.rejected)
        if segment.dead_letters:
            check_assigned()
            dead_letters = await self.put(layout.dead_letters(partition, first), segment.dead_letters)
        # 3.
        totals = segment.totals
        record = ChainRecord(
            split=split,
            partition=partition,
            first=first,
            next=segment.next,
            key=layout.root + data.key if data else None,
            rejected_key=layout.root + rejected.key if rejected else None,
            sha256=segment.rows.sha256 if segment.rows else EMPTY_SHA256,
            segment=totals,
            upto=segment.before.plus(totals),
            position=segment.position,
            attempt=self.attempt,
            offset=segment.offset,
            objects=SegmentObjects(data, rejected, dead_letters),
        )
        check_assigned()
        append = partial(self.chain(partition).append, record, self.context.clock)
        failpoint("worker.before_chain")
        with span("chain"):
            stored = await self._retry(append, f"chain record of {layout.root}")
        failpoint("worker.after_chain")
        if stored is not record:
            self.context.metrics.create_refused(self.spec.job_id)
        return stored, stored is record

    async def put(self, key: str, file: SpoolFile) -> SegmentObject:
        """Put a spool file, compressed if the job says so. An existing object with this content is a success.

        Returns the object as it is in the store: one that exists may be compressed in another way.

        Raises:
            JobFailed: the key exists with other content (`not_reproducible`), or the store refuses it and has
                no such object (`store_inconsistent`).
            SpoolError: the compressed copy cannot be written.
            SpoolDamaged: the file has other bytes than were written to it.
        """
        compression, metrics, job_id = self.spec.output.compression, self.context.metrics, self.spec.job_id
        plain = compression == "none"
        path = file.path if plain else packed_path(file.path, compression)
        stored, checked = StoredBytes(file.size, file.sha256), False

        async def create() -> None:
            nonlocal checked
            body = HashedFile(path, stored.sha256)
            try:
                await self.context.store.create(key, body, content_type=_CONTENT_TYPES[compression])
            except StoreUnavailable:
                # It may have refused the bytes, because they are not those of the hash. No retry would help.
                if not checked and await run_in_thread(partial(is_damaged, path, stored.sha256)):
                    raise SpoolDamaged(f"the bytes of {path} are not those that were written") from None
                checked = True
                raise

        with span("put", object=key, bytes=file.size):
            try:
                if not plain:
                    pack = partial(compress, file.path, path, file.size, compression)
                    stored = StoredBytes(*await run_in_thread(pack))
                started = time.perf_counter()
                read = partial(read_hashes, self.context.store, key, compression, file.sha256)
                put = partial(create_or_read, create, read, key, self.context.clock)
                existing = await self._retry(put, f"put {key}")
                if existing is not None:
                    metrics.create_refused(job_id)
                    stored = self._expect_same(key, file.sha256, *existing)
                metrics.put_duration(job_id, time.perf_counter() - started)
            finally:
                # A cancel during the compression leaves a complete copy that nothing else removes.
                if not plain:
                    path.unlink(missing_ok=True)
        return SegmentObject(key.removeprefix(self.layout.root), file.sha256, stored.size, stored.sha256)

    def _expect_same(self, key: str, expected: str, found: str, stored: StoredBytes) -> StoredBytes:
        # A refused create is a success when the object holds this content. It occurs in a retry after a lost
        # response, after a crash between put and chain record, or when another worker put the segment.
        if found != expected:
            raise JobFailed(
                FailureCode.NOT_REPRODUCIBLE,
                f"{key} exists with other content; nothing was overwritten",
                hint="if a process was killed here and the source has changed since, no chain record names "
                f"the object: end all processes of this job, delete {key}, and run or retry the job. Else "
                "submit a new job",
            )
        return stored

    async def _retry(self, call: Callable[[], Awaitable[T]], what: str) -> T:
        return await retry_forever(call, self.context.clock, what, self.count_store_error)
