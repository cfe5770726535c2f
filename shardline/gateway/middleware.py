"""The outermost layer of every request: request id, checks of host, origin and body size, error responses.

It is plain ASGI, because middleware of Starlette would add a task and a buffer to each stream.
"""

import logging
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit, urlunsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shardline.gateway.problems import Problem, problem_response
from shardline_common.job.trace_headers import TRACE_HEADER, traceparent_of
from shardline_common.runtime.token_bucket import TokenBucket
from shardline_common.telemetry.logs import log_context, log_fields
from shardline_common.telemetry.tracing import PassThroughTracer, Span, continue_trace, span

_log = logging.getLogger("shardline.gateway")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})
_HEALTH = "/health"
# Answers to requests without a user that are logged in a minute.
_LOGGED_STRANGERS = 60
# The key of a request's scope that is set when its user is known.
KNOWN_USER = "shardline.user"
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_SECURITY_HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # With a stricter policy, browsers send the origin "null" with the forms of the gateway's own pages.
    "Referrer-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
}

OnResponse = Callable[[int, str, float], None]
"""Called once for each request with the status (0: no response began), the route, and the seconds until the
response began."""

request_id: ContextVar[str] = ContextVar("request_id", default="-")


@dataclass(frozen=True, slots=True)
class MiddlewarePolicy:
    """The checks of the middleware.

    Attributes:
        body_bytes: the largest body of a request.
        origins: origins of other sites whose pages may send requests.
        loopback_only: whether the Host header must be a loopback name.
    """

    body_bytes: int
    origins: frozenset[str] = frozenset()
    loopback_only: bool = False


class GatewayMiddleware:
    """Wraps the gateway's application."""

    def __init__(self, app: ASGIApp, policy: MiddlewarePolicy, on_response: OnResponse) -> None:
        self._app = app
        self._policy = policy
        self._on_response = on_response
        self._strangers = TokenBucket(60.0 / _LOGGED_STRANGERS, float(_LOGGED_STRANGERS))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request.

        1. Take the client's request id, or make one. Each log line of the request has it.
        2. Check host, origin and the declared size of the body.
        3. Run the application; count the bytes of the body as they are received.
        4. Turn an error into a response that shows no stack trace.
        5. Report the response to metrics, log and trace.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        received = headers.get("x-request-id", "")
        current = received if _REQUEST_ID.fullmatch(received) else secrets.token_hex(8)
        token = request_id.set(current)
        response = _TrackedResponse(send, current)
        with log_context(request_id=current), _request_span(scope, headers) as request_span:
            try:
                self._check(scope, headers)
                body = _LimitedBody(receive, self._policy.body_bytes)
                try:
                    await self._app(scope, body.receive, response.send)
                finally:
                    response.quiet = body.gone
            except Problem as problem:
                await response.refuse(scope, receive, problem)
            except Exception:  # noqa: BLE001 - a bug is logged with its stack trace, and hidden from the client
                _log.exception("%s %s: a bug in Shardline", scope["method"], scope["path"])
                detail = "the gateway failed; its log has the reason under this request id"
                await response.refuse(scope, receive, Problem(500, detail))
            finally:
                # The route's template, not the path: a client can invent any number of paths, and each would
                # become a label of the metrics.
                route = str(getattr(scope.get("route"), "path", "none"))
                self._on_response(response.status, route, response.began)
                response.log(scope, self._strangers)
                request_span.set(status=response.status)
                request_id.reset(token)

    def _check(self, scope: Scope, headers: Headers) -> None:
        host = headers.get("host", "")
        if self._policy.loopback_only and _without_port(host) not in _LOOPBACK:
            raise Problem(403, "this gateway requires no token, so it serves requests to loopback names only")
        origin = headers.get("origin")
        foreign = origin is not None and origin not in self._policy.origins and _host_of(origin) != host
        if foreign and scope["method"] not in _SAFE_METHODS:
            # Without this check, a page of another site could send requests with the rights of its viewer.
            raise Problem(403, "pages of other sites may not call this gateway (GATEWAY_CORS_ORIGINS)")
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length[:20]) > self._policy.body_bytes:
            raise _body_too_large(self._policy.body_bytes)


@contextmanager
def _request_span(scope: Scope, headers: Headers) -> Iterator[Span]:
    if scope["path"] == _HEALTH:
        # It is requested every few seconds by monitoring, and would fill the traces.
        with PassThroughTracer().span("request", {}) as request_span:
            yield request_span
        return
    traceparent = traceparent_of([(TRACE_HEADER, headers.get(TRACE_HEADER, "").encode())])
    with (
        continue_trace(traceparent),
        span("request", method=scope["method"], path=scope["path"]) as request_span,
    ):
        yield request_span


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _without_port(host: str) -> str:
    return host if host.endswith("]") or ":" not in host else host.rpartition(":")[0]


def _make_relative(message: Message) -> None:
    """Leave scheme and host out of the address of a redirect.

    A proxy that ends TLS and does not say so would have the client repeat its token over plain HTTP.
    """
    headers = MutableHeaders(scope=message)
    if message["status"] == HTTPStatus.TEMPORARY_REDIRECT and (target := headers.get("location")):
        parts = urlsplit(target)
        headers["location"] = urlunsplit(("", "", parts.path, parts.query, ""))


def _body_too_large(limit: int) -> Problem:
    return Problem(413, f"the body has more than {limit} bytes", headers={"Connection": "close"})


class _LimitedBody:
    """Refuses a request when its body exceeds the limit, because a chunked body declares no size.

    `gone`: the client disconnected before the body was complete.
    """

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._received = 0
        self._complete = False
        self.gone = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.gone = not self._complete
        else:
            self._complete = not message.get("more_body", False)
        self._received += len(message.get("body", b""))
        if self._received > self._limit:
            raise _body_too_large(self._limit)
        return message


class _TrackedResponse:
    """Adds the common headers to a response, and records its status and when it began."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self.id = request_id
        self.status = 0
        self.began = 0.0
        self.quiet = False
        self._complete = False
        self._started = time.perf_counter()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            _make_relative(message)
            self.began = time.perf_counter() - self._started
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self.id
            for name, value in _SECURITY_HEADERS.items():
                headers.setdefault(name, value)
        elif message["type"] == "http.response.body":
            self._complete = not message.get("more_body", False)
        await self._send(message)

    async def refuse(self, scope: Scope, receive: Receive, problem: Problem) -> None:
        if self._complete:
            return
        if self.status:
            # The status is sent already. Without the last chunk the client sees that the body is broken.
            _log.error("the response was aborted: %s", problem.detail)
            return
        await problem_response(problem, self.id)(scope, receive, self.send)

    def log(self, scope: Scope, strangers: TokenBucket) -> None:
        now = time.perf_counter()
        elapsed = round((now - self._started) * 1000)
        # Clients without a token can cause these at any rate.
        quiet = self.quiet or scope["path"] == _HEALTH or self.status == HTTPStatus.TOO_MANY_REQUESTS
        if not quiet and KNOWN_USER not in scope and self.status < HTTPStatus.INTERNAL_SERVER_ERROR:
            quiet = strangers.take(now) > 0
        level = logging.DEBUG if quiet else logging.INFO
        fields = log_fields(
            method=scope["method"], path=scope["path"], status=self.status, milliseconds=elapsed
        )
        _log.log(level, "answered", extra=fields)
