"""What a job over ThemisDB says when the server refuses, ends, or slows it down: the right cause."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shardline_common.errors import JobFailed, SourceUnavailable, explain
from shardline_common.runtime.slowdown import open_slowdown
from shardline_producer.plan import make_plan
from shardline_producer.sources.source import InvalidDocument, SourceItem
from shardline_producer.sources.themis.client import ThemisOptions, open_themis
from shardline_producer.sources.themis.indexes import check_server
from shardline_producer.sources.themis.limiter import RateLimiter
from tests.source_items import dead_letter_reasons, item_ids
from tests.themis_reading import InstantClock, ThemisJob, fill_documents, read_items, row
from tests.themis_server import READER, SHIPPED_POLICIES, HttpCall, ThemisServer, themis_server
from tests.themis_tables import Killed


@pytest.fixture
async def server() -> AsyncIterator[ThemisServer]:
    async with themis_server() as found:
        fill_documents(found)
        yield found


async def failure(server: ThemisServer, **fields: Any) -> JobFailed | SourceUnavailable:
    with pytest.raises((JobFailed, SourceUnavailable)) as caught:
        await read_items(server, **fields)
    assert isinstance(caught.value, JobFailed | SourceUnavailable)
    return caught.value


# Tokens, scopes and policies.


async def test_shipped_policies_refuse_rows_and_the_policy_is_named(server: ThemisServer) -> None:
    server.policies = SHIPPED_POLICIES
    error = await failure(server, lossless=True)
    assert isinstance(error, JobFailed)
    assert error.code == "source_invalid"
    assert "accepts the token and its scope data:read, and refuses GET /entities/documents:d-0000" in str(
        error
    )
    assert "no_matching_policy" in str(error)
    assert "no policy of the server allows the token's user the action 'read' on /entities/" in str(error)
    assert "config/policies.json" in str(error.hint)
    assert "THEMIS_TOKEN" not in explain(error)
    assert "wrong" not in explain(error)
    assert len(await read_items(server, lossless=False)) == 50


async def test_policy_that_denies_is_named(server: ThemisServer) -> None:
    denied = {"id": "no-readers", "subjects": ["readonly"], "actions": ["query"], "effect": "deny"}
    server.policies = [denied | {"resources": ["/query"]}]
    error = await failure(server)
    assert "its policy 'no-readers' denies the token's user the action 'query' on /query" in str(error)


async def test_missing_scope_is_named(server: ThemisServer) -> None:
    server.scopes[READER] = {"data:write"}
    error = await failure(server)
    assert "refuses the token: it lacks the scope data:read" in str(error)
    assert error.hint == "set THEMIS_TOKEN to a token with the scope data:read"


async def test_doctor_names_the_missing_policy(server: ThemisServer) -> None:
    clock = InstantClock()
    async with open_themis(ThemisOptions(server.url, READER), RateLimiter(0, clock), clock) as client:
        assert "accepts the token" in await check_server(client)
        server.policies = SHIPPED_POLICIES
        with pytest.raises(JobFailed, match="the action 'read' on /entities/"):
            await check_server(client)


# A server that ends.


def store_bad_blob(server: ThemisServer) -> None:
    server.tables.put("documents:d-00025", "no json")
    server.tables.indexes["documents", "doc_id"][0].change("d-00025", "d-00025", add=True)


async def test_blob_that_ends_a_server_which_is_started_again(server: ThemisServer) -> None:
    store_bad_blob(server)

    async def start_again(_: HttpCall) -> None:
        server.restart()

    server.before = start_again
    error = await failure(server)
    assert "dropped the connection during a request for table 'documents', and answers others" in str(error)
    assert str(error.hint).startswith("one of its entities is not JSON")


@pytest.mark.parametrize("lossless", [True, False])
async def test_row_that_is_not_json_is_named_before_it_ends_the_server(
    server: ThemisServer, lossless: bool
) -> None:
    # The real server takes such a row out of its indexes.
    server.tables.put("documents:d-00025", "no json")
    error = await failure(server, lossless=lossless, theme="a")
    assert "table 'documents' has a row 'd-00025' that is not JSON" in str(error)
    assert str(error.hint).startswith("POST /index/drop for every index of the table; then delete the row")
    assert not server.killed
    # With an index, to delete the row ends the server; without one, it does not.
    with pytest.raises(Killed):
        server.tables.delete("documents:d-00025")
    indexes, server.tables.indexes = server.tables.indexes, {}
    server.tables.put("documents:d-00025", json.dumps(row(25)))
    server.tables.indexes = indexes
    server.index("documents", "doc_id", "range")
    assert len(await read_items(server, lossless=lossless)) == 50


@pytest.mark.parametrize("gateway", [None, 502])
async def test_blob_that_ended_a_server_is_named_while_it_is_down(
    server: ThemisServer, gateway: int | None
) -> None:
    store_bad_blob(server)
    server.gateway = gateway
    reading = ThemisJob(server)
    for _ in range(2):
        # A job tries again, with another client. The last error is that of a server that is down.
        with pytest.raises(SourceUnavailable) as caught:
            await reading.items()
        assert "during a request for table 'documents'" in str(caught.value)
        assert "if it ends again at table 'documents', one of its entities is not JSON" in str(
            caught.value.hint
        )
    server.restart()
    server.tables.blobs["documents:d-00025"] = json.dumps(row(25))
    assert len(await reading.items()) == 50
    server.killed = True
    with pytest.raises(SourceUnavailable) as caught:
        await reading.items()
    assert "JSON" not in explain(caught.value)


@pytest.mark.parametrize("gateway", [None, 502, 503])
async def test_server_that_is_down_behind_a_proxy_is_not_blamed_on_a_blob(
    server: ThemisServer, gateway: int | None
) -> None:
    server.killed, server.gateway = True, gateway
    error = await failure(server)
    assert isinstance(error, SourceUnavailable)
    assert "JSON" not in explain(error)
    if gateway:
        assert "a proxy in front of ThemisDB does not reach it" in str(error.hint)


async def test_server_that_went_down_between_two_tries_is_not_blamed_on_a_blob(server: ThemisServer) -> None:
    reading = ThemisJob(server, lossless=False)
    await reading.items()
    server.killed = True
    # The plan is stored, so the first request of this client reads rows.
    with pytest.raises(SourceUnavailable, match="dropped the connection") as caught:
        _ = [batch async for batch in reading.source.read(reading.frozen, (10,))]
    assert "JSON" not in explain(caught.value)


async def test_server_that_is_killed_while_rows_are_read_is_not_blamed_on_a_blob(
    server: ThemisServer,
) -> None:
    reading = ThemisJob(server, lossless=True)
    plan = await make_plan(reading.spec, reading.source)

    async def kill(request: HttpCall) -> None:
        server.killed = server.killed or request.path.startswith("/entities/")

    server.before = kill
    with pytest.raises(SourceUnavailable, match="dropped the connection during a request for row") as caught:
        _ = [batch async for batch in reading.source.read(plan.frozen, None)]
    assert "JSON" not in explain(caught.value)


# Keys.


def letters(items: list[SourceItem]) -> dict[str, tuple[str, str]]:
    found = [item.content for item in items if isinstance(item.content, InvalidDocument)]
    return {one.key: (one.dead_letter.reason, one.dead_letter.hint) for one in found}


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("a/b", "holds '/'"),
        ("a?b", "holds '?'"),
        ("i..j", "holds '..'"),
        ("a b", "holds white space (U+0020)"),
        ("a\u200bb", "holds an invisible character (U+200B)"),
        ("g%2eh", "holds '%2e'"),
        ("k" * 1020, "is too long: with the table's name it has 1,030 bytes, and 1,024 are allowed"),
    ],
)
async def test_key_that_cannot_be_read_alone_says_why(server: ThemisServer, key: str, said: str) -> None:
    server.fill("documents", "doc_id", [row(0, doc_id=key)])
    reason, hint = letters(await read_items(server, lossless=True))[key]
    assert reason == "unreadable_key"
    assert f"single row whose key {said}; a job" in hint
    assert letters(await read_items(server, lossless=False)) == {}


@pytest.mark.parametrize("key", ["50%25", "k%20l", 'say "no"'.replace(" ", "_"), "ümläut", "a[1]"])
async def test_key_that_a_proxy_changes_is_not_removed(server: ThemisServer, key: str) -> None:
    server.fill("documents", "doc_id", [row(0, doc_id=key)])
    assert letters(await read_items(server, lossless=True)) == {}
    reading = ThemisJob(server, lossless=True)
    plan = await make_plan(reading.spec, reading.source)
    # A proxy that decodes or encodes the path asks the server for another row.
    server.hidden.add(f"documents:{key}")
    found = [item async for batch in reading.source.read(plan.frozen, None) for item in batch]
    reason, hint = letters(found)[key]
    assert reason == "unreadable_key"
    assert "a proxy changes on its way" in hint


async def test_not_found_of_a_proxy_is_no_removed_row(server: ThemisServer) -> None:
    def page(request: HttpCall, body: bytes) -> bytes:
        return b"<html>not found</html>" if request.path.endswith("d-00007") else body

    reading = ThemisJob(server, lossless=True)
    plan = await make_plan(reading.spec, reading.source)
    server.altered = page
    server.hidden.add("documents:d-00007")
    with pytest.raises(SourceUnavailable, match="answered 404 to a request for row 'd-00007'"):
        _ = [batch async for batch in reading.source.read(plan.frozen, None)]


ODD: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "number": [("1.5", {"doc_id": 1.5, "content": "t"})],
    "true": [("true", {"doc_id": True, "content": "t"})],
    "long": [("k" * 2000, {"doc_id": "k" * 2000, "content": "t"})],
    "control": [("a\tb", {"doc_id": "a\tb", "content": "t"})],
    "name": [("n", {"doc_id": "n", "content": "t", 'a"b': 1})],
    "no content": [("c", {"doc_id": "c"}), ("d", {"doc_id": "d", "content": 5})],
    "content": [("c", {"doc_id": "c", "content": ["x"]}), ("d", {"doc_id": "d", "content": {"x": 1}})],
}


@pytest.mark.parametrize("name", ODD)
async def test_odd_rows_are_the_same_with_and_without_losses(server: ThemisServer, name: str) -> None:
    for key, value in ODD[name]:
        server.tables.put(f"documents:{key}", json.dumps(value))
    server.index("documents", "doc_id", "range")
    lossless, lossy = [await read_items(server, lossless=one) for one in (True, False)]
    assert item_ids(lossless) == item_ids(lossy)
    assert dead_letter_reasons(lossless) == dead_letter_reasons(lossy)
    assert "vanished" not in dead_letter_reasons(lossy).values()
    expected = {"number": "bad_id", "true": "bad_id", "long": "bad_id", "control": "bad_id"}
    assert all(reason == expected[name] for reason in dead_letter_reasons(lossy).values() if name in expected)


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ({"e": ""}, "a row 'e' with an empty text in 'doc_id'"),
        ({"x": 1.5}, "a row 'x' with the number 1.5 in 'doc_id', which is no text"),
        ({"x": True}, "a row 'x' with true in 'doc_id', which is no text"),
        ({"d-00003x": "d-00003"}, "more than one row with 'd-00003' in 'doc_id'"),
        ({"a": "zz", "zz": "zz"}, "more than one row with 'zz' in 'doc_id'"),
    ],
)
async def test_ids_that_identify_no_row_are_named(
    server: ThemisServer, lossless: bool, rows: dict[str, Any], said: str
) -> None:
    for key, value in rows.items():
        server.tables.put(f"documents:{key}", json.dumps({"doc_id": value, "content": "t"}))
    error = await failure(server, lossless=lossless)
    assert said in str(error)
    assert "':'" not in explain(error)
    assert "give that row a text of its own in 'doc_id'" in str(error.hint)


# A server that slows the job down.


async def test_slow_server_is_named_in_the_log_and_to_the_job(
    server: ThemisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    reading = ThemisJob(server, lossless=True)
    plan = await make_plan(reading.spec, reading.source)
    slowdown = open_slowdown()
    server.now = reading.clock.monotonic

    async def limit(request: HttpCall) -> None:
        if request.method == "GET" and server.bucket.per_minute is None:
            server.limit(60, left=5)

    server.before = limit
    sizes = [len(batch) async for batch in reading.source.read(plan.frozen, None)]
    # The limit is met in the first wave. From then on, a step takes a few seconds.
    assert sum(sizes) == 50
    assert max(sizes) <= 8
    assert slowdown.reason == f"ThemisDB at {server.url} limits requests (429 Too Many Requests)"
    lines = [one.getMessage() for one in caplog.records if "limits requests" in one.getMessage()]
    assert len(lines) == 1
    assert "raise the server's THEMIS_RATE_LIMIT_PER_MINUTE" in lines[0]


async def test_slowdown_is_that_of_its_own_task() -> None:
    first = open_slowdown()

    async def other() -> str | None:
        own = open_slowdown()
        own.note("slow", 60)
        return own.reason

    assert await asyncio.create_task(other()) == "slow"
    assert first.reason is None
