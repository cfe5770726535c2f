"""Three brokers, of which some are killed, frozen or behind: jobs go on, and no command fails."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.errors import KafkaError

from deploy.dev.kafka import ClusterNode, cluster_nodes
from deploy.dev.service import ServiceError
from shardline.services.client import Client
from shardline_common.job.names import attempt_topic, transactional_id
from shardline_common.job.spec import JobSpec
from shardline_common.kafka.broker import KafkaBroker, open_kafka
from shardline_common.kafka.options import KafkaOptions
from tests.e2e.system import PARTITIONS, System, running_system
from tests.faults.oracle import SHORT, judge_sample
from tests.sampled import Sampled
from tests.services import S3, refuse_servers, server_folder

# What asyncio and aiokafka say about what nobody has closed or awaited.
LEFT_BEHIND = re.compile(r"Unclosed|was destroyed|never retrieved|never awaited|Unexpected error")
MEMBERSHIP = {"KAFKA_SESSION_TIMEOUT_MS": "6000", "KAFKA_TRANSACTION_TIMEOUT_MS": "10000"}
# A command that waits for a time-out of a request takes longer.
COMMAND_SECONDS = 25.0


@pytest.fixture(scope="session")
def three_brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sequence[ClusterNode]]:
    """A cluster that all tests of this file share. Each of them leaves it whole."""
    refuse_servers()
    nodes = cluster_nodes(server_folder(tmp_path_factory, "cluster"))
    with ExitStack() as stack, ThreadPoolExecutor() as threads:
        for node in nodes:
            stack.callback(node.stop, kill=True)
        try:
            list(threads.map(ClusterNode.start, nodes))
        except ServiceError as error:
            pytest.fail(str(error), pytrace=False)
        yield nodes


def addresses(nodes: Sequence[ClusterNode]) -> str:
    return ",".join(node.bootstrap for node in nodes)


@asynccontextmanager
async def job_at_work(
    folder: Path, nodes: Sequence[ClusterNode], s3: S3, sampled: Sampled, **env: str
) -> AsyncIterator[tuple[System, JobSpec]]:
    """A job that has written segments, with a producer and a worker.

    The coordinator of its transactions is not the first broker, which is the controller.
    """
    async with running_system(
        folder, addresses(nodes), s3, sampled.folder, SHARDLINE_SOURCE_RATE="60", **env
    ) as system:
        specs = [sampled.job(f"sample-{number}") for number in range(50)]
        while await coordinator(system, specs[-1]) == 1:
            specs.pop()
        spec = specs[-1]
        for kind in ("producer", "worker"):
            system.start(kind)
        await system.submit(spec)
        await system.until(spec.job_id, lambda view: view.progress.chained > 0)
        yield system, spec
        assert not [one.log_text() for one in system.processes if LEFT_BEHIND.search(one.log_text())]


async def coordinator(system: System, spec: JobSpec) -> int:
    """The broker that coordinates the transactions of the job."""
    client = AIOKafkaClient(bootstrap_servers=system.kafka)
    await client.bootstrap()
    try:
        key = f"{system.prefix}.{transactional_id(spec.job_id)}"
        while True:
            # The first question makes the topic of the coordinators.
            with suppress(KafkaError):
                return int(await client.coordinator_lookup(CoordinationType.TRANSACTION, key))
            await asyncio.sleep(0.1)
    finally:
        await client.close()


@asynccontextmanager
async def fresh(system: System, servers: str) -> AsyncIterator[KafkaBroker]:
    """What a command opens, with the time-outs of a user."""
    async with (
        asyncio.timeout(COMMAND_SECONDS),
        open_kafka(KafkaOptions(servers, prefix=system.prefix + ".")) as broker,
    ):
        yield broker


async def complete(system: System, sampled: Sampled, *specs: JobSpec) -> None:
    """The jobs end as they would have without a fault."""
    await system.hurry()
    for spec in specs:
        view = await system.finished(spec.job_id)
        assert view.state.state == "completed", view.to_json()
    for spec in specs:
        await judge_sample(system, sampled, spec)


async def goes_on(system: System, spec: JobSpec) -> None:
    """Return when more is produced, and in segments, than now."""
    view = (await system.client.job_table()).job(spec.job_id)
    assert view.state.state == "running", view.to_json()
    produced, chained = view.state.produced, view.progress.chained
    await system.until(
        spec.job_id, lambda view: view.state.produced > produced and view.progress.chained > chained
    )


async def test_a_dead_coordinator_stops_no_job_and_fails_no_command(
    tmp_path: Path, three_brokers: Sequence[ClusterNode], seaweed: S3, sampled: Sampled
) -> None:
    async with job_at_work(tmp_path, three_brokers, seaweed, sampled, **MEMBERSHIP) as (system, spec):
        victim = three_brokers[await coordinator(system, spec) - 1]
        try:
            await asyncio.to_thread(victim.stop, kill=True)
            for _ in range(9):
                async with fresh(system, system.kafka) as broker:
                    (await Client(broker, PARTITIONS).job_table()).job(spec.job_id)
            await goes_on(system, spec)
            for process in system.processes:
                await process.until_ready()
            assert sum(one.log_text().count("joining again") for one in system.processes) <= 2
            await complete(system, sampled, spec)
        finally:
            await asyncio.to_thread(victim.start)


async def test_a_frozen_broker_stops_no_job_and_is_behind_when_it_continues(
    tmp_path: Path, three_brokers: Sequence[ClusterNode], seaweed: S3, sampled: Sampled
) -> None:
    victim = three_brokers[-1]
    async with job_at_work(tmp_path, three_brokers, seaweed, sampled, **MEMBERSHIP) as (system, spec):
        late = sampled.job("late")
        topic = attempt_topic(late.job_id, 1)
        async with open_kafka(KafkaOptions(system.kafka, prefix=system.prefix + ".")) as watching:
            try:
                # A connection to each broker, before one of them is frozen.
                for _ in range(20):
                    await watching.partitions("none")
                victim.pause()
                for _ in range(5):
                    async with fresh(system, addresses([victim, *three_brokers[:-1]])) as broker:
                        (await Client(broker, PARTITIONS).job_table()).job(spec.job_id)
                async with fresh(system, system.kafka) as broker:
                    await Client(broker, PARTITIONS).submit(late)
                await goes_on(system, spec)
                await system.until(late.job_id, lambda view: view.state.produced > 0)
            finally:
                victim.resume()
            for _ in range(200):
                assert await watching.partitions(topic) == late.total_partitions
        await complete(system, sampled, spec, late)


async def test_a_job_waits_while_its_topics_are_below_min_insync_replicas(
    tmp_path: Path, three_brokers: Sequence[ClusterNode], seaweed: S3, sampled: Sampled
) -> None:
    victims = three_brokers[1:]
    async with job_at_work(
        tmp_path, three_brokers, seaweed, sampled, SHARDLINE_STUCK_SECONDS="5", **SHORT
    ) as (system, spec):
        producer = system.processes[0]
        try:
            for victim in victims:
                await asyncio.to_thread(victim.stop, kill=True)
            said = ""
            async with asyncio.timeout(90):
                while (
                    "failing for" not in said
                    or await asyncio.to_thread(producer.metric, "in_vain_seconds") < 8
                ):
                    said = await asyncio.to_thread(producer.readiness)
                    await asyncio.sleep(0.2)
        finally:
            with ThreadPoolExecutor() as threads:
                list(threads.map(ClusterNode.start, victims))
        await goes_on(system, spec)
        assert all(process.popen.poll() is None for process in system.processes)
        await complete(system, sampled, spec)
