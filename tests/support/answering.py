"""Servers that give one answer to everything, and a client of them."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from ssl import SSLContext
from typing import Any

from aiohttp import web

from shardline.services.wiring.stores import s3_options
from shardline_common.settings.load import Settings
from shardline_common.storage.s3 import S3Client, open_s3

SECRET = "do-not-show-me"  # noqa: S105 - of no store


@asynccontextmanager
async def serving(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    tls: SSLContext | None = None,
    host: str = "127.0.0.1",
) -> AsyncIterator[str]:
    """The address of a server with one handler."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, 0, ssl_context=tls).start()
        yield f"{'https' if tls else 'http'}://{host}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def answering(
    status: int, text: str = "", headers: Mapping[str, str] | None = None
) -> AsyncIterator[str]:
    """The address of a server that gives one answer."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text=text, headers=headers)

    async with serving(answer) as url:
        yield url


@asynccontextmanager
async def s3_at(url: str | None, **fields: Any) -> AsyncIterator[S3Client]:
    """A client whose own bucket is `datasets`."""
    values: dict[str, Any] = {
        "s3_bucket": "datasets",
        "aws_endpoint_url_s3": url,
        "aws_access_key_id": "key",
        "aws_secret_access_key": SECRET,
        "s3_addressing_style": "path",
    }
    async with open_s3(s3_options(Settings(**(values | fields)))) as client:
        yield client
