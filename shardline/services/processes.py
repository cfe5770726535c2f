"""The long-running processes, put together."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from shardline.services.webhook_setup import open_receiver
from shardline.services.wiring import CLOCK, open_broker, open_store, producer_policy, slots, source_factory
from shardline_common.errors import BrokerUnavailable
from shardline_common.kafka.broker import KafkaBroker
from shardline_common.ports.broker import Broker
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.retry import longest_failing, retry_forever
from shardline_common.runtime.tasks import leaf_errors
from shardline_common.settings.load import Settings
from shardline_common.storage.probe import probe_create_only
from shardline_common.telemetry.health import Probe, serve_health
from shardline_common.telemetry.metrics import Metrics
from shardline_consumer.context import WorkerContext
from shardline_consumer.spool.budget import SpoolBudget
from shardline_consumer.spool.folder import spool_folder, spool_limit, watch_spool
from shardline_consumer.worker import Worker
from shardline_producer.context import ProducerContext
from shardline_producer.coordinator import JobCoordinator
from shardline_producer.topics import ensure_system_topics

_log = logging.getLogger(__name__)
AUTO_CREATE = (
    "auto.create.topics.enable is true: a client with old metadata may bring a deleted topic back; "
    "set it to false on the brokers"
)


async def serve_producer(settings: Settings) -> None:
    """Run a producer until cancelled.

    Raises:
        UsageError: a setting is wrong, or the store does not honour create-only puts.
    """
    metrics = Metrics()
    async with (
        open_receiver(settings, metrics) as receiver,
        open_broker(settings) as broker,
        open_store(settings) as (store, client),
    ):
        parts = ProducerContext(
            broker=broker,
            store=store,
            clock=CLOCK,
            metrics=metrics,
            open_source=source_factory(settings, settings.files_root, confined=True, remote=client),
            policy=producer_policy(settings),
            slots=slots(settings),
            receiver=receiver,
        )
        owner = JobCoordinator(parts)
        await _serve(settings, metrics, broker, store, owner.run, owner.ready)


async def serve_worker(settings: Settings) -> None:
    """Run a worker until cancelled.

    Raises:
        UsageError: a setting is wrong, or the store does not honour create-only puts.
        SpoolError: the spool folder cannot be written.
    """
    metrics = Metrics()
    with spool_folder(settings.spool_dir) as folder:
        limit = spool_limit(settings.spool_dir, settings.spool_bytes, settings.spool_reserve_bytes)
        watch_spool(metrics, folder, limit)
        async with open_broker(settings) as broker, open_store(settings) as (store, _):
            context = WorkerContext(
                broker=broker,
                store=store,
                clock=CLOCK,
                metrics=metrics,
                spool=folder,
                budget=SpoolBudget(limit),
                uploads=asyncio.Semaphore(settings.uploads),
                keep_originals=settings.dead_letter_originals,
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
) -> None:
    started = asyncio.Event()
    probes: dict[str, Probe] = {
        "kafka": _kafka_probe(broker),
        "store": _started_probe(started),
        "joined": _joined_probe(joined),
        "progress": _progress_probe(settings.stuck_seconds),
    }
    async with serve_health(metrics, probes, settings.metrics_host, settings.metrics_port) as port:
        _log.info("serving /metrics, /healthz and /readyz on port %d", port)
        await retry_forever(lambda: probe_create_only(store), CLOCK, "probe the store")
        started.set()
        await retry_forever(
            lambda: ensure_system_topics(broker, settings.jobs_partitions), CLOCK, "look for the topics"
        )
        await warn_of_brokers(broker)
        with leaf_errors():
            await work()


async def warn_of_brokers(broker: KafkaBroker) -> None:
    """Say at the start what is better not so."""
    with suppress(BrokerUnavailable):
        if await broker.creates_topics_by_itself():
            _log.warning("%s", AUTO_CREATE)


def _kafka_probe(broker: Broker) -> Probe:
    async def probe() -> str | None:
        await broker.check()
        return None

    return probe


def _started_probe(started: asyncio.Event) -> Probe:
    async def probe() -> str | None:
        return None if started.is_set() else "the object store has not answered yet"

    return probe


def _progress_probe(limit: float) -> Probe:
    async def probe() -> str | None:
        vain = longest_failing(CLOCK)
        if vain is None or vain[1] < limit:
            return None
        return f"tried in vain for {vain[1]:.0f} s: {vain[0]}"

    return probe


def _joined_probe(joined: asyncio.Event) -> Probe:
    async def probe() -> str | None:
        return None if joined.is_set() else "the jobs have not been read yet"

    return probe
