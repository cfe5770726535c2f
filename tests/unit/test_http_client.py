"""The client of one HTTP service: cookies, and which services are sent them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from shardline.gateway.jwks import jwks_fetcher
from shardline_common.http.client import HttpOptions, HttpRequest, open_http
from shardline_common.runtime.clock import SystemClock
from shardline_producer.sources.themis.client import ThemisOptions, open_themis
from shardline_producer.sources.themis.limiter import RateLimiter


@asynccontextmanager
async def balancer(seen: list[str]) -> AsyncIterator[str]:
    """The address of a load balancer that binds each client by a cookie. `seen`: those that came."""

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Cookie", ""))
        found = {"version": "1", "keys": []}
        response = web.json_response(found) if request.path != "/start" else web.Response(status=302)
        response.headers["Location"] = "/keys"
        response.set_cookie("server", "a")
        return response

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    # An address with a number instead of a name gets no cookies.
    server = TestServer(app, host="localhost")
    await server.start_server()
    try:
        yield f"http://localhost:{server.port}"
    finally:
        await server.close()


@pytest.mark.parametrize("keep", [False, True])
async def test_cookies_are_sent_back_only_where_they_are_kept(keep: bool) -> None:
    seen: list[str] = []
    async with balancer(seen) as url, open_http(HttpOptions(url, keep_cookies=keep)) as client:
        for _ in range(2):
            assert (await client.send(HttpRequest("GET", "/x"))).status == 200
    assert seen == ["", "server=a" if keep else ""]


async def test_themis_and_the_realm_are_sent_their_cookies() -> None:
    seen: list[str] = []
    clock = SystemClock()
    async with balancer(seen) as url:
        async with open_themis(ThemisOptions(url), RateLimiter(0, clock), clock) as client:
            assert [await client.health(), await client.health()] == ["1", "1"]
        assert await jwks_fetcher(f"{url}/start")() == {"version": "1", "keys": []}
    assert seen == ["", "server=a"] * 2
