"""Kafka on this machine, without Docker: its jars come from Maven."""

import shutil
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from struct import Struct
from uuid import uuid4

from deploy.dev.service import (
    HERE,
    HOST,
    JAVA_FOR_MINUTES,
    Service,
    cached,
    free_ports,
    maven_jars,
    require_java,
    run_command,
)

_FRAME = Struct(">ihhih")
_QUIET = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"


class Kafka(Service):
    """One Kafka broker and controller in one JVM, from jars."""

    name = "Kafka"
    port_names: Sequence[str] = ("broker", "controller")
    heap: Sequence[str] = ("-Xms256m", "-Xmx512m")
    cluster_id: str | None = None

    @property
    def bootstrap(self) -> str:
        """The address for KAFKA_BOOTSTRAP_SERVERS."""
        return f"{HOST}:{self.ports['broker']}"

    def prepare(self) -> None:
        """Check Java and copy the jars once."""
        require_java()
        kafka_jars()

    def command(self, ports: Mapping[str, int]) -> list[str]:
        """Write the configuration, and format the storage at the first start."""
        config = self.folder / "server.properties"
        lines = _properties((HERE / "server.properties").read_text())
        lines |= _addresses(self.folder / "data", ports)
        self.configure(lines, ports)
        config.write_text(_text(lines))
        java = [*self._java(), *self.java_options(), "-cp", f"{kafka_jars()}/*"]
        if not (self.folder / "data" / "meta.properties").exists():
            shutil.copytree(self._formatted(java, lines), self.folder / "data", dirs_exist_ok=True)
        return [*java, "kafka.Kafka", str(config)]

    def _formatted(self, java: Sequence[str], lines: Mapping[str, str]) -> Path:
        """A folder with formatted storage. A JVM formats it once for all brokers with the same options."""
        cluster = self.cluster_id or uuid4().hex[:22]

        def fill(folder: Path) -> None:
            config = folder.with_suffix(".properties")
            config.write_text(_text({**lines, "log.dirs": str(folder)}))
            command = ["kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(config)]
            try:
                run_command([*java, *command, *self.format_options()])
            finally:
                config.unlink()

        recipe = [kafka_jars().name, *self.format_options(), (HERE / "server.properties").read_text()]
        recipe += [self.cluster_id, lines["node.id"], lines["process.roles"]] if self.cluster_id else []
        return cached("kafka-storage", "\n".join(recipe).encode(), fill)

    def configure(self, lines: dict[str, str], ports: Mapping[str, int]) -> None:
        """Change the settings before each start; for subclasses."""

    def format_options(self) -> list[str]:
        """Further options for formatting the storage; for subclasses."""
        return []

    def java_options(self) -> list[str]:
        """Further options of Java; for subclasses."""
        return []

    def answers(self, ports: Mapping[str, int]) -> bool:
        """Whether the broker's metadata has a live broker."""
        try:
            with socket.create_connection((HOST, ports["broker"]), timeout=2.0) as connection:
                request = _FRAME.pack(14, 3, 1, 0, -1) + (0).to_bytes(4, "big")
                connection.sendall(request)
                reply = b""
                while len(reply) < 12:  # noqa: PLR2004 - size, correlation id, number of brokers
                    if not (data := connection.recv(4096)):
                        return False
                    reply += data
        except OSError:
            return False
        return int.from_bytes(reply[8:12], "big") > 0

    def _java(self) -> list[str]:
        return [require_java(), *JAVA_FOR_MINUTES, *self.heap, _QUIET]


class ClusterNode(Kafka):
    """One broker of a cluster. The first one is its controller as well, so that the others may all be harmed.

    `controller` is the port of the controller.
    """

    heap = ("-Xms96m", "-Xmx224m")
    cluster_id = "shardlineTestClusterAA"

    def __init__(self, folder: Path, node: int, controller: int) -> None:
        super().__init__(folder)
        self.node = node
        self._controller = controller

    def configure(self, lines: dict[str, str], ports: Mapping[str, int]) -> None:
        """Replicate all topics three times, notice a dead broker soon, and need little memory."""
        controller = f"{HOST}:{self._controller}"
        listeners = f"PLAINTEXT://{HOST}:{ports['broker']}"
        if self.node == 1:
            listeners += f",CONTROLLER://{controller}"
        lines |= {
            "node.id": str(self.node),
            "process.roles": "broker,controller" if self.node == 1 else "broker",
            "controller.quorum.voters": f"1@{controller}",
            "listeners": listeners,
            "default.replication.factor": "3",
            "min.insync.replicas": "2",
            "offsets.topic.replication.factor": "3",
            "offsets.topic.num.partitions": "3",
            "transaction.state.log.replication.factor": "3",
            "transaction.state.log.min.isr": "2",
            "transaction.state.log.num.partitions": "6",
            # The defaults are 9, 2 and 30 seconds.
            "broker.session.timeout.ms": "5000",
            "broker.heartbeat.interval.ms": "500",
            "replica.lag.time.max.ms": "5000",
            "num.network.threads": "2",
            "num.io.threads": "4",
            "background.threads": "4",
        }

    def pause(self) -> None:
        """Freeze the process: its connections stay open, and nothing answers."""
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        """Let the process go on."""
        self._send(signal.SIGCONT)

    def _send(self, number: signal.Signals) -> None:
        process = self._process()
        if process is not None:
            process.send_signal(number)


def cluster_nodes(folder: Path, count: int = 3) -> list[ClusterNode]:
    """The brokers of a cluster, which are not started. Each has a folder of its own."""
    (controller,) = free_ports(1)
    return [ClusterNode(folder / f"node-{node}", node, controller) for node in range(1, count + 1)]


def _properties(text: str) -> dict[str, str]:
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return dict(line.split("=", 1) for line in lines)


def _text(properties: Mapping[str, str]) -> str:
    return "".join(f"{name}={value}\n" for name, value in properties.items())


def _addresses(data: Path, ports: Mapping[str, int]) -> dict[str, str]:
    broker, controller = f"{HOST}:{ports['broker']}", f"{HOST}:{ports['controller']}"
    return {
        "log.dirs": str(data),
        "controller.quorum.voters": f"1@{controller}",
        "listeners": f"PLAINTEXT://{broker},CONTROLLER://{controller}",
        "advertised.listeners": f"PLAINTEXT://{broker}",
    }


def kafka_jars() -> Path:
    """The folder of Kafka's jars."""
    return maven_jars(HERE / "pom.xml", "kafka", "KAFKA_BOOTSTRAP_SERVERS")
