"""The header with a checksum that each put carries.

AWS refuses a put without one to a bucket whose objects are locked by default. The store compares it with what
arrived, so a body that is changed on the way is refused instead of stored.
"""

import hashlib
import logging
from base64 import b64encode
from collections.abc import Awaitable, Callable
from enum import StrEnum
from functools import partial
from typing import Any, TypeVar

from botocore.exceptions import ClientError

from shardline_common.ports.store import Body, HashedFile
from shardline_common.runtime.paths import open_regular
from shardline_common.runtime.threads import run_in_thread
from shardline_common.storage.s3_codes import EXISTS

T = TypeVar("T")
_log = logging.getLogger(__name__)
_SMALL, _CHUNK = 1 << 16, 1 << 20
_CONTENT_MD5 = "ContentMD5"
_REFUSED = (400, 501)
# These answers are about something else, or about bytes that were damaged on the way.
_OTHER_CAUSE = {
    "AuthorizationHeaderMalformed",
    "BadDigest",
    "EntityTooLarge",
    "ExpiredToken",
    "IncompleteBody",
    "InvalidBucketName",
    "InvalidToken",
    "KeyTooLongError",
    "RequestTimeout",
    "TokenRefreshRequired",
    "XAmzContentChecksumMismatch",
    "XAmzContentSHA256Mismatch",
}


class Checksum(StrEnum):
    """A header with a checksum, in the order of preference.

    Never a trailer behind the body: some stores keep it inside the object.
    """

    SHA256 = "x-amz-checksum-sha256"
    MD5 = "Content-MD5"
    NONE = "no checksum"


class BodyChecksums:
    """The checksums of one body, each computed once; on a thread, unless the body is small."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._known: dict[Checksum, dict[str, Any]] = {Checksum.NONE: {}}

    async def arguments(self, checksum: Checksum) -> dict[str, Any]:
        """The arguments of `put_object` that send the checksum."""
        if checksum not in self._known:
            known = isinstance(self._body, HashedFile) and checksum is Checksum.SHA256
            small = known or (isinstance(self._body, bytes) and len(self._body) <= _SMALL)
            digest = partial(self._digest, checksum)
            value = b64encode(digest() if small else await run_in_thread(digest)).decode()
            if checksum is Checksum.MD5:
                self._known[checksum] = {"ContentMD5": value}
            else:
                # The algorithm too: moto counts no checksum without it. AWS reads the checksum's own header.
                self._known[checksum] = {"ChecksumAlgorithm": "SHA256", "ChecksumSHA256": value}
        return self._known[checksum]

    def _digest(self, checksum: Checksum) -> bytes:
        body = self._body
        if isinstance(body, HashedFile):
            if checksum is Checksum.SHA256:
                return bytes.fromhex(body.sha256)
            body = body.path
        digest = hashlib.sha256() if checksum is Checksum.SHA256 else _md5()
        if isinstance(body, bytes):
            digest.update(body)
            return digest.digest()
        with open_regular(body) as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        return digest.digest()


def _md5(data: bytes = b"") -> Any:
    # Python for FIPS has MD5 only for other uses than security.
    return hashlib.md5(data, usedforsecurity=False)


def delete_arguments(checksum: Checksum) -> dict[str, Any]:
    """The arguments of `delete_objects` that send the checksum of the list of keys.

    The API requires one: botocore sends CRC32, which some stores do not know, unless another is named.
    """
    if checksum is Checksum.SHA256:
        return {"ChecksumAlgorithm": "SHA256"}
    return {_CONTENT_MD5: True} if checksum is Checksum.MD5 else {}


def register_content_md5(events: Any) -> None:
    """Let `delete_objects` of a client send Content-MD5. In botocore it has no argument for that."""

    def take_argument(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        context[_CONTENT_MD5] = params.pop(_CONTENT_MD5, False)

    def set_header(params: dict[str, Any], **_: Any) -> None:
        if params["context"].get(_CONTENT_MD5):
            params["headers"]["Content-MD5"] = b64encode(_md5(params["body"]).digest()).decode()
            # Without the algorithm that botocore has chosen, it adds no other header.
            params["context"]["checksum"] = {}

    events.register("before-parameter-build.s3.DeleteObjects", take_argument)
    events.register("before-call.s3.DeleteObjects", set_header)


class ChecksumChoice:
    """Finds the checksum that a bucket takes, by its answers, and remembers it."""

    def __init__(self) -> None:
        self._taken: dict[str, Checksum] = {}

    async def send(self, bucket: str, request: Callable[[Checksum], Awaitable[T]]) -> T:
        """Call `request` with the checksum that the bucket took before, else with each until one is taken.

        Raises:
            ClientError: the answer that does not blame the checksum; or the first one, if all are refused.
        """
        preferred = self._taken.get(bucket, Checksum.SHA256)
        refused: ClientError | None = None
        for checksum in (preferred, *(one for one in Checksum if one is not preferred)):
            try:
                result = await request(checksum)
            except ClientError as error:
                if not _may_refuse_checksum(error):
                    if error.response["Error"].get("Code") in EXISTS:
                        self._take(bucket, checksum, refused)
                    raise
                refused = refused or error
                continue
            self._take(bucket, checksum, refused)
            return result
        raise refused or AssertionError("there are several checksums")

    def _take(self, bucket: str, checksum: Checksum, refused: ClientError | None) -> None:
        if refused is not None and self._taken.get(bucket) is not checksum:
            before = self._taken.get(bucket, Checksum.SHA256)
            code = refused.response["Error"].get("Code")
            _log.warning("the bucket %s refuses %s (%s); it takes %s", bucket, before, code, checksum)
        self._taken[bucket] = checksum


def _may_refuse_checksum(error: ClientError) -> bool:
    status = error.response["ResponseMetadata"]["HTTPStatusCode"]
    return status in _REFUSED and error.response["Error"].get("Code") not in _OTHER_CAUSE
