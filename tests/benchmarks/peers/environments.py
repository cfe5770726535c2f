"""An environment of its own for each peer, below .run/peers, with the versions of peers.toml."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
HOME = HERE.parent.parent.parent / ".run" / "peers"


class CannotRun(Exception):
    """A peer cannot run here; the message is the reason."""


@dataclass(frozen=True)
class Peer:
    """A tool of peers.toml."""

    name: str
    about: dict[str, Any]

    @property
    def title(self) -> str:
        """What is compared."""
        return str(self.about["title"])

    @property
    def version(self) -> str:
        """The version of the tool itself."""
        return str(self.about.get("version") or self.about["pip"][0].partition("==")[2])

    @property
    def folder(self) -> Path:
        """Its environment."""
        return HOME / self.name

    def program(self, name: str) -> list[str]:
        """The start of a command: a program of this folder in the environment of the peer."""
        if "maven" in self.about:
            classes = f"{self.folder}/*:{self.folder}/lib/*"
            return ["java", "-Xmx1g", *_OPENED, "-cp", classes, name]
        return [str(self.folder / "bin" / "python"), str(HERE / name)]


# Flink's serializers look into the JDK; its start script passes these as well.
_OPENED = ["--add-opens=java.base/java.util=ALL-UNNAMED", "--add-opens=java.base/java.lang=ALL-UNNAMED"]


def peers() -> dict[str, Peer]:
    """All peers, by name."""
    found = tomllib.loads((HERE / "peers.toml").read_text())
    return {name: Peer(name, about) for name, about in found.items()}


def install(peer: Peer) -> None:
    """Make the environment of a peer, unless it is there with these versions.

    Raises:
        CannotRun: a program is missing, or a package cannot be had.
    """
    if (program := peer.about.get("program")) and shutil.which(program) is None:
        raise CannotRun(f"the program {program} is missing")
    mark = peer.folder / "installed.json"
    wanted = json.dumps(peer.about, sort_keys=True)
    if mark.exists() and mark.read_text() == wanted:
        return
    shutil.rmtree(peer.folder, ignore_errors=True)
    if "maven" in peer.about:
        _run(
            "mvn", "--quiet", "--batch-mode", "--file", str(HERE / peer.about["maven"] / "pom.xml"),
            f"-D{peer.name}.version={peer.version}", f"-Dbuild.folder={peer.folder}",
            f"-DoutputDirectory={peer.folder / 'lib'}", "package", "dependency:copy-dependencies",
        )  # fmt: skip
    else:
        _run(sys.executable, "-m", "venv", str(peer.folder))
        _run(str(peer.folder / "bin" / "pip"), "install", "--quiet", *peer.about["pip"])
    mark.write_text(wanted)


def _run(*command: str) -> None:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise CannotRun(f"{Path(command[0]).name}: {said[-1] if said else done.returncode}"[:200])
