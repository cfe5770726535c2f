"""What S3 answered, or why it did not, as Shardline's errors: with the store's own words and one thing to do.

`s3_codes` has the meaning of each error code, `s3_faults` that of each exception of the client.
"""

import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError, EndpointConnectionError

from shardline_common.errors import (
    ObjectExists,
    ObjectMissing,
    StoreRefused,
    StoreUnavailable,
    UsageError,
)
from shardline_common.http.client_faults import NAME, SILENT, Fault, find_fault, words
from shardline_common.runtime.retry import TransientError
from shardline_common.storage.s3_codes import (
    CONDITION,
    EXISTS,
    MISSING,
    NO_BUCKET,
    NO_CONDITION,
    REDIRECTS,
    SKEWED,
    Answer,
    Verdict,
    answer_of,
)
from shardline_common.storage.s3_faults import CREDENTIAL_FAULTS, NOT_S3, REGION_ADVICE, S3_FAULTS
from shardline_common.storage.s3_pages import BODY_REQUEST_ID, FOREIGN

_OF_BUCKETS = {"ListObjectsV2", "DeleteObjects", "HeadBucket", "ListObjectVersions", "GetBucketVersioning"}
_URL, _CA = "AWS_ENDPOINT_URL_S3", "AWS_CA_BUNDLE"


class _Words(NamedTuple):
    """What the store said: its code, its message, and the id of the request; each may be empty."""

    code: str
    message: str
    request_id: str

    def __str__(self) -> str:
        parts = [self.code, self.message if self.message != self.code else ""]
        text = ": ".join(filter(None, parts))
        return f"{text}, request id {self.request_id}" if self.request_id else text


class S3Errors:
    """Translates errors of one endpoint.

    Args:
        endpoint_url: the store's URL, or None for AWS.
        default_bucket: the bucket of the settings, for hints.
        secrets: returns the texts that no message may hold.
    """

    def __init__(
        self,
        endpoint_url: str | None,
        default_bucket: str,
        secrets: Callable[[], tuple[str, ...]] = tuple,
    ) -> None:
        self._endpoint = words(endpoint_url or "AWS")
        self._is_aws = endpoint_url is None
        self._default_bucket = default_bucket
        self._secrets = secrets

    def answer(self, bucket: str, what: str, error: ClientError) -> Exception:
        """The error of a response. It is a TransientError if the request may be repeated at once."""
        response: Mapping[str, Any] = error.response
        meta = response.get("ResponseMetadata", {})
        status = int(meta.get("HTTPStatusCode") or 0)
        code = _code(response) or str(status)
        if FOREIGN in response:
            return self._foreign(bucket, what, response, status)
        of_bucket = error.operation_name in _OF_BUCKETS
        if code in EXISTS:
            return ObjectExists(f"{what}: it exists")
        if code in MISSING and not of_bucket:
            return ObjectMissing(f"{what}: there is no such object in {self.address(bucket)}")
        said = self._words(response, code)
        if code == "NoSuchBucket" or (of_bucket and code in MISSING):
            hint = "create the bucket, or set S3_BUCKET" if bucket == self._default_bucket else NO_BUCKET.hint
            message = f"there is no bucket {self.address(bucket)} ({what}: {said})"
            return StoreRefused(message, hint=hint, cause=self._cause(bucket, "NoSuchBucket"))
        found = self._meaning(error.operation_name, code, status)
        meaning = ": ".join(filter(None, (found.meaning, str(said))))
        message = f"{self.address(bucket)} cannot serve ({what}: {meaning}{_details(code, response)})"
        return self._judged(found.verdict, message, _hint(found, response), self._cause(bucket, code))

    def _foreign(self, bucket: str, what: str, response: Mapping[str, Any], status: int) -> Exception:
        said = self._words(response, str(status))
        verdict = answer_of(str(status), status).verdict
        if str(status) in MISSING:
            # A proxy that has no server at the moment. It does not know whether the object exists.
            verdict = Verdict.REPEAT
        message = f"{self.address(bucket)} cannot serve ({what}: {NOT_S3.meaning}: {said})"
        return self._judged(verdict, message, NOT_S3.hint(_URL, _CA), self._cause(bucket, said.code))

    def _judged(self, verdict: Verdict, message: str, hint: str, cause: str) -> Exception:
        if verdict is Verdict.REFUSED:
            return StoreRefused(message, hint=hint, cause=cause)
        waited = StoreUnavailable(message, hint=hint, cause=cause)
        return TransientError(waited) if verdict is Verdict.REPEAT else waited

    def failure(self, bucket: str, what: str, error: Exception) -> StoreUnavailable:
        """The error of a request that was not sent, or had no complete response."""
        found = find_fault(error, S3_FAULTS)
        return self._failure(f"{self.address(bucket)} cannot serve", what, error, bucket, found)

    def credentials(self, bucket: str, error: Exception) -> StoreUnavailable:
        """The error of credentials that could not be read, so that no request was sent."""
        start = f"{self.address(bucket)} cannot be asked"
        if isinstance(error, ClientError):
            # An answer of the service that issues credentials, as STS.
            said = self._words(error.response, _code(error.response))
            message = f"{start} (credentials: {error.operation_name}: {said})"
            hint = "check AWS_ROLE_ARN, the token and the rights of the role"
            return StoreRefused(message, hint=hint, cause=self._cause(bucket, said.code))
        found = find_fault(error, CREDENTIAL_FAULTS)
        return self._failure(start, _of_credentials(error), error, bucket, found)

    def silent(self, bucket: str) -> str:
        """The cause of a request that has no answer yet."""
        return self._cause(bucket, SILENT.meaning)

    def undeleted(self, bucket: str, error: Any) -> StoreUnavailable:
        """The error of an object that a delete of several has left."""
        code = str(error.get("Code", "unknown"))
        said = _Words(self._clean(code), self._clean(error.get("Message", "")), "")
        message = f"{self.address(bucket)} cannot serve (delete {error.get('Key')}: {said})"
        hint = answer_of(code, 0).hint
        return StoreUnavailable(message, hint=hint, cause=self._cause(bucket, f"delete {code}"))

    def _failure(
        self, start: str, what: str, error: Exception, bucket: str, found: tuple[Fault, BaseException]
    ) -> StoreUnavailable:
        fault, source = found
        said = self._clean(str(source)) or type(source).__name__
        hint = fault.hint(_URL, _CA)
        if fault is NAME and self._is_aws and isinstance(error, EndpointConnectionError):
            hint = REGION_ADVICE
        kind = StoreRefused if fault.permanent else StoreUnavailable
        message = f"{start} ({what}: {fault.meaning}: {said})"
        return kind(message, hint=hint, cause=self._cause(bucket, fault.meaning))

    def _meaning(self, operation: str, code: str, status: int) -> Answer:
        if operation == "PutObject" and (code in NO_CONDITION or str(status) in NO_CONDITION):
            return CONDITION
        return answer_of(code, status)

    def _words(self, response: Mapping[str, Any], code: str) -> _Words:
        error, meta = response.get("Error", {}), response.get("ResponseMetadata", {})
        message = response.get(FOREIGN) or error.get("Message") or response.get("Message") or ""
        request_id = meta.get("RequestId") or response.get(BODY_REQUEST_ID) or ""
        return _Words(self._clean(code), self._clean(message), self._clean(request_id))

    def _clean(self, text: object) -> str:
        return words(text, self._secrets())

    def _cause(self, bucket: str, kind: str) -> str:
        return f"{self.address(bucket)}: {kind}"

    def address(self, bucket: str) -> str:
        """The bucket and the endpoint, for messages."""
        return f"s3://{bucket} at {self._endpoint}"


def check_endpoint(url: str | None) -> None:
    """Raise UsageError for an endpoint without a scheme, which the client takes for a path or a scheme."""
    if url and "://" not in url:
        raise UsageError(
            f"the endpoint of S3 '{words(url)}' does not begin with http:// or https://",
            hint=f"set AWS_ENDPOINT_URL_S3 to http://{words(url)} or https://{words(url)}",
        )


def client_error(error: Exception) -> UsageError:
    """The error of a client that cannot be made: a setting is wrong."""
    fault, source = find_fault(error, S3_FAULTS)
    said = words(source) or type(source).__name__
    hint = fault.hint(_URL, _CA) if isinstance(error, BotoCoreError) else None
    return UsageError(
        f"a client of S3 cannot be made: {said}",
        hint=hint or "check AWS_ENDPOINT_URL_S3, AWS_REGION and AWS_PROFILE",
    )


def code_of(error: ClientError) -> str:
    """The code of an answer; "" for an answer that is not the store's, as the page of a proxy."""
    response: Mapping[str, Any] = error.response
    return "" if FOREIGN in response else _code(response)


def _code(response: Mapping[str, Any]) -> str:
    # The client leaves it outside of "Error" when the XML of the error has a namespace.
    return str(response.get("Error", {}).get("Code") or response.get("Code") or "")


def _hint(found: Answer, response: Mapping[str, Any]) -> str:
    error, meta = response.get("Error", {}), response.get("ResponseMetadata", {})
    code, headers = str(error.get("Code") or ""), meta.get("HTTPHeaders", {})
    status = str(meta.get("HTTPStatusCode", ""))
    region = words(error.get("Region") or headers.get("x-amz-bucket-region") or "")
    endpoint = words(error.get("Endpoint") or headers.get("location") or "")
    moved = code in REDIRECTS or status in REDIRECTS
    settings = [f"AWS_REGION to {region}"] if region else []
    if endpoint and moved:
        settings.append(f"AWS_ENDPOINT_URL_S3 to {endpoint if '://' in endpoint else f'https://{endpoint}'}")
    return f"set {' and '.join(settings)}" if settings else found.hint


def _details(code: str, response: Mapping[str, Any]) -> str:
    """What the headers of an answer add: how far the clocks differ."""
    sent = response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    if code not in SKEWED or not sent:
        return ""
    try:
        seconds = time.time() - parsedate_to_datetime(sent).timestamp()
    except (ValueError, TypeError):
        return ""
    where = "ahead of" if seconds > 0 else "behind"
    return f"; the clock of this machine is {abs(seconds):.0f} s {where} the store's"


def _of_credentials(error: Exception) -> str:
    # The endpoint that the client names in its message, as that of STS, is not the store's.
    url = getattr(error, "kwargs", {}).get("endpoint_url") if isinstance(error, BotoCoreError) else None
    return f"credentials from {words(url)}" if url else "credentials"
