"""The source `themis` over the fake server: each bug of the server, and its effect on a job."""

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
from shardline_producer.sources.themis.listing import RowLister
from shardline_producer.sources.themis.queries import order_key
from tests.source_items import dead_letter_reasons, item_ids
from tests.themis_reading import ThemisJob, fill_documents, read_items, row
from tests.themis_server import ThemisServer, themis_server
from tests.themis_tables import index_key
from tests.unit.test_themis_server import LOSSY


@pytest.fixture
async def server() -> AsyncIterator[ThemisServer]:
    async with themis_server() as found:
        yield found


@pytest.mark.parametrize("lossless", [True, False])
async def test_filter_without_a_match_yields_nothing(server: ThemisServer, lossless: bool) -> None:
    fill_documents(server)
    server.index("documents", "category")
    assert await read_items(server, theme="none", lossless=lossless) == []


async def test_dropped_filter_ends_the_list(server: ThemisServer) -> None:
    fill_documents(server, 900)
    server.index("documents", "category")
    assert await read_items(server, theme="none", page=10) == []
    asked = server.asked["POST /query"]
    assert asked < 20


async def test_a_response_with_fewer_keys_does_not_end_the_list(
    server: ThemisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_documents(server, 90)
    expected = item_ids(await read_items(server))
    real, cuts = RowLister.keys, 0

    async def cut(self: RowLister, behind: str, limit: int) -> list[str]:
        nonlocal cuts
        found = await real(self, behind, limit)
        # The listing, and not the checks of the plan, which compare all keys.
        if limit > 5000 or cuts == 3 or len(found) < 2:
            return found
        cuts += 1
        return found[: len(found) // 2]

    monkeypatch.setattr(RowLister, "keys", cut)
    assert item_ids(await read_items(server)) == expected
    assert (len(expected), cuts) == (90, 3)


@pytest.mark.parametrize("lossless", [True, False])
async def test_no_row_follows_the_last_match_of_a_filter(server: ThemisServer, lossless: bool) -> None:
    fill_documents(server)
    server.fill("documents", "doc_id", [row(number, category="rare") for number in (3, 7, 20)])
    server.index("documents", "category")
    found = await read_items(server, theme="rare", lossless=lossless, page=2)
    assert item_ids(found) == ["d-00003", "d-00007", "d-00020"]


async def test_every_query_is_bounded_and_ordered(server: ThemisServer) -> None:
    fill_documents(server, 2100)
    server.index("documents", "category")
    for lossless in (True, False):
        await read_items(server, lossless=lossless, theme="a", query={"filters": {"content": {"gte": "t"}}})
    ordered = [query for query in server.queries if not query.get("allow_full_scan")]
    assert len(ordered) > 8
    for query in ordered:
        assert query["optimize"] is False
        assert 0 < query["order_by"]["limit"] <= 10_000
    # Contents are read in closed ranges: an open range costs the server as much as all rows left.
    assert any("lte" in query["range"][0] for query in ordered if "range" in query)
    assert not server.killed


async def test_missing_range_index_is_named_and_not_created(server: ThemisServer) -> None:
    server.fill("documents", "doc_id", [row(1)], indexed=False)
    with pytest.raises(JobFailed, match="no range index on 'doc_id'") as caught:
        await read_items(server)
    assert caught.value.code == "source_invalid"
    assert 'POST /index/create {"table":"documents","column":"doc_id","type":"range"}' in str(
        caught.value.hint
    )
    assert "/index/rebuild" in str(caught.value.hint)
    assert server.tables.indexes == {}


async def test_missing_equality_index_of_a_theme_is_named(server: ThemisServer) -> None:
    fill_documents(server)
    with pytest.raises(JobFailed, match="no equality index on 'category'") as caught:
        await read_items(server, theme="a")
    assert 'POST /index/create {"table":"documents","column":"category"}' in str(caught.value.hint)


@pytest.mark.parametrize("older", [range(5), range(2_000, 12_000), range(0, 12_000, 2)])
async def test_unlisted_rows_of_a_large_table_fail_the_job(server: ThemisServer, older: range) -> None:
    rows = [row(number) for number in range(12_000)]
    server.fill("documents", "doc_id", rows)
    index = server.tables.indexes["documents", "doc_id"][0]
    for number in older:
        index.change(f"d-{number:05d}", f"d-{number:05d}", add=False)
    with pytest.raises(JobFailed, match=r"does not list, such as 'd-\d+'"):
        await read_items(server, lossless=False)


async def test_filters_use_an_existing_index(server: ThemisServer) -> None:
    fill_documents(server)
    wanted = [f"d-{number:05d}" for number in range(0, 50, 2)]
    assert item_ids(await read_items(server, query={"filters": {"category": "a"}})) == wanted
    assert not any("range" in query and "predicates" in query for query in server.queries)
    server.index("documents", "category")
    assert item_ids(await read_items(server, query={"filters": {"category": "a"}, "top_k": 3})) == wanted[:3]
    assert any(query.get("predicates") for query in server.queries if "range" in query)
    assert item_ids(await read_items(server, query={"filters": {"doc_id": ["d-00003", "d-00004"]}})) == [
        "d-00003",
        "d-00004",
    ]


async def test_unknown_table_fails_the_job(server: ThemisServer) -> None:
    with pytest.raises(JobFailed, match="no row in a table 'nothing'"):
        await read_items(server, table="nothing")


async def test_rows_without_the_key_column_fail_the_job(server: ThemisServer) -> None:
    fill_documents(server)
    server.tables.put("documents:stray", '{"content":"no doc_id here"}')
    with pytest.raises(
        JobFailed, match="1 rows that its range index on 'doc_id' does not list, such as 'stray'"
    ):
        await read_items(server)


async def test_index_without_rebuild_fails_the_job(server: ThemisServer) -> None:
    server.fill("documents", "doc_id", [row(number) for number in range(5)], indexed=False)
    server.tables.create_index("documents", "doc_id", "range")
    server.fill("documents", "doc_id", [row(5)], indexed=False)
    with pytest.raises(JobFailed, match=r"5 rows .*older than the index") as caught:
        await read_items(server)
    assert "/index/rebuild" in str(caught.value.hint)


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize(
    "key", ["d-00002:x", "a:b", "z:1", "z:", "d-00010:d-00049", "d-00049:d-00001", "a:d-00003", "a:d-00000"]
)
async def test_key_with_a_colon_fails_the_job(server: ThemisServer, lossless: bool, key: str) -> None:
    fill_documents(server)
    server.fill("documents", "doc_id", [row(0, doc_id=key)])
    for page in (1, 2, 7, 1000):
        with pytest.raises(JobFailed, match=r"some keys hold ':'|not hold the rows' keys|more than one"):
            await read_items(server, lossless=lossless, page=page)


@pytest.mark.parametrize("lossless", [True, False])
async def test_cut_key_at_the_end_of_a_page_skips_no_row(server: ThemisServer, lossless: bool) -> None:
    fill_documents(server, 1_200)
    reading = ThemisJob(server, lossless=lossless)
    plan = await make_plan(reading.spec, reading.source)
    # The last of the first thousand keys names a row far behind: no row between may be skipped.
    server.fill("documents", "doc_id", [row(0, doc_id="d-00998x:d-01100")])
    with pytest.raises(JobFailed, match="some keys hold ':'"):
        _ = [batch async for batch in reading.source.read(plan.frozen, None)]


@pytest.mark.parametrize("theme", ["none", "a"])
async def test_filter_ignores_cut_keys_of_other_rows(server: ThemisServer, theme: str) -> None:
    fill_documents(server)
    server.fill("documents", "doc_id", [row(1, doc_id="d-00003:x"), row(1, doc_id="z:d-00007")])
    server.index("documents", "category")
    found = await read_items(server, theme=theme, query={"filters": {"content": {"gte": ""}}}, page=7)
    assert item_ids(found) == ([] if theme == "none" else [f"d-{number:05d}" for number in range(0, 50, 2)])


async def test_cut_key_in_an_answer_hides_no_row(server: ThemisServer) -> None:
    fill_documents(server)
    reading = ThemisJob(server, lossless=False, page=10)
    first = await reading.items()
    server.fill("documents", "doc_id", [row(0, doc_id="d-00019:d-00049")])
    again = [item async for batch in reading.source.read(reading.frozen, None) for item in batch]
    assert again == first


async def test_lossless_rows_equal_the_stored_rows(server: ThemisServer) -> None:
    server.tables.put("documents:f", json.dumps(json.loads(LOSSY) | {"content": "x\u2028y", "ratio": 1.0}))
    server.index("documents", "doc_id", "range")
    reading = ThemisJob(server, lossless=True)
    stored_document = (await reading.items())[0].content
    assert isinstance(stored_document, Document)
    stored = json.loads(server.tables.blobs["documents:f"])
    assert stored_document.metadata == {
        name: stored[name] for name in stored if name not in ("doc_id", "content")
    }
    assert reading.columns["ratio"] == "float"
    assert list(reading.columns)[:4] == ["pi", "big", "u64", "neg"]
    lossy = (await read_items(server, lossless=False))[0].content
    assert isinstance(lossy, Document)
    assert lossy.text == "x\u2028y"
    assert lossy.metadata["pi"] == 3.14159
    assert {"strs", "obj", "mixed", "empty_arr"}.isdisjoint(lossy.metadata)


async def test_key_that_no_path_can_hold_is_a_dead_letter(server: ThemisServer) -> None:
    keys = ["a/b", "a b", "c?d", "e#f", "g%2eh", "i..j", "k%20l", "ümläut"]
    server.fill("documents", "doc_id", [row(0, doc_id=key) for key in keys])
    found = await read_items(server, lossless=True)
    assert set(item_ids(found)) == set(keys)
    assert dead_letter_reasons(found) == dict.fromkeys(keys[:6], "unreadable_key")
    assert dead_letter_reasons(await read_items(server, lossless=False)) == {}


async def test_key_column_without_the_keys_is_read_only_lossy(server: ThemisServer) -> None:
    for number in range(30):
        server.tables.put(f"documents:pk{number}", json.dumps(row(number)))
    server.index("documents", "doc_id", "range")
    with pytest.raises(JobFailed, match="does not hold the rows' keys") as caught:
        await read_items(server)
    assert "lossless" in str(caught.value.hint)
    expected = [f"d-{number:05d}" for number in range(30)]
    assert item_ids(await read_items(server, lossless=False, page=7)) == expected
    server.tables.put("documents:pk-twice", json.dumps(row(6)))
    with pytest.raises(JobFailed, match=r"d-00006|repeats a value"):
        await read_items(server, lossless=False, page=7)


async def test_row_under_another_key_fails_the_job(server: ThemisServer) -> None:
    fill_documents(server)
    server.tables.put("documents:other", json.dumps(row(60)))
    with pytest.raises(JobFailed, match="no row 'documents:d-00060'"):
        await read_items(server)


async def test_numbers_are_compared_as_they_were_stored(server: ThemisServer) -> None:
    values = [3.14159, 3.141592, 3.1416, 3, 3.0000001, 2.5]
    server.fill("documents", "doc_id", [row(number, ratio=value) for number, value in enumerate(values)])

    async def chosen(wanted: Any) -> list[float]:
        found = await read_items(server, lossless=True, query={"filters": {"ratio": wanted}})
        return [item.content.metadata["ratio"] for item in found if isinstance(item.content, Document)]

    assert await chosen({"lte": 3.14159, "gte": 3.1}) == [3.14159]
    assert await chosen({"gte": 3.141591}) == [3.141592, 3.1416]
    assert await chosen(2.5) == [2.5]
    assert await chosen({"lte": 3}) == [3, 2.5]


async def test_to_date_includes_the_whole_day(server: ThemisServer) -> None:
    dates = ["2019-12-31", "2020-01-01", "2020-06-30T23:59:59Z", "2020-07-01", None]
    server.fill("documents", "doc_id", [row(number, created_at=date) for number, date in enumerate(dates)])
    found = await read_items(server, from_date="2020-01-01", to_date="2020-06-30")
    assert item_ids(found) == ["d-00001", "d-00002"]


async def test_domain_and_subject_filter_their_columns(server: ThemisServer) -> None:
    rows = [row(number, domain="xy"[number % 2], subject="uvw"[number % 3]) for number in range(12)]
    server.fill("documents", "doc_id", rows)
    server.index("documents", "domain")
    server.index("documents", "subject")
    assert item_ids(await read_items(server, domain="y", subject="w")) == ["d-00005", "d-00011"]


async def test_numeric_keys_follow_the_servers_order(server: ThemisServer) -> None:
    keys = ["9", "10", "2", "1", "a", "a-b", "a1", "00000000000000000000001"]
    server.fill("documents", "doc_id", [row(0, doc_id=key) for key in keys])
    for lossless in (True, False):
        found = await read_items(server, lossless=lossless, page=2)
        assert sorted(item_ids(found)) == sorted(keys)


async def test_text_is_content_else_text(server: ThemisServer) -> None:
    rows = [{"doc_id": "a", "content": "c", "text": "t"}, {"doc_id": "b", "text": "t"}, {"doc_id": "c"}]
    server.fill("documents", "doc_id", rows)
    found = await read_items(server)
    assert [item.content.text for item in found if isinstance(item.content, Document)] == ["c", "t"]
    assert dead_letter_reasons(found) == {"c": "no_content"}


async def test_row_that_no_longer_matches_is_vanished(server: ThemisServer) -> None:
    fill_documents(server)
    server.index("documents", "category")
    for lossless in (True, False):
        reading = ThemisJob(server, theme="a", lossless=lossless)
        frozen = (await make_plan(reading.spec, reading.source)).frozen
        async with aclosing(reading.source.read(frozen, None)) as batches:
            await anext(batches)
        server.fill("documents", "doc_id", [row(48, category="b")])
        found = [item async for batch in reading.source.read(frozen, None) for item in batch]
        assert dead_letter_reasons(found) == {"d-00048": "vanished"}
        server.fill("documents", "doc_id", [row(48)])


async def test_fixed_server_yields_the_same_rows(server: ThemisServer) -> None:
    fill_documents(server)
    server.index("documents", "category")
    async with themis_server(fixed=True) as fixed:
        fill_documents(fixed)
        fixed.index("documents", "category")
        for theme in ("a", "none"):
            assert await read_items(fixed, theme=theme) == await read_items(server, theme=theme)


KEYS = st.text("ab1-", min_size=1, max_size=4) | st.text("ab:1-", min_size=1, max_size=4)


@settings(max_examples=60)
@given(
    keys=st.sets(KEYS, min_size=1, max_size=25),
    page=st.integers(1, 6),
    lossless=st.booleans(),
    cut=st.integers(0, 25),
)
def test_each_key_is_read_once(keys: set[str], page: int, lossless: bool, cut: int) -> None:
    async def run() -> None:
        async with themis_server() as server:
            server.fill("documents", "doc_id", [row(0, doc_id=key) for key in sorted(keys)])
            reading = ThemisJob(server, lossless=lossless, page=page)
            if any(":" in key for key in keys):
                with pytest.raises(JobFailed):
                    await reading.items()
                return
            found = await reading.items()
            assert item_ids(found) == sorted(keys, key=index_key)
            place = min(cut, len(found))
            again = [item async for batch in reading.source.read(reading.frozen, (place,)) for item in batch]
            assert again == found[place:]

    asyncio.run(run())


@given(st.lists(st.text("a1:%-/", max_size=5), unique=True))
def test_order_key_sorts_as_the_server(values: list[str]) -> None:
    assert [order_key(value) for value in values] == [index_key(value) for value in values]


async def test_rare_fields_of_a_table_have_no_column(server: ThemisServer) -> None:
    rows = [row(number, **{f"user_{number}": number, "often": True}) for number in range(300)]
    server.fill("documents", "doc_id", rows)
    for lossless in (True, False):
        plan = await make_plan((found := ThemisJob(server, lossless=lossless)).spec, found.source)
        assert (sorted(plan.columns), plan.without_column) == (["category", "often"], 300)
    few = ThemisJob(server, row_format={"max_columns": 1})
    assert (await make_plan(few.spec, few.source)).without_column == 301
    # A column that the job names has its type, however rare it is.
    named = ThemisJob(server, row_format={"metadata": ["user_7", "often"], "max_columns": 1})
    plan = await make_plan(named.spec, named.source)
    assert (plan.columns, plan.without_column) == ({"user_7": "int", "often": "bool"}, 0)
