"""The gateway under strangers and under load: `make bench-gateway`. What is not time is asserted."""

import argparse
import asyncio
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import orjson
import psutil
import requests
from rich.console import Console
from rich.table import Table

from tests.benchmarks.common import usage
from tests.benchmarks.first_line import TOP, first_lines
from tests.gateway.conftest import guarded
from tests.gateway.realm import running_realm
from tests.gateway.system import SECONDS, Server, body, eventually, running

_ROOT = Path(__file__).parent.parent.parent
_SLOW_BYTES = 1024
_MAX_MIB = 400
_MAX_LOG_LINES = 100
_CHUNK = 1 << 16
# Producer, worker and gateway poll, each with a task and perhaps a connection. 200 streams would leave more.
_OWN = 4


@contextmanager
def hostile(*arguments: int) -> Iterator[subprocess.Popen[str]]:
    """Run `tests.gateway.hostile` in a process of its own."""
    command = [sys.executable, "-m", "tests.gateway.hostile", *map(str, arguments)]
    with subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()


class HealthProbe:
    """The seconds of each answer of /health, on a new connection each, while the context lasts."""

    def __init__(self, port: int) -> None:
        self.seconds: list[float] = []
        self._port = port

    def __enter__(self) -> Self:
        self._process = hostile(self._port)
        self._popen = self._process.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._popen.terminate()
        assert self._popen.stdout is not None
        self.seconds = [float(line) for line in self._popen.stdout]
        self._process.__exit__(None, None, None)

    def row(self) -> list[str]:
        """The median, the longest time, and the number of answers that took over a second or failed."""
        assert max(self.seconds) < float("inf"), "a request to /health failed"
        late = sum(seconds > 1 for seconds in self.seconds)
        median, longest = statistics.median(self.seconds) * 1000, max(self.seconds) * 1000
        return [f"{median:,.0f} ms", f"{longest:,.0f} ms", f"{late} of {len(self.seconds)}"]


def strangers(folder: Path, connections: int, seconds: float) -> list[str]:
    """A row of the table of strangers."""
    with running_realm() as realm:
        # The limits of an installation, not those of the tests.
        env = guarded(realm) | {"GATEWAY_REQUESTS_PER_MINUTE": "600"}
        with running(folder, **env) as server:
            before = server.text().count("\n")
            with HealthProbe(server.port) as probe, hostile(server.port, connections):
                time.sleep(seconds)
            lines = server.text().count("\n") - before
            audited = len(server.audit().splitlines())
            _, peak = usage(server.popen.pid)
    assert lines < _MAX_LOG_LINES, lines
    assert audited < _MAX_LOG_LINES, audited
    return [str(connections), *probe.row(), str(lines), str(audited), f"{peak:.0f} MiB"]


@dataclass
class Client:
    """One client of a stream: its lines, when the first and the last came, and whether it was whole."""

    lines: int = 0
    first: float = 0.0
    last: float = 0.0
    whole: bool = False

    async def run(self, port: int, documents: int, started: float, *, slow: bool, stop_at: int) -> None:
        """Read the stream: to its end, to `stop_at` lines, or at 1 KB a second."""
        limit = _SLOW_BYTES if slow else 1 << 18
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=limit)
        content = orjson.dumps(body("endless", top_k=documents, min_quality_score=0))
        head = "POST /api/datasets/stream HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(content)}\r\nConnection: close\r\n\r\n".encode() + content)
        tail = b""
        try:
            while seen := await reader.read(_SLOW_BYTES if slow else _CHUNK):
                self.lines += seen.count(b"}\n")
                self.last = time.perf_counter() - started
                self.first = self.first or (self.last if self.lines else 0.0)
                tail = (tail + seen)[-8:]
                if self.lines >= stop_at:
                    return
                if slow:
                    await asyncio.sleep(1)
            self.whole = tail.endswith(b"0\r\n\r\n")
        finally:
            writer.transport.abort()


@dataclass(frozen=True)
class Left:
    """What a process holds: threads, sockets and other files, files in its temporary folders, tasks."""

    threads: int
    files: int
    temporary: int
    tasks: int

    @classmethod
    def of(cls, server: Server) -> "Left":
        """What a gateway holds now."""
        process = psutil.Process(server.popen.pid)
        port = server.until_logged(r"/readyz on port (\d+)")[1]
        metrics = requests.get(
            f"http://127.0.0.1:{port}/metrics", timeout=SECONDS, headers={"Connection": "close"}
        ).text
        tasks = re.search(r"^shardline_tasks (\d+)", metrics, re.MULTILINE)
        assert tasks is not None
        assert re.search(r'^shardline_gateway_streams_open\{kind="rows"\} 0', metrics, re.MULTILINE), metrics
        temporary = sum(len(names) for _, _, names in os.walk(server.folder / "temp"))
        return cls(process.num_threads(), process.num_fds(), temporary, int(tasks[1]))

    def within(self, before: "Left", threads: int) -> bool:
        """Whether nothing is left but threads of pools, which stay, and what the process does by itself."""
        return (
            self.threads <= before.threads + threads
            and self.files <= before.files + _OWN
            and self.temporary <= before.temporary
            and self.tasks <= before.tasks + _OWN
        )


async def streamed(server: Server, streams: int, documents: int) -> list[Client]:
    """Half of the clients read at full speed, a quarter at 1 KB/s, a quarter leaves in the middle."""
    started = time.perf_counter()
    fast = [Client() for _ in range(streams // 2)]
    slow = [Client() for _ in range(streams // 4)]
    gone = [Client() for _ in range(streams - len(fast) - len(slow))]
    patient = [
        asyncio.ensure_future(one.run(server.port, documents, started, slow=True, stop_at=1 << 60))
        for one in slow
    ]
    leaving = [
        one.run(
            server.port, documents, started, slow=False, stop_at=documents * (1 + number) // (len(gone) + 1)
        )
        for number, one in enumerate(gone)
    ]
    reading = [one.run(server.port, documents, started, slow=False, stop_at=1 << 60) for one in fast]
    await asyncio.gather(*reading, *leaving)
    for task in patient:
        task.cancel()
    await asyncio.gather(*patient, return_exceptions=True)
    assert all(one.whole and one.lines == documents for one in fast), [one.lines for one in fast]
    return fast


def load(folder: Path, streams: int, documents: int) -> list[str]:
    """A row of the table of load."""
    temp = folder / "temp"
    temp.mkdir(parents=True)
    limits = {
        "GATEWAY_STREAMS": str(streams),
        "GATEWAY_STREAMS_PER_USER": str(streams),
        "TMPDIR": str(temp),
        "TEST_DOCUMENTS": "100",
    }
    with running(folder, **limits) as server:
        first = requests.post(
            f"{server.url}/api/datasets/stream",
            json=body("endless", top_k=1000),
            timeout=SECONDS,
            headers={"Connection": "close"},
        )
        assert first.ok
        before = Left.of(server)
        cpu, _ = usage(server.popen.pid)
        with HealthProbe(server.port) as probe:
            fast = asyncio.run(streamed(server, streams, documents))
        used, peak = usage(server.popen.pid)
        pools = (os.cpu_count() or 1) + 4
        eventually(lambda: Left.of(server).within(before, pools), before)
        eventually(lambda: server.text().count("source opened") == server.text().count("source closed"))
    assert peak < _MAX_MIB, f"{peak:.0f} MiB"
    ends = [one.last for one in fast]
    firsts = sorted(one.first for one in fast)
    return [
        f"{streams} of {documents:,}",
        f"{statistics.median(firsts) * 1000:,.0f} / {firsts[-1] * 1000:,.0f} ms",
        f"{min(ends):.1f} to {max(ends):.1f} s",
        *probe.row(),
        f"{used - cpu:.0f} s",
        f"{peak:.0f} MiB",
    ]


def show(title: str, columns: Sequence[str], *rows: list[str]) -> None:
    """Print a table."""
    table = Table(title=title)
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*row)
    Console(width=120).print(table)
    sys.stdout.flush()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gateway")
    parser.add_argument("--connections", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--documents", type=int, default=10_000, help="of one stream, of 2 KB each")
    parser.add_argument("--searched", type=int, default=100_000, help="documents of a table with an index")
    parser.add_argument("--unindexed", type=int, default=20_000, help="documents of a table without one")
    asked = parser.parse_args()
    health = ("/health: median", "longest", "over 1 s")
    with tempfile.TemporaryDirectory(prefix="shardline-bench-") as name:
        folder = Path(name)
        if asked.connections:
            columns = ("connections", *health, "log lines", "audit lines", "peak RSS")
            row = strangers(folder / "strangers", asked.connections, asked.seconds)
            show(f"connections without a token for {asked.seconds:.0f} s", columns, row)
        if asked.streams:
            figures = (
                "streams",
                "first line: median / last",
                "ends of those who read",
                *health,
                "CPU",
                "peak RSS",
            )
            title = "streams at once: half read, a quarter at 1 KB/s, a quarter leaves in the middle"
            show(title, figures, load(folder / "load", asked.streams, asked.documents))
        if asked.searched:
            found = asyncio.run(first_lines(folder / "search", asked.searched, asked.unindexed))
            title = f"a keyword search that hits every document, top_k {TOP:,}"
            show(title, ("", "documents", "first line", "last line"), *found)


if __name__ == "__main__":
    main()
