"""`python -m tests.benchmarks.streams`: many clients at once; first lines, lines per second, memory."""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

import orjson
from rich.console import Console
from rich.table import Table

from tests.benchmarks.common import usage
from tests.gateway.system import Server, body, running


async def one(server: Server, documents: int, started: float) -> tuple[float, int]:
    """Seconds to the first line, and how many lines came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1 << 18)
    content = orjson.dumps(body("endless", top_k=documents, min_quality_score=0))
    head = "POST /api/datasets/stream HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(content)}\r\nConnection: close\r\n\r\n".encode() + content)
    answer = await reader.readuntil(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200"), answer
    seen, lines, first, tail = b"", 0, 0.0, b""
    while seen := await reader.read(1 << 16):
        lines += seen.count(b"}\n")
        tail = (tail + seen)[-8:]
        if lines and not first:
            first = time.perf_counter() - started
    writer.close()
    assert tail.endswith(b"0\r\n\r\n"), tail
    return first, lines


async def measure(server: Server, clients: int, documents: int) -> tuple[list[float], int, float]:
    """All first-line times, all lines, and the seconds it took."""
    started = time.perf_counter()
    found = await asyncio.gather(*(one(server, documents, started) for _ in range(clients)))
    return [first for first, _ in found], sum(lines for _, lines in found), time.perf_counter() - started


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--documents", type=int, default=10_000, help="of one stream, of 2 KB each")
    asked = parser.parse_args()
    limits = {"GATEWAY_STREAMS": "1000", "GATEWAY_STREAMS_PER_USER": "1000"}
    table = Table(title=f"streams of {asked.documents:,} documents of 2 KB over HTTP on loopback")
    for column in (
        "streams at once",
        "first line: median",
        "p99",
        "lines/s",
        "CPU-s per million",
        "peak RSS",
    ):
        table.add_column(column, justify="right")
    for clients in (1, asked.clients):
        with (
            tempfile.TemporaryDirectory(prefix="shardline-bench-") as folder,
            running(Path(folder), **limits) as server,
        ):
            before, _ = usage(server.popen.pid)
            firsts, lines, wall = asyncio.run(measure(server, clients, asked.documents))
            cpu, peak = usage(server.popen.pid)
        assert lines == clients * asked.documents, lines
        tail = statistics.quantiles(firsts, n=100)[98] if len(firsts) > 1 else firsts[0]
        table.add_row(
            str(clients),
            f"{statistics.median(firsts) * 1000:,.0f} ms",
            f"{tail * 1000:,.0f} ms",
            f"{lines / wall:,.0f}",
            f"{(cpu - before) / lines * 1e6:.1f}",
            f"{peak:.0f} MiB",
        )
    Console(width=110).print(table)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
