"""Clients without a token that hold connections, or send what is no request: others are served meanwhile."""

import asyncio
import json
import logging
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psutil
import pytest
import requests
from starlette.types import Receive, Scope, Send

from shardline.gateway.connections import ConnectionGuard, ConnectionPolicy, client_group
from shardline.gateway.http_protocol import MAX_HEAD_BYTES, STREAMED
from shardline.gateway.http_server import listen_on, serve_http
from shardline.gateway.middleware import GatewayMiddleware, MiddlewarePolicy
from shardline.gateway.server import _metrics_host
from shardline.gateway.users import security_policy
from shardline_common.runtime.acceptor import accept_connections
from shardline_common.settings.load import Settings
from shardline_common.telemetry.health import serve_health
from shardline_common.telemetry.metrics import Metrics
from tests.gateway.conftest import guarded
from tests.gateway.hostile import KINDS, Attack, health_seconds, request, slowloris
from tests.gateway.realm import Realm
from tests.gateway.system import SECONDS, Server, running

GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
LONG = 3600.0
# Short, and longer than a connection on a loaded machine needs for a request.
SHORT = 0.5


@dataclass
class Small:
    """A small application behind the gateway's server: `/held` answers when `release` is set.

    `begun`: the requests that it has received, except those of /health.
    """

    port: int
    release: asyncio.Event
    begun: int = 0


@asynccontextmanager
async def small_gateway(**limits: Any) -> AsyncIterator[Small]:
    """Serve a small application in this process."""
    policy = ConnectionPolicy(
        **{"total": 100, "per_address": 100, "header_seconds": LONG, "body_seconds": LONG} | limits
    )
    release = asyncio.Event()
    small = Small(0, release)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (message := await receive()).get("more_body"):
            pass
        if message["type"] == "http.disconnect":
            return
        small.begun += scope["path"] != "/health"
        if scope["path"] == "/held":
            await release.wait()
        if scope["path"] == "/streamed":
            scope[STREAMED] = True
        size = 2 if scope["path"] in ("/held", "/health") else 8 << 20
        headers = [(b"content-length", str(size).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        # The second part is sent when the client has read most of the first one.
        await send({"type": "http.response.body", "body": b"x" * (size - 1), "more_body": True})
        await send({"type": "http.response.body", "body": b"x"})

    wrapped = GatewayMiddleware(app, MiddlewarePolicy(1 << 20), lambda *_: None)
    with listen_on("127.0.0.1", 0) as listener:
        serving = asyncio.ensure_future(serve_http(wrapped, listener, policy))
        try:
            small.port = listener.getsockname()[1]
            yield small
        finally:
            serving.cancel()
            with suppress(asyncio.CancelledError):
                await serving


async def opened(port: int, content: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(content)
    return reader, writer


async def served_meanwhile(port: int, attack: Attack, connections: int) -> None:
    """Request /health until it was answered often, and so many connections were opened by the attack.

    A request may lose its place before it is sent, when this process opens many connections in between.
    """
    answered = 0
    async with asyncio.timeout(SECONDS):
        while answered < 10 or attack.opened < connections:
            answered += await health_seconds(port) < SECONDS
            await asyncio.sleep(0.02)


async def closed(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()


async def answer_of(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(SECONDS):
        with suppress(ConnectionResetError):
            return await reader.read(-1)
        return b""


def problem(answer: bytes, status: int) -> dict[str, Any]:
    """Check that an answer is problem details with this status, and return them."""
    head, _, content = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode()), answer
    assert b"content-type: application/problem+json" in head.lower(), head
    assert b"x-request-id: " in head.lower(), head
    found: dict[str, Any] = json.loads(content)
    assert (found["status"], bool(found["detail"]), bool(found["request_id"])) == (status, True, True)
    return found


@pytest.mark.parametrize("kind", sorted(KINDS))
async def test_a_request_that_is_never_complete_ends_at_a_deadline(kind: str) -> None:
    async with small_gateway(header_seconds=SHORT, body_seconds=SHORT) as gateway:
        first, then = KINDS[kind]
        reader, writer = await opened(gateway.port, first)
        answer = asyncio.ensure_future(answer_of(reader))
        # A byte from time to time does not extend the deadline.
        while not answer.done():
            writer.write(then)
            await asyncio.sleep(SHORT / 10)
        if first:
            assert "waited too long" in problem(await answer, 408)["detail"]
        else:
            assert await answer == b""
        assert await health_seconds(gateway.port) < SECONDS
        writer.close()


async def test_a_deadline_does_not_end_a_response() -> None:
    async with small_gateway(header_seconds=SHORT, body_seconds=SHORT) as gateway:
        reader, writer = await opened(
            gateway.port, b"GET /held HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        )
        await asyncio.sleep(3 * SHORT)
        gateway.release.set()
        assert (await answer_of(reader)).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_a_client_that_waits_gives_way_at_the_limit() -> None:
    for limits in ({"total": 4}, {"per_address": 4}):
        async with small_gateway(**limits) as gateway, slowloris(gateway.port, 12, 0.05) as attack:
            await served_meanwhile(gateway.port, attack, 40)


@pytest.mark.parametrize(("limits", "status"), [({"total": 3}, 503), ({"per_address": 3}, 429)])
async def test_requests_under_way_keep_their_place(limits: dict[str, int], status: int) -> None:
    async with small_gateway(**limits) as gateway:
        held = [await opened(gateway.port, b"GET /held HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")]
        held += [await opened(gateway.port, held_request()) for _ in range(2)]
        while True:
            answer = await request(gateway.port, GET + b"Connection: close\r\n\r\n")
            if not answer.startswith(b"HTTP/1.1 200"):
                break
            # The requests are not all there yet.
            await asyncio.sleep(0.01)
        assert "connections" in problem(answer, status)["detail"]
        assert b"Retry-After: 1" in answer
        gateway.release.set()
        for reader, writer in held:
            assert (await answer_of(reader)).startswith(b"HTTP/1.1 200")
            writer.close()


def held_request() -> bytes:
    return b"POST /held HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nab"


async def test_an_idle_connection_gives_way_without_a_response() -> None:
    async with small_gateway(total=1) as gateway:
        reader, writer = await opened(gateway.port, GET + b"\r\n")
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), SECONDS)
        assert head.startswith(b"HTTP/1.1 200")
        assert await reader.readexactly(2) == b"xx"
        assert await health_seconds(gateway.port) < SECONDS
        # It would be taken for the response to the next request.
        assert await answer_of(reader) == b""
        writer.close()


# One response, and one behind it that cannot be sent before the client reads the first.
UNREAD = (b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n", 2 * b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")


@pytest.mark.parametrize("content", UNREAD, ids=["one", "pipelined"])
async def test_a_response_that_is_not_read_gives_way(content: bytes) -> None:
    async with small_gateway(total=2) as gateway:
        slow = [await opened(gateway.port, content) for _ in range(2)]
        async with asyncio.timeout(SECONDS):
            while gateway.begun < 2:
                await asyncio.sleep(0.01)
        assert await health_seconds(gateway.port) < SECONDS
        for _, writer in slow:
            await closed(writer)


async def test_a_client_that_does_not_wait_for_responses_gives_way() -> None:
    async with small_gateway(total=2) as gateway:
        held = 2 * b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n"
        impatient = [await opened(gateway.port, held) for _ in range(2)]
        async with asyncio.timeout(SECONDS):
            while gateway.begun < 2:
                await asyncio.sleep(0.01)
        assert await health_seconds(gateway.port) < SECONDS
        gateway.release.set()
        for _, writer in impatient:
            await closed(writer)


async def test_a_stream_that_is_read_slowly_keeps_its_place() -> None:
    async with small_gateway(total=1, drain_seconds=SHORT) as gateway:
        get = b"GET /%s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        reader, writer = await opened(gateway.port, get % b"streamed")
        async with asyncio.timeout(SECONDS):
            await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(2 * SHORT)
        other, another = await opened(gateway.port, get % b"health")
        problem(await answer_of(other), 503)
        assert len(await answer_of(reader)) == 8 << 20
        await closed(writer)
        await closed(another)


@pytest.mark.parametrize("content", UNREAD, ids=["one", "pipelined"])
async def test_a_response_that_is_not_read_ends_at_a_deadline(content: bytes) -> None:
    async with small_gateway(drain_seconds=SHORT) as gateway:
        last = b"GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        reader, writer = await opened(gateway.port, content + last)
        await asyncio.sleep(2 * SHORT)
        assert len(await answer_of(reader)) < 8 << 20
        writer.close()


@pytest.mark.parametrize("pieces", [[b"x"] * 1000, [b"x" * 64] * 5000, [b"x" * 50_000] * 20])
async def test_a_body_in_pieces_is_accepted(pieces: list[bytes]) -> None:
    async with small_gateway() as gateway:
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
        head = b"POST /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + TE + b"\r\n"
        reader, writer = await opened(gateway.port, head + chunks + CHUNK)
        assert (await answer_of(reader)).startswith(b"HTTP/1.1 200")
        writer.close()


TE, CL = b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNK = b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (POST + CL + TE + b"\r\n" + CHUNK, 400),
        (POST + TE + CL + b"\r\n" + CHUNK, 400),
        (b"POST / HTTP/1.0\r\nHost: a\r\n" + TE + b"\r\n" + CHUNK, 400),
        (POST + CL + b"Content-Length: 6\r\n\r\nabcdef", 400),
        (POST + b"Content-Length: +5\r\n\r\nabcde", 400),
        (POST + b"Content-Length : 5\r\n\r\nabcde", 400),
        (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + CHUNK, 501),
        (POST + TE + b"\r\nxyz\r\n", 400),
        (POST + TE + b"\r\n" + 3000 * b"1\r\nx\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 TLS\r\n\r\n", 400),
        (GET + b"X: " + b"a" * MAX_HEAD_BYTES + b"\r\n\r\n", 431),
        (GET + b"".join(b"X-%d: a\r\n" % number for number in range(4000)) + b"\r\n", 431),
        (b"GET /" + b"a" * MAX_HEAD_BYTES + b" HTTP/1.1\r\nHost: a\r\n\r\n", 431),
        (GET + b"X: " + b"a" * (1 << 20), 431),
    ],
    ids=[
        "cl+te", "te+cl", "te-in-1.0", "two-lengths", "signed-length", "space-before-colon", "two-codings",
        "bad-chunk", "tiny-chunks", "no-host", "version", "tls", "one-long-header", "many-headers",
        "long-target", "endless",
    ],
)  # fmt: skip
@pytest.mark.parametrize("before", [b"", GET + b"\r\n"], ids=["first", "second"])
async def test_what_is_no_request_is_refused_with_problem_details(
    before: bytes, content: bytes, status: int
) -> None:
    async with small_gateway() as gateway:
        reader, writer = await opened(gateway.port)
        if before:
            writer.write(before)
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(2)
        writer.write(content)
        problem(await answer_of(reader), status)
        writer.close()
        assert await health_seconds(gateway.port) < SECONDS


async def test_a_head_just_below_the_limit_is_accepted_in_pieces() -> None:
    head = GET + b"Connection: close\r\nX: " + b"a" * (MAX_HEAD_BYTES - 200) + b"\r\n\r\n"
    async with small_gateway() as gateway:
        reader, writer = await opened(gateway.port)
        for start in range(0, len(head), 1000):
            writer.write(head[start : start + 1000])
            await asyncio.sleep(0)
        assert (await answer_of(reader)).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_strangers_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        async with small_gateway(total=4, header_seconds=SHORT, body_seconds=SHORT) as gateway:
            for _ in range(30):
                await request(gateway.port, b"nonsense\r\n\r\n")
            async with slowloris(gateway.port, 20, 0.01) as attack:
                while attack.opened < 100:
                    await asyncio.sleep(0.02)
    assert len(caplog.records) < 20, [record.getMessage() for record in caplog.records]


async def test_accepting_goes_on_when_no_file_can_be_opened(caplog: pytest.LogCaptureFixture) -> None:
    relieved = 0

    def relieve() -> None:
        nonlocal relieved
        relieved += 1

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with listen_on("127.0.0.1", 0) as listener:
        accepting = asyncio.ensure_future(accept_connections(listener, lambda _: _Hello(), relieve))
        client = socket.socket()
        client.setblocking(False)
        with socket.socket() as probe:
            lowest = probe.fileno()
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
        try:
            await asyncio.get_running_loop().sock_connect(client, listener.getsockname())
            while relieved < 3:
                await asyncio.sleep(0.01)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        async with asyncio.timeout(SECONDS):
            assert await asyncio.get_running_loop().sock_recv(client, 5) == b"hello"
        client.close()
        accepting.cancel()
    assert len(caplog.records) == 1
    assert "raise the limit of open files" in caplog.text


class _Hello(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"hello")
        transport.close()


@pytest.mark.parametrize(
    ("address", "group"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("somewhere", "somewhere"),
    ],
)
def test_a_client_is_counted_under_its_network(address: str, group: str) -> None:
    assert client_group(address) == group


def test_a_trusted_proxy_is_not_one_address() -> None:
    guard = ConnectionGuard(ConnectionPolicy(4, 2, 1.0, 1.0, proxies=("192.0.2.0/24", "::1", "127.0.0.1")))
    for address in ("192.0.2.1", "192.0.2.1", "192.0.2.2"):
        assert guard.admit(guard.group(address)) is None
        guard.opened(guard.group(address))
    assert guard.group("127.0.0.1") == "127.0.0.1"
    assert guard.group("198.51.100.1") == "198.51.100.1"


def test_another_address_is_not_evicted_for_the_limit_of_one() -> None:
    evicted = []

    class Fake:
        def __init__(self, group: str) -> None:
            self.group = group

        def evict(self) -> None:
            evicted.append(self.group)
            guard.closed(self, self.group)

    guard = ConnectionGuard(ConnectionPolicy(4, 2, 1.0, 1.0))
    for group in ("a", "b", "b", "b", "c", "d", "d"):
        assert guard.admit(group) is None
        guard.opened(group)
        guard.waits(Fake(group), group)
    assert evicted == ["b", "a", "b"]
    assert guard.open == 4


@pytest.fixture(scope="module")
def strict(realm: Realm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A gateway with few connections and short deadlines, that requires a token."""
    env = guarded(realm) | {
        "GATEWAY_CONNECTIONS": "100",
        "GATEWAY_HEADER_SECONDS": "2",
        "GATEWAY_BODY_SECONDS": "2",
        "GATEWAY_REQUESTS_PER_MINUTE": "200",
    }
    with running(tmp_path_factory.mktemp("strict"), **env) as server:
        limit = resource.prlimit(server.popen.pid, resource.RLIMIT_NOFILE)
        assert limit[0] == min(limit[1], 65_536)
        yield server


async def test_a_slowloris_without_a_token_does_not_stop_the_gateway(strict: Server) -> None:
    lines = strict.text().count("\n")
    async with slowloris(strict.port, 150) as attack:
        await served_meanwhile(strict.port, attack, 600)
    assert strict.text().count("\n") - lines < 100
    # A twentieth of a minute's requests, and what the bucket got back meanwhile.
    assert len(strict.audit().splitlines()) < 100


def test_requests_without_a_token_are_limited_before_the_audit_log(strict: Server, realm: Realm) -> None:
    url = f"{strict.url}/api/datasets"
    with requests.Session() as session:
        forged = f"{url}/x/files/y?expires=1&signature=z"
        # On a slow machine, the limit allows one more now and then.
        for target in (url, forged):
            assert 429 in [session.get(target, timeout=SECONDS).status_code for _ in range(30)]
        # Who has a token is not locked out by others behind the same address.
        token = {"Authorization": f"Bearer {realm.token('admin')}"}
        assert session.get(url, headers=token, timeout=SECONDS).status_code == 200
    assert len(strict.audit().splitlines()) < 100
    assert strict.text().count("without a valid token") == 1


async def test_silent_clients_of_the_metrics_port_give_way(caplog: pytest.LogCaptureFixture) -> None:
    before = psutil.Process().num_fds()
    async with serve_health(Metrics(), {}, "127.0.0.1", 0) as port:
        clients = [await opened(port) for _ in range(200)]
        for _ in range(30):
            await request(port, b"nonsense\r\n\r\n")
        answer = await request(port, b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200")
        # 200 of this side, and as many of the server's as it allows.
        assert psutil.Process().num_fds() - before < 200 + 80
        for _, writer in clients:
            await closed(writer)
    assert len(caplog.records) < 5


def test_metrics_listen_where_the_gateway_does_when_no_token_is_required() -> None:
    def host(**values: Any) -> str:
        settings = Settings(keycloak_url="https://sso", **values)
        return _metrics_host(settings, security_policy(settings))

    assert host() == "0.0.0.0"  # noqa: S104 - the default, with tokens
    assert host(security_mode="debug") == "127.0.0.1"
    assert host(security_mode="development", jwt_enabled=False) == "127.0.0.1"
    assert host(security_mode="debug", gateway_host="10.0.0.1") == "10.0.0.1"
    assert host(security_mode="debug", metrics_host="10.0.0.2") == "10.0.0.2"
