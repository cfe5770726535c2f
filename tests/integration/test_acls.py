"""The rights that `doctor --print-acls` prints are enough for a whole job, and none of them is too much."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from common.clock import SystemClock
from common.directory import DirectoryStore
from common.errors import BrokerUnavailable
from common.kafka import KafkaBroker, open_kafka
from common.kafka_options import KafkaOptions
from common.layout import CHECKPOINTS, DEAD_LETTERS, EVENTS, JOBS
from common.metrics import Metrics
from common.models import Request
from common.settings import Settings
from consumer.budget import SpoolBudget
from consumer.job import Resources
from consumer.worker import Worker, WorkerParts
from producer.owner import Owner
from producer.parts import ProducerParts
from producer.topics import ensure_system_topics
from shardline.client import Client, JobView
from shardline.gateway.watch import Watch
from shardline.kafka_admin import acls_json
from shardline.sample import write_sample
from shardline.wiring import kafka_options, limits, slots, source_factory
from tests.kafka_rights import Acl, Rights, acls, open_rights
from tests.make import job, sample_job
from tests.secure_kafka import NAMES, SecureKafka, certified, named, tokened
from tests.token_endpoint import TokenEndpoint

CLOCK = SystemClock()


@dataclass
class House:
    """One topic prefix, and each role's own way to the broker."""

    folder: Path
    prefix: str
    rights: Rights
    granted: dict[str, list[Acl]]
    everyone: KafkaBroker
    settings: Settings
    brokers: dict[str, KafkaBroker] = field(default_factory=dict)

    def owner(self) -> Owner:
        """A producer."""
        source = source_factory(self.settings, self.folder, confined=True, remote=None)
        parts = ProducerParts(
            self.brokers["producer"],
            DirectoryStore(self.folder / "store"),
            CLOCK,
            Metrics(),
            source,
            limits(self.settings),
            slots(self.settings),
        )
        return Owner(parts)

    def worker(self) -> Worker:
        """A worker."""
        resources = Resources(self.folder, SpoolBudget(1 << 30), asyncio.Semaphore(4))
        store = DirectoryStore(self.folder / "store")
        return Worker(WorkerParts(self.brokers["worker"], store, CLOCK, Metrics(), resources, 0.2))

    async def seen(self, job_id: str, wanted: Callable[[JobView], bool]) -> JobView:
        """The job as the reader sees it, once it is as wanted."""
        async with (
            asyncio.timeout(60),
            aclosing(Client(self.brokers["reader"], 1).follow(0.1)) as boards,
        ):
            async for board in boards:
                for view in board.jobs():
                    if view.state.spec.job_id == job_id and wanted(view):
                        return view
        raise AssertionError("unreachable")


@asynccontextmanager
async def open_house(folder: Path, secure: SecureKafka, tokens: TokenEndpoint) -> AsyncIterator[House]:
    """All roles, with the rights that are printed, each with another way to say who it is."""
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
    write_sample(folder / "sample.jsonl", 300, broken=True)
    async with AsyncExitStack() as stack:
        rights = await stack.enter_async_context(open_rights(secure.bootstrap))
        await rights.give(acl for found in granted.values() for acl in found)
        everyone = KafkaOptions(secure.bootstrap, prefix=prefix)
        house = House(
            folder,
            prefix,
            rights,
            granted,
            await stack.enter_async_context(open_kafka(everyone)),
            who["producer"],
        )
        for role in NAMES:
            house.brokers[role] = await stack.enter_async_context(open_kafka(kafka_options(who[role])))
        yield house


@asynccontextmanager
async def at_work(*processes: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Run these meanwhile."""
    tasks = [asyncio.ensure_future(process()) for process in processes]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_whole_job_needs_no_more(tmp_path: Path, secure: SecureKafka, tokens: TokenEndpoint) -> None:
    async with open_house(tmp_path, secure, tokens) as house:
        await ensure_system_topics(house.brokers["producer"], 1)
        watch = Watch(house.brokers["gateway"], 1, CLOCK)
        async with at_work(house.owner().run, house.worker().run, watch.run):
            spec = job(**sample_job("whole"))
            await Client(house.brokers["submitter"], 1).submit(spec)
            view = await house.seen("whole", lambda view: not view.state.active)
            assert view.state.state == "completed", view.to_json()
            assert view.progress.chained == view.state.produced > 300
            async with asyncio.timeout(30):
                while watch.trouble is not None:
                    await watch.changed()
            await watch.submit(job(**sample_job("over-http")))
            await house.seen("over-http", lambda view: view.state.state == "completed")
            assert len(await Client(house.everyone, 1).letters()) > 0
            await Client(house.brokers["submitter"], 1).request(Request(job_id="whole", action="delete"))
            await Client(house.brokers["submitter"], 1).request(Request(job_id="over-http", action="delete"))
            for job_id in ("whole", "over-http"):
                await house.seen(job_id, lambda view: view.state.state == "deleted")
        assert await Client(house.everyone, 1).letters() == {}
        assert sorted(await house.everyone.topics()) == sorted([JOBS, CHECKPOINTS, EVENTS, DEAD_LETTERS])


Step = Callable[[House], Awaitable[object]]


async def look(house: House) -> None:
    await Client(house.brokers["reader"], 1).board()


async def submit(house: House) -> None:
    await Client(house.brokers["submitter"], 1).submit(job(**sample_job(f"s-{secrets.token_hex(4)}")))


async def watch(house: House) -> None:
    watched = Watch(house.brokers["gateway"], 1, CLOCK)
    async with at_work(watched.run), asyncio.timeout(20):
        while (trouble := watched.trouble) is not None:
            if "does not allow" in trouble:
                raise BrokerUnavailable(trouble)
            await asyncio.sleep(0.02)
        await watched.submit(job(**sample_job(f"g-{secrets.token_hex(4)}")))


@pytest.mark.parametrize(("role", "step"), [("reader", look), ("submitter", submit), ("gateway", watch)])
async def test_a_client_needs_each_of_its_rights(
    tmp_path: Path, secure: SecureKafka, tokens: TokenEndpoint, role: str, step: Step
) -> None:
    async with open_house(tmp_path, secure, tokens) as house:
        await ensure_system_topics(house.everyone, 1)
        await step(house)
        for acl in house.granted[role]:
            await house.rights.take(acl)
            with pytest.raises(BrokerUnavailable, match="does not allow"):
                await step(house)
            await house.rights.give([acl])
        await step(house)
