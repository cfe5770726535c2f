"""ThemisDB as a service: tokens, limits, outages, connections."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shardline_common.errors import JobFailed, SourceUnavailable
from shardline_common.http.client import HttpRequest, HttpResponse
from shardline_producer.sources.themis.client import ThemisClient, ThemisOptions, open_themis
from shardline_producer.sources.themis.limiter import RateLimiter
from tests.source_items import item_ids
from tests.themis_reading import InstantClock, ThemisJob, fill_documents, read_items
from tests.themis_server import READER, ThemisServer, themis_server


@pytest.fixture
async def server() -> AsyncIterator[ThemisServer]:
    async with themis_server() as found:
        yield found


@pytest.mark.parametrize(
    ("token", "said"), [(None, "Missing Authorization"), ("wrong-secret", "missing token")]
)
async def test_refused_token_fails_the_job_and_is_not_shown(
    server: ThemisServer, token: str | None, said: str
) -> None:
    fill_documents(server)
    with pytest.raises(JobFailed, match=said) as caught:
        await read_items(server, token=token)
    assert caught.value.code == "source_invalid"
    assert "THEMIS_TOKEN" in str(caught.value.hint)
    assert (
        "wrong-secret"
        not in f"{caught.value} {caught.value.hint} {ThemisOptions('http://x', 'wrong-secret')}"
    )


async def test_crash_of_the_server_names_the_table(server: ThemisServer) -> None:
    fill_documents(server)
    server.tables.put("documents:d-00025", "no json")
    server.tables.indexes["documents", "doc_id"][0].change("d-00025", "d-00025", add=True)
    with pytest.raises(SourceUnavailable, match=r"dropped the connection .*table 'documents'") as caught:
        await read_items(server)
    assert "not JSON" in str(caught.value.hint)
    server.restart()


async def test_unreachable_server_is_unavailable(server: ThemisServer) -> None:
    with pytest.raises(SourceUnavailable, match=r"http://127\.0\.0\.1:9 cannot be reached") as caught:
        await read_items(server, url="http://user:secret@127.0.0.1:9")
    assert "THEMIS_URL" in str(caught.value.hint)
    assert "secret" not in str(caught.value)


async def test_another_server_at_the_address_fails_the_job(server: ThemisServer) -> None:
    with pytest.raises(JobFailed, match="does not answer as ThemisDB does: it answered 404"):
        await read_items(server, url=server.url + "/base")


async def test_rate_limited_requests_are_repeated_after_a_pause(server: ThemisServer) -> None:
    fill_documents(server, 20)
    reading = ThemisJob(server, lossless=True)
    server.now = reading.clock.monotonic
    server.limit(60, left=5)
    assert len(await reading.items()) == 20
    # 20 rows and a few queries, at one request a second: refused requests were not repeated too early.
    assert 15 < reading.clock.seconds - 1000 < 60


class ScriptedClient:
    """Implements `HttpClient`: it answers with these statuses in turn; a 429 asks for five minutes."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)

    async def send(self, _: HttpRequest) -> HttpResponse:
        status = self.statuses.pop(0)
        return HttpResponse(status, b"{}", "300" if status == 429 else "")


async def test_pauses_of_a_request_are_limited_over_all_its_attempts() -> None:
    clock, sender = InstantClock(), ScriptedClient(429, 500, 429, 200)
    started, limiter = clock.monotonic(), RateLimiter(0, clock)
    client = ThemisClient(sender, ThemisOptions("http://x"), limiter, clock)  # type: ignore[arg-type]
    with pytest.raises(SourceUnavailable, match="answered 429 to a request for its rate limit"):
        await client.health()
    assert sender.statuses == [200]
    assert 300 <= clock.monotonic() - started < 302


@pytest.mark.parametrize("rest", ["", "/", "?a=b", "/?a=b#c"])
async def test_paths_are_appended_to_the_path_of_the_address(server: ThemisServer, rest: str) -> None:
    fill_documents(server)
    assert len(await read_items(server, url=server.url.replace("//", "//user:secret@") + rest)) == 50


async def test_own_rate_limit_stays_below_the_servers(server: ThemisServer) -> None:
    fill_documents(server, 300)
    reading = ThemisJob(server, lossless=True, rate=100)
    server.now = reading.clock.monotonic
    server.limit(100)
    assert len(await reading.items()) == 300
    assert server.refused == 0
    assert 100 < reading.clock.seconds - 1000 < 200


async def test_job_over_an_hour_must_choose_lossless(server: ThemisServer) -> None:
    fill_documents(server, 6_100)
    with pytest.raises(JobFailed, match=r"6,100 rows .* takes 1\.0 hours .*choose") as caught:
        await read_items(server, rate=100)
    assert "source.lossless" in str(caught.value.hint)
    assert "THEMIS_RATE" in str(caught.value.hint)
    assert len(await read_items(server, rate=100, lossless=False)) == 6_100
    assert len(await read_items(server, rate=100, query={"top_k": 60})) == 60
    assert len(await read_items(server, rate=6_000)) == 6_100


async def test_too_large_answers_are_split(server: ThemisServer) -> None:
    fill_documents(server, 200, more="x" * 1000)
    for lossless in (True, False):
        found = await read_items(server, lossless=lossless, max_response_bytes=20_000)
        assert item_ids(found) == [f"d-{number:05d}" for number in range(200)]
    limits = [query["order_by"]["limit"] for query in server.queries if query.get("return") != "keys"]
    assert 12 in limits


async def test_concurrent_requests_are_limited(server: ThemisServer) -> None:
    fill_documents(server, 300)

    async def yielding(_: object) -> None:
        await asyncio.sleep(0)

    server.before = yielding
    await read_items(server, lossless=True)
    assert 2 < server.most_open <= 8


async def test_cancelled_read_closes_its_connections(server: ThemisServer) -> None:
    fill_documents(server)
    reached, never = asyncio.Event(), asyncio.Event()

    async def hang(request: Any) -> None:
        if request.method == "GET":
            reached.set()
            await never.wait()

    server.before = hang
    task = asyncio.create_task(read_items(server))
    await reached.wait()
    assert await server.connected() > 0
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    never.set()
    assert await server.connected() == 0


async def test_request_over_one_mebibyte_is_not_sent(server: ThemisServer) -> None:
    clock = InstantClock()
    async with open_themis(ThemisOptions(server.url, READER), RateLimiter(0, clock), clock) as client:
        with pytest.raises(JobFailed, match="1 MiB"):
            await client.query({"table": "x" * (1 << 20)})
    assert not server.asked
