"""The meaning of each error code that S3 stores answer, and of the HTTP statuses of other answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What to do after an answer.

    REPEAT: repeat the request at once, with pauses. WAIT: the store serves again without a change of
    settings, but not at once. REFUSED: it serves again when somebody has changed a setting or a right.
    """

    REPEAT = "repeat"
    WAIT = "wait"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Answer:
    """The verdict, and one thing to do. `meaning`: a phrase for the message; "": the code says it."""

    verdict: Verdict
    hint: str
    meaning: str = ""


MISSING = {"NoSuchKey", "404", "NotFound"}
EXISTS = {"PreconditionFailed", "412"}
# The credentials that the answer refuses may have been renewed where they are kept.
RENEWABLE = {
    "ExpiredToken",
    "ExpiredTokenException",
    "TokenRefreshRequired",
    "InvalidToken",
    "InvalidTokenId",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
}
REDIRECTS = {"PermanentRedirect", "MovedPermanently", "301", "308"}
# A store that does not know the condition of a create-only put may answer one of these.
NO_CONDITION = {"NotImplemented", "501", "NotModified", "304"}
SKEWED = {"RequestTimeTooSkewed", "RequestExpired"}
_REGION_CODES = ("AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "InvalidRegion")

_BUSY = Answer(Verdict.REPEAT, "wait, or lower the load on the store")
_DAMAGED = Answer(
    Verdict.REPEAT,
    "check the proxies between this machine and the store",
    "the body was damaged or cut on its way",
)
_DOWN = Answer(Verdict.REPEAT, "check that the store runs, and AWS_ENDPOINT_URL_S3")
_KEYS = Answer(Verdict.REFUSED, "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the rights on the bucket")
_KEY_ID = Answer(
    Verdict.REFUSED,
    "correct AWS_ACCESS_KEY_ID, or the profile that AWS_PROFILE names",
    "the store does not know the access key",
)
_SECRET = Answer(Verdict.REFUSED, "correct AWS_SECRET_ACCESS_KEY", "the secret is not that of the access key")
_RIGHTS = Answer(
    Verdict.REFUSED,
    "give the owner of AWS_ACCESS_KEY_ID its rights on the bucket: docs/stores-s3.md has the policies",
    "the access key has no right to it",
)
_EXPIRED = Answer(
    Verdict.WAIT,
    "renew the credentials where they are kept, as the file that AWS_SESSION_TOKEN_FILE names",
    "the credentials have ended",
)
_SKEWED = Answer(Verdict.WAIT, "set the clock of this machine, or that of the store", "the clocks differ")
_FULL = Answer(Verdict.REFUSED, "free space in the store, or raise its quota", "the store is full")
_REGION = Answer(Verdict.REFUSED, "set AWS_REGION to the region of the bucket")
_BUCKET_NAME = Answer(Verdict.REFUSED, "correct the name of the bucket")
_KEY_NAME = Answer(Verdict.REFUSED, "use a shorter prefix or name, with letters that the store allows")
_KMS = Answer(Verdict.REFUSED, "check S3_ENCRYPTION, S3_KMS_KEY_ID and the rights on the key")
_OTHER = Answer(Verdict.REFUSED, "check AWS_ENDPOINT_URL_S3, and the log of the store")
REDIRECTED = Answer(Verdict.REFUSED, "set AWS_REGION and AWS_ENDPOINT_URL_S3 to those of the bucket")
CONDITION = Answer(
    Verdict.REFUSED,
    "use a store with create-only puts: docs/stores-s3.md names some",
    "it does not know the condition of a create-only put",
)
NO_BUCKET = Answer(Verdict.REFUSED, "create the bucket, or name another")

CODES: Mapping[str, Answer] = {
    **dict.fromkeys(("SlowDown", "Throttling", "TooManyRequests", "BandwidthLimitExceeded"), _BUSY),
    **dict.fromkeys(("RequestTimeout", "ServiceUnavailable", "InternalError"), _DOWN),
    **dict.fromkeys(("ConditionalRequestConflict", "OperationAborted"), _BUSY),
    # The store compares the body with its checksum.
    **dict.fromkeys(("BadDigest", "IncompleteBody"), _DAMAGED),
    **dict.fromkeys(("XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"), _DAMAGED),
    **dict.fromkeys(("XMinioServerNotInitialized", "XMinioBackendDown"), _DOWN),
    "TemporaryRedirect": Answer(Verdict.WAIT, _DOWN.hint),
    **dict.fromkeys(("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"), _EXPIRED),
    **dict.fromkeys(SKEWED, _SKEWED),
    "InvalidAccessKeyId": _KEY_ID,
    "SignatureDoesNotMatch": _SECRET,
    **dict.fromkeys(("InvalidToken", "InvalidTokenId"), _KEYS),
    "AccessDenied": _RIGHTS,
    **dict.fromkeys(("AllAccessDisabled", "AccountProblem", "NotSignedUp"), _KEYS),
    **dict.fromkeys(_REGION_CODES, _REGION),
    **dict.fromkeys(("KMS.NotFoundException", "KMS.DisabledException", "KMS.AccessDeniedException"), _KMS),
    **dict.fromkeys(
        ("InvalidEncryptionAlgorithmError", "ServerSideEncryptionConfigurationNotFoundError"), _KMS
    ),
    **dict.fromkeys(("XMinioStorageFull", "XMinioDiskFull", "NoSpaceLeft", "NoSpaceLeftOnDevice"), _FULL),
    **dict.fromkeys(("QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "InsufficientStorage"), _FULL),
    **dict.fromkeys(("StorageFull", "NotEnoughSpace", "ServiceQuotaExceeded", "TooManyObjects"), _FULL),
    "InvalidBucketName": _BUCKET_NAME,
    **dict.fromkeys(("KeyTooLongError", "InvalidURI", "XMinioInvalidObjectName"), _KEY_NAME),
    "NoSuchBucket": NO_BUCKET,
    **dict.fromkeys(REDIRECTS, REDIRECTED),
}
STATUSES: Mapping[int, Answer] = {
    307: CODES["TemporaryRedirect"],
    401: _KEYS,
    403: _KEYS,
    **dict.fromkeys((408, 409, 425, 429), _BUSY),
    507: _FULL,
}
_SERVER_ERROR = 500


def answer_of(code: str, status: int) -> Answer:
    """The meaning of an answer: by its code, else by its status."""
    return CODES.get(code) or STATUSES.get(status) or (_DOWN if status >= _SERVER_ERROR else _OTHER)
