"""Brokers that give less than all: topics made beforehand, quotas, topics that make themselves."""

import asyncio
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.produce import ProduceRequest, ProduceResponse_v2

from deploy.dev.kafka import Kafka, kafka_jars
from deploy.dev.service import HOST, free_ports, require_java, run_command
from shardline.gateway.job_watcher import JobWatcher
from shardline.services.client import Client
from shardline.services.doctor import Check, run_checks
from shardline.services.processes import kafka_probe, log_transaction_fault, warn_if_auto_create
from shardline_common.errors import BrokerRefused, BrokerUnavailable
from shardline_common.kafka.broker import open_kafka
from shardline_common.kafka.options import KafkaOptions
from shardline_common.ports.broker import Broker, GroupListener, Message, TopicSpec
from shardline_common.settings.load import Settings
from shardline_producer.topics import attempt_topic_spec, ensure_system_topics, system_topics
from tests.e2e.system import Process, running_system
from tests.faults.proxies import TcpProxy
from tests.make import job, sample_job
from tests.sampled import Sampled
from tests.services import S3, server_folder, service_started
from tests.support.secure_kafka import SecureKafka
from tests.support.secured_system import CLOCK, at_work, open_secured_system
from tests.support.token_endpoint import TokenEndpoint


async def test_a_job_runs_where_topics_are_made_beforehand(
    tmp_path: Path, secure: SecureKafka, tokens: TokenEndpoint
) -> None:
    async with open_secured_system(tmp_path, secure, tokens) as house:
        for acl in [one for one in house.granted["producer"] if one.operation == "Create"]:
            await house.rights.take(acl)
        good, bad = job(**sample_job("good")), job(**sample_job("bad"))
        wanted = attempt_topic_spec(bad, 1, 1 << 30)
        for topic in [
            *system_topics(1),
            attempt_topic_spec(good, 1, 1 << 30),
            TopicSpec(wanted.name, wanted.partitions, {"retention.ms": "3600000"}),
        ]:
            await house.everyone.create_topic(topic)
        await ensure_system_topics(house.brokers["producer"], 1)
        async with at_work(house.owner().run, house.worker().run):
            for spec in (good, bad):
                await Client(house.brokers["submitter"], 1).submit(spec)
            view = await house.seen("good", lambda view: not view.state.active)
            assert view.state.state == "completed", view.to_json()
            view = await house.seen("bad", lambda view: not view.state.active)
            assert (view.state.state, view.state.code) == ("failed", "topic_unsuitable")
            assert "retention.ms 3600000" in str(view.state.message)


async def test_a_job_completes_under_quotas(
    tmp_path: Path, secure: SecureKafka, tokens: TokenEndpoint
) -> None:
    rate = 300_000
    async with open_secured_system(tmp_path, secure, tokens, documents=900) as house:
        await ensure_system_topics(house.everyone, 1)
        limit_bytes(secure, "producer", f"producer_byte_rate={rate}")
        limit_bytes(secure, "worker", f"consumer_byte_rate={rate}")
        try:
            async with at_work(house.owner().run, house.worker().run):
                began = time.monotonic()
                await Client(house.everyone, 1).submit(job(**sample_job("slow")))
                view = await house.seen("slow", lambda view: not view.state.active)
                took = time.monotonic() - began
                assert view.state.state == "completed", view.to_json()
                # Events are hints, and may be late.
                view = await house.seen("slow", lambda view: view.progress.chained == view.state.produced)
        finally:
            limit_bytes(secure, "producer", "producer_byte_rate", alter="--delete-config")
            limit_bytes(secure, "worker", "consumer_byte_rate", alter="--delete-config")
        # Kafka lets a burst of some seconds pass before it slows anybody down.
        assert view.progress.bytes > 3 * rate
        assert took > view.progress.bytes / rate / 4


def limit_bytes(broker: Kafka, user: str, what: str, alter: str = "--add-config") -> None:
    """Set or lift a quota of a user."""
    command = [require_java(), "-cp", f"{kafka_jars()}/*", "kafka.admin.ConfigCommand"]
    command += ["--bootstrap-server", broker.bootstrap, "--alter", alter, what]
    run_command([*command, "--entity-type", "users", "--entity-name", user])


class OddKafka(Kafka):
    """A broker that makes any topic that anybody asks for, and has low limits.

    A second listener is advertised at an address where nobody listens.
    """

    port_names = (*Kafka.port_names, "behind")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (self.away_port,) = free_ports(1)

    def configure(self, lines: dict[str, str], ports: Mapping[str, int]) -> None:
        """Set the limits, and add the listener."""
        lines |= {
            "auto.create.topics.enable": "true",
            "transaction.max.timeout.ms": "5000",
            "group.max.session.timeout.ms": "10000",
            "socket.request.max.bytes": "4194304",
        }
        lines["listeners"] += f",AWAY://{HOST}:{ports['behind']}"
        lines["advertised.listeners"] += f",AWAY://{HOST}:{self.away_port}"
        lines["listener.security.protocol.map"] += ",AWAY:PLAINTEXT"

    @property
    def behind(self) -> str:
        """The address of the second listener."""
        return f"{HOST}:{self.ports['behind']}"

    def options(self, **fields: Any) -> KafkaOptions:
        """Options that this broker accepts, with a prefix of their own."""
        prefix = f"{secrets.token_hex(4)}."
        known: dict[str, Any] = {"request_timeout_ms": 2000, "transaction_timeout_ms": 5000}
        known |= {"session_timeout_ms": 6000, "prefix": prefix, "bootstrap_servers": self.bootstrap}
        return KafkaOptions(**known | fields)


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OddKafka]:
    broker = OddKafka(server_folder(tmp_path_factory, "odd-kafka"))
    with service_started(broker):
        yield broker


class LoneKafka(Kafka):
    """One broker with the defaults of Kafka, which are those of three."""

    def configure(self, lines: dict[str, str], _: Mapping[str, int]) -> None:
        """Leave the internal topics as they are."""
        lines["transaction.state.log.replication.factor"] = "3"
        lines["transaction.state.log.min.isr"] = "2"
        lines["offsets.topic.replication.factor"] = "3"


@pytest.fixture(scope="module")
def lone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoneKafka]:
    broker = LoneKafka(server_folder(tmp_path_factory, "lone-kafka"))
    with service_started(broker):
        yield broker


async def commit_one(broker: Broker, topic: str, size: int = 10) -> None:
    async with broker.transactional("id") as writer, writer.transaction() as transaction:
        await transaction.send(topic, [Message(b"k", bytes(size), 0)])


async def publish_one(broker: Broker, topic: str, size: int = 10) -> None:
    await broker.publish(topic, [Message(b"k", bytes(size), 0)])


async def join(broker: Broker, topic: str) -> None:
    """Poll until the group refuses; a member that waits in silence goes on for the test's bound."""

    async def ignore(_: Sequence[int]) -> None:
        """Nothing is read."""

    async with broker.group_reader(topic, "g", GroupListener(ignore, ignore)) as reader:
        while True:
            await reader.poll(None, timeout=0.2, max_records=1)


async def read_all(broker: Broker, topic: str) -> None:
    async with broker.table_reader(topic, [0]) as table:
        await table.catch_up(deadline=3)


async def make_topic(broker: Broker, topic: str) -> None:
    await broker.create_topic(TopicSpec(topic, 1, {"max.message.bytes": "10000"}))


Step = Callable[[Broker, str], Awaitable[None]]
# What is done with a topic, the options of the client, what the error names, and what is to be changed.
REFUSED: dict[str, tuple[Step, dict[str, Any], str, str]] = {
    "transaction time-out": (
        commit_one,
        {"transaction_timeout_ms": 60_000},
        "60000, over the brokers' transaction.max.timeout.ms",
        "set KAFKA_TRANSACTION_TIMEOUT_MS",
    ),
    "session time-out": (
        join,
        {"session_timeout_ms": 30_000},
        "30000, outside of the brokers' group.min.session.timeout.ms",
        "set KAFKA_SESSION_TIMEOUT_MS",
    ),
    "replication factor": (
        lambda broker, topic: make_topic(broker, topic + "-new"),
        {"replication_factor": 3},
        "KAFKA_REPLICATION_FACTOR is 3, and fewer brokers run",
        "set KAFKA_REPLICATION_FACTOR",
    ),
    "document in a transaction": (
        lambda broker, topic: commit_one(broker, topic, 20_000),
        {},
        "max.message.bytes",
        "raise max.message.bytes",
    ),
    "document": (
        lambda broker, topic: publish_one(broker, topic, 20_000),
        {},
        "max.message.bytes",
        "raise max.message.bytes",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_refusal_names_the_setting(odd: OddKafka, name: str) -> None:
    step, fields, named, remedy = REFUSED[name]
    options = odd.options()
    async with open_kafka(options) as broker:
        await make_topic(broker, "t")
    async with asyncio.timeout(20), open_kafka(replace(options, **fields)) as broker:
        with pytest.raises(BrokerRefused, match=re.escape(named)) as raised:
            await step(broker, "t")
        assert remedy in (raised.value.hint or "")
        failing = broker.failing(0.0)
    assert failing is not None
    assert named in failing


# What a broker answers to a batch, whether that lasts, and what the error names.
ANSWERED = {
    19: (False, "min.insync.replicas"),
    56: (False, "cannot use its disk"),
    76: (True, "KAFKA_COMPRESSION=zstd"),
    87: (True, "InvalidRecord"),
    999: (True, "error code 999"),
}


@pytest.mark.parametrize("step", [commit_one, publish_one])
@pytest.mark.parametrize("code", ANSWERED)
async def test_a_refused_batch_ends_after_its_deadline(
    odd: OddKafka, monkeypatch: pytest.MonkeyPatch, code: int, step: Step
) -> None:
    lasts, named = ANSWERED[code]
    send = AIOKafkaClient.send

    async def refuse(client: AIOKafkaClient, node: int, request: Any, **options: Any) -> Any:
        if not isinstance(request, ProduceRequest):
            return await send(client, node, request, **options)
        await asyncio.sleep(0.01)
        topics = [(topic, [(part, code, 0, 0) for part, _ in parts]) for topic, parts in request._topics]
        return ProduceResponse_v2(topics, 0)

    # A failed producer is not stopped, but abandoned: it would wait for its batches.
    monkeypatch.setattr("shardline_common.kafka.writer._STOP_SECONDS", 60.0)
    options = replace(odd.options(), request_timeout_ms=1000, compression="zstd")
    async with asyncio.timeout(20), open_kafka(options) as broker:
        await make_topic(broker, "t")
        with monkeypatch.context() as patch:
            patch.setattr(AIOKafkaClient, "send", refuse)
            # The client alone repeats the batch without an end, and would wait for it when it is closed.
            with pytest.raises(BrokerUnavailable, match=named) as raised:
                await step(broker, "t")
        assert isinstance(raised.value, BrokerRefused) is lasts
        assert named in (broker.failing(0.0) or "")
        await step(broker, "t")
        assert broker.failing(0.0) is None


@pytest.mark.parametrize("step", [commit_one, publish_one])
async def test_a_request_at_which_the_broker_closes_the_connection(odd: OddKafka, step: Any) -> None:
    async with asyncio.timeout(30), open_kafka(odd.options()) as broker:
        await broker.create_topic(TopicSpec("t", 1, {"max.message.bytes": "16777216"}))
        with pytest.raises(BrokerRefused, match=re.escape("its socket.request.max.bytes")):
            await step(broker, "t", 8 << 20)
        await step(broker, "t", 1 << 20)


STEPS: dict[str, Step] = {
    "commit": commit_one,
    "publish": publish_one,
    "join": join,
    "read": read_all,
    "create": make_topic,
}


@pytest.mark.parametrize("name", STEPS)
async def test_an_address_where_no_broker_listens_is_named(odd: OddKafka, name: str) -> None:
    away = f"broker 1 cannot be reached at {HOST}:{odd.away_port}, the address that it advertises"
    async with asyncio.timeout(20), open_kafka(odd.options(bootstrap_servers=odd.behind)) as broker:
        with pytest.raises(BrokerUnavailable, match=re.escape(away)) as raised:
            await STEPS[name](broker, "t")
        assert "advertised.listeners" in (raised.value.hint or "")


async def test_without_a_coordinator_the_brokers_settings_are_named(
    lone: LoneKafka, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("shardline_common.runtime.waits.LOG_SECONDS", 0.5)
    options = KafkaOptions(lone.bootstrap, request_timeout_ms=2000)
    async with asyncio.timeout(40), open_kafka(options) as broker:
        await make_topic(broker, "t")
        with pytest.raises(BrokerUnavailable, match=re.escape("transaction.state.log")):
            await commit_one(broker, "t")
        member = asyncio.create_task(join(broker, "t"))
        groups = "offsets.topic.replication.factor"
        while not any(groups in record.getMessage() for record in caplog.records):
            await asyncio.sleep(0.05)
        probe = kafka_probe(broker, Settings(stuck_seconds=0.1))
        found = await probe()
        member.cancel()
        await asyncio.gather(member, return_exceptions=True)
    assert "waiting for Kafka: id cannot be opened, for" in caplog.text
    assert "waiting for Kafka: t cannot be read: the group g cannot be joined, for" in caplog.text
    assert found is not None


async def test_doctor_names_the_setting_that_refuses_transactions(odd: OddKafka, lone: LoneKafka) -> None:
    short = {"kafka_transaction_timeout_ms": 5000, "kafka_session_timeout_ms": 6000}
    found = await checked(odd, **short)
    assert found.ok
    assert "on a topic of its own was committed and read back; a group was joined" in found.found
    refusing: list[tuple[Kafka, dict[str, Any], str]] = [
        (odd, short | {"kafka_transaction_timeout_ms": 60_000}, "transaction.max.timeout.ms"),
        (odd, short | {"kafka_session_timeout_ms": 30_000}, "group.max.session.timeout.ms"),
        (odd, short | {"kafka_replication_factor": 2}, "KAFKA_REPLICATION_FACTOR is 2"),
        (lone, {"kafka_request_timeout_ms": 1000}, "transaction.state.log.replication.factor"),
    ]
    for broker, fields, named in refusing:
        found = await checked(broker, **fields)
        assert found.ok is False
        assert named in found.found


async def test_a_producer_says_at_once_which_setting_keeps_it_from_its_transactions(
    odd: OddKafka, lone: LoneKafka, caplog: pytest.LogCaptureFixture
) -> None:
    for options in (odd.options(), odd.options(transaction_timeout_ms=60_000), KafkaOptions(lone.bootstrap)):
        async with asyncio.timeout(60), open_kafka(options) as broker:
            await log_transaction_fault(broker)
    said = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    timeout, factor = (text.removeprefix("no job can run: ") for text in said)
    assert timeout.startswith("KAFKA_TRANSACTION_TIMEOUT_MS is 60000, over the brokers' ")
    assert "transaction.max.timeout.ms of 5000; set" in timeout
    assert "transaction.state.log.replication.factor of the brokers is 3, and 1 broker runs; start" in factor
    assert "set KAFKA_TRANSACTION_TIMEOUT_MS to at most 5000" in said[0]
    assert "transaction.state.log.min.isr to at most 1" in said[1]


async def test_doctor_connects_to_each_advertised_address(odd: OddKafka) -> None:
    found = await checked(odd, kafka_bootstrap_servers=odd.behind)
    assert found.ok is False
    assert f"broker 1 at {HOST}:{odd.away_port}" in found.found
    assert "advertised.listeners" in found.found


async def test_a_producer_that_kafka_refuses_is_not_ready_and_says_why(
    tmp_path: Path, odd: OddKafka, seaweed: S3, sampled: Sampled
) -> None:
    short = {"KAFKA_SESSION_TIMEOUT_MS": "6000", "SHARDLINE_STUCK_SECONDS": "1"}
    async with running_system(tmp_path, odd.bootstrap, seaweed, sampled.folder, **short) as system:
        worker = system.start("worker", KAFKA_TRANSACTION_TIMEOUT_MS="5000")
        refused = system.start("producer", KAFKA_TRANSACTION_TIMEOUT_MS="60000")
        await refused.until_ready()
        await system.submit(sampled.job("sample"))
        said = await asyncio.to_thread(until_said, refused, "transaction.max.timeout.ms")
        assert '"ready":false' in said
        assert "set KAFKA_TRANSACTION_TIMEOUT_MS to at most" in said
        assert "60000, over the brokers' transaction.max.timeout.ms" in refused.log_text()
        assert "no job can run: KAFKA_TRANSACTION_TIMEOUT_MS" in refused.log_text()
        assert "aiokafka" not in refused.log_text()
        await asyncio.to_thread(refused.end)
        producer = system.start("producer", KAFKA_TRANSACTION_TIMEOUT_MS="5000")
        assert (await system.finished("sample")).state.state == "completed"
        for process in (producer, worker):
            await process.until_ready()


def until_said(process: Process, words: str) -> str:
    """The answer of /readyz once it has these words."""
    deadline = time.monotonic() + 60
    while words not in (said := process.readiness()):
        assert time.monotonic() < deadline, said
        time.sleep(0.1)
    return said


async def test_a_gateway_whose_broker_is_gone_is_not_ready_until_it_is_back(odd: OddKafka) -> None:
    proxy = TcpProxy(odd.ports["behind"], odd.away_port)
    with proxy.running():
        options = odd.options(bootstrap_servers=odd.behind)
        async with asyncio.timeout(60), open_kafka(options) as broker:
            watcher = JobWatcher(broker, 1, CLOCK)
            async with at_work(watcher.run):
                await watcher.wait_for_refresh()
                assert broker.failing(0.5) is None
                # The address that the broker advertises.
                proxy.down = True
                while (found := broker.failing(0.5)) is None:
                    await asyncio.sleep(0.05)
                proxy.down = False
                while broker.failing(0.5) is not None:
                    await asyncio.sleep(0.05)
    assert f"broker 1 cannot be reached at {HOST}:{odd.away_port}" in found


async def checked(broker: Kafka, **fields: Any) -> Check:
    """The check of `doctor` over this broker, under a prefix of its own."""
    known = {"kafka_bootstrap_servers": broker.bootstrap, "kafka_topic_prefix": f"{secrets.token_hex(4)}."}
    checks = await run_checks(Settings(**known | fields))
    return next(check for check in checks if check.name == "kafka")


async def test_brokers_that_make_topics_by_themselves_are_warned_of(
    odd: OddKafka, caplog: pytest.LogCaptureFixture
) -> None:
    fields = {"kafka_transaction_timeout_ms": 5000, "kafka_session_timeout_ms": 6000}
    check = await checked(odd, kafka_topic_prefix="new.", **fields)
    assert check.ok
    assert "warning: auto.create.topics.enable is true" in check.found
    async with open_kafka(KafkaOptions(odd.bootstrap, prefix="new.")) as broker:
        await warn_if_auto_create(broker)
        assert "auto.create.topics.enable is true" in caplog.text
        assert await broker.partitions("dataset.jobs") == 0
        assert await broker.topics() == []
        assert await ensure_system_topics(broker, 3) == 3
        assert await broker.delete_topic("dataset.events")
        assert await broker.partitions("dataset.events") == 0
