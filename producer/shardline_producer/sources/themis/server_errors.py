"""The errors of requests to ThemisDB that had no usable answer. Without I/O."""

from shardline_common.errors import FailureCode, JobFailed, SourceUnavailable
from shardline_common.http.client import HttpConnectionError
from shardline_common.http.client_faults import DROPPED
from shardline_producer.sources.themis.limiter import RateLimiter

GATEWAY = (502, 503, 504)
"""The statuses with which a proxy answers while its server is gone."""

_TOO_MANY = 429
_NOT_JSON = (
    "one of its entities is not JSON, and reading or changing it ends the server's process: find it in the "
    "server's log, POST /index/drop for every index of the table, and delete it"
)


class ServerErrors:
    """Makes the errors of one server. `address` is shown, and holds no secret.

    While `limiter.ended_by` names a table, every error says so: a server that ended at a request for it may
    end there again, and the later errors show only that it is down.
    """

    def __init__(self, address: str, limiter: RateLimiter) -> None:
        self.address = address
        self._limiter = limiter

    def not_themis(self, found: str) -> JobFailed:
        """The error for an answer that ThemisDB does not give."""
        return JobFailed(
            FailureCode.SOURCE_INVALID,
            f"{self.address} does not answer as ThemisDB does: {found}",
            hint="set THEMIS_URL to the address of ThemisDB",
        )

    def not_connectable(self, error: HttpConnectionError) -> JobFailed:
        """The error for a fault of the connection that lasts until a setting is changed."""
        hint = error.fault.hint("THEMIS_URL", "THEMIS_CA_BUNDLE")
        message = f"ThemisDB at {self.address} cannot be connected to: {error.detail}"
        return JobFailed(FailureCode.SOURCE_INVALID, message, hint=hint)

    def incomplete(self, problem: str, what: str) -> SourceUnavailable:
        """The error for an answer that is not whole. `what` names what was requested, here and below."""
        return SourceUnavailable(
            f"ThemisDB at {self.address} gave no whole answer to a request for {what}: {problem}",
            hint="see the log of the server, and of a proxy in front of it",
            cause=f"ThemisDB at {self.address}: an answer is not whole",
        )

    def failed(self, status: int, what: str) -> SourceUnavailable:
        """The error for a status after which a later try may succeed."""
        hint = "see the log of the server, and of a proxy in front of it"
        if status in GATEWAY:
            hint = "a proxy in front of ThemisDB does not reach it: check that the server runs"
        elif status == _TOO_MANY:
            hint = "lower THEMIS_RATE, or raise the server's THEMIS_RATE_LIMIT_PER_MINUTE"
        message = f"ThemisDB at {self.address} answered {status} to a request for {what}"
        return self._unavailable(message, hint, str(status))

    def unreachable(self, error: HttpConnectionError, what: str) -> SourceUnavailable:
        """The error for a request without a complete answer."""
        message = f"ThemisDB at {self.address} cannot be reached ({what}): {error.detail}"
        if error.fault is DROPPED:
            message = f"ThemisDB at {self.address} dropped the connection during a request for {what}"
        hint = error.fault.hint("THEMIS_URL", "THEMIS_CA_BUNDLE")
        return self._unavailable(message, hint, error.fault.meaning)

    def _unavailable(self, message: str, hint: str, cause: str) -> SourceUnavailable:
        if table := self._limiter.ended_by:
            message += f"; it ended during a request for {table}"
            hint = f"start it; if it ends again at {table}, {_NOT_JSON}"
        return SourceUnavailable(message, hint=hint, cause=f"ThemisDB at {self.address}: {cause}")

    def ended(self, what: str, *, is_up: bool) -> SourceUnavailable:
        """The error of a server that answered, and whose connection ended at each try of one request.

        The request parses entities. `is_up`: it answers another request now.
        """
        message = f"ThemisDB at {self.address} dropped the connection during a request for {what}"
        if is_up:
            message, hint = f"{message}, and answers others", _NOT_JSON
        else:
            self._limiter.ended_by = what
            message += ", and has answered no other since"
            hint = f"start it; if it ends again at {what}, {_NOT_JSON}"
        return SourceUnavailable(message, hint=hint, cause=f"ThemisDB at {self.address}: {DROPPED.meaning}")
