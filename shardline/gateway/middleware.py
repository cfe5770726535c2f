"""What surrounds every request: its id, limits on hosts, origins and bodies, and the last word on errors.

Plain ASGI: a stream passes through it without a task or a buffer of its own.
"""

import logging
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shardline.gateway.problems import Problem, problem_response
from shardline_common.job.trace_headers import TRACE_HEADER, traceparent_of
from shardline_common.telemetry.logs import about, log_context
from shardline_common.telemetry.tracing import PassThroughTracer, Span, continued, span

_log = logging.getLogger("shardline.gateway")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})
_HEALTH = "/health"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Stricter, and browsers would send the origin "null" with the forms of our own pages.
    "Referrer-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
}

Counted = Callable[[int, str, float], None]
"""Hears of each request: status (0 when no answer began), route, seconds until the answer began."""

request_id: ContextVar[str] = ContextVar("request_id", default="-")


@dataclass(frozen=True, slots=True)
class FramePolicy:
    """`body_bytes` of a request at most; `origins` of other sites that may call; `loopback` names only."""

    body_bytes: int
    origins: frozenset[str] = frozenset()
    loopback: bool = False


class Frame:
    """The outermost layer of the gateway."""

    def __init__(self, app: ASGIApp, policy: FramePolicy, counted: Counted) -> None:
        self._app = app
        self._policy = policy
        self._counted = counted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request; whatever goes wrong is logged under its id and told without a trace."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        own = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        token = request_id.set(own)
        exchange = _Exchange(send, own)
        with log_context(request_id=own), _traced(scope, headers) as told:
            try:
                await self._serve(scope, headers, receive, exchange)
            finally:
                self._counted(exchange.status, _route(scope), exchange.began)
                exchange.log(scope)
                told.set(status=exchange.status)
                request_id.reset(token)

    async def _serve(self, scope: Scope, headers: Headers, receive: Receive, exchange: "_Exchange") -> None:
        try:
            self._check(scope, headers)
            await self._app(scope, _Body(receive, self._policy.body_bytes).receive, exchange.send)
        except Problem as problem:
            await exchange.refuse(scope, receive, problem)
        except Exception:  # noqa: BLE001 - the last word on a bug: told without a trace
            _log.exception("%s %s: a bug in Shardline", scope["method"], scope["path"])
            hint = "the gateway failed; its log has the reason under the request id"
            await exchange.refuse(scope, receive, Problem(500, hint))

    def _check(self, scope: Scope, headers: Headers) -> None:
        host = headers.get("host", "")
        if self._policy.loopback and _without_port(host) not in _LOOPBACK:
            raise Problem(403, "this gateway asks for no token and answers only to its loopback names")
        origin = headers.get("origin")
        foreign = origin is not None and origin not in self._policy.origins and _place(origin) != host
        if foreign and scope["method"] not in _SAFE:
            # Another site's page must not act in the name of whoever reads it.
            raise Problem(403, "pages of other sites may not call this gateway (GATEWAY_CORS_ORIGINS)")
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length[:20]) > self._policy.body_bytes:
            raise _too_large(self._policy.body_bytes)


@contextmanager
def _traced(scope: Scope, headers: Headers) -> Iterator[Span]:
    if scope["path"] == _HEALTH:
        # Asked every few seconds by whoever watches the process.
        with PassThroughTracer().span("request", {}) as told:
            yield told
        return
    given = traceparent_of([(TRACE_HEADER, headers.get(TRACE_HEADER, "").encode())])
    with continued(given), span("request", method=scope["method"], path=scope["path"]) as told:
        yield told


def _route(scope: Scope) -> str:
    # The template and not the path: what a client makes up must not become a label.
    return str(getattr(scope.get("route"), "path", "none"))


def _place(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _without_port(host: str) -> str:
    return host if host.endswith("]") or ":" not in host else host.rpartition(":")[0]


def _too_large(most: int) -> Problem:
    return Problem(413, f"the body has more than {most} bytes", headers={"Connection": "close"})


class _Body:
    """Counts what a client sends without having said how much it will be."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive = receive
        self._most = most
        self._seen = 0

    async def receive(self) -> Message:
        message = await self._receive()
        self._seen += len(message.get("body", b""))
        if self._seen > self._most:
            raise _too_large(self._most)
        return message


class _Exchange:
    """One answer on its way: adds the headers of all answers, and knows whether it has begun."""

    def __init__(self, send: Send, own_id: str) -> None:
        self._send = send
        self.id = own_id
        self.status = 0
        self.began = 0.0
        self._complete = False
        self._started = time.perf_counter()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.began = time.perf_counter() - self._started
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self.id
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        elif message["type"] == "http.response.body":
            self._complete = not message.get("more_body", False)
        await self._send(message)

    async def refuse(self, scope: Scope, receive: Receive, problem: Problem) -> None:
        if self._complete:
            return
        if self.status:
            # Without its last chunk the client sees that the answer is broken.
            _log.error("the answer was cut off: %s", problem.detail)
            return
        await problem_response(problem, self.id)(scope, receive, self.send)

    def log(self, scope: Scope) -> None:
        spent = round((time.perf_counter() - self._started) * 1000)
        level = logging.DEBUG if scope["path"] == _HEALTH else logging.INFO
        fields = about(method=scope["method"], path=scope["path"], status=self.status, milliseconds=spent)
        _log.log(level, "answered", extra=fields)
