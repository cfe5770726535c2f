"""`make bench-peers`: the same rows by several tools, their CPU and memory, as a table and as JSON."""

import argparse
import asyncio
import datetime as dt
import json
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

from shardline_common import __version__
from tests.benchmarks.peers.environments import HOME, Peer, peers
from tests.benchmarks.peers.tables import OURS, Files, Measurements, Topics, installed
from tests.services import kafka_address, s3_store
from tools.peers_page import tables

RESULT = HOME.parent / "peers.json"


def main() -> None:
    """Measure, write the result, print the tables."""
    parser = argparse.ArgumentParser(prog="make bench-peers")
    parser.add_argument("--documents", type=int, nargs=2, default=[20_000, 200_000], help="two sizes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help="names of peers.toml; Shardline always runs")
    given = parser.parse_args()
    known = peers()
    chosen = [known[name] for name in (given.only or ",".join(known)).split(",")]
    result: dict[str, Any] = {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "documents": given.documents,
        "rounds": given.rounds,
        "shardline": __version__,
        "tools": {peer.name: peer.about | {"version": peer.version} for peer in known.values()},
    }
    with tempfile.TemporaryDirectory(prefix="shardline-peers-") as name:
        folder = Path(name)
        result["files"] = files(folder / "files", chosen, given.documents, given.rounds)
        result["topics"] = topics(folder / "topics", chosen, given.documents, given.rounds)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    sys.stdout.write(f"{tables(result)}\n{RESULT}\n")


def files(folder: Path, chosen: list[Peer], sizes: list[int], rounds: int) -> dict[str, Any]:
    """The table of a file to a local folder."""
    folder.mkdir()
    found: dict[str, Measurements] = {}
    able = installed([peer for peer in chosen if peer.name in Files.programs], found)
    task = Files(folder, sizes)
    for _ in range(rounds):
        task.round(able, found)
    return _plain(found)


def topics(folder: Path, chosen: list[Peer], sizes: list[int], rounds: int) -> dict[str, Any]:
    """The table of a topic to S3."""
    folder.mkdir()
    found: dict[str, Measurements] = {}
    able = installed([peer for peer in chosen if peer.name in Topics.programs], found)
    with kafka_address(folder / "kafka") as kafka, s3_store(folder / "s3") as s3:
        task = Topics(folder, sizes, kafka, s3)
        for number in range(rounds):
            asyncio.run(task.round(number, able, found))
    return _plain(found)


def _plain(found: dict[str, Measurements]) -> dict[str, Any]:
    first = sorted(found, key=lambda name: not name.startswith(OURS))
    return {name: found[name].__dict__ for name in first}


if __name__ == "__main__":
    main()
