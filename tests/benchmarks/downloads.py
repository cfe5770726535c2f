"""`python -m tests.benchmarks.downloads`: a file of a dataset from the gateway, beside a bare sendfile.

The store is a directory. Both serve in turn, in each round; the CPU is that of the server's process.
"""

import argparse
import os
import socket
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import requests
from rich.console import Console
from rich.table import Table

from tests.benchmarks.common import usage
from tests.gateway.system import SECONDS, body, ended, running

_PIECE = 1 << 20


def _send_file(path: str, listener: socket.socket) -> None:
    """Answer each connection with the file, until killed."""

    while True:
        connection, _ = listener.accept()
        with connection, Path(path).open("rb") as file:
            request = b""
            while b"\r\n\r\n" not in request:
                request += connection.recv(_PIECE)
            size = os.fstat(file.fileno()).st_size
            connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
            connection.sendfile(file)


@contextmanager
def _bare(path: Path) -> Iterator[tuple[int, int]]:
    """Serve the file by sendfile; the port, and the process id."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = get_context("fork").Process(target=_send_file, args=(str(path), listener))
        process.start()
        try:
            assert process.pid is not None
            yield listener.getsockname()[1], process.pid
        finally:
            process.kill()
            process.join()


def _cpu_of_download(port: int, target: str, pid: int, size: int) -> float:
    """CPU-seconds of the server for a GB."""
    before, _ = usage(pid)
    received = 0
    with socket.create_connection(("127.0.0.1", port)) as client:
        request = f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        client.sendall(request.encode())
        while piece := client.recv(_PIECE):
            received += len(piece)
    assert received > size, received
    return (usage(pid)[0] - before) / size * 1e9


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bytes", type=int, default=500_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    found: dict[str, list[float]] = {"gateway": [], "sendfile": []}
    with (
        tempfile.TemporaryDirectory(prefix="shardline-bench-") as folder,
        running(Path(folder)) as server,
    ):
        url = f"{server.url}/api/datasets"
        made = requests.post(url, json=body(name="Export", top_k=100), timeout=SECONDS).json()
        dataset = made["dataset_id"]
        assert ended(server.url, dataset)["status"] == "completed"
        requests.post(f"{url}/{dataset}/export", json={"format": "jsonl"}, timeout=SECONDS).raise_for_status()
        path = next(Path(folder).rglob("export.jsonl"))
        line = path.read_bytes().splitlines(keepends=True)[0]
        path.write_bytes(line * (asked.bytes // len(line)))
        size, target = path.stat().st_size, f"/api/datasets/{dataset}/files/exports/{path.name}"
        with _bare(path) as (port, pid):
            for _ in range(asked.rounds):
                found["gateway"].append(_cpu_of_download(server.port, target, server.popen.pid, size))
                found["sendfile"].append(_cpu_of_download(port, target, pid, size))
    table = Table("server", "CPU-s of a GB: least", "median", title=f"a file of {asked.bytes / 1e6:,.0f} MB")
    for name, figures in found.items():
        table.add_row(name, f"{min(figures):.2f}", f"{statistics.median(figures):.2f}")
    Console(width=100).print(table)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
