"""Clients of Kafka while one of its brokers is dead, frozen or behind: another one is asked."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from shardline.services.processes import kafka_probe
from shardline_common.errors import BrokerRefused, BrokerUnavailable
from shardline_common.kafka.broker import KafkaBroker, open_kafka
from shardline_common.kafka.client_internals import client_of, retrieve_transaction_error
from shardline_common.kafka.consumers import make_consumer, stop_consumer
from shardline_common.kafka.options import KafkaOptions
from shardline_common.kafka.patient_client import watch_answers
from shardline_common.ports.broker import TopicSpec
from shardline_common.settings.load import Settings
from shardline_common.telemetry.metrics import Metrics
from tests.support.stand_in_kafka import StandIns, stand_in_cluster

# Longer than a test may take: whatever waits for it has failed.
REQUEST_SECONDS = 120
TEST_SECONDS = 40.0


# A fifth of the times that users wait for.
TIMES = {
    "asking.PATIENCE_SECONDS": 0.2,
    "asking._REST_SECONDS": 0.4,
    "patient_client._SLOW_SECONDS": 0.15,
    "patient_client._REFRESH_SECONDS": 0.6,
    "patient_admin._CONTROLLER_PATIENCE_SECONDS": 1.0,
    "broker._SURE_SECONDS": 0.6,
    "broker._LOOK_SECONDS": 0.2,
}


@pytest.fixture(autouse=True)
def _short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in TIMES.items():
        monkeypatch.setattr(f"shardline_common.kafka.{name}", seconds)


def options(cluster: StandIns, **fields: Any) -> KafkaOptions:
    known: dict[str, Any] = {"request_timeout_ms": REQUEST_SECONDS * 1000}
    return KafkaOptions(cluster.bootstrap, **known | fields)


@asynccontextmanager
async def connected(count: int = 3) -> AsyncIterator[tuple[StandIns, KafkaBroker]]:
    """A cluster with the topic `t`, and an adapter with connections to all of its brokers."""
    async with asyncio.timeout(TEST_SECONDS), stand_in_cluster(count) as cluster:
        cluster.topics["t"] = 2
        async with open_kafka(options(cluster)) as broker:
            while not all(one.asked["Metadata"] > 1 for one in cluster.brokers):
                await broker.partitions("t")
            yield cluster, broker


async def open_writer(broker: KafkaBroker) -> None:
    async with broker.transactional("id"):
        pass


Step = Callable[[KafkaBroker], Awaitable[Any]]
STEPS: dict[str, Step] = {
    "check": KafkaBroker.check,
    "partitions": lambda broker: broker.partitions("t"),
    "a topic that is missing": lambda broker: broker.partitions("missing"),
    "topics": KafkaBroker.topics,
    "describe": lambda broker: broker.describe_topic("t"),
    "create": lambda broker: broker.create_topic(TopicSpec("new", 1)),
    "settings of a broker": KafkaBroker.auto_creates_topics,
    "writer": open_writer,
}


@pytest.mark.parametrize("name", STEPS)
async def test_a_dead_broker_fails_no_call(name: str) -> None:
    async with connected() as (cluster, broker):
        cluster.controller = 2
        await cluster[2].stop()
        for _ in range(1 if name == "a topic that is missing" else 4):
            await STEPS[name](broker)
        assert broker.failing(0.0) is None


async def test_a_frozen_broker_holds_up_no_call() -> None:
    async with connected() as (cluster, broker):
        cluster.controller = 3
        cluster[3].frozen = True
        await asyncio.gather(*(step(broker) for step in (*STEPS.values(), *STEPS.values())))
        assert broker.failing(0.0) is None


@pytest.mark.parametrize("harm", ["frozen", "dead"])
async def test_a_start_does_not_depend_on_the_first_bootstrap_server(harm: str) -> None:
    async with asyncio.timeout(TEST_SECONDS), stand_in_cluster() as cluster:
        cluster.topics["t"] = 1
        cluster.listed = {2, 3}
        cluster.coordinator = 2
        if harm == "frozen":
            cluster[1].frozen = True
        else:
            await cluster[1].stop()
        for _ in range(5):
            async with open_kafka(options(cluster)) as broker:
                await broker.check()
                await open_writer(broker)


async def test_readiness_does_not_depend_on_the_broker_that_was_drawn() -> None:
    async with connected() as (cluster, broker):
        probe = kafka_probe(broker, Settings(stuck_seconds=0.1))
        await cluster[2].stop()
        cluster[3].frozen = True
        for _ in range(10):
            assert await probe() is None


async def test_a_broker_that_is_behind_does_not_know_a_topic() -> None:
    async with connected() as (cluster, broker):
        for behind in cluster.brokers:
            behind.topics = {}
            for _ in range(6):
                assert await broker.partitions("t") == 2
                assert await broker.describe_topic("t") is not None
            behind.topics = None


async def test_metadata_of_a_broker_that_is_behind_hides_no_topic() -> None:
    # A consumer would give up its partitions, and a producer wait for the topic.
    async with asyncio.timeout(TEST_SECONDS), stand_in_cluster() as cluster:
        cluster.topics["t"] = 2
        cluster[1].topics = cluster[2].topics = {}
        client = AIOKafkaClient(bootstrap_servers=cluster.bootstrap)
        watch_answers(client)
        await client.bootstrap()
        client.set_topics(["t"])
        for _ in range(10):
            await client.force_metadata_update()
            assert client.cluster.partitions_for_topic("t") == {0, 1}
        await client.close()


async def test_metadata_is_not_refreshed_without_a_pause() -> None:
    # aiokafka does so while a partition has no leader or a topic is gone, as fast as brokers answer.
    async with asyncio.timeout(TEST_SECONDS), stand_in_cluster(1) as cluster:
        client = AIOKafkaClient(bootstrap_servers=cluster.bootstrap)
        watch_answers(client)
        await client.bootstrap()
        started = asyncio.get_running_loop().time()
        for _ in range(10):
            await client.force_metadata_update()
        assert asyncio.get_running_loop().time() - started > 0.5
        await client.close()


async def test_a_topic_is_missing_when_all_brokers_agree() -> None:
    async with connected() as (cluster, broker):
        del cluster.topics["t"]
        asked = sum(one.asked["Metadata"] for one in cluster.brokers)
        assert await broker.partitions("t") == 0
        assert sum(one.asked["Metadata"] for one in cluster.brokers) == asked + 3


async def test_a_topic_is_missing_when_most_brokers_say_so_for_some_seconds() -> None:
    async with connected() as (cluster, broker):
        del cluster.topics["t"]
        await cluster[1].stop()
        asked = cluster[2].asked["Metadata"]
        assert await broker.partitions("t") == 0
        assert cluster[2].asked["Metadata"] - asked >= 3


async def test_one_broker_of_three_does_not_decide_that_a_topic_is_missing() -> None:
    # It continues after a pause, and the brokers that created the topic meanwhile have died.
    async with connected() as (cluster, broker):
        cluster[1].topics = {}
        await cluster[2].stop()
        await cluster[3].stop()
        with pytest.raises(BrokerUnavailable, match="1 of 3 brokers answer, and do not know the topic t"):
            await broker.partitions("t")


async def test_an_error_about_a_topic_does_not_mean_that_it_is_missing() -> None:
    async with connected() as (cluster, broker):
        cluster.topic_code = 5
        with pytest.raises(BrokerUnavailable, match="LeaderNotAvailable"):
            await broker.partitions("t")


@pytest.mark.parametrize("last", ["ApiVersion", "InitProducerId"])
async def test_a_broker_that_the_cluster_lists_no_more_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    for seconds in ("_QUICK_SECONDS", "_CONNECT_SECONDS"):
        monkeypatch.setattr(f"shardline_common.kafka.patient_client.{seconds}", REQUEST_SECONDS)
    async with connected() as (cluster, broker):
        cluster.coordinator = 3
        cluster[3].held = {last}
        before = cluster[3].asked[last]
        opening = asyncio.create_task(open_writer(broker))
        while cluster[3].asked[last] == before:
            await asyncio.sleep(0.01)
        cluster.listed, cluster.coordinator = {1, 2}, 1
        await opening
        assert cluster[1].asked["InitProducerId"] == 1


async def test_a_cluster_that_moved_is_found_by_its_bootstrap_servers() -> None:
    async with asyncio.timeout(TEST_SECONDS), stand_in_cluster(2) as cluster:
        cluster.topics["t"] = 1
        cluster.listed = {1}
        async with open_kafka(options(cluster)) as broker:
            assert await broker.partitions("t") == 1
            cluster.listed = {2}
            await cluster[1].stop()
            while True:
                try:
                    assert await broker.partitions("t") == 1
                    break
                except BrokerUnavailable:
                    await asyncio.sleep(0.05)


async def test_a_writer_that_cannot_start_is_logged_and_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # The last transaction of its id cannot end while its topic is below min.insync.replicas.
    monkeypatch.setattr("shardline_common.runtime.waits.LOG_SECONDS", 0.3)
    monkeypatch.setattr("shardline_common.runtime.tasks._GRACE_SECONDS", 0.1)
    async with asyncio.timeout(TEST_SECONDS), stand_in_cluster(2) as cluster:
        metrics = Metrics()
        for one in cluster.brokers:
            one.codes["InitProducerId"] = 51
        async with open_kafka(options(cluster, request_timeout_ms=1000)) as broker:
            metrics.follow_failing(broker.failing_seconds)
            for _ in range(2):
                with pytest.raises(BrokerUnavailable, match="ConcurrentTransactions") as raised:
                    await open_writer(broker)
                assert not isinstance(raised.value, BrokerRefused)
            assert "waiting for Kafka: id cannot be opened, for" in caplog.text
            assert "ConcurrentTransactions" in (
                await kafka_probe(broker, Settings(stuck_seconds=1.0))() or ""
            )
            assert in_vain(metrics) > 1.0
            for one in cluster.brokers:
                one.codes.clear()
            await open_writer(broker)
            assert await kafka_probe(broker, Settings(stuck_seconds=1.0))() is None
            assert in_vain(metrics) == 0.0


def in_vain(metrics: Metrics) -> float:
    metrics.refresh()
    return metrics.registry.get_sample_value("shardline_in_vain_seconds") or 0.0


async def test_nothing_is_left_behind_while_brokers_go_and_come(
    caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    told: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["message"]))
    async with connected() as (cluster, broker):
        calls: set[asyncio.Task[None]] = set()
        for node in (1, 2, 3, 1):
            for step in (*STEPS.values(), *STEPS.values()):
                calls.add(asyncio.create_task(tolerated(step, broker)))
            await asyncio.sleep(0)
            if node == 2:
                cluster[node].frozen = True
            else:
                await cluster[node].stop()
            # The probe drops the admin client where no broker answers, while others use it.
            await tolerated(KafkaBroker.close, broker)
            await asyncio.wait(calls, timeout=0.5)
            if node == 2:
                cluster[node].frozen = False
            else:
                await cluster[node].start()
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await broker.close()
        while any(one.open for one in cluster.brokers):
            await asyncio.sleep(0.01)
    gc.collect()
    await asyncio.sleep(0)
    assert not told
    assert not [str(one.message) for one in recwarn if "nclosed" in str(one.message)]
    assert not [one.getMessage() for one in caplog.records if one.levelno >= logging.ERROR]


async def tolerated(step: Step, broker: KafkaBroker) -> None:
    """Take a step that may fail."""
    try:
        await step(broker)
    except BrokerUnavailable:
        return


async def test_the_error_of_a_transaction_is_no_error_that_nobody_read() -> None:
    told: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["message"]))
    producer = KafkaOptions("nowhere:9092").producer(transactional_id="id")
    manager = producer._txn_manager
    manager.set_pid_and_epoch(1, 0)
    await producer.begin_transaction()
    retrieve_transaction_error(producer)
    manager.error_transaction(KafkaError("no right to write"))
    # The transaction that is aborted has another future.
    manager.aborting_transaction()
    await asyncio.sleep(0)
    gc.collect()
    assert not told
    manager.complete_transaction()
    await producer.stop()


async def test_a_consumer_whose_stop_hangs_leaves_no_connection_and_no_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As one does whose coordinator is frozen while it joins the group.
    monkeypatch.setattr("shardline_common.kafka.consumers._STOP_SECONDS", 0.1)
    async with connected(1) as (cluster, _):
        before, open_before = asyncio.all_tasks(), cluster[1].open
        consumer = make_consumer(options(cluster))
        watch_answers(client_of(consumer))
        await consumer.start()
        consumer.assign([TopicPartition("t", 0)])
        monkeypatch.setattr(consumer._coordinator, "close", asyncio.Event().wait)
        await stop_consumer(consumer)
        while cluster[1].open > open_before:
            await asyncio.sleep(0.01)
        assert not [one for one in asyncio.all_tasks() - before if "StandIn" not in repr(one)]


async def test_a_connection_to_a_broker_that_reads_no_more_is_cut() -> None:
    async with connected(1) as (cluster, _):
        client = AIOKafkaClient(bootstrap_servers=cluster.bootstrap)
        watch_answers(client)
        await client.bootstrap()
        assert await client.ready(1)
        cluster[1].frozen = True
        (connection,) = client._conns.values()
        connection._writer.write(bytes(64 << 20))
        socket = connection._writer.get_extra_info("socket")
        await client.close()
        while socket.fileno() != -1:
            await asyncio.sleep(0.01)
