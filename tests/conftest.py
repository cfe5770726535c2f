"""Fixtures of all tests: real servers, each started once in a worker process when a test first uses it."""

import os
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from deploy.dev.kafka import Kafka
from shardline_common.runtime.retry import forget_failures
from tests.services import S3, kafka_address, local_kafka, s3_store, server_folder
from tests.support.reaper import start_reaper, tell_of_interrupt
from tests.support.scheduling import SuiteScheduling, place

pytest_plugins = [
    "tests.laws",
    "tests.sampled",
    "tests.databases",
    "tests.stores",
    "tests.support.secure_kafka",
    "tests.support.moto_server",
]

# Each of them starts a server, or finds one in the environment.
SERVERS = {
    "kafka",
    "own_kafka",
    "three_brokers",
    "seaweed",
    "postgres_server",
    "chroma",
    "couch",
    "graph",
    "secure",
    "moto",
}

# How long an example takes depends on the machine: there is no deadline.
settings.register_profile("full", deadline=None, print_blob=True)
settings.register_profile("quick", settings.get_profile("full"), max_examples=20)
settings.load_profile("full")

# Without bytecode, each process that a test starts would compile every module again: 1.9 CPU-seconds.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
start_reaper()


def pytest_keyboard_interrupt() -> None:
    """Keep the reaper from interrupting this process once more."""
    tell_of_interrupt()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling | None:
    """Distribute the tests of `--dist loadfile`."""
    return SuiteScheduling(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the tests, and mark those that use a server, before `-m` chooses among them."""
    items.sort(key=lambda item: place(item.nodeid))
    for item in items:
        if SERVERS.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("server")


@pytest.fixture(autouse=True)
def _forget_failures() -> Iterator[None]:
    """A call that failed in one test is not counted in the next, whose clock may be another."""
    yield
    forget_failures()


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap address of the broker that tests share. Each test uses its own topic prefix."""
    with kafka_address(server_folder(tmp_path_factory, "kafka")) as address:
        yield address


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """The S3 store that tests share. Each test uses its own key prefix."""
    with s3_store(server_folder(tmp_path_factory, "seaweed")) as store:
        yield store


@pytest.fixture
def own_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """A broker for one test, which may stop and start it: `stop(kill=True)`, then `start()`."""
    with local_kafka(server_folder(tmp_path_factory, "own-kafka")) as broker:
        yield broker
