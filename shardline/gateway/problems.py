"""Error responses as problem details (RFC 9457), whose `detail` Clara's clients read."""

from collections.abc import Mapping
from http import HTTPStatus

import orjson
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from shardline_common.errors import (
    JobConflict,
    JobFailed,
    JobUnknown,
    ObjectMissing,
    ServiceUnavailable,
    ShardlineError,
    UsageError,
    explain,
)

MEDIA_TYPE = "application/problem+json"


class Problem(HTTPException):
    """A request is refused: the HTTP status, a sentence that says why, and headers such as Retry-After."""

    def __init__(self, status: int, detail: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, detail, dict(headers or {}))


def problem_from_error(error: ShardlineError) -> Problem:
    """Translate an error of Shardline into the Problem with the matching HTTP status."""
    detail = explain(error)
    if isinstance(error, JobUnknown | ObjectMissing):
        return Problem(404, detail)
    if isinstance(error, JobConflict):
        return Problem(409, detail)
    if isinstance(error, UsageError | JobFailed):
        return Problem(422, detail)
    if isinstance(error, ServiceUnavailable):
        return Problem(503, detail, headers={"Retry-After": "5"})
    return Problem(500, detail)


def problem_body(status: int, detail: object, request_id: str) -> bytes:
    """Encode problem details as JSON."""
    title = HTTPStatus(status).phrase
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return orjson.dumps(body | {"request_id": request_id}, default=str)


def problem_response(problem: HTTPException, request_id: str) -> Response:
    """Make the response to a refused request."""
    body = problem_body(problem.status_code, problem.detail, request_id)
    return Response(body, problem.status_code, problem.headers, MEDIA_TYPE)
