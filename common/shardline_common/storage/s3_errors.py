"""What S3 answered, as Shardline's errors: which answers a retry may change, and which it cannot."""

from typing import Any

from botocore import exceptions
from botocore.exceptions import BotoCoreError, ClientError

from shardline_common.errors import ObjectExists, ObjectMissing, StoreRefused, StoreUnavailable
from shardline_common.http.tls import is_tls_refused
from shardline_common.runtime.retry import TransientError

MISSING = {"NoSuchKey", "404", "NotFound"}
EXISTS = {"PreconditionFailed", "412"}
_BUSY = {"SlowDown", "RequestTimeout", "ConditionalRequestConflict", "OperationAborted", "429", "409"}
# The body was damaged or cut on the way: the store compares it with its checksum.
_DAMAGED = {"BadDigest", "IncompleteBody", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"}
_BUSY_STATUS = {408, 409, 425, 429}
# The client renews such credentials by itself, or an operator does while the job waits.
_RENEWED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestTimeTooSkewed"}
_TEMPORARY_REDIRECT, _SERVER_ERROR = 307, 500
_CREDENTIALS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "AuthorizationHeaderMalformed"}
_RIGHTS = {"AccessDenied", "403", "AllAccessDisabled", "AccountProblem", *_RENEWED}
# Wrong settings and names, which the client finds before it sends a request.
_WRONG = (
    exceptions.InvalidConfigError,
    exceptions.InvalidDNSNameError,
    exceptions.InvalidHostLabelError,
    exceptions.InvalidS3AddressingStyleError,
    exceptions.NoCredentialsError,
    exceptions.NoRegionError,
    exceptions.ParamValidationError,
    exceptions.PartialCredentialsError,
    exceptions.ProfileNotFound,
    exceptions.EndpointProviderError,
    exceptions.InvalidEndpointConfigurationError,
    exceptions.UnsupportedS3ArnError,
    exceptions.ValidationError,
)


class S3Errors:
    """Translates errors of one endpoint. `default_bucket` is the one of the settings, for hints."""

    def __init__(self, endpoint_url: str | None, default_bucket: str) -> None:
        self._endpoint = endpoint_url or "AWS"
        self._default_bucket = default_bucket

    def answer(self, bucket: str, what: str, error: ClientError) -> Exception:
        """The error of a response. It is a TransientError if the request may be repeated at once."""
        code = error.response["Error"].get("Code", "")
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        if code in EXISTS:
            return ObjectExists(f"{what}: it exists")
        if code in MISSING:
            return ObjectMissing(f"{what}: there is no such object in {self._address(bucket)}")
        if code in _BUSY or code in _DAMAGED or status in _BUSY_STATUS or status >= _SERVER_ERROR:
            return TransientError(self.unavailable(bucket, what, error, code))
        if code in _RENEWED or status == _TEMPORARY_REDIRECT:
            return self.unavailable(bucket, what, error, code)
        return self._refused(bucket, what, code or str(status))

    def failure(self, bucket: str, what: str, error: BotoCoreError) -> StoreUnavailable:
        """The error of a request that was not sent, or had no response."""
        if isinstance(error, _WRONG) or is_tls_refused(error):
            return self._refused(bucket, what, " ".join(str(error).split()))
        return self.unavailable(bucket, what, error)

    def unavailable(self, bucket: str, what: str, error: Exception, code: str = "") -> StoreUnavailable:
        """The error of a store that cannot serve now."""
        message = f"{self._address(bucket)} cannot serve ({what}: {code or type(error).__name__})"
        return StoreUnavailable(message, hint=self._hint(bucket, code))

    def undeleted(self, bucket: str, error: Any) -> StoreUnavailable:
        """The error of an object that a delete of several has left."""
        return self.unavailable(bucket, f"delete {error.get('Key')}", OSError(), error.get("Code", "unknown"))

    def _refused(self, bucket: str, what: str, code: str) -> StoreRefused:
        if code == "NoSuchBucket":
            message = f"there is no bucket {self._address(bucket)} ({what}: {code})"
        else:
            message = f"{self._address(bucket)} cannot serve ({what}: {code})"
        return StoreRefused(message, hint=self._hint(bucket, code))

    def _hint(self, bucket: str, code: str) -> str:
        is_default = bucket == self._default_bucket
        if code == "NoSuchBucket":
            return (
                "create the bucket, or set S3_BUCKET" if is_default else "create the bucket, or name another"
            )
        if code in _CREDENTIALS or code in _RIGHTS:
            return "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the rights on the bucket"
        return "check that the store runs, and AWS_ENDPOINT_URL_S3"

    def _address(self, bucket: str) -> str:
        return f"s3://{bucket} at {self._endpoint}"
