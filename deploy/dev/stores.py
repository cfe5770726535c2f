"""ChromaDB, Neo4j and CouchDB's HTTP API on this machine, without Docker: for tests and development.

ChromaDB is its own server, from the development dependencies. Neo4j is the community server, from
Maven. CouchDB itself is in no package registry; PouchDB Server answers the same HTTP API from memory.
"""

import json
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploy.dev.service import (
    HERE,
    HOST,
    JAVA_FOR_MINUTES,
    Service,
    ServiceError,
    cached,
    http_status,
    maven_jars,
    require_java,
    run_command,
)

USER, PASSWORD = "shardline", "shardline-secret"
NEO4J_USER, NEO4J_FIRST_PASSWORD = "neo4j", "neo4j"
_HANDSHAKE = bytes.fromhex("6060b017") + bytes.fromhex("00000405") + bytes(12)


class Chroma(Service):
    """ChromaDB's own server."""

    name = "ChromaDB"
    port_names: Sequence[str] = ("http",)

    def prepare(self) -> None:
        """Find the program."""
        _find_chroma()

    def command(self, ports: Mapping[str, int]) -> list[str]:
        """Data go into the folder."""
        config = self.folder / "config.yaml"
        values = {"port": ports["http"], "listen_address": HOST, "persist_path": str(self.folder / "data")}
        config.write_text(json.dumps(values))
        return [_find_chroma(), "run", str(config)]

    def environment(self) -> dict[str, str]:
        """Without our settings: the server takes CHROMA_PORT and the like for its own, before the file."""
        return {
            name: value for name, value in super().environment().items() if not name.startswith("CHROMA_")
        }

    def answers(self, ports: Mapping[str, int]) -> bool:
        """Whether it has a heartbeat."""
        return http_status(f"http://{HOST}:{ports['http']}/api/v2/heartbeat") == 200  # noqa: PLR2004 - OK


class Neo4j(Service):
    """Neo4j's community server, speaking Bolt.

    A new one has the user neo4j with that password, which must be changed before anything else.
    """

    name = "Neo4j"
    port_names: Sequence[str] = ("bolt",)

    @property
    def uri(self) -> str:
        """The address for NEO4J_URI."""
        return f"bolt://{HOST}:{self.ports['bolt']}"

    def prepare(self) -> None:
        """Check Java and copy the jars once."""
        require_java("Neo4j", "NEO4J_URI")
        _neo4j_jars()

    def command(self, ports: Mapping[str, int]) -> list[str]:
        """Only Bolt listens."""
        address = f"{HOST}:{ports['bolt']}"
        lines = [f"server.bolt.listen_address={address}", f"server.bolt.advertised_address={address}"]
        lines += ["server.http.enabled=false", "server.https.enabled=false"]
        lines += ["server.memory.pagecache.size=16m", "dbms.usage_report.enabled=false"]
        (self.folder / "neo4j.conf").write_text("\n".join(lines) + "\n")
        java = [require_java("Neo4j", "NEO4J_URI"), *JAVA_FOR_MINUTES, "-Xms64m", "-Xmx256m"]
        java += ["-cp", f"{_neo4j_jars()}/*"]
        folders = [f"--home-dir={self.folder}", f"--config-dir={self.folder}"]
        return [*java, "org.neo4j.server.CommunityEntryPoint", *folders]

    def answers(self, ports: Mapping[str, int]) -> bool:
        """Whether the port agrees on a version of Bolt."""
        try:
            with socket.create_connection((HOST, ports["bolt"]), timeout=2.0) as connection:
                connection.sendall(_HANDSHAKE)
                return any(connection.recv(4))
        except OSError:
            return False


class Couch(Service):
    """CouchDB's HTTP API by PouchDB Server, in memory, with one administrator."""

    name = "PouchDB Server"
    port_names: Sequence[str] = ("http",)

    @property
    def url(self) -> str:
        """The address for COUCH_URL."""
        return f"http://{HOST}:{self.ports['http']}"

    def prepare(self) -> None:
        """Install the packages once."""
        _find_node("node")
        _couch_packages()

    def command(self, ports: Mapping[str, int]) -> list[str]:
        """The configuration, in which the server replaces the password by its hash."""
        config = self.folder / "config.json"
        values = {
            "admins": {USER: PASSWORD},
            "httpd": {"port": ports["http"], "bind_address": HOST},
            "log": {"file": str(self.folder / "pouchdb.txt"), "level": "error"},
        }
        config.write_text(json.dumps(values))
        program = _couch_packages() / "node_modules" / "pouchdb-server" / "bin" / "pouchdb-server"
        return [_find_node("node"), str(program), "--in-memory", "--config", str(config)]

    def answers(self, ports: Mapping[str, int]) -> bool:
        """Whether it says welcome."""
        return http_status(f"http://{HOST}:{ports['http']}/") == 200  # noqa: PLR2004 - OK


def _find_chroma() -> str:
    beside = Path(sys.executable).parent / "chroma"
    chroma = str(beside) if beside.exists() else shutil.which("chroma")
    if chroma is None:
        raise ServiceError(
            "ChromaDB's server is not there; `make install` puts it into .venv (package chromadb). "
            "Or set CHROMA_HOST and CHROMA_PORT to one that runs."
        )
    return chroma


def _neo4j_jars() -> Path:
    return maven_jars(HERE / "neo4j" / "pom.xml", "neo4j", "NEO4J_URI")


def _couch_packages() -> Path:
    source = HERE / "couch"

    def fill(folder: Path) -> None:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(source / name, folder)
        # The optional packages are other ways to store, built from C; memory needs none of them.
        options = ["--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund", f"--prefix={folder}"]
        run_command([_find_node("npm"), "ci", *options])

    return cached("couch-packages", (source / "package-lock.json").read_bytes(), fill)


def _find_node(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise ServiceError(
            f"PouchDB Server needs Node.js, and {program} is not there; "
            "on Debian: apt-get install nodejs npm. "
            "Or set COUCH_URL, COUCH_USER and COUCH_PASSWORD to a CouchDB that runs."
        )
    return found
