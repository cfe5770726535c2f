"""The gateway as a long-running process."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from shardline.gateway.access_tokens import TokenVerifier
from shardline.gateway.app import make_app
from shardline.gateway.audit import AuditLog
from shardline.gateway.audit_file import AuditLimits
from shardline.gateway.chunked_response import StreamOutcome
from shardline.gateway.connections import ConnectionPolicy
from shardline.gateway.context import GatewayContext
from shardline.gateway.dataset_reader import DatasetReader
from shardline.gateway.http_server import listen_on, raise_file_limit, serve_http
from shardline.gateway.job_policy import JobPolicy
from shardline.gateway.job_watcher import JobWatcher
from shardline.gateway.jwks import JwksCache, jwks_fetcher
from shardline.gateway.progress_texts import ProgressTexts
from shardline.gateway.proxies import trusted_proxies
from shardline.gateway.public_text import PublicTexts
from shardline.gateway.rate_limits import RequestLimits
from shardline.gateway.signed_links import LinkSigner
from shardline.gateway.uds3_status import Uds3Status
from shardline.gateway.users import SecurityPolicy, security_policy
from shardline.services.wiring import CLOCK
from shardline.services.wiring.broker import open_broker
from shardline.services.wiring.sources import source_factory
from shardline.services.wiring.stores import open_source_s3, open_store
from shardline.services.wiring.uds3 import uds3_probe, uds3_searches
from shardline_common.job.spec import SearchType
from shardline_common.ports.broker import Broker
from shardline_common.runtime.task_group import TaskGroup
from shardline_common.runtime.tasks import close_shielded, leaf_errors
from shardline_common.settings.load import Settings
from shardline_common.telemetry.health import serve_health
from shardline_common.telemetry.metrics import Metrics
from shardline_producer.sources.source import OpenSource

_log = logging.getLogger("shardline.gateway")
_JWKS_PATH = "/protocol/openid-connect/certs"
_CLOSE_SECONDS = 30.0
_KAFKA_SECONDS = 30.0
# File descriptors for anything but connections and streams.
_OTHER_FILES = 128


@dataclass(frozen=True, slots=True)
class SourceAccess:
    """The access of streams to sources.

    Attributes:
        open_source: opens the source of a job.
        probe: raises a ShardlineError when UDS3 cannot be reached.
        searches: the searches for which a store is configured.
    """

    open_source: OpenSource
    probe: Callable[[], Awaitable[None]]
    searches: frozenset[SearchType]


async def serve_gateway(settings: Settings) -> None:
    """Run the gateway until cancelled.

    Raises:
        UsageError: a setting is wrong, or the port is in use.
    """
    policy = security_policy(settings)
    async with (
        open_broker(settings) as broker,
        _open_datasets(settings) as datasets,
        open_source_s3(settings, None) as remote,
    ):
        open_source = source_factory(settings, settings.files_root, confined=True, remote=remote)
        access = SourceAccess(open_source, uds3_probe(settings), uds3_searches(settings))
        await run_gateway(settings, policy, broker, datasets, access)


async def run_gateway(
    settings: Settings, policy: SecurityPolicy, broker: Broker, datasets: DatasetReader, access: SourceAccess
) -> None:
    """Run the gateway on these adapters until cancelled.

    1. Listen, so that a port in use is an error before anything else starts.
    2. Serve metrics and health.
    3. Follow the jobs, and serve requests until cancelled.
    """
    for warning in policy.warnings:
        _log.warning("%s", warning)
    connections = _connection_policy(settings)
    jobs = JobWatcher(broker, settings.jobs_partitions, CLOCK)
    with listen_on(policy.host, settings.gateway_port) as listener:
        port: int = listener.getsockname()[1]
        context = _make_context(settings, policy, jobs, datasets, access, port)

        async def probe_jobs() -> str | None:
            return jobs.unavailable_reason

        async def probe_kafka() -> str | None:
            return broker.failing(_KAFKA_SECONDS)

        probes = {"jobs": probe_jobs, "kafka": probe_kafka}
        async with serve_health(
            context.metrics, probes, _metrics_host(settings, policy), settings.metrics_port
        ) as metrics_port:
            _log.info("serving /metrics, /healthz and /readyz on port %d", metrics_port)
            with leaf_errors():
                async with TaskGroup() as tasks:
                    following = tasks.create_task(jobs.run(), name="follow the jobs")
                    _log.info(
                        "serving on http://%s:%d, security mode %s", policy.host, port, settings.security_mode
                    )
                    try:
                        await serve_http(make_app(context), listener, connections)
                    finally:
                        await close_shielded(context.uds3.close)
                        if context.token_verifier is not None:
                            await close_shielded(context.token_verifier.close)
                    following.cancel()


def _metrics_host(settings: Settings, policy: SecurityPolicy) -> str:
    """Return the address of the metrics: without tokens that of the gateway, unless a setting names one."""
    if policy.debug_user is None or "metrics_host" in settings.model_fields_set:
        return settings.metrics_host
    return policy.host


def _make_context(
    settings: Settings,
    policy: SecurityPolicy,
    jobs: JobWatcher,
    datasets: DatasetReader,
    access: SourceAccess,
    port: int,
) -> GatewayContext:
    metrics = Metrics()
    limits_of_log = AuditLimits(settings.gateway_audit_log_bytes, settings.gateway_audit_log_files)
    audit_log = AuditLog(settings.gateway_audit_log, CLOCK, limits_of_log, metrics.acted)
    audit_log.check_writable()
    # A wrong entry is an error at the start, not of the first request.
    JobPolicy.of(settings)
    token_verifier = None
    if policy.debug_user is None:
        token_verifier = TokenVerifier(policy, JwksCache(jwks_fetcher(policy.issuer + _JWKS_PATH), CLOCK))
    limits = RequestLimits.of(settings, CLOCK)
    metrics.begin_streams(StreamOutcome)
    metrics.follow("gateway_streams_open", lambda: limits.row_streams.open, "rows")
    metrics.follow("gateway_streams_open", lambda: limits.event_streams.open, "events")
    key = settings.gateway_link_key
    public = PublicTexts(settings)
    return GatewayContext(
        settings=settings,
        clock=CLOCK,
        metrics=metrics,
        security=policy,
        token_verifier=token_verifier,
        audit_log=audit_log,
        limits=limits,
        link_signer=LinkSigner(key.get_secret_value().encode() if key else secrets.token_bytes(32)),
        jobs=jobs,
        datasets=datasets,
        open_source=access.open_source,
        uds3=Uds3Status(access.probe if settings.uds3_enabled else None, access.searches, CLOCK),
        public=public,
        progress=ProgressTexts(public),
        render_lock=asyncio.Lock(),
        port=port,
    )


def _connection_policy(settings: Settings) -> ConnectionPolicy:
    """Make the limits from the settings and the limit of open files."""
    total, files = settings.gateway_connections, raise_file_limit()
    if files is not None:
        # Streams, stores and Kafka need descriptors too. Without them, a full gateway could serve no request.
        total = min(total, max(8, files - min(files // 2, _OTHER_FILES + settings.gateway_streams)))
    if total < settings.gateway_connections:
        _log.warning("the limit of %d open files leaves room for %d connections only", files, total)
    return ConnectionPolicy(
        total,
        settings.gateway_connections_per_address,
        settings.gateway_header_seconds,
        settings.gateway_body_seconds,
        _CLOSE_SECONDS,
        settings.gateway_stall_seconds + _CLOSE_SECONDS,
        trusted_proxies(settings.gateway_trusted_proxies),
    )


@asynccontextmanager
async def _open_datasets(settings: Settings) -> AsyncIterator[DatasetReader]:
    if settings.s3_bucket is None:
        _log.warning("S3_BUCKET is not set: streams work, datasets in a store cannot be read")
        yield DatasetReader(None, settings.spool_dir)
        return
    async with open_store(settings) as (store, _):
        yield DatasetReader(store, settings.spool_dir)
