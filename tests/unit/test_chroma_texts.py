"""The texts of documents in chunks: each whole and in order, or a dead letter that says what it lacks."""

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardline_common.errors import FailureCode, JobFailed, SourceUnavailable
from shardline_common.runtime.retry import Backoff
from shardline_producer.sources.documents import DeadLetterReason
from shardline_producer.sources.uds3.chroma import collection, document_records
from shardline_producer.sources.uds3.chroma.body_store import ChromaBodyStore
from shardline_producer.sources.uds3.chroma.chunks import (
    Chunk,
    chunk_number,
    document_of,
    whole_number,
    whole_text,
)
from shardline_producer.sources.uds3.store_ports import (
    DELETED_BODY,
    BodyRequest,
    DocumentBody,
    InvalidBody,
)
from tests.support.chroma_stand_in import Answer, ChromaStandIn, only

INCOMPLETE = DeadLetterReason.INCOMPLETE_TEXT


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collection, "_IDS_PER_PAGE", 3)
    monkeypatch.setattr(document_records, "_RECORDS_PER_REQUEST", 4)
    for name in ("pause", "longest"):
        monkeypatch.setattr(Backoff, name, lambda *_: 0.0)


async def texts(store: ChromaStandIn, *documents: str, max_bytes: int = 10_000) -> dict[str, Any]:
    """The texts of bodies, and the reasons of those that are invalid."""
    async with store.running() as options:
        return await texts_of(ChromaBodyStore(options), *documents, max_bytes=max_bytes)


async def texts_of(bodies: ChromaBodyStore, *documents: str, max_bytes: int = 10_000) -> dict[str, Any]:
    found = await bodies.bodies([BodyRequest(one) for one in documents], max_bytes)
    return {name: one.text if isinstance(one, DocumentBody) else one.reason for name, one in found.items()}


def six_chunks(prefix: str = "d::chunk::", **metadata: Any) -> ChromaStandIn:
    """A document `d` of six chunks, between other records."""
    store = ChromaStandIn()
    for number in (3, 0, 5, 1, 4, 2):
        store.add(f"x{number}", document="other")
        fields = {"document_id": "d", "chunk_index": number} | metadata
        store.add(f"{prefix}{number}", document=f"t{number}", **fields)
    return store


WHOLE = "t0\nt1\nt2\nt3\nt4\nt5"


async def test_chunks_without_the_documents_id_in_their_metadata_belong_to_it() -> None:
    store = six_chunks()
    store.records["d::chunk::2"].metadata = None
    store.records["d::chunk::5"].metadata = {"document_id": ""}
    store.records["d::chunk::0"].metadata = {"kind": "law"}
    assert await texts(store, "d") == {"d": WHOLE}
    store.records["d::chunk::5"].metadata = {"deleted": True}
    assert await texts(store, "d", "x1") == {"d": DELETED_BODY.reason, "x1": "other"}


async def test_a_record_of_another_document_is_no_chunk_whatever_its_id() -> None:
    store = six_chunks()
    store.add("d::chunk::6", document="foreign", document_id="e")
    store.add("d", document="foreign", document_id="f")
    store.add("d::chunk::1::chunk::0", document="nested")
    assert await texts(store, "d", "e", "f", "d::chunk::1") == {
        "d": WHOLE,
        "f": "foreign",
        "d::chunk::1": "nested",
        # Its only record has the number 6.
        "e": INCOMPLETE,
    }


async def test_the_numbers_of_uds3s_ids_begin_with_0() -> None:
    store = ChromaStandIn()
    store.add("d::chunk::1", document="t1", document_id="d", chunk_index=1)
    store.add("e::chunk::0", document="t1", chunk_index=1)
    assert await texts(store, "d", "e") == {"d": INCOMPLETE, "e": "t1"}


async def test_numbers_name_documents_as_their_text_does() -> None:
    store = ChromaStandIn()
    store.add("u1", document="a", document_id=7, chunk_index=0)
    store.add("u2", document="b", document_id="7", chunk_index=1)
    store.add("7::chunk::2", document="c")
    store.add("u3", document="no", document_id="07", chunk_index=2)
    store.add("u4", document="half", document_id=7.5)
    store.add("u5", document="whole", document_id=7.0)
    assert await texts(store, "7", "8") == {"7": "a\nb\nc"}
    assert await texts(store, "7.5", "7.0", "inf") == {"7.5": "half", "7.0": "whole"}


async def test_short_pages_of_texts_are_read_to_their_end() -> None:
    store = six_chunks()
    store.lie = lambda _, answer: only(answer, set(answer["ids"][:2]).__contains__)
    assert await texts(store, "d", "x1") == {"d": WHOLE, "x1": "other"}
    store.add("d", document="text d", document_id="d")
    store.lie = lambda _, answer: only(answer, set(answer["ids"][:1]).__contains__)
    assert await texts(store, "d") == {"d": "text d\n" + WHOLE}


@pytest.mark.parametrize("prefix", ["d::chunk::", "uuid-"])
async def test_a_chunk_that_is_listed_and_never_returned_is_a_transient_error(prefix: str) -> None:
    store, last = six_chunks(prefix), f"{prefix}5"
    store.lie = lambda body, answer: only(answer, lambda name: "ids" not in body or name != last)
    with pytest.raises(SourceUnavailable, match=f"lists the record '{last}'"):
        await texts(store, "d")
    # Without metadata only its id can name the document.
    store.records[last].metadata = None
    if prefix == "uuid-":
        assert await texts(store, "d") == {"d": WHOLE.removesuffix("\nt5")}
    else:
        with pytest.raises(SourceUnavailable, match=f"lists the record '{last}'"):
            await texts(store, "d")


@pytest.mark.parametrize("prefix", ["d::chunk::", "uuid-"])
@pytest.mark.parametrize("lists", [1, 2])
async def test_a_chunk_that_shifts_between_two_pages_is_read(lists: int, prefix: str) -> None:
    store, left = six_chunks(prefix), iter(range(lists))
    first = store.records.pop(f"{prefix}0")
    store.records = {f"{prefix}0": first} | store.records
    # The last chunk is at the end of the list, where no gap in the numbers shows that it is missing.
    store.records[f"{prefix}5"] = store.records.pop(f"{prefix}5")

    def before(body: Answer) -> None:
        if body.get("where") and body["offset"] == 3 and next(left, None) is not None:
            # The first chunk is written again, behind the others.
            first = next(name for name in store.records if name.startswith(prefix))
            store.records[first] = store.records.pop(first)

    store.before = before
    assert await texts(store, "d") == {"d": WHOLE}


async def test_a_document_that_is_replaced_while_it_is_read_is_read_anew() -> None:
    store, left = six_chunks(total_chunks=6), iter(range(1))

    def before(body: Answer) -> None:
        if "ids" in body and next(left, None) is not None:
            store.remove(*(name for name in store.records if name.startswith("d")))
            for number in range(2):
                store.add(f"d::chunk::{number}", document=f"new{number}", document_id="d", total_chunks=2)

    store.before = before
    assert await texts(store, "d") == {"d": "new0\nnew1"}


async def test_a_document_that_always_changes_is_a_transient_error() -> None:
    store, numbers = six_chunks(), iter(range(6, 10_000))

    def before(body: Answer) -> None:
        if "ids" in body:
            store.add(f"d::chunk::{next(numbers)}", document="more", document_id="d")

    store.before = before
    with pytest.raises(SourceUnavailable, match="added or removed during each of several reads") as raised:
        await texts(store, "d")
    assert raised.value.lasting is FailureCode.SOURCE_CHANGED


async def test_chunks_that_were_added_or_removed_behind_the_list_of_ids_count() -> None:
    store = ChromaStandIn()
    for number in range(3):
        store.add(f"d::chunk::{number}", document=f"t{number}")
        store.add(f"e::chunk::{number}", document=f"u{number}")
    async with store.running() as options:
        bodies = ChromaBodyStore(options)
        assert await texts_of(bodies, "d", "e") == {"d": "t0\nt1\nt2", "e": "u0\nu1\nu2"}
        listed = len(store.requests)
        for number in (3, 4):
            store.add(f"d::chunk::{number}", document=f"t{number}")
        store.add("new", document="a document of one record")
        store.remove("e::chunk::2")
        assert await texts_of(bodies, "d") == {"d": "t0\nt1\nt2\nt3\nt4"}
        assert await texts_of(bodies, "e", "new") == {"e": "u0\nu1", "new": "a document of one record"}
        # A document that did not change needs no list.
        store.requests.clear()
        await texts_of(bodies, "d")
        assert len(store.requests) < listed / 2


async def test_a_collection_that_is_made_anew_between_two_reads_fails_the_job() -> None:
    store = six_chunks()
    async with store.running() as options:
        bodies = ChromaBodyStore(options)
        await texts_of(bodies, "d")
        store.make_anew()
        with pytest.raises(JobFailed, match="'document_chunks' was made anew") as raised:
            await texts_of(bodies, "d")
    assert raised.value.code is FailureCode.SOURCE_CHANGED


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"d::chunk::0": None}, INCOMPLETE),
        ({"d::chunk::3": None}, INCOMPLETE),
        ({"d::chunk::5": None}, INCOMPLETE),
        ({"d::chunk::5": "t5"}, WHOLE),
    ],
)
async def test_a_missing_chunk_makes_an_incomplete_text(changes: dict[str, str | None], reason: str) -> None:
    store = six_chunks(total_chunks=6)
    for name, text in changes.items():
        if text is None:
            store.remove(name)
    assert await texts(store, "d", "x1") == {"d": reason, "x1": "other"}
    if changes != {"d::chunk::5": None}:
        # Only a promised number shows that the last chunk is missing.
        for record in store.records.values():
            record.metadata = {key: value for key, value in (record.metadata or {}).items() if key[0] == "d"}
        assert await texts(store, "d") == {"d": reason}


async def test_a_chunk_without_a_text_makes_an_incomplete_text() -> None:
    store = six_chunks()
    store.records["d::chunk::4"].document = None
    store.add("vector::chunk::0", document_id="vector")
    async with store.running() as options:
        found = await ChromaBodyStore(options).bodies([BodyRequest("d"), BodyRequest("vector")], 100)
    # A document of which ChromaDB has no text at all is left to other stores.
    assert found == {"d": InvalidBody(INCOMPLETE, b"t0\nt1\nt2\nt3\nt5")}
    # One answer may lack a text.
    store, wrong = six_chunks(), iter(range(2))

    def lie(body: Answer, answer: Answer) -> Answer:
        if "ids" in body and next(wrong, None) is not None:
            answer["documents"] = [None] * len(answer["ids"])
        return answer

    store.lie = lie
    assert await texts(store, "d") == {"d": WHOLE}
    store = six_chunks()
    store.records["d::chunk::4"].document = None
    store.records["d::chunk::4"].metadata = {"document_id": "d", "content": "t4"}
    assert await texts(store, "d") == {"d": WHOLE}


async def test_the_metadata_of_a_document_are_those_of_its_first_chunk_that_has_any() -> None:
    store = ChromaStandIn()
    store.add("d::chunk::0", document="t0")
    store.add("d::chunk::1", document="t1", title="T", document_id="d")
    store.add("d::chunk::2", document="t2", title="other", page=3)
    async with store.running() as options:
        found = await ChromaBodyStore(options).bodies([BodyRequest("d")], 100)
    assert found == {"d": DocumentBody("t0\nt1\nt2", {"title": "T"})}


async def test_chunks_may_be_counted_from_1_where_no_record_has_the_number_0() -> None:
    store = ChromaStandIn()
    for number in (1, 2, 3):
        store.add(f"u{number}", document=f"t{number}", document_id="d", chunk_index=number)
    assert await texts(store, "d") == {"d": "t1\nt2\nt3"}
    for zero in ({"chunk_index": 0}, {"chunk_index": "0"}, {"chunk_index": 0.0}):
        store.add("other", document="x", **zero)
        assert await texts(store, "d") == {"d": INCOMPLETE}


async def test_a_document_over_the_limit_is_too_large_and_the_others_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(document_records, "_MIN_CHARACTERS", 50)
    store = six_chunks()
    for number in range(6):
        store.add(f"big::chunk::{number}", document="x" * 20)
    found = await texts(store, "d", "big", "x1", max_bytes=30)
    assert found == {"d": WHOLE, "big": DeadLetterReason.TOO_LARGE, "x1": "other"}


async def test_a_record_over_the_limit_of_a_response_is_too_large_and_the_others_are_read() -> None:
    store = six_chunks()
    store.add("big::chunk::0", document="x" * 10_000)
    async with store.running() as options:
        narrow = replace(options, http=replace(options.http, max_bytes=2_000))
        found = await texts_of(ChromaBodyStore(narrow), "d", "big", "x1")
    assert found == {"d": WHOLE, "big": DeadLetterReason.TOO_LARGE, "x1": "other"}


def ordered(chunks: Sequence[Chunk], *, from_one: bool = False, document: str = "d") -> str | None:
    found = whole_text(document, chunks, from_one=from_one)
    return None if found is None else " ".join(chunk.text or "-" for chunk in found)


def numbered(*numbers: Any, **fields: Any) -> list[Chunk]:
    """Chunks with random ids, whose texts are their indexes."""
    return [
        Chunk(f"u{place}", str(number), {"chunk_index": number, "document_id": "d"} | fields)
        for place, number in enumerate(numbers)
    ]


@given(st.permutations(range(12)), st.sampled_from([int, float, str, lambda number: f" {number}.0 "]))
def test_the_index_orders_chunks_whatever_their_ids_and_its_type(order: list[int], kind: Any) -> None:
    chunks = [
        Chunk(f"d::chunk::{12 - number}", str(number), {"chunk_index": kind(number)}) for number in order
    ]
    assert ordered(chunks) == " ".join(map(str, range(12)))
    lost = random.Random(str(order)).randrange(11)
    assert ordered([chunk for chunk in chunks if chunk.text != str(lost)]) is None


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        (numbered(2, 10, 1, *range(3, 10), 0), "0 1 2 3 4 5 6 7 8 9 10"),
        (numbered(0, 1, 3), None),
        (numbered(1, 2), None),
        (numbered(2), None),
        (numbered(0), "0"),
        # Before 0 nothing is expected.
        (numbered(-1, 0, 1), "-1 0 1"),
        (numbered(-1, 0, 1, total_chunks=2), "-1 0 1"),
        (numbered(-1, 1), None),
        # No index: the number in the id, or none.
        ([*numbered(0, 1), Chunk("d::chunk::2", "2")], "0 1 2"),
        ([*numbered(0, 1), Chunk("d_chunk_0002", "2", {"document_id": "d"})], "0 1 2"),
        ([*numbered(0, 1), Chunk("u9", "9", {"document_id": "d"})], None),
        ([Chunk("u1", "a", {"document_id": "d"}), Chunk("u2", "b", {"document_id": "d"})], None),
        ([Chunk("u1", "a", {"document_id": "d"})], "a"),
        # One number twice: the same chunk, or a contradiction.
        ([*numbered(0, 1), Chunk("v", "1", {"chunk_index": 1})], "0 1"),
        ([*numbered(0, 1), Chunk("v", "other", {"chunk_index": 1})], None),
        # What is promised.
        (numbered(0, 1, total_chunks=2), "0 1"),
        (numbered(0, 1, total_chunks="2.0"), "0 1"),
        (numbered(0, 1, total_chunks=3), None),
        (numbered(0, 1, chunk_count=3), None),
        (numbered(0, 1, 2, total_chunks=2), None),
        ([*numbered(0, total_chunks=1), *numbered(0, 1, total_chunks=2)[1:]], None),
        (numbered(0, 1, total_chunks=0, chunk_count="many"), "0 1"),
        ([Chunk("d", "a", {"total_chunks": 1})], "a"),
        ([Chunk("d", "a", {"total_chunks": 2})], None),
        # A record of the document's own id.
        ([Chunk("d", "title"), *numbered(0, 1)], "title 0 1"),
        ([Chunk("d", None, {"title": "t"}), *numbered(0, 1)], "0 1"),
        ([Chunk("d", "0 and 1"), *numbered(0, 1)], "0 and 1"),
    ],
)
def test_a_text_is_whole_or_not(chunks: list[Chunk], expected: str | None) -> None:
    assert ordered(chunks) == expected
    assert ordered(chunks[::-1]) == expected


def test_chunks_counted_from_1_are_whole_if_the_collection_counts_so() -> None:
    assert ordered(numbered(1, 2, total_chunks=2), from_one=True) == "1 2"
    assert ordered(numbered(2, 3), from_one=True) is None


@given(st.one_of(st.integers(), st.floats(), st.booleans(), st.text(), st.none()))
def test_only_whole_numbers_are_numbers(value: Any) -> None:
    number = whole_number(value)
    if isinstance(value, bool) or value is None or (isinstance(value, float) and value % 1 != 0):
        assert number is None
    elif isinstance(value, int):
        assert number == value
    elif number is not None:
        assert math.isclose(number, float(value))


def test_the_number_of_a_record_is_its_index_else_in_its_id() -> None:
    assert chunk_number("d::chunk::3") == 3
    assert chunk_number("d::chunk::3", {"chunk_index": 1}) == 1
    assert chunk_number("d::chunk::3", {"chunk_index": "first"}) == 3
    assert chunk_number("d::chunk::3", {"chunk_index": True}) == 3
    assert chunk_number("d-12", {"document_id": "d"}) == 12
    assert chunk_number("d-12") is None
    assert chunk_number("dx12", {"document_id": "d"}) is None
    assert document_of("d-12", {}) == "d-12"
    assert [document_of("u", {"document_id": one}) for one in (5, 5.5, True, "", None)] == [
        *("5", "5.5", "u", "u", "u")
    ]
