"""ThemisDB over HTTP: the only file that sends requests to it. HTTP errors are translated here."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import orjson

from shardline_common.errors import FailureCode, JobFailed, SourceUnavailable, UsageError
from shardline_common.http.client import (
    OK,
    ConnectionFault,
    HttpClient,
    HttpConnectionError,
    HttpOptions,
    HttpRequest,
    HttpResponse,
    open_http,
)
from shardline_common.http.urls import base_url
from shardline_common.ports.clock import Clock
from shardline_common.runtime.retry import Backoff, TransientError, retry_attempts
from shardline_producer.sources.themis.limiter import RateLimiter

_ATTEMPTS = 3
_BACKOFF = Backoff(base=0.2, cap=5.0)
_MAX_PAUSE_SECONDS = 300.0
_MAX_REQUEST_BYTES = 1 << 20
_BAD_REQUEST, _UNAUTHORIZED, _FORBIDDEN, _MISSING, _TOO_MANY, _SERVER_ERROR = 400, 401, 403, 404, 429, 500


@dataclass(frozen=True, slots=True)
class ThemisOptions:
    """Where ThemisDB is, and how requests to it are made.

    `timeout` is in seconds without a byte, `connections` the most requests at once, `page` the most rows
    of an answer, `answer_bytes` its largest size.
    """

    url: str
    token: str | None = field(default=None, repr=False)
    ca_bundle: str | None = None
    timeout: float = 60.0
    connections: int = 8
    page: int = 1000
    answer_bytes: int = 16 << 20


class QueryRejected(Exception):
    """The server answered 400: the query is wrong, or an index is missing. The message is the server's."""


class ThemisClient:
    """Requests over a few kept-open connections. Safe for concurrent use.

    All methods raise SourceUnavailable (a later try may succeed) and JobFailed (`source_invalid`: the token
    is refused, or the server is not ThemisDB).
    """

    def __init__(
        self, client: HttpClient, options: ThemisOptions, limiter: RateLimiter, clock: Clock
    ) -> None:
        self._client = client
        self._options = options
        self._limiter = limiter
        self._clock = clock

    async def query(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer of POST /query.

        Raises:
            QueryRejected: an index is missing, or the query is wrong.
            ResponseTooLarge: the caller may ask for fewer rows.
        """
        return self._json(await self._request("POST", "/query", body, f"table '{body['table']}'"))

    async def entity(self, table: str, key: str) -> str | None:
        """The stored text of a row; None where there is none. The key must be `is_readable`."""
        answer = await self._request("GET", f"/entities/{table}:{key}", None, f"row '{key}' of '{table}'")
        if answer.status == _MISSING:
            return None
        blob = self._json(answer).get("blob")
        if not isinstance(blob, str):
            raise self._not_themis(f"the answer for row '{key}' of '{table}' has no text 'blob'")
        return blob

    async def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer of any other POST. Raises QueryRejected."""
        return self._json(await self._request("POST", path, body, f"table '{body.get('table')}'"))

    async def health(self) -> str:
        """The server's version."""
        return str(self._json(await self._request("GET", "/health", None, "health")).get("version"))

    async def _request(
        self, method: str, path: str, body: Mapping[str, Any] | None, what: str
    ) -> HttpResponse:
        data = None if body is None else orjson.dumps(body)
        if data and len(data) > _MAX_REQUEST_BYTES:
            raise JobFailed(
                FailureCode.SOURCE_INVALID, f"a request has {len(data)} bytes; ThemisDB accepts at most 1 MiB"
            )
        headers = {"Content-Type": "application/json"} if data else {}
        request, paused = HttpRequest(method, path, body=data, headers=headers), 0.0

        async def attempt() -> HttpAnswer:
            # A 429 counts as no failed attempt, because it says when the next request may come. It is
            # repeated until the pauses of all attempts add up to five minutes.
            nonlocal paused
            while True:
                answer = await self._send(request, what)
                if answer.status != _TOO_MANY or paused >= _MAX_PAUSE_SECONDS:
                    return answer
                pause = _retry_seconds(answer.retry_after)
                paused += pause
                self._limiter.pause(pause)

        return await retry_attempts(attempt, _ATTEMPTS, _BACKOFF, self._clock.sleep)

    async def _send(self, request: HttpRequest, what: str) -> HttpAnswer:
        await self._limiter.wait()
        try:
            answer = await self._client.send(request)
        except HttpConnectionError as error:
            raise TransientError(self._unreachable(error, what)) from error
        if answer.status >= _SERVER_ERROR:
            raise TransientError(self._failed(answer, what))
        return answer

    def _json(self, answer: HttpResponse) -> dict[str, Any]:
        try:
            value = orjson.loads(answer.body)
        except orjson.JSONDecodeError:
            value = None
        if not isinstance(value, dict):
            raise self._not_themis(f"it answered {answer.status} without a JSON object")
        if answer.status == OK:
            return value
        message = str(value.get("message") or value.get("error"))
        if answer.status in (_UNAUTHORIZED, _FORBIDDEN):
            raise JobFailed(
                FailureCode.SOURCE_INVALID,
                f"ThemisDB at {self._address} refuses the token: {message}",
                hint="set THEMIS_TOKEN to a token with the scope data:read",
            )
        if answer.status == _BAD_REQUEST:
            raise QueryRejected(message)
        if answer.status == _TOO_MANY:
            raise self._failed(answer, "its rate limit")
        raise self._not_themis(f"it answered {answer.status}: {message}")

    @property
    def _address(self) -> str:
        return display_url(self._options.url)

    def _not_themis(self, found: str) -> JobFailed:
        return JobFailed(
            FailureCode.SOURCE_INVALID,
            f"{self._address} does not answer as ThemisDB does: {found}",
            hint="set THEMIS_URL to the address of ThemisDB",
        )

    def _failed(self, answer: HttpResponse, what: str) -> SourceUnavailable:
        return SourceUnavailable(
            f"ThemisDB at {self._address} answered {answer.status} when asked for {what}",
            hint="see the server's log; lower THEMIS_RATE where the server limits requests",
        )

    def _unreachable(self, error: HttpConnectionError, what: str) -> SourceUnavailable:
        if error.fault is ConnectionFault.DROPPED:
            return SourceUnavailable(
                f"ThemisDB at {self._address} dropped the connection when asked for {what}",
                hint="a query of a table that holds an entity that is no JSON ends the server's process: "
                "find the entity in the server's log and delete it",
            )
        return SourceUnavailable(
            f"ThemisDB at {self._address} cannot be reached ({what}): {error.text or error.name}",
            hint="check THEMIS_URL, and that ThemisDB runs",
        )


def _retry_seconds(header: str) -> float:
    try:
        return min(_MAX_PAUSE_SECONDS, max(0.1, float(header or 1)))
    except ValueError:
        return 1.0


def display_url(url: str) -> str:
    """The URL's scheme, host and port, without a user's name and password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


@asynccontextmanager
async def open_themis(
    options: ThemisOptions, limiter: RateLimiter, clock: Clock
) -> AsyncIterator[ThemisClient]:
    """A client while the context lasts; leaving it closes every connection.

    Raises:
        JobFailed: the CA bundle cannot be read.
    """
    http = HttpOptions(
        # A name and a password in the URL would be sent as Basic authorization, which ThemisDB refuses.
        url=base_url(options.url),
        headers={"Authorization": f"Bearer {options.token}"} if options.token else {},
        ca_file=options.ca_bundle,
        connections=options.connections,
        connect_seconds=10.0,
        read_seconds=options.timeout,
        total_seconds=10 * options.timeout,
        max_bytes=options.answer_bytes,
        keep_cookies=True,
    )
    async with AsyncExitStack() as stack:
        try:
            client = await stack.enter_async_context(open_http(http))
        except UsageError as error:
            raise JobFailed(FailureCode.SOURCE_INVALID, str(error), hint="set THEMIS_CA_BUNDLE") from None
        yield ThemisClient(client, options, limiter, clock)
