"""PostgreSQL on this machine, without Docker, as an unprivileged user even where root starts it."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from deploy.dev.service import HOST, STOP_SECONDS, Service, ServiceError

USER, PASSWORD = "postgres", "postgres-secret"
_INSTALL = (
    "PostgreSQL 15 or newer is not installed; on Debian: apt-get install postgresql. "
    "Or set POSTGRES_HOST, POSTGRES_PORT, POSTGRES_USER and POSTGRES_PASSWORD to a running server."
)
_SSL_REQUEST = (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big")


class PostgresServer(Service):
    """One cluster whose default collation is a dictionary's, as in most installations."""

    name = "PostgreSQL"
    port_names: Sequence[str] = ("sql",)

    def __init__(self, folder: Path, *, tls: bool = False) -> None:
        super().__init__(folder)
        # Beside the folder: the server's user must be able to reach it.
        self._data: Path | None = None
        self._tls = tls

    @property
    def certificate(self) -> Path:
        """The certificate of a server with TLS, which it signed itself."""
        return Path(f"{self._data}/cluster/server.crt")

    def prepare(self) -> None:
        """Find the programs, and make the cluster at the first start."""
        find_program("postgres")
        if self._data is not None:
            return
        self._data = Path(tempfile.mkdtemp(prefix="shardline-postgres-"))
        password = self._data / "password"
        password.write_text(PASSWORD)
        self._data.chmod(0o700)
        if (account := _account()) is not None:
            for path in (self._data, password):
                os.chown(path, account.pw_uid, account.pw_gid)
        options = ["--encoding=UTF8", "--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=de-DE"]
        options += ["--auth=scram-sha-256", f"--username={USER}", f"--pwfile={password}", "--no-sync"]
        command = [*_as_account(), find_program("initdb"), *options, f"--pgdata={self._data / 'cluster'}"]
        _run(command)
        if self._tls:
            self._certify(self._data / "cluster" / "server.key")

    def _certify(self, key: Path) -> None:
        openssl = shutil.which("openssl")
        if openssl is None:
            raise ServiceError("openssl is not installed; on Debian: apt-get install openssl")
        names = ["-subj", "/CN=localhost", "-addext", f"subjectAltName=IP:{HOST}"]
        files = ["-keyout", str(key), "-out", str(self.certificate)]
        _run([*_as_account(), openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", *names, *files])

    def command(self, ports: Mapping[str, int]) -> list[str]:
        """The command line. Nothing is synced, because the data are of a test."""
        options = {"port": ports["sql"], "listen_addresses": HOST, "unix_socket_directories": ""}
        options |= {"fsync": "off", "shared_buffers": "64MB", "max_connections": 60}
        options |= {"ssl": "on"} if self._tls else {}
        flags = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return [*_as_account(), find_program("postgres"), "-D", f"{self._data}/cluster", *flags]

    def answers(self, ports: Mapping[str, int]) -> bool:
        """Whether the server accepts sessions."""
        try:
            with socket.create_connection((HOST, ports["sql"]), timeout=2.0) as connection:
                connection.sendall(_SSL_REQUEST)
                return connection.recv(1) in (b"S", b"N") and self._takes_sessions()
        except OSError:
            return False

    def _takes_sessions(self) -> bool:
        state = Path(f"{self._data}/cluster/postmaster.pid")
        return state.exists() and "ready" in state.read_text()

    def stop(self, *, kill: bool = False) -> None:
        """Stop without waiting for sessions to end; at once with `kill`."""
        process = self._process()
        if process is not None and not kill:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_SECONDS)
            except psutil.TimeoutExpired:
                kill = True
        children = process.children(recursive=True) if process is not None and kill else []
        super().stop(kill=kill)
        # Sessions may run a moment longer than their server, with memory that the next server needs.
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(children, STOP_SECONDS)

    def remove(self) -> None:
        """Remove the cluster of a stopped server."""
        if self._data is not None:
            shutil.rmtree(self._data, ignore_errors=True)


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, check=False, cwd="/")  # noqa: S603 - commands of this module
    if done.returncode:
        output = (done.stdout + done.stderr).decode(errors="replace")[-2000:]
        raise ServiceError(f"{' '.join(command[-3:])} failed: {output}")


def find_program(name: str) -> str:
    """A program of PostgreSQL: of the newest version in Debian's folder, else on the path."""
    found = [shutil.which(name)] if shutil.which(name) else []
    of_debian = Path("/usr/lib/postgresql").glob(f"*/bin/{name}")
    found += [str(path) for path in sorted(of_debian, key=lambda path: int(path.parts[-3]))]
    if not found or found[-1] is None:
        raise ServiceError(_INSTALL)
    return found[-1]


def _account() -> pwd.struct_passwd | None:
    """The account of the server where this process is root, which PostgreSQL refuses."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise ServiceError("PostgreSQL does not run as root, and there is no user postgres or nobody")


def _as_account() -> list[str]:
    account = _account()
    if account is None:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise ServiceError("setpriv is not installed; on Debian: apt-get install util-linux")
    return [setpriv, f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
