"""Kafka and S3 for the tests: the servers the environment names, else containers, else processes."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from deploy.dev.kafka import Kafka
from deploy.dev.seaweed import ACCESS_KEY, BUCKET, SECRET_KEY, Seaweed
from deploy.dev.service import HERE, Service, ServiceError, free_ports
from tests.support.reaper import MEMORY, memory_folder

KAFKA_IMAGE = "apache/kafka:4.3.1"
SEAWEED_IMAGE = "chrislusf/seaweedfs:4.48"


@dataclass(frozen=True)
class S3:
    """The address and keys of an S3 store."""

    endpoint: str
    bucket: str
    access_key: str
    secret_key: str

    @property
    def env(self) -> dict[str, str]:
        """The environment of a process that uses it."""
        return {
            "S3_ENDPOINT_URL": self.endpoint,
            "S3_BUCKET": self.bucket,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
        }


def refuse_servers() -> None:
    """Fail a test that starts a server where none may be started, as in `make quick`."""
    if os.environ.get("SHARDLINE_NO_SERVERS"):
        pytest.fail("a server may not be started here: mark the test `server`", pytrace=False)


def server_folder(factory: pytest.TempPathFactory, name: str) -> Path:
    """Make a folder for a server's data: in memory where there is room, so that no fsync waits for a disk."""
    try:
        roomy = shutil.disk_usage(MEMORY).free >= 4 << 30 and psutil.virtual_memory().available >= 8 << 30
    except OSError:
        roomy = False
    return memory_folder(name) if roomy else factory.mktemp(name)


def docker_answers() -> bool:
    """Whether a Docker engine can run containers here."""
    refuse_servers()
    program = shutil.which("docker")
    if program is None:
        return False
    asked = subprocess.run([program, "info"], capture_output=True, check=False, timeout=30)
    return asked.returncode == 0


@contextmanager
def kafka_address(folder: Path) -> Iterator[str]:
    """Bootstrap address of a broker that all tests share."""
    if given := os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        yield given
    elif docker_answers():
        with _kafka_container() as address:
            yield address
    else:
        with local_kafka(folder) as broker:
            yield broker.bootstrap


@contextmanager
def local_kafka(folder: Path) -> Iterator[Kafka]:
    """Run a broker from jars. Its `stop` and `start` keep port and data."""
    broker = Kafka(folder)
    with service_started(broker):
        yield broker


@contextmanager
def service_started(service: Service) -> Iterator[None]:
    """Run a service. A test fails with the reason when the service cannot run."""
    refuse_servers()
    try:
        service.start()
        yield
    except ServiceError as error:
        pytest.fail(str(error), pytrace=False)
    finally:
        service.stop(kill=True)


@contextmanager
def s3_store(folder: Path) -> Iterator[S3]:
    """An S3 store that all tests share."""
    if os.environ.get("S3_ENDPOINT_URL"):
        yield _given_store(os.environ)
    elif docker_answers():
        with _seaweed_container() as store:
            yield store
    else:
        with _local_seaweed(folder) as store:
            yield store


@contextmanager
def _local_seaweed(folder: Path) -> Iterator[S3]:
    service = Seaweed(folder)
    with service_started(service):
        yield S3(service.endpoint, BUCKET, ACCESS_KEY, SECRET_KEY)


def _given_store(env: Mapping[str, str]) -> S3:
    names = ("S3_ENDPOINT_URL", "S3_BUCKET", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    if missing := [name for name in names if not env.get(name)]:
        pytest.fail(f"S3_ENDPOINT_URL is set, but not {', '.join(missing)}", pytrace=False)
    return S3(*(env[name] for name in names))


@contextmanager
def _kafka_container() -> Iterator[str]:
    """Run a container with the settings of the local broker, in the names that the image expects."""
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.waiting_utils import wait_for_logs

    (port,) = free_ports(1)
    lines = (HERE / "server.properties").read_text().splitlines()
    settings = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    settings |= {
        "controller.quorum.voters": "1@localhost:9093",
        "listeners": f"PLAINTEXT://:{port},CONTROLLER://:9093",
        "advertised.listeners": f"PLAINTEXT://localhost:{port}",
    }
    container = DockerContainer(KAFKA_IMAGE).with_bind_ports(port, port)
    for name, value in settings.items():
        container = container.with_env("KAFKA_" + name.upper().replace(".", "_"), value)
    with container:
        wait_for_logs(container, "Kafka Server started", timeout=90)
        yield f"localhost:{port}"


@contextmanager
def _seaweed_container() -> Iterator[S3]:
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.waiting_utils import wait_for_logs

    container = DockerContainer(SEAWEED_IMAGE).with_exposed_ports(8333)
    container = container.with_env("AWS_ACCESS_KEY_ID", ACCESS_KEY).with_env(
        "AWS_SECRET_ACCESS_KEY", SECRET_KEY
    )
    with container.with_command(f"mini -dir=/data -bucket={BUCKET} -master.telemetry=false"):
        wait_for_logs(container, "All enabled components are running", timeout=60)
        endpoint = f"http://{container.get_container_host_ip()}:{container.get_exposed_port(8333)}"
        yield S3(endpoint, BUCKET, ACCESS_KEY, SECRET_KEY)


class ProxiedKafka(Kafka):
    """A broker with a second listener that is advertised with the port of a proxy."""

    port_names = (*Kafka.port_names, "behind")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (self.proxy_port,) = free_ports(1)

    def configure(self, lines: dict[str, str], ports: Mapping[str, int]) -> None:
        """Add the listener."""
        lines["listeners"] += f",PROXIED://127.0.0.1:{ports['behind']}"
        lines["advertised.listeners"] += f",PROXIED://127.0.0.1:{self.proxy_port}"
        lines["listener.security.protocol.map"] += ",PROXIED:PLAINTEXT"
