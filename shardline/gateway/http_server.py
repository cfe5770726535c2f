"""Serves an application over HTTP on a listening socket: uvicorn's requests on connections with limits."""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from shardline.gateway.connections import ConnectionGuard, ConnectionPolicy
from shardline.gateway.http_protocol import GuardedProtocol
from shardline_common.errors import UsageError
from shardline_common.runtime.acceptor import accept_connections
from shardline_common.telemetry.logs import limit_rate

_log = logging.getLogger("shardline.gateway.connections")
_GRACEFUL_SECONDS = 5
_LOG_SECONDS = 60.0
# How many open files the process asks for.
_MOST_FILES = 65_536


def listen_on(host: str, port: int) -> socket.socket:
    """Listen on an address. Raise UsageError when the port is in use."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise UsageError(
            f"the gateway cannot listen on {host}:{port}: {error.strerror}",
            hint="set CLARA_DATASET_PORT or GATEWAY_HOST",
        ) from None
    return listener


def raise_file_limit() -> int | None:
    """Raise the limit of open files as far as needed and allowed, and return it. None: there is no limit."""
    try:
        import resource  # noqa: PLC0415 - Windows has no such module
    except ImportError:
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft == resource.RLIM_INFINITY:
        return None
    if soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return soft


class _UvicornServer(uvicorn.Server):
    """Leaves signals to the process, which cancels the gateway's task."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _ConnectionLog:
    """Logs why connections were closed or refused: each reason once a minute, with their number.

    A stranger can cause thousands in a second, so that even records that a filter drops cost too much.
    """

    def __init__(self) -> None:
        self._logged_at: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def add(self, reason: str) -> None:
        """Count one."""
        self._counts[reason] = self._counts.get(reason, 0) + 1
        now = time.monotonic()
        if now - self._logged_at.get(reason, -_LOG_SECONDS) >= _LOG_SECONDS:
            self._logged_at[reason] = now
            _log.warning("connections that were closed or refused: %d %s", self._counts.pop(reason), reason)


async def serve_http(app: ASGIApp, listener: socket.socket, policy: ConnectionPolicy) -> None:
    """Serve requests until cancelled.

    Connections are accepted here, because uvicorn has no limit for them; the requests are left to uvicorn.
    """
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # A stalled stream is closed, but closing a connection waits until the client has read what was
        # written before. Without this limit, a client that reads nothing would keep the connection open.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(policy.unread_seconds * 1000))
    config = uvicorn.Config(
        app,
        http=GuardedProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        forwarded_allow_ips=list(policy.proxies),
        timeout_graceful_shutdown=_GRACEFUL_SECONDS,
    )
    config.load()
    server = _UvicornServer(config)
    guard = ConnectionGuard(policy, _ConnectionLog().add)

    def make_protocol(address: str) -> GuardedProtocol:
        return GuardedProtocol(config, server.server_state, guard, guard.group(address))

    # A stranger can cause these records at any rate.
    limit_rate("uvicorn.error")
    serving = asyncio.ensure_future(server.serve([]))
    accepting = asyncio.ensure_future(accept_connections(listener, make_protocol, guard.relieve))
    try:
        await asyncio.wait((serving, accepting), return_when=asyncio.FIRST_COMPLETED)
    finally:
        accepting.cancel()
        server.should_exit = True
        await serving
        await asyncio.wait((accepting,))
    if not accepting.cancelled():
        accepting.result()
