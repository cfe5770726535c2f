"""Fixtures of all tests: the real services, started once a session and only when a test asks for them."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from deploy.dev.kafka import Kafka
from tests.services import S3, kafka_address, local_kafka, s3_store

pytest_plugins = ["tests.laws", "tests.sampled", "tests.databases", "tests.stores", "tests.secure_kafka"]

# Machines are shared and noisy: how long an example takes says nothing about its truth.
settings.register_profile("shardline", deadline=None, print_blob=True)
settings.load_profile("shardline")


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap address of the session's broker: use a topic prefix of your own."""
    with kafka_address(tmp_path_factory.mktemp("kafka")) as address:
        yield address


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """The session's S3 store: use a key prefix of your own."""
    with s3_store(tmp_path_factory.mktemp("seaweed")) as store:
        yield store


@pytest.fixture
def own_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """A broker for one test, that it may stop and start: `stop(kill=True)`, then `start()`."""
    with local_kafka(tmp_path_factory.mktemp("own-kafka")) as broker:
        yield broker
