"""`python -m tests.benchmarks.streams`: many clients at once; first lines, CPU beside a ceiling, memory.

The ceiling is a bare server (`bare_server`) that sends the same bytes. Both serve in turn, in each round.
With `--postgres` the documents come from a keyword search of PostgreSQL, else from memory.
"""

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

from tests.benchmarks.common import usage
from tests.benchmarks.postgres_gateway import WORDS, filled
from tests.databases import Database
from tests.gateway.system import Server, body, running

_LIMITS = {"GATEWAY_STREAMS": "1000", "GATEWAY_STREAMS_PER_USER": "1000"}
MEMORY: Mapping[str, Any] = {"text": "endless"}
_KEYWORD: Mapping[str, Any] = {"text": WORDS, "search_types": ["relational"]}
# Of the bytes that the bare server sends again and again.
_SAMPLE = 1000


@dataclass(frozen=True)
class Measured:
    """What one server needed for all streams of a round."""

    firsts: list[float]
    lines_per_second: float
    cpu: float
    peak: float


@dataclass(frozen=True)
class BareServer:
    """A running `bare_server`."""

    popen: subprocess.Popen[str]
    port: int


async def one(
    server: Server | BareServer, documents: int, started: float, search: Mapping[str, Any]
) -> tuple[float, int]:
    """Seconds to the first line, and how many lines came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1 << 18)
    content = orjson.dumps(body(**search, top_k=documents, min_quality_score=0))
    head = "POST /api/datasets/stream HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += f"X-Times: {documents // _SAMPLE}\r\n"
    writer.write(f"{head}Content-Length: {len(content)}\r\nConnection: close\r\n\r\n".encode() + content)
    answer = await reader.readuntil(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200"), answer
    lines, first, tail = 0, 0.0, b""
    while seen := await reader.read(1 << 16):
        # A line end is a byte of its own in a chunk's frame, too: an end may be cut off its line.
        lines += seen.count(b"}\n") + (seen[:1] == b"\n" and tail[-1:] == b"}")
        tail = (tail + seen)[-8:]
        if lines and not first:
            first = time.perf_counter() - started
    writer.close()
    assert tail.endswith(b"0\r\n\r\n"), tail
    return first, lines


async def measure(
    server: Server | BareServer, clients: int, documents: int, search: Mapping[str, Any] = MEMORY
) -> tuple[list[float], int, float]:
    """All first-line times, all lines, and the seconds it took."""
    started = time.perf_counter()
    found = await asyncio.gather(*(one(server, documents, started, search) for _ in range(clients)))
    return [first for first, _ in found], sum(lines for _, lines in found), time.perf_counter() - started


@contextmanager
def _bare(folder: Path) -> Iterator[BareServer]:
    text = "Ein Satz. " * 200
    rows = [
        {
            "text": text,
            "metadata": {"title": f"{number:012d}", "domain": None, "document_type": None, "pages": None}
            | {"created_at": None, "extra": None},
            "source": "uds3_search",
            "quality_score": 0.5,
            "document_id": f"{number:012d}",
            "relevance_score": 0.0,
        }
        for number in range(_SAMPLE)
    ]
    path = folder / "rows.jsonl"
    path.write_bytes(b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows))
    command = [sys.executable, "-m", "tests.benchmarks.bare_server", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as popen:
        try:
            assert popen.stdout is not None
            yield BareServer(popen, int(popen.stdout.readline()))
        finally:
            popen.kill()


def _measured(
    server: Server | BareServer, clients: int, documents: int, search: Mapping[str, Any]
) -> Measured:
    before, _ = usage(server.popen.pid)
    firsts, lines, wall = asyncio.run(measure(server, clients, documents, search))
    cpu, peak = usage(server.popen.pid)
    assert lines == clients * documents, lines
    return Measured(firsts, lines / wall, (cpu - before) / lines * 1e6, peak)


def _round(clients: int, documents: int, database: Database | None) -> tuple[Measured, Measured]:
    command, env, search = list[str](), _LIMITS, MEMORY
    with tempfile.TemporaryDirectory(prefix="shardline-bench-") as folder:
        if database is not None:
            command = ["-m", "tests.benchmarks.postgres_gateway", folder]
            env, search = _LIMITS | database.env, _KEYWORD
        with running(Path(folder), *command, **env) as server:
            ours = _measured(server, clients, documents, search)
        with _bare(Path(folder)) as bare:
            return ours, _measured(bare, clients, documents, search)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--documents", type=int, default=10_000, help="of one stream, of 2 KB each")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--postgres", action="store_true", help="from a search of PostgreSQL")
    asked = parser.parse_args()
    with ExitStack() as stack:
        database = None
        if asked.postgres:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="shardline-bench-"))
            database = stack.enter_context(filled(Path(folder), asked.documents))
        table = _table(asked, database)
    Console(width=130).print(table)
    sys.stdout.flush()


def _table(asked: argparse.Namespace, database: Database | None) -> Table:
    where = "PostgreSQL" if database else "memory"
    table = Table(
        title=f"streams of {asked.documents:,} documents of 2 KB from {where}, over HTTP on loopback"
    )
    columns = ("streams at once", "first line: median", "p99", "lines/s", "CPU-s per million: least")
    for column in (*columns, "median", "of a bare server: least", "median", "peak RSS"):
        table.add_column(column, justify="right")
    for clients in (1, asked.clients):
        rounds = [_round(clients, asked.documents, database) for _ in range(asked.rounds)]
        ours, bare = ([pair[index] for pair in rounds] for index in (0, 1))
        firsts = sorted(first for found in ours for first in found.firsts)
        tail = statistics.quantiles(firsts, n=100)[98] if len(firsts) > 1 else firsts[0]
        table.add_row(
            str(clients),
            f"{statistics.median(firsts) * 1000:,.0f} ms",
            f"{tail * 1000:,.0f} ms",
            f"{max(found.lines_per_second for found in ours):,.0f}",
            *(
                f"{pick(found.cpu for found in measured):.1f}"
                for measured in (ours, bare)
                for pick in (min, statistics.median)
            ),
            f"{max(found.peak for found in ours):.0f} MiB",
        )
    return table


if __name__ == "__main__":
    main()
