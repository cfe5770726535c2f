"""No row of ThemisDB is lost without notice: indexes that lack rows, tables that change during a read."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import pytest

from shardline_common.errors import JobFailed, SourceUnavailable
from shardline_common.job.findings import Findings, Level, uncertain
from shardline_producer.plan import make_plan
from shardline_producer.sources.source import SourceItem
from tests.source_items import dead_letter_reasons, item_ids
from tests.themis_reading import ThemisJob, fill_documents, read_items, row
from tests.themis_server import HttpCall, ThemisServer, themis_server
from tests.themis_tables import ThemisTables

ROWS = 1_500
"""More than the first page of a plan, so that the table is listed twice."""


@pytest.fixture
async def server() -> AsyncIterator[ThemisServer]:
    async with themis_server() as found:
        yield found


def ids(*numbers: int) -> list[str]:
    return [f"d-{number:05d}" for number in numbers]


def level(reading: ThemisJob) -> tuple[Level, str]:
    found = reading.source.findings(reading.frozen).stores["themis"]
    return found.level, found.how


async def started(reading: ThemisJob) -> AsyncIterator[list[SourceItem]]:
    """The read of a job, behind its first batch."""
    plan = await make_plan(reading.spec, reading.source)
    reading.frozen = plan.frozen
    stream = reading.source.read(plan.frozen, None)
    await anext(stream)
    return stream


async def rest(stream: AsyncIterator[list[SourceItem]]) -> list[SourceItem]:
    return [item async for batch in stream for item in batch]


# An equality index that lacks rows.


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("fields", [{"theme": "a"}, {"query": {"filters": {"category": "a"}}}])
async def test_equality_index_without_a_rebuild_loses_no_row(
    server: ThemisServer, lossless: bool, fields: dict[str, Any]
) -> None:
    fill_documents(server, 59)
    server.tables.create_index("documents", "category", "equality")
    server.fill("documents", "doc_id", [row(number) for number in range(59, 77)], indexed=False)
    reading = ThemisJob(server, lossless=lossless, **fields)
    assert item_ids(await reading.items()) == ids(*range(0, 77, 2))
    assert reading.notes["filtered"] == "by Shardline: the equality index on category lacks rows"
    assert level(reading)[0] is Level.PROVEN


async def test_rebuild_of_two_indexes_of_a_column_loses_no_row(server: ThemisServer) -> None:
    fill_documents(server)
    server.tables.create_index("documents", "category", "range")
    # The rebuild fills the range index alone.
    server.index("documents", "category")
    reading = ThemisJob(server, theme="a")
    assert item_ids(await reading.items()) == ids(*range(0, 50, 2))
    assert "each filtered column has a range index" in reading.notes["filtered"]


async def test_old_entries_of_an_equality_index_hide_no_row(server: ThemisServer) -> None:
    fill_documents(server, 40)
    server.index("documents", "category")
    index = server.tables.indexes.pop(("documents", "category"))
    # While the index does not exist, rows come, go and change. Then it exists again, with its old entries.
    server.tables.delete("documents:d-00002")
    server.fill("documents", "doc_id", [row(7, category="a"), row(60)], indexed=False)
    server.tables.indexes["documents", "category"] = index
    found = await read_items(server, theme="a")
    assert item_ids(found) == ids(0, 4, 6, 7, *range(8, 40, 2), 60)


async def test_equality_index_that_loses_rows_while_it_is_listed(server: ThemisServer) -> None:
    fill_documents(server, 2 * ROWS)
    server.index("documents", "category")
    reading = ThemisJob(server, theme="a", lossless=False)
    stream = await started(reading)
    server.tables.indexes["documents", "category"][0].keys.clear()
    server.fill("documents", "doc_id", [row(2_990)])
    found = await rest(stream)
    assert item_ids(found)[-3:] == ids(2_994, 2_996, 2_998)
    assert found[-1].position == (ROWS,)
    assert level(reading)[0] is Level.PROVEN


async def test_complete_equality_index_is_used_and_proven(server: ThemisServer) -> None:
    fill_documents(server)
    server.index("documents", "category")
    reading = ThemisJob(server, theme="a")
    assert len(await reading.items()) == 25
    assert "filtered" not in reading.notes
    assert level(reading) == (
        Level.PROVEN,
        "all keys, read from the rows, were compared with the list of the index on 'doc_id'",
    )
    assert uncertain(reading.source.findings(reading.frozen).to_json()) == []


# A range index that lacks rows.


async def test_rows_without_the_key_column_in_a_large_table_are_found(server: ThemisServer) -> None:
    server.fill("documents", "doc_id", [row(number) for number in range(10_500)])
    for number in range(900):
        server.tables.put(f"documents:z-{number:05d}", '{"content":"no id"}')
    said = r"900 rows that its range index on 'doc_id' does not list, such as 'z-00000'"
    with pytest.raises(JobFailed, match=said) as caught:
        await read_items(server, lossless=False)
    assert caught.value.code == "source_invalid"


async def test_rows_older_than_the_index_at_the_end_of_a_large_table_are_found(server: ThemisServer) -> None:
    server.fill("documents", "doc_id", [row(number) for number in range(11_000)])
    index = server.tables.indexes["documents", "doc_id"][0]
    del index.keys[-3:]
    with pytest.raises(JobFailed, match=r"3 rows .* such as 'd-10997', 'd-10998', 'd-10999': .*older than"):
        await read_items(server, lossless=False)


@pytest.mark.parametrize("lossless", [True, False])
async def test_index_made_anew_while_it_is_listed_fails_the_job(server: ThemisServer, lossless: bool) -> None:
    fill_documents(server, ROWS)
    reading = ThemisJob(server, lossless=lossless)
    stream = await started(reading)
    del server.tables.indexes["documents", "doc_id"]
    server.tables.create_index("documents", "doc_id", "range")
    server.fill("documents", "doc_id", [row(1_200)], indexed=False)
    with pytest.raises(JobFailed, match=r"does not list, such as 'd-01000'.* made anew") as caught:
        await rest(stream)
    assert caught.value.code == "source_changed"
    server.index("documents", "doc_id", "range")
    found = await rest(reading.source.read(reading.frozen, (900,)))
    assert item_ids(found) == ids(*range(900, ROWS))


async def test_old_entries_of_the_range_index_are_named(server: ThemisServer) -> None:
    fill_documents(server, ROWS)
    reading = ThemisJob(server, lossless=False)
    stream = await started(reading)
    index = server.tables.indexes.pop(("documents", "doc_id"))
    server.tables.delete("documents:d-01400")
    server.tables.indexes["documents", "doc_id"] = index
    said = r"range index on 'doc_id' .* lists rows that do not exist, such as 'd-01400'"
    with pytest.raises(JobFailed, match=said) as caught:
        await rest(stream)
    assert "/index/rebuild" in str(caught.value.hint)


async def test_missing_index_while_it_is_listed_fails_the_job(server: ThemisServer) -> None:
    fill_documents(server, ROWS)
    stream = await started(ThemisJob(server))
    del server.tables.indexes["documents", "doc_id"]
    with pytest.raises(JobFailed, match="no range index on 'doc_id'"):
        await rest(stream)


async def test_rebuild_of_the_index_is_waited_for(server: ThemisServer) -> None:
    fill_documents(server, ROWS)
    reading = ThemisJob(server, lossless=False)
    stream = await started(reading)
    index = server.tables.indexes["documents", "doc_id"][0]
    complete = list(index.keys)

    async def rebuild(request: HttpCall) -> None:
        # A list of keys sees half of the index, any other request sees all of it.
        query = json.loads(request.body)
        listed = query.get("return") == "keys" and query.get("order_by", {}).get("limit", 0) > 1
        index.keys[:] = complete[: len(complete) - 100] if listed else complete

    server.before = rebuild
    with pytest.raises(SourceUnavailable, match=r"range index on 'doc_id' .* does not list all rows"):
        await rest(stream)
    server.before = None
    index.keys[:] = complete
    found = await rest(reading.source.read(reading.frozen, (1_000,)))
    assert item_ids(found) == ids(*range(1_000, ROWS))


# A table that changes while it is read.


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("after_list", [True, False])
async def test_server_that_comes_back_empty_fails_the_job(
    server: ThemisServer, lossless: bool, after_list: bool
) -> None:
    fill_documents(server, 900 if after_list else ROWS)
    stream = await started(ThemisJob(server, lossless=lossless))
    server.tables = ThemisTables()
    server.tables.create_index("documents", "doc_id", "range")
    with pytest.raises(JobFailed, match="table 'documents' is empty") as caught:
        await rest(stream)
    assert caught.value.code == "source_changed"


async def test_server_that_comes_back_without_the_index_fails_the_job(server: ThemisServer) -> None:
    fill_documents(server, 900)
    stream = await started(ThemisJob(server))
    server.tables = ThemisTables()
    with pytest.raises(JobFailed, match="no longer has a range index on 'doc_id'") as caught:
        await rest(stream)
    assert caught.value.code == "source_changed"


@pytest.mark.parametrize("count", [10, 900])
async def test_table_made_anew_fails_the_job(server: ThemisServer, count: int) -> None:
    fill_documents(server, 900)
    stream = await started(ThemisJob(server))
    server.tables = ThemisTables()
    server.fill("documents", "doc_id", [row(number, doc_id=f"x-{number}") for number in range(count)])
    said = "has 10 rows, and had 900" if count == 10 else "none of the rows that it had"
    with pytest.raises(JobFailed, match=said) as caught:
        await rest(stream)
    assert caught.value.code == "source_changed"


async def test_rows_that_come_and_go_while_they_are_listed(server: ThemisServer) -> None:
    fill_documents(server, ROWS)
    reading = ThemisJob(server, lossless=False)
    stream = await started(reading)
    changed = 0

    async def change(_: HttpCall) -> None:
        nonlocal changed
        changed += 1
        if changed % 4 == 0:
            server.tables.delete(f"documents:d-{1_000 + changed:05d}")
            server.fill("documents", "doc_id", [row(2_000 + changed)], indexed=False)

    server.before = change
    found = await rest(stream)
    assert 8 < changed < 200
    assert {*ids(*range(1_200, ROWS))} <= {*item_ids(found)}
    assert len({*item_ids(found)}) == len(found)
    assert level(reading)[0] is Level.PROVEN


async def test_rows_that_change_at_each_request_do_not_fail_the_job(server: ThemisServer) -> None:
    fill_documents(server, 300)
    reading = ThemisJob(server, lossless=False)
    plan = await make_plan(reading.spec, reading.source)
    reading.frozen = plan.frozen
    changed = 0

    async def change(_: HttpCall) -> None:
        nonlocal changed
        changed += 1
        if changed > 40:
            # Otherwise the list would follow its own requests up to the end of the page of the plan.
            return
        server.fill("documents", "doc_id", [row(1_000 + changed)], indexed=False)
        if changed > 5:
            server.tables.delete(f"documents:d-{1_000 + changed - 5:05d}")

    server.before = change
    found = [item async for batch in reading.source.read(plan.frozen, None) for item in batch]
    assert changed > 8
    assert item_ids(found)[:300] == ids(*range(300))
    assert level(reading)[0] is Level.PROVEN


async def test_rows_that_vanish_alone_do_not_fail_the_job(server: ThemisServer) -> None:
    fill_documents(server, 200)
    for lossless in (True, False):
        reading = ThemisJob(server, lossless=lossless, page=20)
        stream = await started(reading)
        for number in range(150, 165):
            server.tables.delete(f"documents:d-{number:05d}")
        found = await rest(stream)
        assert dead_letter_reasons(found) == dict.fromkeys(ids(*range(150, 165)), "vanished")
        fill_documents(server, 200)


# What cannot be proven is said.


async def test_keys_over_the_limit_are_counted(server: ThemisServer) -> None:
    fill_documents(server, 400)
    reading = ThemisJob(server, lossless=False, max_response_bytes=4_000, page=5)
    assert len(await reading.items()) == 400
    assert reading.notes["index"] == "counted"
    found, how = level(reading)
    assert found is Level.COUNTED
    assert "its keys are more than" in how
    assert "number was compared when the job was planned" in how


async def test_unlisted_rows_are_found_by_their_number(server: ThemisServer) -> None:
    fill_documents(server, 400)
    del server.tables.indexes["documents", "doc_id"][0].keys[300]
    with pytest.raises(JobFailed, match="1 rows that its range index on 'doc_id' does not list"):
        await read_items(server, lossless=False, max_response_bytes=4_000, page=5)


async def test_scan_that_takes_too_long_leaves_the_count_unproven(server: ThemisServer) -> None:
    fill_documents(server, 60)
    never = asyncio.Event()

    async def hang(request: HttpCall) -> None:
        if b"allow_full_scan" in request.body:
            await never.wait()

    server.before = hang
    reading = ThemisJob(server, timeout=0.2)
    assert len(await reading.items()) == 60
    never.set()
    found, how = level(reading)
    assert found is Level.UNPROVEN
    assert "the server did not list its keys in 0.2 s" in how
    assert reading.notes["index"] == "unchecked"
    assert uncertain(Findings({"themis": reading.source.findings(()).stores["themis"]}).to_json())


async def test_column_that_does_not_hold_the_keys_is_counted(server: ThemisServer) -> None:
    for number in range(30):
        server.tables.put(f"documents:pk{number}", json.dumps(row(number)))
    server.index("documents", "doc_id", "range")
    reading = ThemisJob(server, lossless=False)
    assert len(await reading.items()) == 30
    assert level(reading)[0] is Level.COUNTED


async def test_closing_a_list_closes_its_connections(server: ThemisServer) -> None:
    fill_documents(server, ROWS)
    reading = ThemisJob(server, lossless=False)
    plan = await make_plan(reading.spec, reading.source)
    async with aclosing(reading.source.read(plan.frozen, None)) as stream:
        await anext(stream)
    assert await server.connected() == 0


# Bodies that are not whole.

Alter = Callable[[bytes], bytes]
ALTERED: dict[str, Alter] = {
    "error": lambda _: b'{"error":"Internal","message":"shard moved"}',
    "cut": lambda body: body[: len(body) // 2],
    "nan": lambda body: body.replace(b'{"', b'{"x":NaN,"', 1),
    "count": lambda body: body.replace(b'"count":', b'"count":1'),
    "no text": lambda body: body.replace(b'"d-00001"', b"17").replace(b'"blob":"', b'"blob":0,"blub":"'),
    "other row": lambda body: body.replace(b'"key":"documents:d-', b'"key":"documents:e-'),
}


@pytest.mark.parametrize("name", ALTERED)
@pytest.mark.parametrize("path", ["/query", "/entities"])
async def test_body_that_is_not_whole_is_requested_again(server: ThemisServer, name: str, path: str) -> None:
    fill_documents(server, 20)
    altered: set[tuple[str, bytes]] = set()
    always = False

    def alter(request: HttpCall, body: bytes) -> bytes:
        # The first answer to each request.
        call = (request.path, request.body)
        if (
            not request.path.startswith(path)
            or ALTERED[name](body) == body
            or (call in altered and not always)
        ):
            return body
        altered.add(call)
        return ALTERED[name](body)

    server.altered = alter
    assert item_ids(await read_items(server, lossless=path == "/entities")) == ids(*range(20))
    applies = not (path == "/entities" and name == "count") and not (path == "/query" and name == "other row")
    assert bool(altered) is applies
    if applies:
        always = True
        with pytest.raises((SourceUnavailable, JobFailed), match=r"table 'documents'|row 'd-|ThemisDB"):
            await read_items(server, lossless=path == "/entities")
