"""Clients that hold connections without finishing a request, and what a polite client sees meanwhile."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.gateway.system import SECONDS

_HEAD = b"POST /api/datasets/stream HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
_BODY = _HEAD + b"Content-Length: 1000000\r\n\r\n{"
_PROBE_SECONDS = 0.2
# What each kind of client sends first, and then every second.
KINDS: dict[str, tuple[bytes, bytes]] = {
    "silent": (b"", b""),
    "header": (b"GET /health HTTP/1.1\r\nHost: localhost\r\n", b"X-A: b\r\n"),
    "body": (_BODY, b" "),
    "chunked": (_HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "refused": (b"GET /api/datasets HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n", b" "),
}


@dataclass
class Attack:
    """The state of an attack: connections opened so far, and open now."""

    opened: int = 0
    open: int = 0
    refused: int = 0
    closed: dict[str, int] = field(default_factory=dict)


async def hold(port: int, kind: str, attack: Attack, pause: float) -> None:
    """Hold one connection of a kind; open it again when it is closed."""
    first, then = KINDS[kind]
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            attack.refused += 1
            await asyncio.sleep(pause)
            continue
        attack.opened += 1
        attack.open += 1
        dribble = asyncio.ensure_future(_dribble(writer, first, then))
        try:
            while await reader.read(1 << 16):
                pass
        except OSError:
            pass
        finally:
            attack.open -= 1
            dribble.cancel()
            writer.transport.abort()
        attack.closed[kind] = attack.closed.get(kind, 0) + 1
        await asyncio.sleep(pause)


async def _dribble(writer: asyncio.StreamWriter, first: bytes, then: bytes) -> None:
    writer.write(first)
    while True:
        await asyncio.sleep(1)
        writer.write(then)


@asynccontextmanager
async def slowloris(port: int, connections: int, pause: float = 0.2) -> AsyncIterator[Attack]:
    """Hold so many connections, of all kinds in turn, while the context lasts."""
    attack = Attack()
    kinds = list(KINDS)
    tasks = [
        asyncio.ensure_future(hold(port, kinds[number % len(kinds)], attack, pause))
        for number in range(connections)
    ]
    try:
        yield attack
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def request(port: int, content: bytes) -> bytes:
    """Send bytes on a new connection and return all that comes until its end."""
    async with asyncio.timeout(SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(content)
            return await reader.read(-1)
        finally:
            writer.transport.abort()


async def health_seconds(port: int) -> float:
    """Return the seconds until /health answered 200 on a new connection; infinite when it did not."""
    started = time.perf_counter()
    try:
        answer = await request(port, b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    except OSError:
        return float("inf")
    return time.perf_counter() - started if answer.startswith(b"HTTP/1.1 200") else float("inf")


async def _probe(port: int) -> None:
    while True:
        # A line for each answer, so that the caller may stop this process at any time.
        print(await health_seconds(port), flush=True)  # noqa: T201
        await asyncio.sleep(_PROBE_SECONDS)


async def _attack(port: int, connections: int) -> None:
    async with slowloris(port, connections):
        await asyncio.Event().wait()


if __name__ == "__main__":
    # `PORT N`: hold N connections; `PORT`: measure /health. In a process of its own, so that neither waits
    # for the other clients of a benchmark.
    asyncio.run(_attack(*map(int, sys.argv[1:])) if len(sys.argv) > 2 else _probe(int(sys.argv[1])))
