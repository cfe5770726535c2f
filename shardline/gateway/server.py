"""The gateway as a long-running process."""

import asyncio
import contextlib
import logging
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import uvicorn

from shardline.gateway.access_tokens import Tokens
from shardline.gateway.app import make_app
from shardline.gateway.audit import Audit
from shardline.gateway.chunked_response import Ending
from shardline.gateway.context import Gateway, Uds3
from shardline.gateway.dataset_library import Library
from shardline.gateway.job_watcher import Watch
from shardline.gateway.jwks import Keys, fetch_keys
from shardline.gateway.rate_limits import RateLimit, StreamLimit
from shardline.gateway.signed_links import Links
from shardline.gateway.users import SecurityPolicy, security_policy
from shardline.services.wiring import (
    CLOCK,
    open_broker,
    open_reader,
    open_store,
    source_factory,
    uds3_probe,
    uds3_searches,
)
from shardline_common.errors import UsageError
from shardline_common.job.spec import SearchType
from shardline_common.ports.broker import Broker
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.tasks import leaf_errors
from shardline_common.settings.load import Settings
from shardline_common.telemetry.health import Probe, serve_health
from shardline_common.telemetry.metrics import Metrics
from shardline_producer.sources.source import OpenSource

_log = logging.getLogger("shardline.gateway")
_CERTS = "/protocol/openid-connect/certs"
_WATCHERS, _WATCHERS_PER_USER = 1000, 50
_FINISH_SECONDS = 5
_CLOSE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Reading:
    """Where streams read; `probe` raises a ShardlineError when nothing can be read there.

    `searches` are those that a store is configured for.
    """

    open_source: OpenSource
    probe: Callable[[], Awaitable[None]]
    searches: frozenset[SearchType]


async def serve_gateway(settings: Settings) -> None:
    """Run the gateway until cancelled.

    Raises:
        UsageError: a setting is wrong, or the port is taken.
    """
    policy = security_policy(settings)
    async with (
        open_broker(settings) as broker,
        _open_library(settings) as library,
        open_reader(settings) as remote,
    ):
        open_source = source_factory(settings, settings.files_root, confined=True, remote=remote)
        reading = Reading(open_source, uds3_probe(settings), uds3_searches(settings))
        await run_gateway(settings, policy, broker, library, reading)


async def run_gateway(
    settings: Settings, policy: SecurityPolicy, broker: Broker, library: Library, reading: Reading
) -> None:
    """Run the gateway on these parts until cancelled."""
    for warning in policy.warnings:
        _log.warning("%s", warning)
    watch = Watch(broker, settings.jobs_partitions, CLOCK)
    with _listening(policy.host, settings.gateway_port) as listener:
        port: int = listener.getsockname()[1]
        gateway = _gateway(settings, policy, watch, library, reading, port)
        probes: dict[str, Probe] = {"jobs": _jobs_probe(watch)}
        health = serve_health(gateway.metrics, probes, settings.metrics_host, settings.metrics_port)
        async with health as own:
            _log.info("serving /metrics, /healthz and /readyz on port %d", own)
            with leaf_errors():
                async with asyncio.TaskGroup() as tasks:
                    following = tasks.create_task(watch.run(), name="follow the jobs")
                    _log.info(
                        "serving on http://%s:%d, security mode %s", policy.host, port, settings.security_mode
                    )
                    await _serve(gateway, listener)
                    following.cancel()


def _gateway(
    settings: Settings,
    policy: SecurityPolicy,
    watch: Watch,
    library: Library,
    reading: Reading,
    port: int,
) -> Gateway:
    audit = Audit(settings.gateway_audit_log, CLOCK)
    audit.check()
    key = settings.gateway_link_key
    tokens = (
        Tokens(policy, Keys(fetch_keys(policy.issuer + _CERTS), CLOCK)) if policy.everyone is None else None
    )
    streams = StreamLimit(settings.gateway_streams, settings.gateway_streams_per_user)
    watchers = StreamLimit(_WATCHERS, _WATCHERS_PER_USER)
    metrics = Metrics()
    metrics.begin_streams(Ending)
    metrics.follow("gateway_streams_open", lambda: streams.open, "rows")
    metrics.follow("gateway_streams_open", lambda: watchers.open, "events")
    return Gateway(
        settings=settings,
        clock=CLOCK,
        metrics=metrics,
        security=policy,
        tokens=tokens,
        watch=watch,
        library=library,
        open_source=reading.open_source,
        uds3=Uds3(reading.probe if settings.uds3_enabled else None, reading.searches, CLOCK),
        audit=audit,
        rate=RateLimit(settings.gateway_requests_per_minute, CLOCK),
        streams=streams,
        render_lock=asyncio.Lock(),
        watchers=watchers,
        links=Links(key.get_secret_value().encode() if key else secrets.token_bytes(32)),
        port=port,
    )


@asynccontextmanager
async def _open_library(settings: Settings) -> AsyncIterator[Library]:
    if settings.s3_bucket is None:
        _log.warning("S3_BUCKET is not set: streams work, finished datasets cannot be read")
        yield Library(None, settings.spool_dir)
        return
    async with open_store(settings) as (store, _):
        yield library_on(store, settings)


def library_on(store: ObjectStore, settings: Settings) -> Library:
    """The finished datasets of a store."""
    return Library(store, settings.spool_dir)


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(1024)
        except OSError as error:
            raise UsageError(
                f"{host}:{port} cannot be listened on: {error.strerror}",
                hint="set CLARA_DATASET_PORT or GATEWAY_HOST",
            ) from None
        yield listener
    finally:
        listener.close()


class _Server(uvicorn.Server):
    """Signals are handled by the process, not by the server."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _serve(gateway: Gateway, listener: socket.socket) -> None:
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # A stream that stalled is closed; but closing waits for a client to take what was written.
        stall = int((gateway.settings.gateway_stall_seconds + _CLOSE_SECONDS) * 1000)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, stall)
    config = uvicorn.Config(
        make_app(gateway),
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_FINISH_SECONDS,
    )
    server = _Server(config)
    serving = asyncio.ensure_future(server.serve([listener]))
    try:
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        server.should_exit = True
        await serving
        raise


def _jobs_probe(watch: Watch) -> Probe:
    async def probe() -> str | None:
        return watch.trouble

    return probe
