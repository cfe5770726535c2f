"""The long-running processes producer and worker: adapters, health probes, start and work."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

from shardline.services.wiring import CLOCK
from shardline.services.wiring.broker import open_broker
from shardline.services.wiring.filter_files import file_fetcher
from shardline.services.wiring.producer import job_slots, producer_policy
from shardline.services.wiring.signing import dataset_signer
from shardline.services.wiring.sources import source_factory
from shardline.services.wiring.stores import dataset_opener, open_store
from shardline.services.wiring.webhook import open_receiver
from shardline_common.errors import BrokerRefused, BrokerUnavailable, explain
from shardline_common.kafka.broker import KafkaBroker
from shardline_common.ports.broker import Broker
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.allocator import keep_freed_memory
from shardline_common.runtime.cores import cores_for
from shardline_common.runtime.durations import seconds_text
from shardline_common.runtime.retry import longest_failing, retry_forever
from shardline_common.runtime.tasks import leaf_errors
from shardline_common.runtime.waits import LoggedSemaphore
from shardline_common.settings.load import Settings
from shardline_common.storage.probe import probe_once_a_day
from shardline_common.telemetry.health import Probe, serve_health
from shardline_common.telemetry.metrics import Metrics
from shardline_consumer.context import WorkerContext
from shardline_consumer.spool.budget import SpoolBudget
from shardline_consumer.spool.folder import register_spool_gauges, spool_folder, spool_limit
from shardline_consumer.worker import Worker
from shardline_producer.context import ProducerContext
from shardline_producer.coordinator import JobCoordinator
from shardline_producer.topics import ensure_system_topics

_log = logging.getLogger(__name__)
_KAFKA_SECONDS = 30.0
AUTO_CREATE = (
    "auto.create.topics.enable is true: a client with old metadata may create a deleted topic again; "
    "set it to false on the brokers"
)


async def serve_producer(settings: Settings) -> None:
    """Run a producer until the task is cancelled.

    Raises:
        UsageError: a setting is wrong, or the store does not honour create-only puts.
    """
    metrics = Metrics()
    async with (
        open_receiver(settings, metrics) as receiver,
        open_broker(settings) as broker,
        open_store(settings) as (store, client),
    ):
        context = ProducerContext(
            broker=broker,
            store=store,
            clock=CLOCK,
            metrics=metrics,
            open_source=source_factory(settings, settings.files_root, confined=True, remote=client),
            policy=producer_policy(settings),
            slots=job_slots(settings),
            receiver=receiver,
            sign=dataset_signer(settings),
            open_dataset=dataset_opener(settings, folders=False),
            fetch_file=file_fetcher(settings.files_root, confined=True, remote=client),
        )
        coordinator = JobCoordinator(context)
        await _serve(settings, metrics, broker, store, coordinator.run, coordinator.ready, writes=True)


async def serve_worker(settings: Settings) -> None:
    """Run a worker until the task is cancelled.

    Raises:
        UsageError: a setting is wrong, or the store does not honour create-only puts.
        SpoolError: the spool folder cannot be written.
    """
    metrics = Metrics()
    with spool_folder(settings.spool_dir) as folder:
        limit = spool_limit(settings.spool_dir, settings.spool_bytes, settings.spool_reserve_bytes)
        register_spool_gauges(metrics, folder, limit)
        async with open_broker(settings) as broker, open_store(settings) as (store, client):
            context = WorkerContext(
                broker=broker,
                store=store,
                clock=CLOCK,
                metrics=metrics,
                spool=folder,
                budget=SpoolBudget(limit),
                uploads=LoggedSemaphore(settings.uploads, "an upload to end (SHARDLINE_UPLOADS)"),
                decide_memory=settings.decide_memory_bytes,
                decide_threads=cores_for(settings.processes),
                keep_originals=settings.dead_letter_originals,
                sign=dataset_signer(settings),
                open_dataset=dataset_opener(settings, folders=False),
                fetch_file=file_fetcher(settings.files_root, confined=True, remote=client),
            )
            worker = Worker(context)
            await _serve(settings, metrics, broker, store, worker.run, worker.ready)


async def _serve(
    settings: Settings,
    metrics: Metrics,
    broker: KafkaBroker,
    store: ObjectStore,
    work: Callable[[], Awaitable[None]],
    joined: asyncio.Event,
    *,
    writes: bool = False,
) -> None:
    """Serve metrics and health, wait for the store and the topics, then run `work` until it is cancelled."""
    keep_freed_memory()
    probed = asyncio.Event()
    metrics.follow_failing(broker.failing_seconds)

    async def progress() -> str | None:
        failing = longest_failing(CLOCK)
        if failing is None or failing.seconds < settings.stuck_seconds:
            return None
        return f"failing for {seconds_text(failing.seconds)}: {failing.what}: {failing.reason}"

    probes: dict[str, Probe] = {
        "kafka": kafka_probe(broker, settings),
        "store": _event_probe(probed, "the object store has not answered yet"),
        "joined": _event_probe(joined, "the jobs have not been read yet"),
        "progress": progress,
    }
    async with serve_health(metrics, probes, settings.metrics_host, settings.metrics_port) as port:
        _log.info("serving /metrics, /healthz and /readyz on port %d", port)
        probe = partial(probe_once_a_day, store, settings.aws_endpoint_url_s3, CLOCK)
        await retry_forever(probe, CLOCK, "probe the store")
        probed.set()
        await retry_forever(
            lambda: ensure_system_topics(broker, settings.jobs_partitions), CLOCK, "create the system topics"
        )
        await warn_if_auto_create(broker)
        if writes:
            await log_transaction_fault(broker)
        with leaf_errors():
            await work()


def kafka_probe(broker: Broker, settings: Settings) -> Probe:
    """A probe that fails while Kafka does not answer, and when it refuses an operation for 30 seconds.

    With a shorter `stuck_seconds`, it fails after these.
    """

    async def probe() -> str | None:
        if (refused := broker.failing(min(_KAFKA_SECONDS, settings.stuck_seconds))) is not None:
            return refused
        await broker.check()
        return None

    return probe


def _event_probe(event: asyncio.Event, missing: str) -> Probe:
    async def probe() -> str | None:
        return None if event.is_set() else missing

    return probe


async def log_transaction_fault(broker: KafkaBroker) -> None:
    """Log at once why no job can run, if the brokers' settings show it: else the first job would."""
    try:
        await broker.check_transactions()
    except BrokerRefused as error:
        _log.error("no job can run: %s", explain(error))
    except BrokerUnavailable as error:
        _log.debug("the brokers' settings for transactions are not known: %s", error)


async def warn_if_auto_create(broker: KafkaBroker) -> None:
    """Log a warning if auto.create.topics.enable is true on the brokers."""
    with suppress(BrokerUnavailable):
        if await broker.auto_creates_topics():
            _log.warning("%s", AUTO_CREATE)
