"""The server process of the gateway's tests, and clients of it."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from shardline.gateway.request_models import CreateRequest

_SERVING = re.compile(r"serving on http://[^ ]*:(\d+),")
SECONDS = 90.0
# Of one question among many: what is not answered by then is asked again.
TRY_SECONDS = 10.0


class Server:
    """A running gateway."""

    def __init__(self, popen: subprocess.Popen[bytes], log: Path, folder: Path) -> None:
        self.popen = popen
        self.log = log
        self.folder = folder
        self.port = int(self.until_logged(_SERVING)[1])
        self.url = f"http://127.0.0.1:{self.port}"

    def text(self) -> str:
        """What it logged."""
        return self.log.read_text(errors="replace")

    def until_logged(self, pattern: str | re.Pattern[str]) -> re.Match[str]:
        """The first match in the log, once it is there."""
        deadline = time.monotonic() + SECONDS
        while (found := re.search(pattern, self.text())) is None:
            assert self.popen.poll() is None, self.text()
            assert time.monotonic() < deadline, f"{pattern} is not in:\n{self.text()[-3000:]}"
            time.sleep(0.02)
        return found

    def lines(self, request_id: str) -> list[str]:
        """What it logged of one request."""
        return [line for line in self.text().splitlines() if f'"request_id": "{request_id}"' in line]

    def audit(self) -> str:
        """The audit log."""
        return (self.folder / "audit.jsonl").read_text()

    def audited(self, request_id: str, outcome: str) -> bool:
        """Whether the audit log has a request with this outcome."""
        told = (f'"request_id":"{request_id}"', f'"outcome":"{outcome}"')
        return any(all(part in line for part in told) for line in self.audit().splitlines())

    def health(self) -> dict[str, Any]:
        """What it says of itself."""
        found: dict[str, Any] = requests.get(f"{self.url}/health", timeout=TRY_SECONDS).json()
        return found

    def stop(self) -> int:
        """End it as a service manager does."""
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(SECONDS)


@contextmanager
def running(folder: Path, *command: str, **env: str) -> Iterator[Server]:
    """A gateway with a producer and a worker, or the command of one's choice, on a port of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "server.log"
    settings = {
        "CLARA_SECURITY_MODE": "debug",
        "CLARA_DATASET_PORT": "0",
        "SHARDLINE_METRICS_PORT": "0",
        "SHARDLINE_METRICS_HOST": "127.0.0.1",
        "SHARDLINE_SPOOL_DIR": str(folder),
        "SHARDLINE_JOBS_PARTITIONS": "1",
        "SHARDLINE_PROGRESS_SECONDS": "0.2",
        "SHARDLINE_SOURCE_PATIENCE_SECONDS": "1",
        "GATEWAY_AUDIT_LOG": str(folder / "audit.jsonl"),
        "PYTHONPATH": str(Path(__file__).parent.parent.parent),
        "PYTHONUNBUFFERED": "1",
    }
    arguments = list(command) or ["-m", "tests.gateway.server", str(folder)]
    with log.open("wb") as out:
        popen = subprocess.Popen(
            [sys.executable, *arguments],
            env=os.environ | settings | env,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=folder,
        )
    try:
        server = Server(popen, log, folder)
        if not command:
            eventually(lambda: bool(server.health()["jobs_available"]))
        yield server
    finally:
        if popen.poll() is None:
            popen.kill()
        popen.wait(SECONDS)


def body(text: str = "Satzung", **changes: Any) -> dict[str, Any]:
    """The body of a create or stream call, as Clara's client makes it."""
    query = {"query_text": text, "top_k": 1000, "min_quality_score": 0.5, "search_types": ["vector", "graph"]}
    query |= {"filters": {}} | {name: changes.pop(name) for name in tuple(changes) if name in _QUERY}
    return {
        "name": "Baurecht Dach",
        "description": "",
        "search_query": query,
        "export_formats": ["jsonl"],
    } | changes


_QUERY = set(CreateRequest.model_fields["search_query"].annotation.model_fields)  # type: ignore[union-attr]


def eventually(holds: Callable[[], bool], told: object = "") -> None:
    """Return once it holds; fail after a while, with what was told. What answers late does not hold yet."""
    deadline = time.monotonic() + SECONDS
    while not _now(holds):
        assert time.monotonic() < deadline, told
        time.sleep(0.05)


def _now(holds: Callable[[], bool]) -> bool:
    try:
        return holds()
    except requests.Timeout:
        return False


def ended(url: str, dataset_id: str, **options: Any) -> dict[str, Any]:
    """A dataset's data once it is completed or failed."""
    data: dict[str, Any] = {}

    def over() -> bool:
        answer = requests.get(f"{url}/api/datasets/{dataset_id}", timeout=TRY_SECONDS, **options)
        answer.raise_for_status()
        data.update(answer.json()["data"])
        return data["status"] in ("completed", "failed")

    eventually(over, data)
    return data
