"""`python -m tests.benchmarks.bare_server FILE`: the ceiling of streams.

It is uvicorn with an application that sends the bytes of a file, in pieces like those of a stream, to every
request, as often as its header `x-times` says. It prints its port.
"""

import asyncio
import socket
import sys
from pathlib import Path

import uvicorn
from starlette.types import Receive, Scope, Send

# As many as a stream sends at once.
_LINES = 31


async def _serve(pieces: list[bytes]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        times = int(dict(scope["headers"])[b"x-times"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(times):
            for piece in pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    listener = socket.create_server(("127.0.0.1", 0))
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    config = uvicorn.Config(app, http="h11", ws="none", lifespan="off", log_config=None, access_log=False)
    await uvicorn.Server(config).serve([listener])


def main() -> None:
    """Serve until stopped by a signal."""
    lines = Path(sys.argv[1]).read_bytes().splitlines(keepends=True)
    pieces = [b"".join(lines[start : start + _LINES]) for start in range(0, len(lines), _LINES)]
    asyncio.run(_serve(pieces))


if __name__ == "__main__":
    main()
