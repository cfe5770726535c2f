"""The source `themis` against the stand-in: each trap of the server, and what becomes of it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardline_common.errors import JobFailed
from shardline_producer.plan import make_plan
from shardline_producer.sources.source import Document
from shardline_producer.sources.themis.queries import order_key
from tests.themis_reading import Reading, filled, names, read, reasons, row
from tests.themis_server import Themis, themis_server
from tests.themis_tables import encoded
from tests.unit.test_themis_server import LOSSY


@pytest.fixture
async def server() -> AsyncIterator[Themis]:
    async with themis_server() as found:
        yield found


@pytest.mark.parametrize("lossless", [True, False])
async def test_a_filter_without_a_match_gives_nothing(server: Themis, lossless: bool) -> None:
    filled(server)
    server.index("documents", "category")
    assert await read(server, theme="none", lossless=lossless) == []


async def test_a_filter_that_is_dropped_ends_the_reading(server: Themis) -> None:
    filled(server, 900)
    server.index("documents", "category")
    assert await read(server, theme="none", page=10) == []
    asked = server.asked["POST /query"]
    assert asked < 20


@pytest.mark.parametrize("lossless", [True, False])
async def test_a_filter_does_not_leak_behind_its_last_match(server: Themis, lossless: bool) -> None:
    filled(server)
    server.fill("documents", "doc_id", [row(number, category="rare") for number in (3, 7, 20)])
    server.index("documents", "category")
    found = await read(server, theme="rare", lossless=lossless, page=2)
    assert names(found) == ["d-00003", "d-00007", "d-00020"]


async def test_no_query_is_one_that_kills_or_is_ignored(server: Themis) -> None:
    filled(server, 2100)
    server.index("documents", "category")
    for lossless in (True, False):
        await read(server, lossless=lossless, theme="a", query={"filters": {"content": {"gte": "t"}}})
    ordered = [query for query in server.queries if not query.get("allow_full_scan")]
    assert len(ordered) > 8
    for query in ordered:
        assert query["optimize"] is False
        assert 0 < query["order_by"]["limit"] <= 10_000
    # Contents are read in closed windows: an open one costs as much as all that is left.
    assert any("lte" in query["range"][0] for query in ordered if "range" in query)
    assert not server.dead


async def test_a_missing_range_index_is_named_and_not_made(server: Themis) -> None:
    server.fill("documents", "doc_id", [row(1)], indexed=False)
    with pytest.raises(JobFailed, match="no range index on 'doc_id'") as caught:
        await read(server)
    assert caught.value.code == "source_invalid"
    assert 'POST /index/create {"table":"documents","column":"doc_id","type":"range"}' in str(
        caught.value.hint
    )
    assert "/index/rebuild" in str(caught.value.hint)
    assert server.tables.indexes == {}


async def test_a_missing_equality_index_of_a_theme_is_named(server: Themis) -> None:
    filled(server)
    with pytest.raises(JobFailed, match="no equality index on 'category'") as caught:
        await read(server, theme="a")
    assert 'POST /index/create {"table":"documents","column":"category"}' in str(caught.value.hint)


@pytest.mark.parametrize("older", [range(5), range(2_000, 12_000), range(0, 12_000, 2)])
async def test_older_rows_are_missed_in_large_tables_too(server: Themis, older: range) -> None:
    rows = [row(number) for number in range(12_000)]
    server.fill("documents", "doc_id", rows)
    index = server.tables.indexes["documents", "doc_id"][0]
    for number in older:
        index.change(f"d-{number:05d}", f"d-{number:05d}", add=False)
    with pytest.raises(JobFailed, match=r"does not list, such as 'd-\d+'"):
        await read(server, lossless=False)


async def test_filters_use_an_index_where_there_is_one(server: Themis) -> None:
    filled(server)
    wanted = [f"d-{number:05d}" for number in range(0, 50, 2)]
    assert names(await read(server, query={"filters": {"category": "a"}})) == wanted
    assert not any("range" in query and "predicates" in query for query in server.queries)
    server.index("documents", "category")
    assert names(await read(server, query={"filters": {"category": "a"}, "top_k": 3})) == wanted[:3]
    assert any(query.get("predicates") for query in server.queries if "range" in query)
    assert names(await read(server, query={"filters": {"doc_id": ["d-00003", "d-00004"]}})) == [
        "d-00003",
        "d-00004",
    ]


async def test_a_table_that_is_not_there_is_no_empty_dataset(server: Themis) -> None:
    with pytest.raises(JobFailed, match="no row in a table 'nothing'"):
        await read(server, table="nothing")


async def test_rows_without_the_key_column_are_told(server: Themis) -> None:
    filled(server)
    server.tables.put("documents:stray", '{"content":"no doc_id here"}')
    with pytest.raises(
        JobFailed, match="1 rows that its range index on 'doc_id' does not list, such as 'stray'"
    ):
        await read(server)


async def test_an_index_that_was_not_rebuilt_is_told(server: Themis) -> None:
    server.fill("documents", "doc_id", [row(number) for number in range(5)], indexed=False)
    server.tables.create_index("documents", "doc_id", "range")
    server.fill("documents", "doc_id", [row(5)], indexed=False)
    with pytest.raises(JobFailed, match=r"5 rows .*older than the index") as caught:
        await read(server)
    assert "/index/rebuild" in str(caught.value.hint)


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize(
    "key", ["d-00002:x", "a:b", "z:1", "z:", "d-00010:d-00049", "d-00049:d-00001", "a:d-00003", "a:d-00000"]
)
async def test_a_key_with_a_colon_is_told(server: Themis, lossless: bool, key: str) -> None:
    filled(server)
    server.fill("documents", "doc_id", [row(0, doc_id=key)])
    for page in (1, 2, 7, 1000):
        with pytest.raises(JobFailed, match=r"some keys hold ':'|not hold the rows' keys|more than one"):
            await read(server, lossless=lossless, page=page)


@pytest.mark.parametrize("lossless", [True, False])
async def test_a_stranger_at_the_end_of_a_page_moves_no_place(server: Themis, lossless: bool) -> None:
    filled(server, 1_200)
    reading = Reading(server, lossless=lossless)
    plan = await make_plan(reading.spec, reading.source)
    # The last of the first thousand keys leads to a row far behind: nothing between may be passed over.
    server.fill("documents", "doc_id", [row(0, doc_id="d-00998x:d-01100")])
    with pytest.raises(JobFailed, match="some keys hold ':'"):
        _ = [batch async for batch in reading.source.read(plan.frozen, None)]


@pytest.mark.parametrize("theme", ["none", "a"])
async def test_a_filter_passes_over_the_strangers_of_others(server: Themis, theme: str) -> None:
    filled(server)
    server.fill("documents", "doc_id", [row(1, doc_id="d-00003:x"), row(1, doc_id="z:d-00007")])
    server.index("documents", "category")
    found = await read(server, theme=theme, query={"filters": {"content": {"gte": ""}}}, page=7)
    assert names(found) == ([] if theme == "none" else [f"d-{number:05d}" for number in range(0, 50, 2)])


async def test_a_stranger_in_a_window_hides_no_row(server: Themis) -> None:
    filled(server)
    reading = Reading(server, lossless=False, page=10)
    first = await reading.items()
    server.fill("documents", "doc_id", [row(0, doc_id="d-00019:d-00049")])
    again = [item async for batch in reading.source.read(reading.frozen, None) for item in batch]
    assert again == first


async def test_whole_rows_are_whole_and_quick_ones_are_not(server: Themis) -> None:
    server.tables.put("documents:f", json.dumps(json.loads(LOSSY) | {"content": "x\u2028y", "ratio": 1.0}))
    server.index("documents", "doc_id", "range")
    reading = Reading(server, lossless=True)
    whole = (await reading.items())[0].content
    assert isinstance(whole, Document)
    stored = json.loads(server.tables.blobs["documents:f"])
    assert whole.metadata == {name: stored[name] for name in stored if name not in ("doc_id", "content")}
    assert reading.columns["ratio"] == "float"
    assert list(reading.columns)[:4] == ["pi", "big", "u64", "neg"]
    quick = (await read(server, lossless=False))[0].content
    assert isinstance(quick, Document)
    assert quick.text == "x\u2028y"
    assert quick.metadata["pi"] == 3.14159
    assert {"strs", "obj", "mixed", "empty_arr"}.isdisjoint(quick.metadata)


async def test_a_key_that_no_path_can_hold(server: Themis) -> None:
    keys = ["a/b", "a b", "c?d", "e#f", "g%2eh", "i..j", "k%20l", "ümläut"]
    server.fill("documents", "doc_id", [row(0, doc_id=key) for key in keys])
    found = await read(server, lossless=True)
    assert set(names(found)) == set(keys)
    assert reasons(found) == dict.fromkeys(keys[:6], "unreadable_key")
    assert reasons(await read(server, lossless=False)) == {}


async def test_a_key_column_that_does_not_hold_the_keys(server: Themis) -> None:
    for number in range(30):
        server.tables.put(f"documents:pk{number}", json.dumps(row(number)))
    server.index("documents", "doc_id", "range")
    with pytest.raises(JobFailed, match="does not hold the rows' keys") as caught:
        await read(server)
    assert "lossless" in str(caught.value.hint)
    assert names(await read(server, lossless=False, page=7)) == [f"d-{number:05d}" for number in range(30)]
    server.tables.put("documents:pk-twice", json.dumps(row(6)))
    with pytest.raises(JobFailed, match=r"d-00006|repeats a value"):
        await read(server, lossless=False, page=7)


async def test_one_row_under_another_key_is_told(server: Themis) -> None:
    filled(server)
    server.tables.put("documents:other", json.dumps(row(60)))
    with pytest.raises(JobFailed, match="no row 'documents:d-00060'"):
        await read(server)


async def test_numbers_are_compared_as_they_were_stored(server: Themis) -> None:
    values = [3.14159, 3.141592, 3.1416, 3, 3.0000001, 2.5]
    server.fill("documents", "doc_id", [row(number, ratio=value) for number, value in enumerate(values)])

    async def chosen(wanted: Any) -> list[float]:
        found = await read(server, lossless=True, query={"filters": {"ratio": wanted}})
        return [item.content.metadata["ratio"] for item in found if isinstance(item.content, Document)]

    assert await chosen({"lte": 3.14159, "gte": 3.1}) == [3.14159]
    assert await chosen({"gte": 3.141591}) == [3.141592, 3.1416]
    assert await chosen(2.5) == [2.5]
    assert await chosen({"lte": 3}) == [3, 2.5]


async def test_dates_include_their_last_day(server: Themis) -> None:
    dates = ["2019-12-31", "2020-01-01", "2020-06-30T23:59:59Z", "2020-07-01", None]
    server.fill("documents", "doc_id", [row(number, created_at=date) for number, date in enumerate(dates)])
    found = await read(server, from_date="2020-01-01", to_date="2020-06-30")
    assert names(found) == ["d-00001", "d-00002"]


async def test_domain_and_subject_are_columns_of_their_own(server: Themis) -> None:
    rows = [row(number, domain="xy"[number % 2], subject="uvw"[number % 3]) for number in range(12)]
    server.fill("documents", "doc_id", rows)
    server.index("documents", "domain")
    server.index("documents", "subject")
    assert names(await read(server, domain="y", subject="w")) == ["d-00005", "d-00011"]


async def test_keys_of_digits_sort_as_the_server_sorts_them(server: Themis) -> None:
    keys = ["9", "10", "2", "1", "a", "a-b", "a1", "00000000000000000000001"]
    server.fill("documents", "doc_id", [row(0, doc_id=key) for key in keys])
    for lossless in (True, False):
        found = await read(server, lossless=lossless, page=2)
        assert sorted(names(found)) == sorted(keys)


async def test_text_is_content_or_else_text(server: Themis) -> None:
    rows = [{"doc_id": "a", "content": "c", "text": "t"}, {"doc_id": "b", "text": "t"}, {"doc_id": "c"}]
    server.fill("documents", "doc_id", rows)
    found = await read(server)
    assert [item.content.text for item in found if isinstance(item.content, Document)] == ["c", "t"]
    assert reasons(found) == {"c": "no_content"}


async def test_what_no_longer_matches_is_not_delivered(server: Themis) -> None:
    filled(server)
    server.index("documents", "category")
    for lossless in (True, False):
        reading = Reading(server, theme="a", lossless=lossless)
        frozen = (await make_plan(reading.spec, reading.source)).frozen
        async with aclosing(reading.source.read(frozen, None)) as batches:
            await anext(batches)
        server.fill("documents", "doc_id", [row(48, category="b")])
        found = [item async for batch in reading.source.read(frozen, None) for item in batch]
        assert reasons(found) == {"d-00048": "vanished"}
        server.fill("documents", "doc_id", [row(48)])


async def test_a_fixed_server_reads_the_same(server: Themis) -> None:
    filled(server)
    server.index("documents", "category")
    async with themis_server(fixed=True) as fixed:
        filled(fixed)
        fixed.index("documents", "category")
        for theme in ("a", "none"):
            assert await read(fixed, theme=theme) == await read(server, theme=theme)


KEYS = st.text("ab1-", min_size=1, max_size=4) | st.text("ab:1-", min_size=1, max_size=4)


@settings(max_examples=60)
@given(
    keys=st.sets(KEYS, min_size=1, max_size=25),
    page=st.integers(1, 6),
    lossless=st.booleans(),
    cut=st.integers(0, 25),
)
def test_any_keys_come_once_each(keys: set[str], page: int, lossless: bool, cut: int) -> None:
    async def run() -> None:
        async with themis_server() as server:
            server.fill("documents", "doc_id", [row(0, doc_id=key) for key in sorted(keys)])
            reading = Reading(server, lossless=lossless, page=page)
            if any(":" in key for key in keys):
                with pytest.raises(JobFailed):
                    await reading.items()
                return
            found = await reading.items()
            assert names(found) == sorted(keys, key=encoded)
            place = min(cut, len(found))
            again = [item async for batch in reading.source.read(reading.frozen, (place,)) for item in batch]
            assert again == found[place:]

    asyncio.run(run())


@given(st.lists(st.text("a1:%-/", max_size=5), unique=True))
def test_the_order_is_the_servers(values: list[str]) -> None:
    assert [order_key(value) for value in values] == [encoded(value) for value in values]
