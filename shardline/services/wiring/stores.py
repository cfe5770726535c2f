"""The wiring of settings to stores of datasets: the bucket of the settings, or the store of a URI."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from shardline.services.wiring import CLOCK
from shardline_common.dataset.finished import OpenDataset
from shardline_common.errors import FailureCode, JobFailed, StoreRefused, UsageError
from shardline_common.job.filters import filter_addresses
from shardline_common.job.spec import JobSpec
from shardline_common.ports.store import ObjectInfo, ObjectStore
from shardline_common.runtime.paths import path_fault, shown_path
from shardline_common.settings.load import Settings
from shardline_common.storage.directory import DirectoryStore
from shardline_common.storage.watched import WatchedStore
from shardline_producer.sources.files.file_locations import BucketReader
from shardline_producer.sources.files.path_schemes import foreign_address, plain_path

if TYPE_CHECKING:
    from shardline_common.storage.s3 import S3Client, S3Options
    from shardline_common.storage.s3_credentials import AccessKeys

    Connect = Callable[[], AbstractAsyncContextManager[S3Client]]

_KEYS = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")


@asynccontextmanager
async def open_store(settings: Settings) -> "AsyncIterator[tuple[ObjectStore, S3Client]]":
    """Open the bucket of datasets. The second value is its client, with which sources read from S3.

    Raises:
        UsageError: no bucket is set, or the encryption settings contradict each other.
    """
    from shardline_common.storage.s3 import S3Store, open_s3

    options = s3_options(settings)
    async with open_s3(options) as client:
        yield WatchedStore(S3Store(client, options.bucket, options.prefix), CLOCK), client


@asynccontextmanager
async def open_store_at(uri: str, settings: Settings) -> AsyncIterator[ObjectStore]:
    """Open the store that a URI names: a directory, also as `file://`, or `s3://bucket/prefix`.

    Raises:
        UsageError: it names neither, or a setting is wrong.
    """
    uri = checked_address(uri)
    if (fault := path_fault(uri)) is not None:
        raise UsageError(
            f"the address '{shown_path(uri)}' {fault}", hint="name a folder, or s3://bucket/prefix"
        )
    if not uri.startswith("s3://"):
        yield DirectoryStore(Path(uri))
        return
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    if not bucket:
        # Without this check the bucket of the settings would be used.
        raise UsageError(f"'{shown_path(uri)}' names no bucket", hint="name it as s3://bucket/prefix")
    from shardline_common.storage.s3 import S3Store, open_s3

    options = replace(s3_options(settings, bucket), prefix=prefix)
    async with open_s3(options) as client:
        yield S3Store(client, bucket, prefix)


def dataset_opener(settings: Settings, *, folders: bool) -> OpenDataset:
    """What opens the finished datasets that jobs compare with.

    Args:
        settings: the settings of the stores.
        folders: whether folders of this machine may be read too: in `run`, whose user names them. A job of
            Kafka comes from somebody else.
    """

    @asynccontextmanager
    async def opened(address: str) -> AsyncIterator[ObjectStore]:
        try:
            if not folders and not checked_address(address).startswith("s3://"):
                raise JobFailed(
                    FailureCode.SOURCE_INVALID,
                    f"dedup.against: '{shown_path(address)}' is no s3:// address",
                    hint="only `shardline run` compares with datasets in folders; copy the dataset to S3",
                )
            async with open_store_at(address, settings) as store:
                yield store
        except UsageError as error:
            # A wrong address ends the job, not the process.
            raise JobFailed(FailureCode.SOURCE_INVALID, f"dedup.against: {error}", hint=error.hint) from None

    return opened


def checked_address(uri: str, *, written: bool = False) -> str:
    """The address of a directory or on S3, without `file://`. `written`: a dataset is written there.

    Raises:
        UsageError: it is the address of another store. The hint is the command that copies from or to it.
    """
    found = foreign_address(uri)
    if found is not None:
        raise UsageError(
            f"'{found.shown}' is neither a folder nor s3://bucket/prefix",
            hint=found.send if written else found.fetch,
        )
    try:
        return plain_path(uri)
    except JobFailed as error:
        raise UsageError(str(error), hint=error.hint) from None


@asynccontextmanager
async def open_source_s3(settings: Settings, spec: JobSpec | None) -> AsyncIterator[BucketReader | None]:
    """Open a client for sources on S3, with the settings, or the AWS configuration where they are not set.

    It is None when the job `spec` reads nothing from S3. Without a job it connects when it is used first.

    Raises:
        UsageError: the job reads from S3, and a setting is wrong.
    """
    if spec is not None and not _reads_s3(spec):
        yield None
        return
    from shardline_common.storage.s3 import open_s3

    # The bucket of an error is that of the source, never the one of S3_BUCKET.
    options = replace(s3_options(settings, "source"), bucket="")
    async with AsyncExitStack() as stack:
        if spec is None:
            yield SourceBuckets(partial(open_s3, options), stack)
        else:
            yield await stack.enter_async_context(open_s3(options))


def _reads_s3(spec: JobSpec) -> bool:
    paths = spec.source.paths if spec.source.type == "files" else []
    return any(path.startswith("s3://") for path in (*paths, *filter_addresses(spec)))


class SourceBuckets:
    """Implements `BucketReader` by a client that is opened at the first request."""

    def __init__(self, connect: "Connect", stack: AsyncExitStack) -> None:
        self._connect = connect
        self._stack = stack
        self._client: S3Client | None = None
        self._lock = asyncio.Lock()

    async def list_bucket(self, bucket: str, prefix: str) -> AsyncIterator[ObjectInfo]:
        """The objects below a prefix."""
        async for info in (await self._connected()).list_bucket(bucket, prefix):
            yield info

    async def stream_object(
        self, bucket: str, key: str, *, offset: int, etag: str, size: int
    ) -> AsyncIterator[bytes]:
        """The bytes of the object with that ETag and size."""
        client = await self._connected()
        async with aclosing(client.stream_object(bucket, key, offset=offset, etag=etag, size=size)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _connected(self) -> "S3Client":
        async with self._lock:
            if self._client is None:
                try:
                    self._client = await self._stack.enter_async_context(self._connect())
                except UsageError as error:
                    # The job that reads from S3 fails. The process goes on with the others.
                    raise StoreRefused(str(error), hint=error.hint) from error
            return self._client


def s3_options(settings: Settings, bucket: str | None = None) -> "S3Options":
    """Return the options of the store; `bucket` is used in place of S3_BUCKET.

    Raises:
        UsageError: no bucket is set, or S3_KMS_KEY_ID is set without encryption by KMS.
    """
    bucket = bucket or settings.s3_bucket
    if not bucket:
        raise UsageError("no bucket is set", hint="set S3_BUCKET")
    if settings.s3_kms_key_id and not (settings.s3_encryption or "").startswith("aws:kms"):
        raise UsageError("S3_KMS_KEY_ID is set without S3_ENCRYPTION", hint="set S3_ENCRYPTION to aws:kms")
    from shardline_common.storage.s3 import S3Options

    keys = _access_keys(settings)
    return S3Options(
        bucket=bucket,
        prefix=settings.s3_prefix,
        endpoint_url=settings.aws_endpoint_url_s3,
        region=settings.aws_region,
        access_key_id=keys.key_id,
        secret_access_key=keys.secret,
        session_token=keys.token,
        addressing_style=settings.s3_addressing_style,
        ca_bundle=settings.aws_ca_bundle,
        encryption=settings.s3_encryption,
        kms_key_id=settings.s3_kms_key_id,
        read_timeout=settings.s3_timeout_seconds,
        read_again=partial(_access_keys, settings, again=True) if settings.has_file(*_KEYS) else None,
    )


def _access_keys(settings: Settings, *, again: bool = False) -> "AccessKeys":
    """The access keys as they were loaded; with `again`, those that are in files are read again."""
    from shardline_common.storage.s3_credentials import AccessKeys

    if again:
        return AccessKeys(*(settings.current(name) for name in _KEYS))
    secret, token = settings.aws_secret_access_key, settings.aws_session_token
    return AccessKeys(
        settings.aws_access_key_id,
        secret.get_secret_value() if secret else None,
        token.get_secret_value() if token else None,
    )
