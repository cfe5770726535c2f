"""ThemisDB as a service: tokens, limits, outages, connections."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shardline_common.errors import JobFailed, SourceUnavailable
from shardline_producer.sources.themis.client import ThemisOptions, open_themis
from shardline_producer.sources.themis.limiter import RateLimiter
from tests.themis_reading import Instant, Reading, filled, names, read
from tests.themis_server import READER, Themis, themis_server


@pytest.fixture
async def server() -> AsyncIterator[Themis]:
    async with themis_server() as found:
        yield found


@pytest.mark.parametrize(
    ("token", "said"), [(None, "Missing Authorization"), ("wrong-secret", "missing token")]
)
async def test_a_token_that_is_refused(server: Themis, token: str | None, said: str) -> None:
    filled(server)
    with pytest.raises(JobFailed, match=said) as caught:
        await read(server, token=token)
    assert caught.value.code == "source_invalid"
    assert "THEMIS_TOKEN" in str(caught.value.hint)
    assert (
        "wrong-secret"
        not in f"{caught.value} {caught.value.hint} {ThemisOptions('http://x', 'wrong-secret')}"
    )


async def test_a_blob_that_kills_the_server_names_the_table(server: Themis) -> None:
    filled(server)
    server.tables.put("documents:d-00025", "no json")
    server.tables.indexes["documents", "doc_id"][0].change("d-00025", "d-00025", add=True)
    with pytest.raises(SourceUnavailable, match=r"dropped the connection .*table 'documents'") as caught:
        await read(server)
    assert "no JSON" in str(caught.value.hint)
    server.revive()


async def test_a_server_that_is_away(server: Themis) -> None:
    with pytest.raises(SourceUnavailable, match=r"http://127\.0\.0\.1:9 cannot be reached") as caught:
        await read(server, url="http://user:secret@127.0.0.1:9")
    assert "THEMIS_URL" in str(caught.value.hint)
    assert "secret" not in str(caught.value)


async def test_a_stranger_at_the_address(server: Themis) -> None:
    with pytest.raises(JobFailed, match="does not answer as ThemisDB does: it answered 404"):
        await read(server, url=server.url + "/base")


async def test_what_is_refused_for_a_moment_is_tried_again(server: Themis) -> None:
    filled(server, 20)
    reading = Reading(server, lossless=True)
    server.now = reading.clock.monotonic
    server.limit(60, left=5)
    assert len(await reading.items()) == 20
    # 20 rows and a few questions, at one a second: nothing was asked for in vain more often than needed.
    assert 15 < reading.clock.seconds - 1000 < 60


async def test_the_own_limit_keeps_below_the_servers(server: Themis) -> None:
    filled(server, 300)
    reading = Reading(server, lossless=True, rate=100)
    server.now = reading.clock.monotonic
    server.limit(100)
    assert len(await reading.items()) == 300
    assert server.refused == 0
    assert 100 < reading.clock.seconds - 1000 < 200


async def test_over_an_hour_asks_for_a_choice(server: Themis) -> None:
    filled(server, 6_100)
    with pytest.raises(JobFailed, match=r"6,100 rows .* takes 1\.0 hours .*choose") as caught:
        await read(server, rate=100)
    assert "source.lossless" in str(caught.value.hint)
    assert "THEMIS_RATE" in str(caught.value.hint)
    assert len(await read(server, rate=100, lossless=False)) == 6_100
    assert len(await read(server, rate=100, query={"top_k": 60})) == 60
    assert len(await read(server, rate=6_000)) == 6_100


async def test_answers_that_are_too_large_are_asked_for_in_pieces(server: Themis) -> None:
    filled(server, 200, more="x" * 1000)
    for lossless in (True, False):
        found = await read(server, lossless=lossless, answer_bytes=20_000)
        assert names(found) == [f"d-{number:05d}" for number in range(200)]
    limits = [query["order_by"]["limit"] for query in server.queries if query.get("return") != "keys"]
    assert 12 in limits


async def test_no_more_requests_at_once_than_set(server: Themis) -> None:
    filled(server, 300)

    async def yielding(_: object) -> None:
        await asyncio.sleep(0)

    server.before = yielding
    await read(server, lossless=True)
    assert 2 < server.most_open <= 8


async def test_a_cancelled_read_closes_its_connections(server: Themis) -> None:
    filled(server)
    reached, never = asyncio.Event(), asyncio.Event()

    async def hang(request: Any) -> None:
        if request.method == "GET":
            reached.set()
            await never.wait()

    server.before = hang
    task = asyncio.create_task(read(server))
    await reached.wait()
    assert await server.connected() > 0
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    never.set()
    assert await server.connected() == 0


async def test_a_request_over_a_mebibyte_is_not_sent(server: Themis) -> None:
    clock = Instant()
    async with open_themis(ThemisOptions(server.url, READER), RateLimiter(0, clock), clock) as client:
        with pytest.raises(JobFailed, match="1 MiB"):
            await client.query({"table": "x" * (1 << 20)})
    assert not server.asked
