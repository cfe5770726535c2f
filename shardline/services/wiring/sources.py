"""The wiring of settings to sources: files, UDS3, ThemisDB."""

from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from shardline.services.wiring import CLOCK
from shardline_common.errors import FailureCode, JobFailed
from shardline_common.job.spec import JobSpec
from shardline_common.settings.load import Settings
from shardline_producer.sources.files.bucket_files import S3Files
from shardline_producer.sources.files.decoder_memory import DecoderMemory
from shardline_producer.sources.files.file_documents import FileDocuments
from shardline_producer.sources.files.file_locations import BucketReader
from shardline_producer.sources.files.local_files import LocalFiles
from shardline_producer.sources.files.table_copies import TableCopies
from shardline_producer.sources.planned import PlannedSource
from shardline_producer.sources.source import OpenSource, PlanPages, Source
from shardline_producer.sources.themis.limiter import RateLimiter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shardline_producer.sources.planned_store import PlannedStore
    from shardline_producer.sources.themis.client import ThemisClient, ThemisOptions


def source_factory(
    settings: Settings, root: Path, *, confined: bool, remote: BucketReader | None, processes: int = 1
) -> OpenSource:
    """Return a function that makes the source of a job.

    Args:
        settings: the addresses of the stores.
        root: the folder from which relative paths of files start.
        confined: refuse files outside of `root`.
        remote: the client for `s3://` paths; None refuses them.
        processes: how many read a large file of lines.
    """
    local = LocalFiles(root.absolute(), confined)
    remote_files = S3Files(remote) if remote is not None else None
    copies = TableCopies(settings.spool_dir, settings.spool_reserve_bytes)
    # One limiter for all jobs of a process: ThemisDB counts the requests of a user, not of a job.
    limiter = RateLimiter(settings.themis_rate, CLOCK)
    # And one limit of memory.
    memory = DecoderMemory(settings.max_window_bytes)

    def open_source(spec: JobSpec, pages: PlanPages) -> Source:
        if spec.source.type == "files":
            return FileDocuments(spec, local, remote_files, pages, copies, memory, processes)
        store: PlannedStore
        if spec.source.type == "themis":
            from shardline_producer.sources.themis.planned_store import ThemisTable

            store = ThemisTable(spec, spec.source, themis_options(settings), limiter, CLOCK)
        else:
            from shardline.services.wiring.uds3 import uds3_stores
            from shardline_producer.sources.uds3.planned_store import Uds3Store

            store = Uds3Store(spec, uds3_stores(settings, spec.source.hops))
        return PlannedSource(spec, store, pages)

    return open_source


@asynccontextmanager
async def open_themis_client(settings: Settings) -> "AsyncIterator[ThemisClient]":
    """Open a client of ThemisDB for `doctor`.

    Raises:
        JobFailed: THEMIS_URL is not set.
    """
    from shardline_producer.sources.themis.client import open_themis

    limiter = RateLimiter(settings.themis_rate, CLOCK)
    async with open_themis(themis_options(settings), limiter, CLOCK) as client:
        yield client


def themis_options(settings: Settings) -> "ThemisOptions":
    """Return the options of ThemisDB's client.

    Raises:
        JobFailed: THEMIS_URL is not set.
    """
    if settings.themis_url is None:
        raise JobFailed(
            FailureCode.SOURCE_INVALID,
            "the source 'themis' is not configured in this process",
            hint="set THEMIS_URL and THEMIS_TOKEN",
        )
    from shardline_producer.sources.themis.client import ThemisOptions

    token = settings.themis_token
    return ThemisOptions(
        url=settings.themis_url,
        token=token.get_secret_value() if token else None,
        ca_bundle=settings.themis_ca_bundle,
        timeout=settings.themis_timeout_seconds,
        connections=settings.themis_connections,
        page=settings.themis_page,
    )
