"""A service for development and for the tests: a child process, its folder and its ports.

Everything lives in the service's folder: data, log, and the process and the ports.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from hashlib import sha256
from itertools import islice
from pathlib import Path
from random import SystemRandom
from tempfile import gettempdir, mkdtemp

import psutil

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
HOST = "127.0.0.1"
JAVA_AT_LEAST = 17
# The optimising compiler does not pay off within the minutes that these servers live: without it, a broker
# starts with a third less CPU and then needs a third less. One collector thread is enough for its small heap.
JAVA_FOR_MINUTES = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
START_SECONDS, STOP_SECONDS = 90.0, 30.0
# Systems give higher ports to clients that ask for any port, and may give one before its service has started.
_PORTS = range(20_000, 32_000)
# A process of somebody else may take a port that was free when it was chosen.
_STARTS = 3
_PORT_TAKEN = re.compile("address already in use", re.IGNORECASE)


class ServiceError(Exception):
    """A service cannot run on this machine. The message says what to do."""


class PortTaken(ServiceError):
    """Another process listens on a port that was free when it was chosen."""


def free_ports(count: int) -> list[int]:
    """Ports without a listener. While this process runs, no process of its user is given one of them."""
    choose = SystemRandom().choice
    ports = (choose(_PORTS) for _ in _PORTS)
    return list(islice((port for port in ports if _can_bind(port) and _reserve(port)), count))


def _reserve(port: int) -> bool:
    # A server binds its port seconds after it was chosen. The lock ends with this process.
    folder = Path(gettempdir(), f"shardline-ports-{os.getuid()}")
    folder.mkdir(exist_ok=True)
    lock = os.open(folder / str(port), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        flock(lock, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return False
    return True


def _can_bind(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


class Service:
    """A child process with its own folder. It may outlive the Python process that started it."""

    name = ""
    port_names: Sequence[str] = ()

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._state = self.folder / "state.json"
        self._log = self.folder / "log.txt"
        self._child: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        """Find or fetch the files of the command. Raises ServiceError with the packages to install."""

    def command(self, ports: Mapping[str, int]) -> list[str]:
        """The command line that runs the service in the foreground."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """The environment of the child."""
        return dict(os.environ)

    def answers(self, ports: Mapping[str, int]) -> bool:
        """Whether the service serves requests now. Called repeatedly until it does."""
        raise NotImplementedError

    @property
    def ports(self) -> dict[str, int]:
        """The ports by name. Free ports are chosen at the first start, and kept."""
        state = self._read()
        return {name: int(state[name]) for name in self.port_names} if state else {}

    @property
    def running(self) -> bool:
        """Whether the process that was started runs and serves requests."""
        return self._process() is not None and self.answers(self.ports)

    def start(self) -> None:
        """Start the service and wait until it serves requests. Does nothing when it runs already.

        Raises:
            ServiceError: a program is not installed, or the service did not start.
        """
        if self.running:
            return
        self.stop()
        self.prepare()
        self.folder.mkdir(parents=True, exist_ok=True)
        for _ in range(_STARTS - 1):
            with suppress(PortTaken):
                self._start()
                break
        else:
            self._start()

    def _start(self) -> None:
        ports = self.ports
        if not ports or not all(map(_can_bind, ports.values())):
            ports = dict(zip(self.port_names, free_ports(len(self.port_names)), strict=True))
        start_of_log = self._log.stat().st_size if self._log.exists() else 0
        command = self.command(ports)
        with self._log.open("ab") as log:
            self._child = subprocess.Popen(  # noqa: S603 - a command of this package
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
        self._await(ports, start_of_log)

    def stop(self, *, kill: bool = False) -> None:
        """Stop the process, with `kill` at once. Ports and data are kept for the next start."""
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

    def _await(self, ports: Mapping[str, int], start_of_log: int) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self.answers(ports):
            if self._process() is None or time.monotonic() > deadline:
                self.stop(kill=True)
                log = self._log.read_bytes()[start_of_log:].decode(errors="replace")
                kind = PortTaken if _PORT_TAKEN.search(log) else ServiceError
                raise kind(f"{self.name} did not start; the end of {self._log}:\n{log[-2000:]}")
            time.sleep(0.1)

    def _read(self) -> dict[str, float]:
        try:
            return dict(json.loads(self._state.read_text()))
        except (OSError, ValueError):
            return {}

    def _process(self) -> psutil.Process | None:
        """The process that was started, by id and start time, so that a reused id is never stopped."""
        state = self._read()
        if not state or (self._child is not None and self._child.poll() is not None):
            return None
        try:
            process = psutil.Process(int(state["pid"]))
            alive = process.create_time() == state["created"] and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return None
        return process if alive else None


def http_status(url: str) -> int:
    """The HTTP status of a GET; 0 when there is no response."""
    try:
        with urllib.request.urlopen(url, timeout=2.0) as response:  # noqa: S310 - an http address of this package
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
            f"openjdk-17-jre-headless. Or set {setting} to a running one."
        )
    return java


def maven_jars(pom: Path, name: str, setting: str) -> Path:
    """The folder of the jars of a pom.xml, filled once by Maven."""
    maven = shutil.which("mvn")

    def fill(folder: Path) -> None:
        if maven is None:
            raise ServiceError(
                f"The jars of {name} are fetched with Maven, and mvn is not installed; on Debian: "
                f"apt-get install maven. Or set {setting} to a running one."
            )
        copy = f"-DoutputDirectory={folder}"
        run_command([maven, "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", copy])

    return cached(f"{name}-jars", pom.read_bytes(), fill)


def cached(name: str, recipe: bytes, fill: Callable[[Path], None]) -> Path:
    """A folder that is filled once for each recipe, in $SHARDLINE_CACHE or .run."""
    cache = Path(os.environ.get("SHARDLINE_CACHE") or ROOT / ".run").resolve() / name
    target = cache / sha256(recipe).hexdigest()[:12]
    if target.exists():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        # Processes that start together would all fetch the same: one of them does, and the others wait.
        flock(lock, LOCK_EX)
        if target.exists():
            return target
        work = Path(mkdtemp(dir=cache))
        try:
            fill(work)
            work.rename(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return target


def run_command(command: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end. Raises ServiceError with the end of its output when it fails."""
    done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - commands of this package
    if done.returncode:
        output = (done.stdout + done.stderr).decode(errors="replace")[-2000:]
        raise ServiceError(f"{Path(command[0]).name} failed: {output}")
    return done
