"""A substitute for an embedding model: hashed words, no weights. `python -m deploy.seed.embedding` serves it.

Only texts with common words are near to each other. That suffices to try the vector search, not to judge
its quality.
"""

import asyncio
import math
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import lru_cache
from hashlib import blake2b

from aiohttp import web

from shardline_common.runtime.lifecycle import run_until_stopped

DIMENSION = 384
_PORT = 8080
_GRACE = 5.0


def vector(text: str) -> list[float]:
    """The vector of a text, of length 1 and independent of case; a fixed vector when it has no word."""
    values = [0.0] * DIMENSION
    for word, count in Counter(re.findall(r"\w+", text.casefold())).items():
        index, sign = _feature(word)
        values[index] += sign * (1.0 + math.log(count))
    length = math.hypot(*values)
    return [value / length for value in values] if length else [1.0] + [0.0] * (DIMENSION - 1)


@lru_cache(maxsize=65_536)
def _feature(word: str) -> tuple[int, float]:
    number = int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "big")
    return number // 2 % DIMENSION, 1.0 if number % 2 else -1.0


def application() -> web.Application:
    """The application: `POST /embed` as in text-embeddings-inference, and `/healthz`."""

    async def embed(request: web.Request) -> web.Response:
        body = await request.json()
        return web.json_response([vector(str(body["inputs"]))])

    async def health(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    app = web.Application()
    app.router.add_post("/embed", embed)
    app.router.add_get("/healthz", health)
    return app


def _serve(port: int) -> Callable[[], Awaitable[None]]:
    async def serve() -> None:
        runner = web.AppRunner(application(), access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, port=port).start()
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    return serve


if __name__ == "__main__":
    asyncio.run(run_until_stopped(_serve(_PORT), _GRACE))
