"""Reading objects and listings from S3, to an end that is proven.

A body is an object when its headers name the version and the length of that object, and as many bytes have
come. A connection, proxy or store that ends a body early, or answers something else, is asked again.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from aiohttp import ClientError as HttpError
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.parsers import ResponseParserError

from shardline_common.errors import FailureCode, JobFailed, ShardlineError, StoreUnavailable
from shardline_common.ports.store import ObjectInfo
from shardline_common.runtime.retry import Backoff
from shardline_common.runtime.waits import take_turn
from shardline_common.storage.s3_answers import Listing, Reading, WrongAnswer, has_md5
from shardline_common.storage.s3_codes import EXISTS, MISSING
from shardline_common.storage.s3_errors import S3Errors, code_of

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client as Client

T = TypeVar("T")
Try = Callable[[str, str, Callable[[], Awaitable[Any]]], Awaitable[Any]]
"""Called with bucket, what is done and the request, which it repeats and whose errors it translates."""

CHUNK = 1 << 20
TRANSIENT = (HTTPClientError, HttpError, OSError, asyncio.TimeoutError)
_log = logging.getLogger(__name__)
_BACKOFF = Backoff(base=0.1, cap=5.0)
_KEYS_PER_PAGE = 1000
_MAX_IDLE_PAGES = 1000
# The last bytes of a body are passed on when it is whole. If it breaks, they are read again: some gateways
# write an error message behind the bytes of the object before they close the connection.
_HELD = 1 << 14
# A read that came further than this since its last failure begins to count its failures anew.
_PROGRESS = 1 << 20
# The sentences of WrongAnswer differ in their first letters.
_KIND_LETTERS = 24
_BEYOND_END = ("InvalidRange", "416")
_WRONG_HINT = "look for a proxy or a cache before the store that changes its answers"


class S3Reads:
    """Reads of any bucket of one endpoint. `attempts` limits the failures of a read without progress."""

    def __init__(
        self, client: "Client", errors: S3Errors, endpoint: str, attempts: int, request: Try
    ) -> None:
        self._client = client
        self._errors = errors
        self._endpoint = endpoint
        self._attempts = attempts
        self._request = request
        # The buckets whose ETags are MD5 sums: whether they are is known once one of them was compared.
        self._has_md5: dict[str, bool] = {}

    async def get(self, bucket: str, key: str) -> bytes:
        """The bytes of a small object, all that the store promises. Raises ObjectMissing."""
        failures = 0
        while True:
            reading = Reading(bucket, key, f"get {key}")
            headers: dict[str, str] = {}
            body = b"".join([piece async for piece in self._pieces(reading, headers)])
            if self._has_md5.get(bucket) is False:
                return body
            matches = has_md5(reading.etag, headers, body)
            if matches is not False:
                if matches:
                    self._has_md5[bucket] = True
                return body
            failures += 1
            wrong = WrongAnswer(f"the MD5 of the {len(body)} bytes is not the ETag {reading.etag}")
            if failures < self._attempts:
                await self._pause(reading.bucket, reading.what, wrong, failures)
            elif bucket in self._has_md5 or not await self._is_whole(reading, len(body)):
                raise self._failed(bucket, reading.what, wrong)
            else:
                self._has_md5[bucket] = False
                _log.warning("the ETags of s3://%s are no MD5 sums: bodies are compared by length", bucket)
                return body

    async def _is_whole(self, reading: Reading, length: int) -> bool:
        """Whether a HEAD request gives the object the same length and version."""
        head = partial(self._client.head_object, Bucket=reading.bucket, Key=reading.key)
        found = await self._request(reading.bucket, reading.what, head)
        return bool(found.get("ContentLength") == length and found.get("ETag") == reading.etag)

    def stream(self, reading: Reading) -> AsyncGenerator[bytes, None]:
        """The bytes of an object from `offset` on, to the end of the read, in pieces of at most 1 MiB.

        Raises:
            JobFailed: `source_changed`: the object is not the frozen one.
            ObjectMissing: there is no such object.
            StoreUnavailable: its bytes do not come, after all attempts.
        """
        return self._pieces(reading, {})

    async def _pieces(self, reading: Reading, headers: dict[str, str]) -> AsyncGenerator[bytes, None]:
        """The bytes of `stream`. `headers` becomes those of the last answer."""
        failures, failed_at, begin = 0, reading.offset, reading.offset
        known = reading.size, reading.etag
        while True:
            try:
                response = await self._request(reading.bucket, reading.what, partial(self._open, reading))
                if response is None:
                    return
                headers.clear()
                headers.update(response["ResponseMetadata"]["HTTPHeaders"])
                async with response["Body"] as body:
                    skipped = reading.accept(response)
                    async with aclosing(_whole(body, reading, skipped)) as pieces:
                        async for piece in pieces:
                            reading.offset += len(piece)
                            yield piece
                return  # noqa: TRY300 - an `else` would be further from its condition
            except (*TRANSIENT, WrongAnswer) as error:
                failures = 1 if reading.offset - failed_at >= _PROGRESS else failures + 1
                failed_at = reading.offset
                if failures >= self._attempts:
                    raise self._failed(reading.bucket, reading.what, error, reading) from error
                if reading.offset == begin:
                    # Nothing was passed on yet, so another answer may name another version.
                    reading.size, reading.etag = known
                await self._pause(reading.bucket, reading.what, error, failures, reading.offset)

    async def _open(self, reading: Reading) -> Any:
        """The response to a GET; None: no byte is left."""
        call: Callable[..., Awaitable[Any]] = self._client.get_object
        try:
            return await _parsed(partial(call, Bucket=reading.bucket, Key=reading.key, **reading.parameters))
        except ClientError as error:
            code = code_of(error)
            if code in _BEYOND_END and reading.is_at_end(error.response["ResponseMetadata"]["HTTPHeaders"]):
                return None
            if reading.frozen and (code in EXISTS or code in MISSING):
                raise _changed(reading, "") from None
            if code in EXISTS:
                raise WrongAnswer("the object was replaced while it was read") from None
            raise

    async def objects(self, listing: Listing) -> AsyncIterator[ObjectInfo]:
        """The objects of all pages of a listing.

        Raises:
            StoreUnavailable: a page does not come, is not whole, or does not lead to the end.
        """
        while not listing.ended:
            for info in await self._page(listing):
                yield info

    async def _page(self, listing: Listing) -> list[ObjectInfo]:
        bucket, what, failures = listing.bucket, f"list {listing.prefix}", 0
        call: Callable[..., Awaitable[Any]] = self._client.list_objects_v2
        asked = {"Bucket": bucket, "Prefix": listing.prefix, "MaxKeys": _KEYS_PER_PAGE, **listing.parameters}
        request = partial(_parsed, partial(call, **asked))
        while True:
            try:
                if len(listing.idle) >= _MAX_IDLE_PAGES:
                    raise self._failed(
                        bucket, what, WrongAnswer(f"{_MAX_IDLE_PAGES:,} pages of the list have no object")
                    )
                return listing.accept(await self._request(bucket, what, request))
            except WrongAnswer as error:
                failures += 1
                if failures >= self._attempts:
                    raise self._failed(bucket, what, error) from None
                await self._pause(bucket, what, error, failures)

    async def _pause(self, bucket: str, what: str, error: Exception, failures: int, offset: int = 0) -> None:
        """Log an error, each kind of them at most every 30 seconds, and wait before the next request."""
        reason = f"{type(error).__name__}: {error}".removeprefix("WrongAnswer: ")
        where = f" from byte {offset:,} on" if offset else ""
        level = logging.WARNING if take_turn(f"{bucket} {reason[:_KIND_LETTERS]}") else logging.DEBUG
        text, attempt = "s3://%s, %s: %s; reading again%s, attempt %d of %d", failures + 1
        _log.log(level, text, bucket, what, reason, where, attempt, self._attempts)
        await asyncio.sleep(_BACKOFF.pause(failures))

    def _failed(
        self, bucket: str, what: str, error: Exception, reading: Reading | None = None
    ) -> ShardlineError:
        if not isinstance(error, WrongAnswer):
            return self._errors.failure(bucket, what, error)
        if error.changed and reading is not None and reading.frozen:
            return _changed(reading, str(error))
        address = f"s3://{bucket} at {self._endpoint}"
        return StoreUnavailable(
            f"{address} cannot serve ({what}: {error})",
            hint=_WRONG_HINT,
            cause=f"{address}: {str(error)[:_KIND_LETTERS]}",
        )


async def _whole(body: Any, reading: Reading, skipped: int) -> AsyncGenerator[bytes, None]:
    """The bytes of a body behind the skipped ones, in pieces of at most 1 MiB, if it ends where it must.

    A body that goes on behind the goal of the read is left there.

    Raises:
        WrongAnswer: the body is shorter or longer. What was returned so far begins the object.
    """
    held, offset, end, goal = b"", reading.offset, reading.body_end, reading.goal
    while chunk := await body.content.read(CHUNK - _HELD):
        rest = chunk[skipped:]
        skipped -= len(chunk) - len(rest)
        offset += len(rest)
        if offset > end:
            is_whole = end == reading.size
            where = f"the object's {end} bytes" if is_whole else f"byte {end}, where it must end"
            raise WrongAnswer(f"the body goes on behind {where}{reading.unpacked(offset)}", changed=is_whole)
        held += rest
        if offset >= goal + _HELD:
            end = offset
            break
        if len(held) > _HELD:
            yield held[:-_HELD]
            held = held[-_HELD:]
    if offset != end:
        raise WrongAnswer(f"the body ended at byte {offset} of {end}")
    if last := held[: len(held) - (offset - goal)]:
        yield last


async def _parsed(request: Callable[[], Awaitable[Mapping[str, Any]]]) -> Mapping[str, Any]:
    """The answer to a request. Raises WrongAnswer where it cannot be parsed."""
    try:
        return await request()
    except BotoCoreError:
        raise
    except (ResponseParserError, ValueError) as error:
        # The parser's message shows the whole answer.
        raise WrongAnswer(f"the answer is not that of S3: {str(error).partition(',')[0][:100]}") from None


def _changed(reading: Reading, why: str) -> JobFailed:
    return JobFailed(
        FailureCode.SOURCE_CHANGED,
        f"s3://{reading.bucket}/{reading.key} changed after the job was planned{': ' if why else ''}{why}",
        hint="put the object back as it was and retry the job, or submit a new job",
    )
