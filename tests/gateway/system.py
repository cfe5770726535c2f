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
# For one of several tries: a try that times out is repeated.
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
        """Return the log."""
        return self.log.read_text(errors="replace")

    def until_logged(self, pattern: str | re.Pattern[str]) -> re.Match[str]:
        """Wait for a match in the log and return it."""
        deadline = time.monotonic() + SECONDS
        while (found := re.search(pattern, self.text())) is None:
            assert self.popen.poll() is None, self.text()
            assert time.monotonic() < deadline, f"{pattern} is not in:\n{self.text()[-3000:]}"
            time.sleep(0.02)
        return found

    def lines(self, request_id: str) -> list[str]:
        """Return the log lines of one request."""
        return [line for line in self.text().splitlines() if f'"request_id": "{request_id}"' in line]

    def audit(self) -> str:
        """Return the audit log."""
        return (self.folder / "audit.jsonl").read_text()

    def audited(self, request_id: str, outcome: str) -> bool:
        """Whether the audit log records a request with this outcome."""
        fields = (f'"request_id":"{request_id}"', f'"outcome":"{outcome}"')
        return any(all(field in line for field in fields) for line in self.audit().splitlines())

    def health(self) -> dict[str, Any]:
        """Return the body of /health."""
        found: dict[str, Any] = requests.get(f"{self.url}/health", timeout=TRY_SECONDS).json()
        return found

    def stop(self) -> int:
        """Stop it as a service manager does, and return the exit code."""
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(SECONDS)


@contextmanager
def running(folder: Path, *command: str, **env: str) -> Iterator[Server]:
    """Run a gateway with a producer and a worker, or another command, on a free port."""
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
    """Make the body of a create or stream call, as Clara's client does."""
    query = {"query_text": text, "top_k": 1000, "min_quality_score": 0.5, "search_types": ["vector", "graph"]}
    query |= {"filters": {}} | {name: changes.pop(name) for name in tuple(changes) if name in _QUERY}
    return {
        "name": "Baurecht Dach",
        "description": "",
        "search_query": query,
        "export_formats": ["jsonl"],
    } | changes


_QUERY = set(CreateRequest.model_fields["search_query"].annotation.model_fields)  # type: ignore[union-attr]


def eventually(holds: Callable[[], bool], details: object = "") -> None:
    """Wait until the condition holds; fail after a while and show `details`. A time-out counts as false."""
    deadline = time.monotonic() + SECONDS
    while not _now(holds):
        assert time.monotonic() < deadline, details
        time.sleep(0.05)


def _now(holds: Callable[[], bool]) -> bool:
    try:
        return holds()
    except requests.Timeout:
        return False


def ended(url: str, dataset_id: str, **options: Any) -> dict[str, Any]:
    """Wait until a dataset is completed or failed, and return its data."""
    data: dict[str, Any] = {}

    def over() -> bool:
        answer = requests.get(f"{url}/api/datasets/{dataset_id}", timeout=TRY_SECONDS, **options)
        answer.raise_for_status()
        data.update(answer.json()["data"])
        return data["status"] in ("completed", "failed")

    eventually(over, data)
    return data
