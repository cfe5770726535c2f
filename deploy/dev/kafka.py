"""Kafka on this machine, without Docker: its jars come from Maven."""

import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from struct import Struct
from uuid import uuid4

from deploy.dev.service import HERE, HOST, Service, maven_jars, require_java, run_command

_FRAME = Struct(">ihhih")


class Kafka(Service):
    """One Kafka broker and controller in one JVM, from jars."""

    name = "Kafka"
    port_names: Sequence[str] = ("broker", "controller")

    @property
    def bootstrap(self) -> str:
        """The address for KAFKA_BOOTSTRAP_SERVERS."""
        return f"{HOST}:{self.ports['broker']}"

    def prepare(self) -> None:
        """Check Java and copy the jars once."""
        require_java()
        kafka_jars()

    def command(self, ports: Mapping[str, int]) -> list[str]:
        """Write the configuration, format the storage at the first start."""
        config = self.folder / "server.properties"
        fixed = (HERE / "server.properties").read_text()
        config.write_text(fixed + _addresses(self.folder / "data", ports))
        if not (self.folder / "data" / "meta.properties").exists():
            cluster = uuid4().hex[:22]
            run_command(
                [*self._java(), "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(config)]
            )
        return [*self._java(), "kafka.Kafka", str(config)]

    def answers(self, ports: Mapping[str, int]) -> bool:
        """Whether the broker's metadata name a live broker."""
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

    @staticmethod
    def _java() -> list[str]:
        options = ["-Xms256m", "-Xmx512m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
        return [require_java(), *options, "-cp", f"{kafka_jars()}/*"]


def _addresses(data: Path, ports: Mapping[str, int]) -> str:
    broker, controller = f"{HOST}:{ports['broker']}", f"{HOST}:{ports['controller']}"
    return (
        f"log.dirs={data}\n"
        f"controller.quorum.voters=1@{controller}\n"
        f"listeners=PLAINTEXT://{broker},CONTROLLER://{controller}\n"
        f"advertised.listeners=PLAINTEXT://{broker}\n"
    )


def kafka_jars() -> Path:
    """The folder of Kafka's jars."""
    return maven_jars(HERE / "pom.xml", "kafka", "KAFKA_BOOTSTRAP_SERVERS")
