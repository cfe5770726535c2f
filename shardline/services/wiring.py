"""From settings to adapters: the one place where they meet."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

from pydantic import SecretStr

from shardline.services.store_adapters import body_stores, embedding_options, rankers
from shardline_common.errors import FailureCode, JobFailed, SourceUnavailable, UsageError
from shardline_common.job.spec import JobSpec, SearchType
from shardline_common.kafka.broker import KafkaBroker, open_kafka
from shardline_common.kafka.oauth import ClientCredentials, OAuthOptions
from shardline_common.kafka.options import KafkaOptions
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.clock import SystemClock
from shardline_common.settings.load import Settings
from shardline_common.storage.directory import DirectoryStore
from shardline_common.storage.s3 import S3Client, S3Options, S3Store, open_s3
from shardline_common.telemetry.tracing import use
from shardline_producer.context import Pace, ProducerPolicy
from shardline_producer.sources.files.file_locations import LocalFiles, S3Files
from shardline_producer.sources.files.jsonl_files import JsonLinesFiles
from shardline_producer.sources.planned import PlannedSource, PlannedStore
from shardline_producer.sources.source import OpenSource, PlanPages, Source
from shardline_producer.sources.themis.client import ThemisClient, ThemisOptions, open_themis
from shardline_producer.sources.themis.limiter import RateLimiter
from shardline_producer.sources.themis.planned_store import ThemisTable
from shardline_producer.sources.uds3.embedding.factory import make_embedder
from shardline_producer.sources.uds3.planned_store import ConfiguredStores, Uds3Store
from shardline_producer.sources.uds3.postgres.connection import Postgres, PostgresOptions

CLOCK = SystemClock()


def kafka_options(settings: Settings) -> KafkaOptions:
    """Settings of the broker."""
    return KafkaOptions(
        bootstrap_servers=settings.kafka_bootstrap_servers,
        prefix=settings.kafka_topic_prefix,
        client_id=f"shardline-{os.getpid()}",
        security_protocol=settings.kafka_security_protocol,
        sasl_mechanism=settings.kafka_sasl_mechanism,
        sasl_username=settings.kafka_sasl_username,
        sasl_password=_revealed(settings.kafka_sasl_password),
        tokens=_kafka_tokens(settings),
        ssl_cafile=settings.kafka_ssl_cafile,
        ssl_certfile=settings.kafka_ssl_certfile,
        ssl_keyfile=settings.kafka_ssl_keyfile,
        ssl_key_password=_revealed(settings.kafka_ssl_key_password),
        replication_factor=settings.kafka_replication_factor,
        compression=None if settings.kafka_compression == "none" else settings.kafka_compression,
        session_timeout_ms=settings.kafka_session_timeout_ms,
        max_poll_interval_ms=settings.kafka_max_poll_interval_ms,
        request_timeout_ms=settings.kafka_request_timeout_ms,
        transaction_timeout_ms=settings.kafka_transaction_timeout_ms,
    )


def _revealed(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None


def _kafka_tokens(settings: Settings) -> ClientCredentials | None:
    url, client = settings.kafka_sasl_oauthbearer_token_url, settings.kafka_sasl_oauthbearer_client_id
    secret = _revealed(settings.kafka_sasl_oauthbearer_client_secret)
    if settings.kafka_sasl_mechanism != "OAUTHBEARER" or not (url and client and secret):
        return None
    scope, ca_file = settings.kafka_sasl_oauthbearer_scope, settings.kafka_sasl_oauthbearer_cafile
    return ClientCredentials(OAuthOptions(url, client, secret, scope, ca_file))


def s3_options(settings: Settings, bucket: str | None = None) -> S3Options:
    """Settings of the store.

    Raises:
        UsageError: no bucket is set, or a key of KMS without encryption by it.
    """
    bucket = bucket or settings.s3_bucket
    if not bucket:
        raise UsageError("no bucket is set", hint="set S3_BUCKET")
    if settings.s3_kms_key_id and not (settings.s3_encryption or "").startswith("aws:kms"):
        raise UsageError("S3_KMS_KEY_ID is set without S3_ENCRYPTION", hint="set S3_ENCRYPTION to aws:kms")
    secret, token = settings.aws_secret_access_key, settings.aws_session_token
    return S3Options(
        bucket=bucket,
        prefix=settings.s3_prefix,
        endpoint_url=settings.aws_endpoint_url_s3,
        region=settings.aws_region,
        access_key_id=settings.aws_access_key_id,
        secret_access_key=secret.get_secret_value() if secret else None,
        session_token=token.get_secret_value() if token else None,
        addressing_style=settings.s3_addressing_style,
        ca_bundle=settings.aws_ca_bundle,
        encryption=settings.s3_encryption,
        kms_key_id=settings.s3_kms_key_id,
        read_timeout=settings.s3_timeout_seconds,
    )


def open_broker(settings: Settings) -> AbstractAsyncContextManager[KafkaBroker]:
    """Kafka."""
    return open_kafka(kafka_options(settings))


@asynccontextmanager
async def open_store(settings: Settings) -> AsyncIterator[tuple[ObjectStore, S3Client]]:
    """The bucket of datasets, and the client beside it for sources."""
    options = s3_options(settings)
    async with open_s3(options) as client:
        yield S3Store(client, options.bucket, options.prefix), client


@asynccontextmanager
async def open_place(uri: str, settings: Settings) -> AsyncIterator[ObjectStore]:
    """The store that a URI names: a directory, or s3://bucket/prefix."""
    if not uri.startswith("s3://"):
        yield DirectoryStore(Path(uri))
        return
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    options = replace(s3_options(settings, bucket), prefix=prefix)
    async with open_s3(options) as client:
        yield S3Store(client, bucket, prefix)


@asynccontextmanager
async def open_reader(settings: Settings) -> AsyncIterator[S3Client | None]:
    """A client for sources on S3, where one is configured."""
    if settings.aws_endpoint_url_s3 is None and settings.aws_region is None:
        yield None
        return
    async with open_s3(s3_options(settings, settings.s3_bucket or "any")) as client:
        yield client


def source_factory(settings: Settings, root: Path, *, confined: bool, remote: S3Client | None) -> OpenSource:
    """Opens the source of a job; relative paths of files are below `root`."""
    local = LocalFiles(root.absolute(), confined)
    places = S3Files(remote) if remote is not None else None
    # One for all jobs: ThemisDB counts the requests of a user.
    limiter = RateLimiter(settings.themis_rate, CLOCK)

    def open_source(spec: JobSpec, parts: PlanPages) -> Source:
        if spec.source.type == "files":
            return JsonLinesFiles(spec, local, places)
        store: PlannedStore
        if spec.source.type == "themis":
            store = ThemisTable(spec, spec.source, themis_options(settings), limiter, CLOCK)
        else:
            store = Uds3Store(spec, uds3_stores(settings, spec.source.hops))
        return PlannedSource(spec, store, parts)

    return open_source


@asynccontextmanager
async def open_themis_client(settings: Settings) -> AsyncIterator[ThemisClient]:
    """ThemisDB, for `doctor`.

    Raises:
        JobFailed: its address is not set.
    """
    async with open_themis(
        themis_options(settings), RateLimiter(settings.themis_rate, CLOCK), CLOCK
    ) as client:
        yield client


def themis_options(settings: Settings) -> ThemisOptions:
    """Settings of ThemisDB.

    Raises:
        JobFailed: its address is not set.
    """
    if settings.themis_url is None:
        raise JobFailed(
            FailureCode.SOURCE_INVALID,
            "the source 'themis' is not set up in this process",
            hint="set THEMIS_URL and THEMIS_TOKEN",
        )
    token = settings.themis_token
    return ThemisOptions(
        url=settings.themis_url,
        token=token.get_secret_value() if token else None,
        ca_bundle=settings.themis_ca_bundle,
        timeout=settings.themis_timeout_seconds,
        connections=settings.themis_connections,
        page=settings.themis_page,
    )


def uds3_stores(settings: Settings, hops: int = 0) -> ConfiguredStores:
    """UDS3's stores, as far as they are configured."""
    embed = make_embedder(embedding_options(settings))
    return ConfiguredStores(
        postgres=_postgres(settings),
        rankers=rankers(settings, embed, hops),
        body_stores=body_stores(settings),
        include_archived=settings.uds3_include_archived,
        model_identity=lambda: embed.identity,
    )


def _postgres(settings: Settings) -> Postgres | None:
    if settings.postgres_host is None:
        return None
    password = settings.postgres_password
    return Postgres(
        PostgresOptions(
            host=settings.postgres_host,
            port=settings.postgres_port,
            user=settings.postgres_user,
            password=password.get_secret_value() if password else None,
            database=settings.postgres_database,
            schema=settings.postgres_schema,
            table=settings.postgres_table,
            sslmode=settings.postgres_sslmode,
            sslrootcert=settings.postgres_sslrootcert,
            statement_seconds=settings.postgres_timeout_seconds,
        )
    )


@contextmanager
def traced(settings: Settings, process: str) -> Iterator[None]:
    """Make spans for as long as the context lasts, where a collector is set.

    Raises:
        UsageError: OpenTelemetry is not installed, or cannot speak the collector's protocol.
    """
    url = settings.otel_traces_endpoint
    if url is None and settings.otel_endpoint is not None:
        url = settings.otel_endpoint.rstrip("/") + "/v1/traces"
    if url is None or settings.otel_disabled or "otlp" not in settings.otel_exporter.split(","):
        yield
        return
    if settings.otel_protocol != "http/protobuf":
        hint = "set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, and the collector's port for it (4318)"
        raise UsageError(f"spans cannot be sent by {settings.otel_protocol}", hint=hint)
    try:
        from shardline_common.telemetry.otel import OtelOptions, open_otel  # noqa: PLC0415 - an extra, and only when asked for
    except ModuleNotFoundError as error:
        raise UsageError(
            f"a collector of traces is set, but OpenTelemetry is not installed ({error.name} is missing)",
            hint="install Shardline's extra 'otel', or set OTEL_SDK_DISABLED=true",
        ) from None
    headers = settings.otel_headers
    options = OtelOptions(
        url=url,
        service=settings.otel_service_name or f"shardline-{process}",
        headers=headers.get_secret_value() if headers else "",
    )
    with open_otel(options) as tracer, use(tracer):
        yield


def uds3_configured(settings: Settings) -> bool:
    """Whether any store of UDS3 is set up."""
    stores = uds3_stores(settings)
    return settings.uds3_enabled and (stores.postgres is not None or bool(stores.rankers))


def uds3_searches(settings: Settings) -> frozenset[SearchType]:
    """The searches that a store is configured for."""
    stores = uds3_stores(settings)
    keyword: frozenset[SearchType] = frozenset({"keyword"} if stores.postgres is not None else ())
    return keyword | frozenset(stores.rankers)


def uds3_probe(settings: Settings) -> Callable[[], Awaitable[None]]:
    """Tries whether UDS3 answers; raises a ShardlineError when it does not.

    PostgreSQL decides where it is configured: without it nothing is read.
    """
    stores = uds3_stores(settings)

    async def probe() -> None:
        if stores.postgres is not None:
            async with stores.postgres.connect():
                return
        if not stores.rankers:
            raise SourceUnavailable("no store of UDS3 is configured", hint="set POSTGRES_HOST")
        for ranker in stores.rankers.values():
            await ranker.check()

    return probe


def producer_policy(settings: Settings) -> ProducerPolicy:
    """The policy of a producer."""
    return ProducerPolicy(
        topic_bytes=settings.topic_limit_bytes,
        topic_grace=settings.topic_grace_seconds,
        progress_seconds=settings.progress_seconds,
        catch_up_seconds=2 * settings.kafka_transaction_timeout_ms / 1000,
        sweep_seconds=settings.sweep_seconds,
        source_seconds=settings.source_patience_seconds,
        pace=Pace(settings.source_rate),
    )


def slots(settings: Settings) -> asyncio.Semaphore:
    """As many jobs as a producer runs at once."""
    return asyncio.Semaphore(settings.max_jobs)
