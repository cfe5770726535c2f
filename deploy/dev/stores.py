"""ChromaDB, Neo4j and CouchDB's HTTP API on this machine, without Docker: for tests and development.

ChromaDB's server is in the development dependencies. Neo4j is the community server, from Maven. CouchDB
itself is in no package registry; PouchDB Server implements the same HTTP API in memory.
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
        """Write the configuration. The data are in the folder."""
        config = self.folder / "config.yaml"
        values = {"port": ports["http"], "listen_address": HOST, "persist_path": str(self.folder / "data")}
        config.write_text(json.dumps(values))
        return [_find_chroma(), "run", str(config)]

    def environment(self) -> dict[str, str]:
        """The environment without CHROMA_…: the server would read them as its settings, before the file."""
        return {
            name: value for name, value in super().environment().items() if not name.startswith("CHROMA_")
        }

    def answers(self, ports: Mapping[str, int]) -> bool:
        """Whether the heartbeat can be requested."""
        return http_status(f"http://{HOST}:{ports['http']}/api/v2/heartbeat") == 200  # noqa: PLR2004 - OK


class Neo4j(Service):
    """Neo4j's community server, with Bolt.

    A new server has the user neo4j with the password neo4j, which must be changed first.
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
        """Write the configuration, with Bolt as the only connector."""
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
        """Whether a handshake on the port gives a version of Bolt."""
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
        """Write the configuration. The server replaces the password in it by a hash."""
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
        """Whether the root can be requested."""
        return http_status(f"http://{HOST}:{ports['http']}/") == 200  # noqa: PLR2004 - OK


def _find_chroma() -> str:
    beside = Path(sys.executable).parent / "chroma"
    chroma = str(beside) if beside.exists() else shutil.which("chroma")
    if chroma is None:
        raise ServiceError(
            "ChromaDB's server is not installed; `make install` puts it into .venv (package chromadb). "
            "Or set CHROMA_HOST and CHROMA_PORT to a running one."
        )
    return chroma


def _neo4j_jars() -> Path:
    return maven_jars(HERE / "neo4j" / "pom.xml", "neo4j", "NEO4J_URI")


def _couch_packages() -> Path:
    source = HERE / "couch"

    def fill(folder: Path) -> None:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(source / name, folder)
        # The optional packages are other storages, built from C; the one in memory needs none of them.
        options = ["--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund", f"--prefix={folder}"]
        run_command([_find_node("npm"), "ci", *options])

    return cached("couch-packages", (source / "package-lock.json").read_bytes(), fill)


def _find_node(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise ServiceError(
            f"PouchDB Server needs Node.js, and {program} is not installed; "
            "on Debian: apt-get install nodejs npm. "
            "Or set COUCH_URL, COUCH_USER and COUCH_PASSWORD to a running CouchDB."
        )
    return found
