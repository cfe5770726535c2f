"""ThemisDB over HTTP. Only this file sends requests to it, and translates their errors."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import orjson

from shardline_common.errors import FailureCode, JobFailed, SourceUnavailable, UsageError
from shardline_common.http.client import (
    OK,
    HttpClient,
    HttpConnectionError,
    HttpOptions,
    HttpRequest,
    HttpResponse,
    open_http,
)
from shardline_common.http.client_faults import DROPPED
from shardline_common.http.urls import base_url
from shardline_common.ports.clock import Clock
from shardline_common.runtime.retry import Backoff, TransientError, retry_attempts
from shardline_producer.sources.http_store import JsonResponse
from shardline_producer.sources.themis.limiter import RateLimiter

_ATTEMPTS = 3
_BACKOFF = Backoff(base=0.2, cap=5.0)
_MAX_PAUSE_SECONDS = 300.0
_MAX_REQUEST_BYTES = 1 << 20
_RETRIED = (408, 425)
_BAD_REQUEST, _UNAUTHORIZED, _FORBIDDEN, _MISSING, _TOO_MANY, _SERVER_ERROR = 400, 401, 403, 404, 429, 500


@dataclass(frozen=True, slots=True)
class ThemisOptions:
    """The address of ThemisDB, and the limits on requests to it.

    `timeout` limits the seconds without a byte, `connections` the requests at once, `page` the rows of a
    response, `max_response_bytes` its size.
    """

    url: str
    token: str | None = field(default=None, repr=False)
    ca_bundle: str | None = None
    timeout: float = 60.0
    connections: int = 8
    page: int = 1000
    max_response_bytes: int = 16 << 20


class QueryRejected(Exception):
    """The server responded with 400: the query is wrong, or an index is missing. The text is the server's."""


class ThemisClient:
    """Requests to ThemisDB over a few persistent connections. Safe for concurrent use.

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
        """The response of POST /query.

        Raises:
            QueryRejected: an index is missing, or the query is wrong.
            ResponseTooLarge: the response is over the limit; request fewer rows.
        """
        return self._json(await self._request("POST", "/query", body, f"table '{body['table']}'"))

    async def entity(self, table: str, key: str) -> str | None:
        """The stored text of a row; None when there is no such row. The key must be `is_readable`."""
        response = await self._request("GET", f"/entities/{table}:{key}", None, f"row '{key}' of '{table}'")
        if response.status == _MISSING:
            return None
        blob = self._json(response).get("blob")
        if not isinstance(blob, str):
            raise self._not_themis(f"the response for row '{key}' of '{table}' has no text 'blob'")
        return blob

    async def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The response of any other POST. Raises QueryRejected."""
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

        async def attempt() -> HttpResponse:
            # A 429 is no failed attempt, because it names the time of the next one. It is repeated until the
            # pauses of all attempts add up to five minutes.
            nonlocal paused
            while True:
                response = await self._send(request, what)
                if response.status != _TOO_MANY or paused >= _MAX_PAUSE_SECONDS:
                    return response
                pause = _retry_seconds(response.retry_after)
                paused += pause
                self._limiter.pause(pause)

        return await retry_attempts(attempt, _ATTEMPTS, _BACKOFF, self._clock.sleep)

    async def _send(self, request: HttpRequest, what: str) -> HttpResponse:
        await self._limiter.wait()
        try:
            response = await self._client.send(request)
        except HttpConnectionError as error:
            if error.fault.permanent:
                hint = error.fault.hint("THEMIS_URL", "THEMIS_CA_BUNDLE")
                message = f"ThemisDB at {self._address} cannot be connected to: {error.detail}"
                raise JobFailed(FailureCode.SOURCE_INVALID, message, hint=hint) from error
            raise TransientError(self._unreachable(error, what)) from error
        if response.status >= _SERVER_ERROR or response.status in _RETRIED:
            raise TransientError(self._failed(response, what))
        if response.status != OK:
            return response
        value = _parsed(response.body)
        if not isinstance(value, dict):
            # It may have been cut on its way. If it comes again, it is that of another server.
            raise TransientError(self._not_themis(f"it answered {OK} without a JSON object"))
        return JsonResponse(OK, b"", value=value)

    def _json(self, response: HttpResponse) -> dict[str, Any]:
        value = response.value if isinstance(response, JsonResponse) else _parsed(response.body)
        is_object = isinstance(value, dict)
        message = str(value.get("message") or value.get("error")) if is_object else f"HTTP {response.status}"
        if response.status in (_UNAUTHORIZED, _FORBIDDEN):
            # A proxy in front of ThemisDB answers with a page.
            raise JobFailed(
                FailureCode.SOURCE_INVALID,
                f"ThemisDB at {self._address} refuses the token: {message}",
                hint="set THEMIS_TOKEN to a token with the scope data:read",
            )
        if response.status == _TOO_MANY:
            raise self._failed(response, "its rate limit")
        if not is_object:
            raise self._not_themis(f"it answered {response.status} without a JSON object")
        if response.status == OK:
            return dict(value)
        if response.status == _BAD_REQUEST:
            raise QueryRejected(message)
        raise self._not_themis(f"it answered {response.status}: {message}")

    @property
    def _address(self) -> str:
        return display_url(self._options.url)

    def _not_themis(self, found: str) -> JobFailed:
        return JobFailed(
            FailureCode.SOURCE_INVALID,
            f"{self._address} does not answer as ThemisDB does: {found}",
            hint="set THEMIS_URL to the address of ThemisDB",
        )

    def _failed(self, response: HttpResponse, what: str) -> SourceUnavailable:
        return SourceUnavailable(
            f"ThemisDB at {self._address} answered {response.status} to a request for {what}",
            hint="see the server's log; lower THEMIS_RATE if the server limits requests",
            cause=f"ThemisDB at {self._address}: {response.status}",
        )

    def _unreachable(self, error: HttpConnectionError, what: str) -> SourceUnavailable:
        if error.fault is DROPPED:
            return SourceUnavailable(
                f"ThemisDB at {self._address} dropped the connection during a request for {what}",
                hint="a query of a table with an entity that is not JSON ends the server's process: "
                "find the entity in the server's log and delete it",
                cause=f"ThemisDB at {self._address}: {error.fault.meaning}",
            )
        return SourceUnavailable(
            f"ThemisDB at {self._address} cannot be reached ({what}): {error.detail}",
            hint=error.fault.hint("THEMIS_URL", "THEMIS_CA_BUNDLE"),
            cause=f"ThemisDB at {self._address}: {error.fault.meaning}",
        )


def _parsed(body: bytes) -> Any:
    """The JSON of a body; None where it is none."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _retry_seconds(header: str) -> float:
    try:
        return min(_MAX_PAUSE_SECONDS, max(0.1, float(header or 1)))
    except ValueError:
        return 1.0


def display_url(url: str) -> str:
    """The URL's scheme, host and port, without a user's name and password."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "its address"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


@asynccontextmanager
async def open_themis(
    options: ThemisOptions, limiter: RateLimiter, clock: Clock
) -> AsyncIterator[ThemisClient]:
    """A client of ThemisDB; leaving the context closes every connection.

    Raises:
        JobFailed: the CA bundle cannot be read, or the address is no URL.
    """
    try:
        url = base_url(options.url)
    except ValueError as error:
        message = f"the address of ThemisDB is no URL: {error}"
        raise JobFailed(FailureCode.SOURCE_INVALID, message, hint="correct THEMIS_URL") from None
    http = HttpOptions(
        # A name and a password in the URL would be sent as Basic authorization, which ThemisDB refuses.
        url=url,
        headers={"Authorization": f"Bearer {options.token}"} if options.token else {},
        ca_file=options.ca_bundle,
        connections=options.connections,
        connect_seconds=10.0,
        read_seconds=options.timeout,
        total_seconds=10 * options.timeout,
        max_bytes=options.max_response_bytes,
        keep_cookies=True,
    )
    async with AsyncExitStack() as stack:
        try:
            client = await stack.enter_async_context(open_http(http))
        except UsageError as error:
            raise JobFailed(FailureCode.SOURCE_INVALID, str(error), hint="set THEMIS_CA_BUNDLE") from None
        yield ThemisClient(client, options, limiter, clock)
