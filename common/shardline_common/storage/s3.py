"""S3-compatible storage."""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from aiobotocore.config import AioConfig
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from shardline_common.errors import (
    ObjectExists,
    ObjectMissing,
    StoreRefused,
    StoreUnavailable,
)
from shardline_common.ports.store import Body, HashedFile, KeptVersions, ObjectInfo
from shardline_common.runtime.retry import Backoff, TransientError, retry_attempts
from shardline_common.runtime.threads import open_to_read
from shardline_common.runtime.waits import log_wait
from shardline_common.storage.object_keys import checked_key
from shardline_common.storage.s3_answers import Listing, Reading
from shardline_common.storage.s3_checksums import (
    BodyChecksums,
    Checksum,
    ChecksumChoice,
    delete_arguments,
    register_content_md5,
)
from shardline_common.storage.s3_codes import RENEWABLE
from shardline_common.storage.s3_credentials import AccessKeys, StoreCredentials
from shardline_common.storage.s3_errors import S3Errors, check_endpoint, client_error, code_of
from shardline_common.storage.s3_pages import check_answer
from shardline_common.storage.s3_purge import purge
from shardline_common.storage.s3_reads import TRANSIENT, S3Reads
from shardline_common.storage.s3_session import client_config, load_chain, make_session, quiet_client_logs
from shardline_common.storage.s3_signing import known_sha256, register_known_sha256
from shardline_common.storage.s3_uploads import Upload, register_uploads

if TYPE_CHECKING:
    from io import BufferedReader

    from types_aiobotocore_s3 import S3Client as Client

T = TypeVar("T")
_BATCH = 1000
_BACKOFF = Backoff(base=0.1, cap=5.0)


@dataclass(frozen=True, slots=True)
class S3Options:
    """A bucket and how to reach it. Without access keys the AWS credential chain is used.

    `read_again` returns the access keys from where the settings were read; it is called when the store
    refuses those that are used.
    Time-outs are in seconds. After `attempts` failed attempts a request raises StoreUnavailable. What no
    retry changes, such as a missing bucket or right, raises StoreRefused at once.
    """

    bucket: str
    prefix: str = ""
    endpoint_url: str | None = None
    region: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    addressing_style: str = "auto"
    ca_bundle: str | None = None
    encryption: str | None = None
    kms_key_id: str | None = None
    connect_timeout: float = 5.0
    read_timeout: float = 60.0
    attempts: int = 5
    read_again: Callable[[], AccessKeys] | None = None

    @property
    def access_keys(self) -> AccessKeys:
        """The access keys of the settings."""
        return AccessKeys(self.access_key_id, self.secret_access_key, self.session_token)

    def config(self) -> AioConfig:
        """The configuration of botocore: no retries, and checksums only where they are required.

        By default botocore adds checksums as a trailer, which some stores write into the object.
        """
        return client_config(
            connect_timeout=self.connect_timeout,
            read_timeout=self.read_timeout,
            retries={"total_max_attempts": 1},
            max_pool_connections=32,
            s3={"addressing_style": cast("Any", self.addressing_style)},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )


class S3Client:
    """Requests to any bucket of one endpoint, with retries and translated errors."""

    def __init__(self, client: "Client", options: S3Options, credentials: StoreCredentials) -> None:
        self._client = client
        self._options = options
        self._credentials = credentials
        endpoint = _endpoint(client, options)
        self._errors = S3Errors(endpoint, options.bucket, lambda: credentials.secrets)
        self._put_checksum, self._delete_checksum = ChecksumChoice(), ChecksumChoice()
        self._down = False
        self._reads = S3Reads(client, self._errors, endpoint or "AWS", options.attempts, self._try)
        register_content_md5(client.meta.events)
        register_known_sha256(client.meta.events)
        register_uploads()

    @property
    def bucket(self) -> str:
        """The bucket of the options."""
        return self._options.bucket

    async def call(self, bucket: str, what: str, request: Callable[["Client"], Awaitable[T]]) -> T:
        """Send another request, named `what` in messages. Raises StoreUnavailable."""
        return await self._try(bucket, what, lambda: request(self._client))

    async def put_new(self, bucket: str, key: str, body: Body, content_type: str) -> None:
        """Create-only put. A retry after a lost response raises ObjectExists for its own object."""
        extra: dict[str, Any] = {"ContentType": content_type}
        if self._options.encryption:
            extra["ServerSideEncryption"] = self._options.encryption
        if self._options.kms_key_id:
            extra["SSEKMSKeyId"] = self._options.kms_key_id
        checksums = BodyChecksums(body)

        async def put(checksum: Checksum) -> None:
            await self._put(bucket, key, body, extra | await checksums.arguments(checksum))

        await self._try(bucket, f"put {key}", lambda: self._put_checksum.send(bucket, put))

    async def _put(self, bucket: str, key: str, body: Body, extra: dict[str, Any]) -> None:
        if isinstance(body, bytes):
            await self._client.put_object(Bucket=bucket, Key=key, Body=body, IfNoneMatch="*", **extra)
            return
        opened = cast(
            "BufferedReader", await open_to_read(body.path if isinstance(body, HashedFile) else body)
        )
        file = Upload(opened.detach())
        if isinstance(body, HashedFile):
            extra = extra | known_sha256(body.sha256)
        with file:
            await self._client.put_object(
                Bucket=bucket,
                Key=key,
                Body=file,
                ContentLength=os.fstat(file.fileno()).st_size,
                IfNoneMatch="*",
                **extra,
            )

    async def get(self, bucket: str, key: str) -> bytes:
        """The bytes of a small object. Raises ObjectMissing."""
        return await self._reads.get(bucket, key)

    def stream_object(
        self,
        bucket: str,
        key: str,
        *,
        offset: int = 0,
        end: int | None = None,
        etag: str = "",
        size: int | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """The bytes from `offset` to before `end`, or to the end. A body that breaks is read on from there.

        `etag` and `size` are those of the object in a plan; without them, those of the first answer hold.

        Raises:
            JobFailed: `source_changed`: the object in the store is not that of the plan.
            ObjectMissing: there is no such object.
        """
        is_frozen = bool(etag) or size is not None
        reading = Reading(bucket, key, f"read {key}", offset, size, etag, is_frozen, end=end)
        return self._reads.stream(reading)

    def list_bucket(
        self, bucket: str, prefix: str, start_after: str = "", *, ordered: bool = False
    ) -> AsyncIterator[ObjectInfo]:
        """The objects in the order of the store. `ordered`: it must be that of `ports.store.ObjectStore`."""
        return self._reads.objects(Listing(bucket, prefix, start_after, ordered))

    async def delete(self, bucket: str, keys: Sequence[str]) -> None:
        """Remove objects."""
        for start in range(0, len(keys), _BATCH):
            entries = [{"Key": key} for key in keys[start : start + _BATCH]]
            response = await self.delete_entries(bucket, entries)
            # A response with the status 200 names the objects that were not removed.
            for error in response.get("Errors", []):
                raise self.undeleted(bucket, error)

    async def delete_entries(self, bucket: str, entries: Sequence[dict[str, str]]) -> Any:
        """Remove up to 1,000 objects, or versions of them. The answer names those that were refused."""
        listed: Any = {"Objects": list(entries), "Quiet": False}

        async def delete(checksum: Checksum) -> Any:
            arguments = delete_arguments(checksum)
            return await self._client.delete_objects(Bucket=bucket, Delete=listed, **arguments)

        return await self._try(bucket, "delete objects", lambda: self._delete_checksum.send(bucket, delete))

    def undeleted(self, bucket: str, error: Any) -> StoreUnavailable:
        """The error of an entry that `delete_entries` has not removed."""
        return self._errors.undeleted(bucket, error)

    async def _try(self, bucket: str, what: str, request: Callable[[], Awaitable[T]]) -> T:
        # While the store is down a call makes one attempt: its callers retry with growing pauses.
        attempts = 1 if self._down else self._options.attempts
        failed: list[StoreUnavailable] = []
        attempt = partial(self._attempt, bucket, what, request, failed)
        try:
            address = self._errors.address(bucket)
            with log_wait(
                f"{address} ({what})",
                lambda: failed[-1] if failed else None,
                cause=self._errors.silent(bucket),
            ):
                result = await retry_attempts(attempt, attempts, _BACKOFF, asyncio.sleep)
        except StoreRefused:
            # Another bucket or key may be served.
            raise
        except StoreUnavailable:
            self._down = True
            raise
        self._down = False
        return result

    async def _attempt(
        self,
        bucket: str,
        what: str,
        request: Callable[[], Awaitable[T]],
        failed: list[StoreUnavailable],
    ) -> T:
        generation = self._credentials.generation
        await self._check_credentials(bucket)
        try:
            return await request()
        except ClientError as error:
            refused = self._errors.answer(bucket, what, error)
            if code_of(error) in RENEWABLE and await self._credentials.renew(generation):
                return await self._attempt(bucket, what, request, failed)
            if isinstance(refused, TransientError) and isinstance(refused.final, StoreUnavailable):
                failed.append(refused.final)
            raise refused from (None if isinstance(refused, ObjectExists | ObjectMissing) else error)
        except (BotoCoreError, ResponseParserError, *TRANSIENT) as error:
            failure = self._errors.failure(bucket, what, error)
            failed.append(failure)
            if isinstance(error, (*TRANSIENT, ResponseParserError)) and not isinstance(failure, StoreRefused):
                raise TransientError(failure) from error
            raise failure from error

    async def _check_credentials(self, bucket: str) -> None:
        # Before the request, which would raise the same errors: a file that is missing, for example, is one
        # of the credentials then, and not one of the store.
        try:
            await self._credentials.get_frozen_credentials()
        except Exception as error:
            # The sources of the chain run programs and parse their output: they raise errors of any class.
            raise self._errors.credentials(bucket, error) from error


class S3Store:
    """Implements `ports.store.ObjectStore` below a prefix of a bucket."""

    def __init__(self, client: S3Client, bucket: str, prefix: str) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix.strip("/") + "/" if prefix.strip("/") else ""

    @property
    def uri(self) -> str:
        """s3://bucket/prefix."""
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    async def create(self, key: str, body: Body, *, content_type: str = "application/json") -> None:
        """Create the object, or raise ObjectExists."""
        await self._client.put_new(self._bucket, self._prefix + checked_key(key), body, content_type)

    async def get(self, key: str) -> bytes:
        """The object's bytes."""
        return await self._client.get(self._bucket, self._prefix + checked_key(key))

    def stream(self, key: str, *, offset: int = 0, size: int | None = None) -> AsyncIterator[bytes]:
        """The object's bytes from `offset` on, at most `size`."""
        key, end = self._prefix + checked_key(key), None if size is None else offset + size
        return self._client.stream_object(self._bucket, key, offset=offset, end=end)

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        """Objects by key."""
        after = self._prefix + start_after if start_after else ""
        async for info in self._client.list_bucket(self._bucket, self._prefix + prefix, after, ordered=True):
            yield ObjectInfo(info.key.removeprefix(self._prefix), info.size, info.etag)

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove objects."""
        await self._client.delete(self._bucket, [self._prefix + checked_key(key) for key in keys])

    async def purge(self, prefix: str, *, versions: bool = False) -> KeptVersions | None:
        """Delete all objects below a prefix, with `versions` for good."""
        return await purge(self._client, self._bucket, self._prefix + prefix, versions=versions)


@asynccontextmanager
async def open_s3(options: S3Options) -> AsyncIterator[S3Client]:
    """A client; leaving the context closes it.

    Raises:
        UsageError: the endpoint is no URL, or the region, the profile or the CA file is wrong.
    """
    quiet_client_logs()
    check_endpoint(options.endpoint_url)
    credentials = StoreCredentials(
        options.access_keys, options.read_again, partial(load_chain, options.region)
    )
    async with AsyncExitStack() as stack:
        try:
            session = make_session(credentials, options.region, options.ca_bundle)
            made = session.client(
                "s3",
                endpoint_url=options.endpoint_url,
                config=options.config(),
                verify=options.ca_bundle or None,
            )
            client = await stack.enter_async_context(made)
            client.meta.events.register("before-parse.s3", check_answer)
        except (BotoCoreError, ValueError, OSError) as error:
            raise client_error(error) from None
        yield S3Client(client, options, credentials)


def _endpoint(client: "Client", options: S3Options) -> str | None:
    # The endpoint may stand in the AWS configuration file alone.
    url = options.endpoint_url or client.meta.endpoint_url
    return None if options.endpoint_url is None and ".amazonaws.com" in url else url
