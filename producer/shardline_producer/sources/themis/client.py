"""ThemisDB over HTTP. Only this file sends requests to it, and translates their errors."""

import logging
from collections.abc import AsyncIterator, Callable, Mapping
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
    ResponseTooLarge,
    open_http,
)
from shardline_common.http.client_faults import DROPPED, SILENT
from shardline_common.http.urls import base_url
from shardline_common.ports.clock import Clock
from shardline_common.runtime.durations import in_seconds
from shardline_common.runtime.retry import Backoff, TransientError, retry_attempts
from shardline_common.runtime.slowdown import note_slowdown
from shardline_common.runtime.waits import take_turn
from shardline_producer.sources.exact_json import parse_on_thread
from shardline_producer.sources.http_store import JsonResponse
from shardline_producer.sources.themis.limiter import RateLimiter
from shardline_producer.sources.themis.queries import count_at_start, problem_of
from shardline_producer.sources.themis.refusals import refusal
from shardline_producer.sources.themis.server_errors import GATEWAY, ServerErrors

_log = logging.getLogger(__name__)
_ATTEMPTS = 3
_BACKOFF = Backoff(base=0.2, cap=5.0)
_MAX_PAUSE_SECONDS = 300.0
_SLOW_SECONDS = 60.0
_MAX_REQUEST_BYTES = 1 << 20
_RETRIED = (408, 425)
_BAD_REQUEST, _UNAUTHORIZED, _FORBIDDEN, _MISSING, _TOO_MANY, _SERVER_ERROR = 400, 401, 403, 404, 429, 500
_NO_SUCH_ROW = "Entity not found"


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


class _ScanTimeout(Exception):
    """A scan was not answered in time. `final` is the error, unless the server answers other requests."""

    def __init__(self, final: SourceUnavailable) -> None:
        super().__init__(str(final))
        self.final = final


@dataclass(frozen=True, slots=True)
class KeyScan:
    """Keys that the server read without an index. None: there are too many, and `why` says for what.

    `count` is their number, None when it is unknown as well.
    """

    keys: list[str] | None
    count: int | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class _Call:
    """A request and what is known about it.

    `what` names its object in messages. `problem` is called with a JSON object of the status 200: why it is
    not the whole answer. `parses`: the server parses entities, and one that is not JSON ends its process.
    """

    request: HttpRequest
    what: str
    problem: Callable[[Mapping[str, Any]], str | None] = lambda _: None
    parses: bool = False
    scan: bool = False


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
        self._errors = ServerErrors(display_url(options.url), limiter)
        self._has_answered = self._is_themis = False

    async def query(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The response of POST /query, which has all rows or keys that it counts.

        Raises:
            QueryRejected: an index is missing, or the query is wrong.
            ResponseTooLarge: the response is over the limit; request fewer rows.
        """
        return self._json(await self._send_all(self._query_call(body)))

    async def scan(self, body: Mapping[str, Any]) -> KeyScan:
        """The keys of a query that reads a whole table, which may be too many. Raises QueryRejected."""
        try:
            response = self._json(await self._send_all(self._query_call(body, scan=True)))
        except ResponseTooLarge as error:
            limit = f"{self._options.max_response_bytes >> 20} MiB"
            return KeyScan(None, count_at_start(error.start), f"its keys are more than {limit}")
        except _ScanTimeout as error:
            if not await self._is_up():
                raise error.final from error.__cause__
            return KeyScan(None, None, f"the server did not list its keys in {self._options.timeout:g} s")
        return KeyScan(response["keys"], len(response["keys"]))

    def _query_call(self, body: Mapping[str, Any], *, scan: bool = False) -> _Call:
        def problem(response: Mapping[str, Any]) -> str | None:
            return problem_of(body, response)

        parses = body.get("return") != "keys" or bool(scan and body.get("range"))
        what = f"table '{body['table']}'"
        return _Call(_post("/query", body), what, problem, parses=parses, scan=scan)

    async def entity(self, table: str, key: str) -> str | None:
        """The stored text of a row; None when there is no such row. The key must be `is_readable`.

        Raises:
            QueryRejected: the server refuses the key.
        """
        name, what = f"{table}:{key}", f"row '{key}' of '{table}'"

        def problem(response: Mapping[str, Any]) -> str | None:
            if not isinstance(response.get("blob"), str):
                return "it has no text 'blob'"
            answered = response.get("key", name)
            return None if answered == name else f"it is that of the row '{answered}'"

        response = await self._send_all(_Call(HttpRequest("GET", f"/entities/{name}"), what, problem))
        if response.status == _MISSING:
            return None
        return str(self._json(response, f"/entities/{name}")["blob"])

    async def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The response of any other POST. Raises QueryRejected."""
        call = _Call(_post(path, body), f"table '{body.get('table')}'", parses="rebuild" in path)
        return self._json(await self._send_all(call), path)

    async def health(self) -> str:
        """The server's version."""
        call = _Call(HttpRequest("GET", "/health"), "health")
        return str(self._json(await self._send_all(call), "/health").get("version"))

    async def _send_all(self, call: _Call) -> HttpResponse:
        """Send a request until it is answered, at most three times; 429 is no attempt."""
        size, paused, ended = len(call.request.body or b""), 0.0, False
        left = _ATTEMPTS
        if size > _MAX_REQUEST_BYTES:
            raise JobFailed(
                FailureCode.SOURCE_INVALID, f"a request has {size} bytes; ThemisDB accepts at most 1 MiB"
            )

        async def attempt() -> HttpResponse:
            # A 429 is no failed attempt, because it names the time of the next one. It is repeated until the
            # pauses of all attempts add up to five minutes.
            nonlocal paused, ended, left
            left -= 1
            while True:
                answered_before = self._has_answered
                try:
                    response = await self._send(call, is_last=not left)
                except _Ended as error:
                    ended = ended or (call.parses and answered_before)
                    raise error.transient from error.__cause__
                if response.status != _TOO_MANY or paused >= _MAX_PAUSE_SECONDS:
                    return response
                paused += self._slow_down(response)

        try:
            response = await retry_attempts(attempt, _ATTEMPTS, _BACKOFF, self._clock.sleep)
        except SourceUnavailable as error:
            if ended:
                # Whether the process ended, or something between here and it, only another request can show.
                raise self._errors.ended(call.what, is_up=await self._is_up()) from error
            raise
        if call.parses and self._limiter.ended_by == call.what:
            self._limiter.ended_by = None
        return response

    def _slow_down(self, response: HttpResponse) -> float:
        pause = _retry_seconds(response.retry_after)
        self._limiter.pause(pause)
        slow = f"ThemisDB at {self._errors.address} limits requests (429 Too Many Requests)"
        note_slowdown(slow, max(_SLOW_SECONDS, pause))
        if take_turn(slow):
            _log.warning(
                "%s: the next one is sent %s, and the job goes on in small steps; "
                "raise the server's THEMIS_RATE_LIMIT_PER_MINUTE, or lower THEMIS_RATE",
                slow,
                in_seconds(pause),
            )
        return pause

    async def _send(self, call: _Call, *, is_last: bool) -> HttpResponse:
        await self._limiter.wait()
        try:
            response = await self._client.send(call.request)
        except HttpConnectionError as error:
            if error.fault.permanent:
                raise self._errors.not_connectable(error) from error
            final = self._errors.unreachable(error, call.what)
            if call.scan and error.fault is SILENT:
                raise _ScanTimeout(final) from error
            transient = TransientError(final)
            if error.fault is DROPPED:
                raise _Ended(transient) from error
            raise transient from error
        if response.status in GATEWAY:
            raise _Ended(TransientError(self._errors.failed(response.status, call.what)))
        if response.status >= _SERVER_ERROR or response.status in _RETRIED:
            raise TransientError(self._errors.failed(response.status, call.what))
        self._has_answered = True
        if response.status == _MISSING and call.request.path.startswith("/entities/"):
            return self._missing(response, call)
        return await self._whole(response, call, is_last=is_last) if response.status == OK else response

    async def _whole(self, response: HttpResponse, call: _Call, *, is_last: bool) -> HttpResponse:
        """The response with its JSON, which may have been cut or changed on its way."""
        try:
            # Bytes that are no UTF-8 are those of a row if they come each time.
            value = await parse_on_thread(response.body, any_bytes=is_last)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            # If it comes again, it is that of another server, unless this one has answered before.
            problem = f"it answered {OK} without a JSON object"
            error = (
                self._errors.incomplete(problem, call.what)
                if self._is_themis
                else self._errors.not_themis(problem)
            )
            raise TransientError(error)
        if (fault := call.problem(value)) is not None:
            raise TransientError(self._errors.incomplete(fault, call.what))
        self._is_themis = True
        return JsonResponse(OK, b"", value=value)

    def _missing(self, response: HttpResponse, call: _Call) -> HttpResponse:
        # Any other 404 is that of a proxy, or of another server: it says nothing about the row.
        value = _parsed(response.body)
        if not isinstance(value, dict) or value.get("message") != _NO_SUCH_ROW:
            raise TransientError(self._errors.failed(response.status, call.what))
        return response

    def _json(self, response: HttpResponse, path: str = "/query") -> dict[str, Any]:
        value = response.value if isinstance(response, JsonResponse) else _parsed(response.body)
        is_object = isinstance(value, dict)
        if response.status in (_UNAUTHORIZED, _FORBIDDEN):
            # A proxy in front of ThemisDB answers with a page.
            method = "GET" if path.startswith("/entities/") else "POST"
            raise refusal(self._errors.address, method, path, value if is_object else None, response.status)
        if response.status == _TOO_MANY:
            raise self._errors.failed(response.status, "its rate limit")
        if not is_object:
            raise self._errors.not_themis(f"it answered {response.status} without a JSON object")
        if response.status == OK:
            return dict(value)
        message = str(value.get("message") or value.get("error"))
        if response.status == _BAD_REQUEST:
            raise QueryRejected(message)
        raise self._errors.not_themis(f"it answered {response.status}: {message}")

    async def _is_up(self) -> bool:
        try:
            return (await self._client.send(HttpRequest("GET", "/health"))).status == OK
        except HttpConnectionError:
            return False


class _Ended(Exception):
    """The connection was closed without an answer, or a proxy says that its server is gone."""

    def __init__(self, transient: TransientError) -> None:
        super().__init__(str(transient))
        self.transient = transient


def _post(path: str, body: Mapping[str, Any]) -> HttpRequest:
    headers = {"Content-Type": "application/json"}
    return HttpRequest("POST", path, body=orjson.dumps(body), headers=headers)


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
