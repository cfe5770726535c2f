"""What ChromaDB lists and returns is proven: neither a changing list nor a short answer is the whole."""

import math
from collections.abc import Callable, Iterator
from contextlib import aclosing
from typing import Any

import pytest

from shardline_common.errors import FailureCode, JobFailed, SourceUnavailable
from shardline_common.job.spec import Query
from shardline_common.runtime.retry import Backoff
from shardline_producer.sources.uds3.chroma import collection
from shardline_producer.sources.uds3.chroma.ranker import ChromaRanker
from tests.embedding_stub import FixedEmbedder
from tests.support.chroma_stand_in import Answer, ChromaStandIn, Record, only

NEAR = (1.0, 0.0)
FAR = (0.0, 1.0)


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collection, "_IDS_PER_PAGE", 3)
    for name in ("pause", "longest"):
        monkeypatch.setattr(Backoff, name, lambda *_: 0.0)


@pytest.fixture
def store() -> ChromaStandIn:
    """Ten records, r5 the nearest to NEAR; each has a kind."""
    found = ChromaStandIn()
    for number in range(10):
        found.add(f"r{number}", NEAR if number == 5 else (0.0, 1.0 + number), kind="law")
    return found


async def ranked(
    store: ChromaStandIn, vector: tuple[float, ...] = NEAR, *, deleted: list[str] | None = None, **query: Any
) -> list[str]:
    async def on_deleted(ids: Any) -> None:
        assert deleted is not None
        deleted.extend(ids)

    async with store.running() as options:
        ranker = ChromaRanker(options, FixedEmbedder(*vector))
        pages = ranker.rank(Query(text="x", **query), None if deleted is None else on_deleted)
        async with aclosing(pages):
            return [hit.id async for page in pages for hit in page]


async def tombstones(store: ChromaStandIn) -> list[str]:
    async with store.running() as options:
        pages = ChromaRanker(options, FixedEmbedder(*NEAR)).deleted_ids()
        async with aclosing(pages):
            return [one async for page in pages for one in page]


def at_offset(offset: int, change: Callable[[], None], *, times: int = 1) -> Callable[[Answer], None]:
    """Call `change` before the first answers to a request at an offset."""
    left = iter(range(times))

    def before(body: Answer) -> None:
        if body.get("offset") == offset and body["include"] == [] and next(left, None) is not None:
            change()

    return before


def replace_one(store: ChromaStandIn, number: Iterator[int] = iter(range(10**6))) -> None:  # noqa: B008
    """Remove the first record and add one: the count stays, and every page behind shifts by one."""
    store.remove(next(iter(store.records)))
    store.add(f"new{next(number)}", FAR, kind="law")


# The record r3 begins the second page. It shifts into the first one, which was read before.
@pytest.mark.parametrize("query", [{}, {"filters": {"kind": "law"}}])
async def test_a_record_that_shifts_between_two_pages_is_listed(
    store: ChromaStandIn, query: dict[str, Any]
) -> None:
    store.records["r3"] = Record((1.0, 0.001), {"kind": "law"})
    store.before = at_offset(3, lambda: replace_one(store))
    found = await ranked(store, **query)
    assert sorted(found) == sorted(store.records)
    assert found[:2] == ["r5", "r3"]


async def test_a_tombstone_that_shifts_between_two_pages_is_seen(store: ChromaStandIn) -> None:
    store.add("gone::chunk::0", FAR, deleted=True)
    store.records = {"r0": store.records["r0"], "r1": store.records["r1"], "r2": store.records["r2"]} | {
        "gone::chunk::0": store.records["gone::chunk::0"],
        **store.records,
    }
    store.before = at_offset(3, lambda: replace_one(store))
    assert await tombstones(store) == ["gone"]
    deleted: list[str] = []
    store.before = at_offset(3, lambda: replace_one(store))
    found = await ranked(store, deleted=deleted)
    assert deleted == ["gone"]
    assert "gone" not in found


@pytest.mark.parametrize("query", [{}, {"filters": {"kind": "law"}}])
async def test_a_collection_that_changes_in_every_list_is_a_transient_error(
    store: ChromaStandIn, query: dict[str, Any]
) -> None:
    store.before = at_offset(3, lambda: replace_one(store), times=10**6)
    with pytest.raises(SourceUnavailable, match="added or removed while the collection was listed") as raised:
        await ranked(store, **query)
    assert raised.value.lasting is FailureCode.SOURCE_CHANGED
    assert "nothing writes" in str(raised.value.hint)


async def test_a_record_that_is_written_again_in_every_list_is_a_change(store: ChromaStandIn) -> None:
    # A record that is removed and added with its id stands at the end: its page lacks another one.
    def write_again() -> None:
        first = next(iter(store.records))
        store.records[first] = store.records.pop(first)

    store.before = at_offset(3, write_again, times=10**6)
    with pytest.raises(SourceUnavailable, match="added or removed"):
        await ranked(store)
    store.before = at_offset(3, write_again, times=2)
    assert sorted(await ranked(store)) == sorted(store.records)


async def test_a_count_that_is_no_number_is_requested_again(store: ChromaStandIn) -> None:
    wrong = iter(range(1))
    store.count = lambda count: True if next(wrong, None) is not None else count
    assert sorted(await ranked(store)) == sorted(store.records)
    store.count = lambda _: True
    with pytest.raises(SourceUnavailable, match="its count is no number"):
        await ranked(store)


async def test_a_list_without_a_record_that_the_store_counts_is_not_the_whole(store: ChromaStandIn) -> None:
    store.count = lambda count: count + 1
    with pytest.raises(SourceUnavailable, match="the store counts 11 and lists 10"):
        await ranked(store)


async def test_pages_that_are_cut_by_the_server_are_read_to_their_end(store: ChromaStandIn) -> None:
    store.lie = lambda _, answer: only(answer, set(answer["ids"][:2]).__contains__)
    assert sorted(await ranked(store)) == sorted(store.records)


async def test_records_that_an_answer_lacks_are_requested_again(store: ChromaStandIn) -> None:
    short = iter(range(2))
    store.lie = lambda body, answer: (
        only(answer, lambda name: name in "r0 r2 r4 r6 r8")
        if "ids" in body and next(short, None) is not None
        else answer
    )
    assert sorted(await ranked(store)) == sorted(store.records)


async def test_a_record_that_is_listed_and_never_returned_is_a_transient_error(store: ChromaStandIn) -> None:
    store.lie = lambda body, answer: only(answer, lambda name: "ids" not in body or name != "r5")
    with pytest.raises(SourceUnavailable, match="lists the record 'r5' and does not return it") as raised:
        await ranked(store)
    assert raised.value.lasting is FailureCode.SOURCE_UNREACHABLE
    with pytest.raises(SourceUnavailable, match="'r5'"):
        await tombstones(store)


async def test_a_record_that_is_removed_behind_the_list_is_no_hit(store: ChromaStandIn) -> None:
    def remove(body: Answer) -> None:
        if "ids" in body:
            store.records.pop("r5", None)

    store.before = remove
    assert sorted(await ranked(store)) == [f"r{number}" for number in range(10) if number != 5]


@pytest.mark.parametrize("anew", [True, False])
async def test_a_collection_that_is_made_anew_or_removed_while_it_is_read_is_a_change(
    store: ChromaStandIn, anew: bool
) -> None:
    def change(body: Answer) -> None:
        if "ids" in body:
            store.make_anew()
            store.name = store.name if anew else "other"

    store.before = change
    with pytest.raises(SourceUnavailable, match="removed, or made anew") as raised:
        await ranked(store)
    assert raised.value.lasting is FailureCode.SOURCE_CHANGED


async def test_a_collection_that_is_removed_before_it_is_counted_is_a_change(store: ChromaStandIn) -> None:
    def lie(_: Answer, answer: Answer) -> Answer:
        if not answer["ids"]:
            store.make_anew()
        return answer

    store.lie = lie
    with pytest.raises(SourceUnavailable, match="removed, or made anew") as raised:
        await ranked(store)
    assert raised.value.lasting is FailureCode.SOURCE_CHANGED


@pytest.mark.parametrize("query", [{}, {"filters": {"kind": "law"}}])
async def test_an_empty_page_in_the_middle_is_not_the_end(
    store: ChromaStandIn, query: dict[str, Any]
) -> None:
    # Every second answer at this offset is empty, in each list.
    second = iter(range(10**6))
    store.lie = lambda body, answer: (
        only(answer, lambda _: False) if body.get("offset") == 3 and next(second) % 2 == 0 else answer
    )
    assert sorted(await ranked(store, **query)) == sorted(store.records)


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        (lambda answer: answer | {"ids": [*answer["ids"][:-1], "x"]}, "not requested"),
        (lambda answer: answer | {"ids": [answer["ids"][0]] * len(answer["ids"])}, "twice"),
        (lambda answer: answer | {"ids": [1] * len(answer["ids"])}, "no text"),
        (lambda answer: answer | {"embeddings": None}, "not as many embeddings"),
        (lambda _: {"error": "InternalError", "message": "try again"}, "InternalError"),
        (lambda _: {"records": []}, "no list of ids"),
    ],
)
async def test_an_answer_with_other_records_than_requested_is_requested_again(
    store: ChromaStandIn, lie: Callable[[Answer], Answer], said: str
) -> None:
    wrong = iter(range(1))
    store.lie = lambda body, answer: (
        lie(answer) if "ids" in body and next(wrong, None) is not None else answer
    )
    assert sorted(await ranked(store)) == sorted(store.records)
    store.lie = lambda body, answer: lie(answer) if "ids" in body else answer
    with pytest.raises(SourceUnavailable, match=said):
        await ranked(store)


# ChromaDB writes a number that is not finite as null.
@pytest.mark.parametrize("broken", [None, (None, None), (1.0,), (1.0, 0.0, 0.0), ()])
async def test_a_vector_that_cannot_be_ranked_is_requested_again_then_an_error(
    store: ChromaStandIn, broken: tuple[float | None, ...] | None
) -> None:
    wrong = iter(range(2))

    def lie(body: Answer, answer: Answer) -> Answer:
        if "ids" in body and "r5" in answer["ids"] and next(wrong, None) is not None:
            answer["embeddings"][answer["ids"].index("r5")] = broken
        return answer

    store.lie = lie
    assert (await ranked(store))[0] == "r5"
    store.records["r5"].vector = broken
    with pytest.raises(JobFailed, match="vector of the record 'r5' is not 2 finite numbers") as raised:
        await ranked(store)
    assert raised.value.code is FailureCode.SOURCE_INVALID
    # A record that is no hit anyway needs no vector.
    store.records["r5"].metadata = {"kind": "law", "deleted": True}
    assert "r5" not in await ranked(store, deleted=[])
    store.records["r5"].metadata = {"kind": "other"}
    assert len(await ranked(store, filters={"kind": "law"})) == 9


@pytest.mark.parametrize(
    ("vector", "said"),
    [
        ((math.nan, 0.0), "its value 1 is nan"),
        ((0.0, -math.inf), "its value 2 is -inf"),
        ((0.0, 1e39), r"its value 2 is 1e\+39, which is beyond float32"),
        ((0.0, 0.0), "all its values are 0"),
        ((1e-60, 0.0), "all its values are 0"),
        ((1.0, 0.0, 0.0), "dimension 2, the model fixed makes 3"),
    ],
)
async def test_a_query_vector_that_cannot_be_compared_fails_the_job(
    store: ChromaStandIn, vector: tuple[float, ...], said: str
) -> None:
    store.space = "cosine"
    with pytest.raises(JobFailed, match=said) as raised:
        await ranked(store, vector)
    assert raised.value.code is FailureCode.SOURCE_INVALID
    async with store.running() as options:
        with pytest.raises(JobFailed, match=said):
            await ChromaRanker(options, FixedEmbedder(*vector)).check()


async def test_a_document_is_filtered_by_the_id_that_ranks_it() -> None:
    store = ChromaStandIn()
    store.add("a::chunk::0", NEAR)
    store.add("a::chunk::1", FAR, document_id="a")
    store.add("uuid", NEAR, document_id="a::chunk::0")
    store.add("7::chunk::0", NEAR, document_id=7)
    assert await ranked(store, filters={"document_id": "a"}) == ["a"]
    assert await ranked(store, filters={"document_id": ["a::chunk::0", "7"]}) == ["7", "a::chunk::0"]
