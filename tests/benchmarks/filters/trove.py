"""datatrove's filters in an environment of their own, below .run/peers."""

import subprocess
from collections.abc import Mapping, Sequence

import orjson

from tests.benchmarks.peers.environments import Peer, install

PEER = Peer(
    "datatrove-filters",
    {
        "title": "datatrove: its filters",
        "pip": [
            "datatrove[io]==0.10.1",
            "regex==2026.11.19",
            "spacy==3.8.18",
            "numpy==2.4.6",
            "orjson==3.13.0",
        ],
    },
)
Bounds = Mapping[str, Mapping[str, object]]


def judge(
    documents: Sequence[Mapping[str, object]], language: str, words: str, bounds: Bounds
) -> tuple[list[dict[str, str | None]], dict[str, float]]:
    """The reason of each filter for each document, and the CPU-seconds of each filter.

    Raises:
        CannotRun: datatrove cannot be installed here.
    """
    install(PEER)
    given = b"\n".join(map(orjson.dumps, [bounds, *documents]))
    command = [*PEER.program("trove_filters.py"), language, words]
    done = subprocess.run(command, input=given, capture_output=True, check=True)
    *verdicts, costs = map(orjson.loads, done.stdout.splitlines())
    return verdicts, costs
