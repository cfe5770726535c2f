"""Producer, worker and clients in one process, each with its own user and rights at a secured broker."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shardline.services.client import Client
from shardline.services.job_view import JobView
from shardline.services.kafka_admin import acls_json
from shardline.services.sample import write_sample
from shardline.services.wiring.broker import kafka_options
from shardline.services.wiring.producer import job_slots, producer_policy
from shardline.services.wiring.sources import source_factory
from shardline_common.kafka.broker import KafkaBroker, open_kafka
from shardline_common.kafka.options import KafkaOptions
from shardline_common.runtime.clock import SystemClock
from shardline_common.settings.load import Settings
from shardline_common.storage.directory import DirectoryStore
from shardline_common.telemetry.metrics import Metrics
from shardline_consumer.worker import Worker
from shardline_producer.context import ProducerContext
from shardline_producer.coordinator import JobCoordinator
from tests.make import worker_context
from tests.support.kafka_rights import Acl, Rights, acls, open_rights
from tests.support.secure_kafka import NAMES, SecureKafka, certified, named, tokened
from tests.support.token_endpoint import TokenEndpoint

CLOCK = SystemClock()


@dataclass
class SecuredSystem:
    """One topic prefix, and a connection to the broker for each role."""

    folder: Path
    prefix: str
    rights: Rights
    granted: dict[str, list[Acl]]
    everyone: KafkaBroker
    settings: Settings
    brokers: dict[str, KafkaBroker] = field(default_factory=dict)

    def owner(self) -> JobCoordinator:
        """Create a producer."""
        source = source_factory(self.settings, self.folder, confined=True, remote=None)
        parts = ProducerContext(
            self.brokers["producer"],
            DirectoryStore(self.folder / "store"),
            CLOCK,
            Metrics(),
            source,
            producer_policy(self.settings),
            job_slots(self.settings),
        )
        return JobCoordinator(parts)

    def worker(self) -> Worker:
        """Create a worker."""
        return Worker(
            worker_context(self.brokers["worker"], DirectoryStore(self.folder / "store"), self.folder)
        )

    async def seen(self, job_id: str, wanted: Callable[[JobView], bool]) -> JobView:
        """The job in the reader's table, once it satisfies `wanted`."""
        async with (
            asyncio.timeout(60),
            aclosing(Client(self.brokers["reader"], 1).follow(0.1)) as tables,
        ):
            async for table in tables:
                for view in table.jobs():
                    if view.state.spec.job_id == job_id and wanted(view):
                        return view
        raise AssertionError("unreachable")


@asynccontextmanager
async def open_secured_system(
    folder: Path, secure: SecureKafka, tokens: TokenEndpoint, documents: int = 300
) -> AsyncIterator[SecuredSystem]:
    """All roles with the printed rights; each authenticates in another way."""
    prefix = f"{secrets.token_hex(4)}."
    common: dict[str, Any] = {
        "kafka_topic_prefix": prefix,
        "jobs_partitions": 1,
        "progress_seconds": 0.2,
        "topic_grace_seconds": 0.0,
        "files_root": folder,
    }
    who = {
        "producer": named(secure, "producer", "SCRAM-SHA-512", **common),
        "worker": certified(secure, "worker", **common),
        "gateway": tokened(secure, tokens, "gateway", **common),
        "submitter": named(secure, "submitter", "PLAIN", **common),
        "reader": named(secure, "reader", "SCRAM-SHA-256", **common),
    }
    granted = {role: acls(found, f"User:{role}") for role, found in acls_json(prefix).items()}
    write_sample(folder / "sample.jsonl", documents, broken=True)
    async with AsyncExitStack() as stack:
        rights = await stack.enter_async_context(open_rights(secure.bootstrap))
        await rights.give(acl for found in granted.values() for acl in found)
        everyone = KafkaOptions(secure.bootstrap, prefix=prefix)
        system = SecuredSystem(
            folder,
            prefix,
            rights,
            granted,
            await stack.enter_async_context(open_kafka(everyone)),
            who["producer"],
        )
        for role in NAMES:
            system.brokers[role] = await stack.enter_async_context(open_kafka(kafka_options(who[role])))
        yield system


@asynccontextmanager
async def at_work(*processes: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Run processes in the background."""
    tasks = [asyncio.ensure_future(process()) for process in processes]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
