"""HTTP on one connection: uvicorn's protocol, with deadlines, limits, and errors as problem details.

uvicorn 0.54 waits for a request without end, accepts heads of any size that arrive at once, ignores
Content-Length beside Transfer-Encoding, and answers what it cannot parse with plain text.
"""

import asyncio
import contextlib
import logging
import secrets
from enum import StrEnum
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from shardline.gateway.connections import ConnectionGuard
from shardline.gateway.problems import MEDIA_TYPE, Problem, problem_body

_log = logging.getLogger("shardline.gateway.connections")
MAX_HEAD_BYTES = 32 << 10
_VERSIONS = (b"1.0", b"1.1")
# The bytes between and around the parts of the head: `: ` and the line breaks.
_LINE_BYTES = 4
# How long a client may go on sending after it was refused.
_LINGER_SECONDS = 2.0
# To parse a chunk takes as long as to parse hundreds of bytes: a body of one byte a chunk would occupy the
# process. A program that writes its body in pieces has fewer of them, or larger ones.
_FREE_CHUNKS, _MIN_CHUNK_BYTES = 1024, 64
# The key of a request's scope that a response sets which takes the time of its client, with its own limit.
STREAMED = "shardline.streamed"
# What a client must at least read of a response, in the time that the policy says, to keep its connection.
_MIN_DRAIN_BYTES = 16 << 10


class _Phase(StrEnum):
    """What a connection waits for."""

    HEAD = "the head of a request"
    BODY = "the body of a request"
    IDLE = "the next request"
    RESPONSE = "the response"
    UNREAD = "the client to read the response"
    PIPELINED = "the response, with another request behind it"
    END = "the client's end"


class GuardedProtocol(H11Protocol):
    """One connection.

    1. At its start, the guard may refuse it.
    2. While a request is incomplete, a deadline runs, which bytes from the client do not extend.
    3. While a request is complete, the response takes the time it needs. The client has a deadline to read
       some of it, unless it is streamed. A connection with another request behind it may give way.
    4. At the end, the client has a deadline to read the rest of the response.
    """

    def __init__(self, config: Config, state: ServerState, guard: ConnectionGuard, group: str) -> None:
        super().__init__(config, state, {})
        self.conn = self._strict = _StrictConnection()
        self._guard = guard
        self._group = group
        self._phase: _Phase | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._ended = False
        self._unsent = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection, and refuse it when there are too many."""
        super().connection_made(transport)
        refusal = self._guard.admit(self._group)
        self._guard.opened(self._group)
        if refusal is not None:
            self._answer(refusal)
        self._update()

    def connection_lost(self, exc: Exception | None) -> None:
        """Release the place of the connection."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._set_deadline(None)
        self._guard.closed(self, self._group)

    def data_received(self, data: bytes) -> None:
        """Handle what the client sent, or discard it when the connection ends."""
        if not self._ended:
            super().data_received(data)

    def pause_writing(self) -> None:
        """Note that the client does not read what was written."""
        super().pause_writing()
        self._update()

    def resume_writing(self) -> None:
        """Note that the client has read most of what was written."""
        super().resume_writing()
        self._update()

    def handle_events(self) -> None:
        """Handle complete events of what was received."""
        super().handle_events()
        self._update()

    def on_response_complete(self) -> None:
        """Prepare for the next request."""
        super().on_response_complete()
        self._update()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection."""
        super().timeout_keep_alive_handler()
        self._update()

    def shutdown(self) -> None:
        """End the connection after its response."""
        if self._ended or self.transport.is_closing():
            self.transport.close()
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Answer what cannot be parsed."""
        self._guard.report("invalid")
        error = self._strict.error
        status = 400 if error is None else error.error_status_hint
        detail = msg if error is None else f"the request is not valid HTTP: {error}"
        if status == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
            detail = f"the head of the request has more than {MAX_HEAD_BYTES} bytes"
        self._end_with(Problem(status, detail), asked=True)

    def evict(self) -> None:
        """Close at once, in favour of another connection: without a response, which would take time."""
        self.transport.abort()
        self._update()

    def _update(self) -> None:
        """Follow the state of the connection: what it waits for, and until when."""
        phase = self._current_phase()
        if phase is self._phase:
            return
        self._phase = phase
        policy = self._guard.policy
        self._unsent = self.transport.get_write_buffer_size()
        seconds = {
            _Phase.HEAD: policy.header_seconds,
            _Phase.BODY: policy.body_seconds,
            _Phase.UNREAD: policy.drain_seconds,
            _Phase.END: policy.drain_seconds if self._unsent else _LINGER_SECONDS,
        }
        self._set_deadline(seconds.get(phase))
        self._guard.works(self)
        if phase is not _Phase.RESPONSE:
            self._guard.waits(self, self._group)

    def _current_phase(self) -> _Phase:
        if self._ended or self.transport.is_closing():
            return _Phase.END
        if self.conn.their_state is h11.SEND_BODY:
            return _Phase.BODY
        if self.conn.their_state is h11.IDLE:
            # uvicorn's own timer runs from the end of a response to the first byte of the next request.
            return _Phase.HEAD if self.timeout_keep_alive_task is None else _Phase.IDLE
        if self.scope.get(STREAMED):
            return _Phase.RESPONSE
        # A client that sends requests and does not wait for, or read, their responses would keep its place
        # for ever. No browser and no common library does so.
        if self.flow.write_paused:
            return _Phase.UNREAD
        return _Phase.PIPELINED if self.conn.trailing_data[0] else _Phase.RESPONSE

    def _set_deadline(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if seconds is None else self.loop.call_later(seconds, self._on_deadline)

    def _on_deadline(self) -> None:
        if self._phase not in (_Phase.END, _Phase.UNREAD):
            self._guard.report("timed out")
            begun = self._phase is not _Phase.IDLE and bool(self.conn.trailing_data[0])
            self._end_with(Problem(408, f"the gateway waited too long for {self._phase}"), asked=begun)
            return
        unsent = self.transport.get_write_buffer_size()
        if self._unsent - unsent < _MIN_DRAIN_BYTES:
            self._guard.report("timed out")
            self.transport.abort()
            return
        self._unsent = unsent
        self._set_deadline(self._guard.policy.drain_seconds)

    def _end_with(self, problem: Problem, *, asked: bool) -> None:
        """End the connection. Send the problem if no response has begun; `asked`: if a request has."""
        # A cycle with a complete body belongs to an earlier request.
        cycle = self.cycle if self.cycle is not None and self.cycle.more_body else None
        if cycle is None and not asked:
            # The client sent nothing. It would take a response for that to its next request.
            self.transport.close()
        elif cycle is None or not cycle.response_started:
            self._answer(problem)
        elif cycle.response_complete:
            self.transport.close()
        else:
            # The client must see that the body is broken.
            self.transport.abort()
        if cycle is not None and not cycle.response_complete:
            # The application learns that the client is gone, and its response is discarded.
            cycle.disconnected = True
            cycle.message_event.set()
        self._update()

    def _answer(self, problem: Problem) -> None:
        # To close now would discard what the client has sent and this side has not read. TCP then resets the
        # connection, and the client would lose the response.
        self._ended = True
        self.transport.write(_encoded(problem))
        with contextlib.suppress(OSError):
            # The client may have reset the connection already.
            self.transport.write_eof()
        self.flow.resume_reading()


class _StrictConnection(h11.Connection):
    """Refuses what a proxy in front and this server could understand differently, and too large heads.

    `error` is the reason of the last refusal.
    """

    def __init__(self) -> None:
        super().__init__(h11.SERVER, MAX_HEAD_BYTES)
        self.error: h11.RemoteProtocolError | None = None
        self._chunks = self._bytes = 0

    def next_event(self) -> Any:
        """Return the next event. Raise RemoteProtocolError when the client broke the protocol."""
        try:
            event = super().next_event()
            if isinstance(event, h11.Request):
                self._chunks = self._bytes = 0
                _check(event)
            elif isinstance(event, h11.Data):
                self._count(event)
        except h11.RemoteProtocolError as error:
            self.error = error
            raise
        return event

    def _count(self, data: h11.Data) -> None:
        self._chunks += data.chunk_start
        self._bytes += len(data.data)
        if self._chunks > _FREE_CHUNKS + self._bytes // _MIN_CHUNK_BYTES:
            raise h11.RemoteProtocolError("the chunks of the body are too small")


def _check(request: h11.Request) -> None:
    headers = list(request.headers)
    size = len(request.method) + len(request.target)
    size += sum(len(name) + len(value) + _LINE_BYTES for name, value in headers)
    if size > MAX_HEAD_BYTES:
        # h11 checks the size only while the head is incomplete.
        raise h11.RemoteProtocolError("the head is too large", error_status_hint=431)
    if request.http_version not in _VERSIONS:
        version = request.http_version.decode("ascii")
        raise h11.RemoteProtocolError(f"HTTP/{version} is not supported", error_status_hint=505)
    names = {name for name, _ in headers}
    if b"transfer-encoding" in names and (b"content-length" in names or request.http_version == b"1.0"):
        # A proxy that goes by the length sees another end of this request: the rest of the body would be a
        # request that it never checked (request smuggling).
        raise h11.RemoteProtocolError("Transfer-Encoding beside Content-Length, or in HTTP/1.0")


def _encoded(problem: Problem) -> bytes:
    request_id = secrets.token_hex(8)
    body = problem_body(problem.status_code, problem.detail, request_id)
    headers = {
        "Content-Type": MEDIA_TYPE,
        "Content-Length": str(len(body)),
        "Connection": "close",
        "X-Request-ID": request_id,
        "X-Content-Type-Options": "nosniff",
    } | dict(problem.headers or {})
    phrase = HTTPStatus(problem.status_code).phrase
    lines = [
        f"HTTP/1.1 {problem.status_code} {phrase}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body
