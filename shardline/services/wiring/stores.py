"""The wiring of settings to stores of datasets: the bucket of the settings, or the store of a URI."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from shardline.services.wiring import CLOCK
from shardline_common.errors import UsageError
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.paths import path_fault, shown_path
from shardline_common.settings.load import Settings
from shardline_common.storage.directory import DirectoryStore
from shardline_common.storage.s3 import S3Client, S3Options, S3Store, open_s3
from shardline_common.storage.watched import WatchedStore


@asynccontextmanager
async def open_store(settings: Settings) -> AsyncIterator[tuple[ObjectStore, S3Client]]:
    """Open the bucket of datasets. The second value is its client, with which sources read from S3.

    Raises:
        UsageError: no bucket is set, or the encryption settings contradict each other.
    """
    options = s3_options(settings)
    async with open_s3(options) as client:
        yield WatchedStore(S3Store(client, options.bucket, options.prefix), CLOCK), client


@asynccontextmanager
async def open_store_at(uri: str, settings: Settings) -> AsyncIterator[ObjectStore]:
    """Open the store that a URI names: a directory, or `s3://bucket/prefix`.

    Raises:
        UsageError: it names neither, or a setting is wrong.
    """
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
    options = replace(s3_options(settings, bucket), prefix=prefix)
    async with open_s3(options) as client:
        yield S3Store(client, bucket, prefix)


@asynccontextmanager
async def open_source_s3(settings: Settings) -> AsyncIterator[S3Client | None]:
    """Open a client for sources on S3. It is None when neither an endpoint nor a region is set."""
    if settings.aws_endpoint_url_s3 is None and settings.aws_region is None:
        yield None
        return
    async with open_s3(s3_options(settings, settings.s3_bucket or "any")) as client:
        yield client


def s3_options(settings: Settings, bucket: str | None = None) -> S3Options:
    """Return the options of the store; `bucket` is used in place of S3_BUCKET.

    Raises:
        UsageError: no bucket is set, or S3_KMS_KEY_ID is set without encryption by KMS.
    """
    bucket = bucket or settings.s3_bucket
    if not bucket:
        raise UsageError("no bucket is set", hint="set S3_BUCKET")
    if settings.s3_kms_key_id and not (settings.s3_encryption or "").startswith("aws:kms"):
        raise UsageError("S3_KMS_KEY_ID is set without S3_ENCRYPTION", hint="set S3_ENCRYPTION to aws:kms")
    secret, token = settings.aws_secret_access_key, settings.aws_session_token
    return S3Options(
        bucket=bucket,
        prefix=settings.s3_prefix,
        endpoint_url=settings.aws_endpoint_url_s3,
        region=settings.aws_region,
        access_key_id=settings.aws_access_key_id,
        secret_access_key=secret.get_secret_value() if secret else None,
        session_token=token.get_secret_value() if token else None,
        addressing_style=settings.s3_addressing_style,
        ca_bundle=settings.aws_ca_bundle,
        encryption=settings.s3_encryption,
        kms_key_id=settings.s3_kms_key_id,
        read_timeout=settings.s3_timeout_seconds,
    )
