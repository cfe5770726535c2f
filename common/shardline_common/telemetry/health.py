"""/metrics, /healthz and /readyz of a long-running process.

/healthz is 200 while the event loop runs. /readyz is 503 while a probe reports a fault, such as Kafka or the
store failing for SHARDLINE_STUCK_SECONDS.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from shardline_common.errors import ShardlineError, UsageError
from shardline_common.telemetry.logs import limit_rate
from shardline_common.telemetry.metrics import Metrics

Probe = Callable[[], Awaitable[str | None]]
"""Returns a sentence about the fault, or None without one. Raises ShardlineError for a fault as well."""

_PROBE_SECONDS = 3.0
_MAX_CONNECTIONS = 64


@asynccontextmanager
async def serve_health(
    metrics: Metrics, probes: Mapping[str, Probe], host: str, port: int
) -> AsyncIterator[int]:
    """Serve while the context lasts. Yields the port; `port` 0 selects any free port.

    Raises:
        UsageError: the port is in use.
    """
    app = web.Application()
    app.router.add_get("/metrics", _metrics(metrics))
    app.router.add_get("/healthz", _health)
    app.router.add_get("/readyz", _ready(probes))
    # A stranger can cause these records at any rate.
    limit_rate("aiohttp.server")
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(partial(_make_protocol, runner.server), host, port)
        except OSError as error:
            hint = "set --metrics-port to another port, or to 0 for any free port"
            raise UsageError(f"port {port} cannot be listened on: {error.strerror}", hint=hint) from None
        try:
            yield int(server.sockets[0].getsockname()[1])
        finally:
            server.close()
    finally:
        await runner.cleanup()


def _make_protocol(server: web.Server | None) -> asyncio.Protocol:
    """Make the protocol of a new connection; at the limit, close the oldest connection.

    The port needs no token. Without a limit, connections that never finish a request would take all file
    descriptors of the process.
    """
    assert server is not None  # noqa: S101 - the runner is set up
    if (
        len(server.connections) >= _MAX_CONNECTIONS
        and (oldest := server.connections[0].transport) is not None
    ):
        oldest.abort()
    return server()


Handler = Callable[[web.Request], Awaitable[web.Response]]


def _metrics(metrics: Metrics) -> Handler:
    async def respond(_: web.Request) -> web.Response:
        metrics.refresh()
        body = await asyncio.to_thread(generate_latest, metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    return respond


async def _health(_: web.Request) -> web.Response:
    return web.Response(text="ok\n")


def _ready(probes: Mapping[str, Probe]) -> Handler:
    async def respond(_: web.Request) -> web.Response:
        found = await asyncio.gather(*map(_run_probe, probes.values()))
        checks = dict(zip(probes, found, strict=True))
        ready = not any(checks.values())
        body = orjson.dumps({"ready": ready, "checks": {name: text or "ok" for name, text in checks.items()}})
        return web.Response(body=body, status=200 if ready else 503, content_type="application/json")

    return respond


async def _run_probe(probe: Probe) -> str | None:
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            return await probe()
    except TimeoutError:
        return f"no answer within {_PROBE_SECONDS:.0f} s"
    except ShardlineError as error:
        return str(error)
