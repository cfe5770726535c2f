"""Committing a closed segment: its objects, then its chain record. Every put is create-only."""

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from shardline_common.assembly.stored_sidecars import read_stored_sidecar
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
from shardline_consumer.spool.file import (
    SpoolDamaged,
    SpoolFile,
    compress,
    is_damaged,
    packed_path,
    spool_error,
)
from shardline_consumer.staging.segment import StagedSegment

if TYPE_CHECKING:
    from shardline_consumer.curation.curator import Curator
    from shardline_consumer.staging.files import SidecarFile, StagedFiles

T = TypeVar("T")
_log = logging.getLogger(__name__)
_PARQUET = "application/vnd.apache.parquet"
_CONTENT_TYPES = {"none": "application/x-ndjson", "gzip": "application/gzip", "zstd": "application/zstd"}


@dataclass(frozen=True, slots=True)
class _Body:
    """A file to put: `stored` are its size and sha256, `plain_sha256` is by what its content is compared."""

    path: Path
    stored: StoredBytes
    plain_sha256: str
    content_type: str


@dataclass(frozen=True, slots=True)
class SegmentSink:
    """Commits the segments of one attempt. Errors of the store are retried without a limit.

    `curator` judges the documents of a job with filters; None: their facts decide.
    """

    context: WorkerContext
    spec: JobSpec
    attempt: int
    curator: "Curator | None" = None

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

        1. Sort the rows of an assembled job. 2. Put the rows. 3. Put the rejected documents and the dead
        letters. 4. Put the sidecars of an assembled job. 5. Append the chain record. `check_assigned` is
        called before each put; it raises when the partition was revoked.

        Raises:
            JobFailed: one of the keys exists with other content (`not_reproducible`), or the store refuses it
                and has no such object (`store_inconsistent`).
            SpoolError: the compressed copy cannot be written.
            SpoolDamaged: a spool file has other bytes than were written to it.
        """
        layout, split, first = self.layout, self.spec.split_of(partition), segment.first
        data = rejected = dead_letters = staged = None
        rows, data_key, compression = segment.rows, layout.data(split, partition, first), None
        # 1.
        if isinstance(segment, StagedSegment):
            with span("stage"):
                staged = await run_in_thread(segment.stage)
            rows, data_key, compression = staged.rows, layout.staged(partition, first), "none"
        # 2.
        if rows:
            check_assigned()
            failpoint("worker.before_data")
            data = await self.put(data_key, rows, compression)
            failpoint("worker.after_data")
        # 3.
        if segment.rejected:
            check_assigned()
            rejected = await self.put(layout.rejected(partition, first), segment.rejected)
        if segment.dead_letters:
            check_assigned()
            dead_letters = await self.put(layout.dead_letters(partition, first), segment.dead_letters)
        # 4.
        sidecars = await self._put_sidecars(partition, first, staged, check_assigned) if staged else {}
        # 5.
        totals = segment.totals
        record = ChainRecord(
            split=split,
            partition=partition,
            first=first,
            next=segment.next,
            key=data_key if data else None,
            rejected_key=layout.root + rejected.key if rejected else None,
            sha256=data.plain_sha256 if data else EMPTY_SHA256,
            segment=totals,
            upto=segment.before.plus(totals),
            position=segment.position,
            attempt=self.attempt,
            offset=segment.offset,
            objects=SegmentObjects(data, rejected, dead_letters, **sidecars),
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

    async def put(self, key: str, file: SpoolFile, compression: str | None = None) -> SegmentObject:
        """Put a spool file, compressed if the job says so. An existing object with this content is a success.

        Returns the object as it is in the store: one that exists may be compressed in another way.

        Args:
            key: its key.
            file: the file.
            compression: another compression than the job's.

        Raises:
            JobFailed: the key exists with other content (`not_reproducible`), or the store refuses it and has
                no such object (`store_inconsistent`).
            SpoolError: the compressed copy cannot be written.
            SpoolDamaged: the file has other bytes than were written to it.
        """
        compression = compression or self.spec.output.compression
        plain = compression == "none"
        path = file.path if plain else packed_path(file.path, compression)
        stored = StoredBytes(file.size, file.sha256)
        with span("put", object=key, bytes=file.size):
            try:
                if not plain:
                    pack = partial(compress, file.path, path, file.size, compression)
                    stored = StoredBytes(*await run_in_thread(pack))
                read = partial(read_hashes, self.context.store, key, compression, file.sha256)
                body = _Body(path, stored, file.sha256, _CONTENT_TYPES[compression])
                stored = await self._create(key, body, read)
            finally:
                # A cancel during the compression leaves a complete copy that nothing else removes.
                if not plain:
                    path.unlink(missing_ok=True)
        return SegmentObject(key.removeprefix(self.layout.root), file.sha256, stored.size, stored.sha256)

    async def _put_sidecars(
        self, partition: int, first: int, files: "StagedFiles", check_assigned: Callable[[], None]
    ) -> dict[str, SegmentObject]:
        layout, found = self.layout, {}
        keys = {"records": layout.records, "bands": layout.bands, "signatures": layout.signatures}
        for sidecar in files.sidecars:
            check_assigned()
            failpoint("staging.before_sidecar")
            found[sidecar.kind.name] = await self._put_sidecar(
                keys[sidecar.kind.name](partition, first), sidecar
            )
        return found

    async def _put_sidecar(self, key: str, file: "SidecarFile") -> SegmentObject:
        """Put a sidecar. An existing one with these lines is a success: another version wrote other bytes."""
        read = partial(self._read_sidecar, key, file)
        body = _Body(file.path, StoredBytes(file.size, file.sha256), file.lines.sha256, _PARQUET)
        with span("put", object=key, bytes=file.size):
            stored = await self._create(key, body, read)
        return SegmentObject(
            key.removeprefix(self.layout.root), file.lines.sha256, stored.size, stored.sha256
        )

    async def _read_sidecar(self, key: str, file: "SidecarFile") -> tuple[str, StoredBytes]:
        path = file.path.with_suffix(".stored")
        try:
            return await read_stored_sidecar(self.context.store, key, file.kind, path, file.lines.sha256)
        except OSError as error:
            raise spool_error(path.parent, error) from error
        finally:
            path.unlink(missing_ok=True)

    async def _create(
        self, key: str, body: _Body, read: Callable[[], Awaitable[tuple[str, StoredBytes]]]
    ) -> StoredBytes:
        """Create an object. Returns its stored bytes, or those of an existing one with this content."""
        checked, metrics, job_id = False, self.context.metrics, self.spec.job_id
        path, sha256 = body.path, body.stored.sha256

        async def create() -> None:
            nonlocal checked
            try:
                await self.context.store.create(key, HashedFile(path, sha256), content_type=body.content_type)
            except StoreUnavailable:
                # It may have refused the bytes, because they are not those of the hash. No retry would help.
                if not checked and await run_in_thread(partial(is_damaged, path, sha256)):
                    raise SpoolDamaged(f"the bytes of {path} are not those that were written") from None
                checked = True
                raise

        started, stored = time.perf_counter(), body.stored
        put = partial(create_or_read, create, read, key, self.context.clock)
        existing = await self._retry(put, f"put {key}")
        if existing is not None:
            metrics.create_refused(job_id)
            stored = self._expect_same(key, body.plain_sha256, *existing)
        metrics.put_duration(job_id, time.perf_counter() - started)
        return stored

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
