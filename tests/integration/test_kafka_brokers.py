"""Brokers that give less than all: topics made beforehand, quotas, topics that make themselves."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from deploy.dev.kafka import Kafka, kafka_jars
from deploy.dev.service import require_java, run_command
from shardline.services.client import Client
from shardline.services.doctor import run_checks
from shardline.services.processes import warn_if_auto_create
from shardline_common.kafka.broker import open_kafka
from shardline_common.kafka.options import KafkaOptions
from shardline_common.ports.broker import TopicSpec
from shardline_common.settings.load import Settings
from shardline_producer.topics import attempt_topic_spec, ensure_system_topics, system_topics
from tests.make import job, sample_job
from tests.services import server_folder, service_started
from tests.support.secure_kafka import SecureKafka
from tests.support.secured_system import at_work, open_secured_system
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


class WillingKafka(Kafka):
    """A broker that makes any topic that anybody asks for."""

    def configure(self, lines: dict[str, str], _: Mapping[str, int]) -> None:
        """Turn it on."""
        lines["auto.create.topics.enable"] = "true"


@pytest.fixture(scope="module")
def willing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WillingKafka]:
    broker = WillingKafka(server_folder(tmp_path_factory, "willing-kafka"))
    with service_started(broker):
        yield broker


async def test_brokers_that_make_topics_by_themselves_are_warned_of(
    willing: WillingKafka, caplog: pytest.LogCaptureFixture
) -> None:
    checks = await run_checks(Settings(kafka_bootstrap_servers=willing.bootstrap, kafka_topic_prefix="new."))
    (check,) = [check for check in checks if check.name == "kafka"]
    assert check.ok
    assert "warning: auto.create.topics.enable is true" in check.found
    async with open_kafka(KafkaOptions(willing.bootstrap, prefix="new.")) as broker:
        await warn_if_auto_create(broker)
        assert "auto.create.topics.enable is true" in caplog.text
        assert await broker.partitions("dataset.jobs") == 0
        assert await broker.topics() == []
        assert await ensure_system_topics(broker, 3) == 3
        assert await broker.delete_topic("dataset.events")
        assert await broker.partitions("dataset.events") == 0
