"""The checks of `doctor`: one for each part of the installation, with a sentence about the result."""

import os
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from shardline.services.kafka_probe import probe_transaction
from shardline.services.processes import AUTO_CREATE
from shardline.services.report import report_all, unexpected
from shardline.services.store_check import check_store
from shardline.services.units import format_size
from shardline.services.wiring.broker import open_broker
from shardline.services.wiring.sources import open_themis_client
from shardline.services.wiring.uds3 import probes, uds3_stores
from shardline.services.wiring.webhook import check_webhook
from shardline_common.errors import ShardlineError, UsageError, explain
from shardline_common.job.names import CHECKPOINTS, JOBS
from shardline_common.job.spec import JobSpec
from shardline_common.kafka.broker import KafkaBroker
from shardline_common.settings.load import Settings
from shardline_producer.sources.themis.client import display_url
from shardline_producer.sources.themis.indexes import check_server, create_indexes, required_indexes


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check. `ok` is None when the part is not configured and was not checked."""

    name: str
    ok: bool | None
    found: str

    def row(self) -> tuple[str, str, str]:
        """Return the check as a row of `doctor`'s table."""
        status = {True: "ok", False: "FAILED", None: "-"}[self.ok]
        return (self.name, status, self.found)

    def to_json(self) -> dict[str, Any]:
        """Return the check as `doctor --json` prints it."""
        return asdict(self)


async def run_checks(settings: Settings) -> list[Check]:
    """Run every check. A check that fails does not stop the others."""
    checks_by_name: list[tuple[str, Callable[[Settings], Awaitable[str]]]] = [
        ("kafka", _kafka),
        ("object store", check_store),
        ("spool folder", _spool),
        ("files", _files),
        ("postgresql", _postgres),
        ("themisdb", _themis),
        ("webhook", check_webhook),
    ]
    checks = []
    for name, check in checks_by_name:
        if (missing := _not_configured(name, settings)) is not None:
            checks.append(Check(name, None, missing))
            continue
        checks.append(await _run_check(name, partial(check, settings)))
    try:
        found = probes(settings)
    except ShardlineError as error:
        return [*checks, Check("uds3", False, explain(error))]
    for probe in found:
        unconfigured = Check(probe.name, None, probe.missing)
        checks.append(await _run_check(probe.name, probe.check) if probe.check else unconfigured)
    return checks


async def _run_check(name: str, check: Callable[[], Awaitable[str]]) -> Check:
    try:
        return Check(name, True, await check())
    except ShardlineError as error:
        return Check(name, False, explain(error))
    except Exception as error:  # noqa: BLE001 - whatever a client raises, the other checks are shown
        return Check(name, False, explain(unexpected(error)))


def _not_configured(name: str, settings: Settings) -> str | None:
    if name == "object store" and settings.s3_bucket is None:
        return "S3_BUCKET is not set; `run` can write to a directory"
    if name == "postgresql" and settings.postgres_host is None:
        return "POSTGRES_HOST is not set"
    if name == "themisdb" and settings.themis_url is None:
        return "THEMIS_URL is not set"
    if name == "webhook" and settings.webhook_url is None:
        return "SHARDLINE_WEBHOOK_URL is not set"
    return None


async def _files(settings: Settings) -> str:
    folder = settings.files_root.absolute()
    try:
        with os.scandir(folder) as found:
            count = sum(1 for _ in found)
    except OSError as error:
        raise ShardlineError(f"{folder} cannot be read: {error.strerror}", hint="set FILES_ROOT") from None
    remote = settings.aws_endpoint_url_s3 or settings.aws_region or "the AWS configuration"
    return f"{folder} holds {count:,} files and folders; s3:// is read by {remote}"


async def _themis(settings: Settings) -> str:
    async with open_themis_client(settings) as client:
        return f"{display_url(settings.themis_url or '')}: {await check_server(client)}"


async def create_themis_indexes(settings: Settings, spec: JobSpec) -> list[str]:
    """Create the indexes that a job over ThemisDB needs. Returns a sentence for each of them.

    Raises:
        UsageError: the job does not read ThemisDB.
        JobFailed: THEMIS_URL is not set.
    """
    if spec.source.type != "themis":
        raise UsageError(f"the job reads '{spec.source.type}', not ThemisDB")
    async with open_themis_client(settings) as client:
        indexes = required_indexes(spec.source, spec.query)
        return await create_indexes(client, spec.source.table, indexes)


async def _postgres(settings: Settings) -> str:
    postgres = uds3_stores(settings).postgres
    return await postgres.check() if postgres else ""


def _quick(settings: Settings) -> Settings:
    return settings.model_copy(
        update={"kafka_request_timeout_ms": min(5000, settings.kafka_request_timeout_ms)}
    )


async def _kafka(settings: Settings) -> str:
    async with open_broker(_quick(settings)) as broker:

        async def listeners() -> str:
            addresses = await broker.check_listeners()
            await broker.check()
            where = f"{len(addresses)} of its brokers at the addresses that they advertise"
            return f"{settings.kafka_bootstrap_servers} answers, and {where} ({', '.join(addresses)})"

        async def transaction() -> str:
            # Kafka does not say which value it refuses, and does not answer at all without a coordinator.
            await broker.check_transactions()
            return await probe_transaction(broker, settings.topic_limit_bytes)

        # The other steps would fail at the same address, each in words of its own.
        found = await listeners()
        rest = (lambda: _topics(broker), transaction, lambda: _auto_creation(broker))
        return await report_all((partial(_found, found), *rest))


async def _found(text: str) -> str:
    return text


async def _topics(broker: KafkaBroker) -> str:
    jobs, checkpoints = await broker.partitions(JOBS), await broker.partitions(CHECKPOINTS)
    if jobs and checkpoints and jobs != checkpoints:
        raise ShardlineError(
            f"{JOBS} and {CHECKPOINTS} differ in their number of partitions",
            hint="add partitions to the smaller one",
        )
    return f"{JOBS} has {jobs} partitions" if jobs else f"{JOBS} will be created by the first producer"


async def _auto_creation(broker: KafkaBroker) -> str:
    found = await broker.auto_creates_topics()
    if found is None:
        return "this user may not read whether auto.create.topics.enable is false"
    return f"warning: {AUTO_CREATE}" if found else "auto.create.topics.enable is false"


async def _spool(settings: Settings) -> str:
    folder = settings.spool_dir
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ShardlineError(f"{folder} is no writable folder", hint="set SHARDLINE_SPOOL_DIR")
    free = shutil.disk_usage(folder).free
    if free < settings.spool_bytes:
        raise ShardlineError(
            f"{folder} has {format_size(free)} free, "
            f"SHARDLINE_SPOOL_BYTES is {format_size(settings.spool_bytes)}",
            hint="lower SHARDLINE_SPOOL_BYTES or set SHARDLINE_SPOOL_DIR",
        )
    return f"{folder} has {format_size(free)} free, {format_size(settings.spool_bytes)} may be used"
