"""Proxies that inject faults: one for any TCP service, one for S3. Each runs in its own thread.

A thread, because tests block their event loop (waiting for a process, reading a metric) while the
processes under test go on talking.
"""

import asyncio
import re
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import md5

import aiohttp
from aiohttp import web
from yarl import URL

from tests.support.lying_store import Answer, Lie, listed

HOST = "127.0.0.1"
_REDIRECT = 300
_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "expect"}


@contextmanager
def in_thread(start: Callable[[], Awaitable[int]], stop: Callable[[], Awaitable[None]]) -> Iterator[int]:
    """Run a server on an event loop in a thread; gives its port."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield asyncio.run_coroutine_threadsafe(_awaited(start), loop).result(30)
    finally:
        asyncio.run_coroutine_threadsafe(_awaited(stop), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()


async def _awaited(call: Callable[[], Awaitable[int | None]]) -> int:
    return await call() or 0


class TcpProxy:
    """Forwards bytes; `down` refuses and cuts, `frozen` holds bytes back, `delay` and `rate` slow them.

    Of each connection that came, `chunks` tells how many pieces came, of both directions; `hold` names a
    connection and how many of them go through, the others being held back.
    """

    def __init__(self, target_port: int, port: int = 0) -> None:
        self._target = target_port
        self._port = port
        self._down = False
        self.frozen = False
        self.delay = 0.0
        self.rate = 0.0
        self.chunks: list[int] = []
        self.hold: tuple[int, int] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @contextmanager
    def running(self) -> Iterator[int]:
        """Serve; gives the port."""
        with in_thread(self._start, self._stop) as port:
            yield port

    @property
    def connections(self) -> int:
        """How many connections were accepted."""
        return len(self.chunks)

    @property
    def open(self) -> int:
        """How many connections are open now."""
        return len(self._tasks)

    @property
    def down(self) -> bool:
        """Whether nothing gets through."""
        return self._down

    @down.setter
    def down(self, value: bool) -> None:
        self._down = value
        if value:
            self.cut()

    def cut(self) -> None:
        """Cut all connections that are open now."""
        for task in tuple(self._tasks):
            self._loop.call_soon_threadsafe(task.cancel)

    async def _start(self) -> int:
        self._loop = asyncio.get_running_loop()
        self._server = await asyncio.start_server(self._accept, HOST, self._port)
        return int(self._server.sockets[0].getsockname()[1])

    async def _stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, writers = self.connections, [writer]
        self.chunks.append(0)
        try:
            if self._down:
                return
            there, back = await asyncio.open_connection(HOST, self._target)
            writers.append(back)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pump(reader, back, number))
                tasks.create_task(self._pump(there, writer, number))
        except (OSError, ExceptionGroup, asyncio.CancelledError):
            return
        finally:
            for each in writers:
                each.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, number: int) -> None:
        while data := await source.read(1 << 16):
            self.chunks[number] += 1
            place = self.chunks[number]
            if self.delay:
                await asyncio.sleep(self.delay)
            if self.rate:
                await asyncio.sleep(len(data) / self.rate)
            while self.frozen or (self.hold and number == self.hold[0] and place > self.hold[1]):
                await asyncio.sleep(0.02)
            sink.write(data)
            await sink.drain()
        raise ConnectionResetError


@dataclass
class Seen:
    """A request and the status of its response; 0 where the connection was cut."""

    method: str
    path: str
    create_only: bool
    status: int


@dataclass
class Fault:
    """What happens to the next `times` requests of a method whose path matches.

    `action`: a status to answer instead, "reset" before the request is applied, "lost" after it was,
    "half" of the body, "swallowed" (acknowledged and not applied), "slow" by `seconds`, "held" until
    `release`, "error body" under a status of 200,
    "empty page" of a list, which leads to the page that was asked for, or one of the wrong answers of
    `tests.support.lying_store`.
    """

    method: str
    pattern: str
    action: int | str | Lie
    times: int = 1 << 30
    seconds: float = 0.0

    def takes(self, request: web.Request) -> bool:
        """Whether it applies to the request; counts down."""
        wanted = self.times > 0 and request.method == self.method and re.search(self.pattern, request.path)
        if wanted:
            self.times -= 1
        return bool(wanted)


@dataclass
class S3Proxy:
    """A proxy of an S3 store. It records requests and injects `faults` into them."""

    endpoint: str
    faults: list[Fault] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    down: bool = False
    held: int = 0
    pages: dict[str, web.Response] = field(default_factory=dict)

    @contextmanager
    def running(self) -> Iterator[str]:
        """Serve; gives the endpoint."""
        with in_thread(self._start, self._stop) as port:
            yield f"http://{HOST}:{port}"

    def release(self) -> None:
        """Forward the requests that are held, and hold no more."""
        self._loop.call_soon_threadsafe(self._released.set)

    def count(self, method: str, pattern: str, status: int) -> int:
        """How many requests with this method and path got this status."""
        return sum(
            item.method == method and item.status == status and re.search(pattern, item.path) is not None
            for item in tuple(self.seen)
        )

    async def _start(self) -> int:
        self._loop, self._released = asyncio.get_running_loop(), asyncio.Event()
        self._session = aiohttp.ClientSession(auto_decompress=False)
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, auto_decompress=False)
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, 0).start()
        return int(self._runner.addresses[0][1])

    async def _stop(self) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        fault = next((fault for fault in tuple(self.faults) if fault.takes(request)), None)
        action = "reset" if self.down else fault.action if fault else None
        body = await request.read()
        if action == "reset":
            return self._cut(request)
        if isinstance(action, int) or action == "error body":
            status = action if isinstance(action, int) else 200
            return self._answered(request, web.Response(status=status, body=_error(status)))
        if action == "swallowed":
            etag = md5(body, usedforsecurity=False).hexdigest()
            return self._answered(request, web.Response(headers={"ETag": f'"{etag}"'}))
        if action == "slow" and fault:
            await asyncio.sleep(fault.seconds)
        if action == "held":
            self.held += 1
            await self._released.wait()
        if (page := self.pages.pop(request.query.get("continuation-token", ""), None)) is not None:
            return self._answered(request, page)
        answer = Answer(*await self._forward(request, body))
        if fault and callable(action) and answer.status >= _REDIRECT:
            # A wrong answer is made from an object or a page.
            fault.times, action = fault.times + 1, None
        return await self._changed(request, action, answer)

    async def _changed(
        self, request: web.Request, action: int | str | Lie | None, answer: Answer
    ) -> web.StreamResponse:
        """What an action makes of the answer of the store."""
        if action == "lost":
            return self._cut(request)
        if action == "half":
            return await self._half(request, answer.status, answer.headers, answer.body)
        if callable(action):
            return self._sent(request, action(answer))
        response = web.Response(status=answer.status, headers=answer.headers, body=answer.body)
        if action == "empty page":
            token = f"behind-an-empty-page-{len(self.seen)}"
            self.pages[token], response = response, web.Response(body=listed([], True, token))
        return self._answered(request, response)

    async def _forward(self, request: web.Request, body: bytes) -> tuple[int, dict[str, str], bytes]:
        url = URL(self.endpoint + request.raw_path, encoded=True)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        skipped = ("Content-Type", "Accept", "Accept-Encoding", "User-Agent")
        async with self._session.request(
            request.method, url, headers=headers, data=body or None, skip_auto_headers=skipped
        ) as answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
            content = await answer.read()
            if request.method != "HEAD":
                kept.pop("Content-Length", None)
            return answer.status, kept, content

    def _note(self, request: web.Request, status: int) -> None:
        create_only = request.headers.get("If-None-Match") == "*"
        self.seen.append(Seen(request.method, request.path, create_only, status))

    def _answered(self, request: web.Request, response: web.Response) -> web.Response:
        self._note(request, response.status)
        return response

    def _cut(self, request: web.Request) -> web.Response:
        self._note(request, 0)
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=500)

    def _sent(self, request: web.Request, answer: Answer) -> web.Response:
        """Send an answer byte by byte as it is, and close the connection."""
        self._note(request, answer.status)
        if request.transport is not None:
            request.transport.write(answer.having(Connection="close").encode())
            request.transport.close()
        return web.Response(status=500)

    async def _half(
        self, request: web.Request, status: int, headers: dict[str, str], body: bytes
    ) -> web.StreamResponse:
        self._note(request, 0)
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = len(body)
        await response.prepare(request)
        with suppress(ConnectionError):
            await response.write(body[: len(body) // 2])
        if request.transport is not None:
            request.transport.abort()
        return response


def _error(status: int) -> bytes:
    codes = {200: "InternalError", 403: "ExpiredToken", 409: "ConditionalRequestConflict", 503: "SlowDown"}
    code = codes.get(status, "InternalError")
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>by the test</Message></Error>".encode()


async def until(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Return when the condition holds."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"not within {seconds:.0f} s: {what}") from None
