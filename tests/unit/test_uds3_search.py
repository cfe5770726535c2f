"""The pure parts of the searches: distances, clauses, chunks, tombstones, words, lists on disk."""

import math
import random
import struct
from array import array
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardline_common.errors import SourceUnavailable
from shardline_common.job.spec import Range
from shardline_producer.sources.query_filters import passes
from shardline_producer.sources.source import Document
from shardline_producer.sources.uds3 import distance
from shardline_producer.sources.uds3.chroma.chunks import chunk_order, document_of
from shardline_producer.sources.uds3.chroma.where_clause import where_clause
from shardline_producer.sources.uds3.distance import SPACES, distance_from, dot, similarity
from shardline_producer.sources.uds3.embedding.embedder import mean_pooled, normalized
from shardline_producer.sources.uds3.neo4j.cypher import by_content, by_index
from shardline_producer.sources.uds3.neo4j.lucene import lucene_query
from shardline_producer.sources.uds3.scratch import ScratchDatabase
from shardline_producer.sources.uds3.spilled_lists import (
    AliasIndex,
    LowestScores,
    SortedIds,
    VisitedNodes,
)
from shardline_producer.sources.uds3.tombstones import is_deleted

FLOAT32 = st.floats(-1e6, 1e6, width=32)
VECTORS = st.integers(1, 24).flatmap(
    lambda size: st.tuples(
        st.lists(FLOAT32, min_size=size, max_size=size), st.lists(FLOAT32, min_size=size, max_size=size)
    )
)


def _exact(left: list[float], right: list[float]) -> float:
    return float(sum((Fraction(a) * Fraction(b) for a, b in zip(left, right, strict=True)), Fraction()))


@given(VECTORS)
def test_distances_are_exact_sums_rounded_once(pair: tuple[list[float], list[float]]) -> None:
    query, vector = pair
    assert distance_from(query, "ip")(vector) == round(1.0 - _exact(query, vector), 6)
    lengths = math.sqrt(_exact(query, query)) * math.sqrt(_exact(vector, vector))
    expected = 1.0 - _exact(query, vector) / lengths if lengths else 1.0
    assert distance_from(query, "cosine")(vector) == round(expected, 6)


@given(VECTORS, st.randoms(use_true_random=False), st.sampled_from(SPACES))
def test_the_order_of_dimensions_does_not_matter(
    pair: tuple[list[float], list[float]], random: Any, space: str
) -> None:
    order = list(range(len(pair[0])))
    random.shuffle(order)
    query, vector = ([values[place] for place in order] for values in pair)
    assert distance_from(query, space)(vector) == distance_from(pair[0], space)(pair[1])


@given(VECTORS)
def test_the_l2_distance_is_zero_at_the_query_and_never_negative(
    pair: tuple[list[float], list[float]],
) -> None:
    query, vector = pair
    assert distance_from(query, "l2")(query) == 0.0
    assert distance_from(query, "l2")(vector) >= 0.0


def test_cosines_near_a_rounding_boundary_are_computed_exactly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exact: list[float] = []
    original = distance.dot

    def counted(left: Any, right: Any) -> float:
        exact.append(0.0)
        return original(left, right)

    monkeypatch.setattr(distance, "dot", counted)
    dice = random.Random(5)
    query = [dice.gauss(0, 1) for _ in range(8)]
    measure = distance_from(query, "cosine")
    exact.clear()
    for _ in range(4_000):
        vector = list(array("f", [dice.gauss(0, 1) for _ in range(8)]))
        taken = list(array("f", query))
        lengths = Decimal(_exact(taken, taken)).sqrt() * Decimal(_exact(vector, vector)).sqrt()
        expected = 1 - Decimal(_exact(taken, vector)) / lengths
        assert measure(vector) == float(round(expected, 6))
    # Two in a thousand results are within 1e-9 of a rounding boundary.
    assert 0 < len(exact) < 100


def test_values_are_taken_as_float32() -> None:
    (short,) = struct.unpack("f", struct.pack("f", 0.1))
    assert dot(array("f", [1000.0]), array("f", [0.1])) == 1000.0 * short
    assert distance_from([1000.0], "ip")([0.1]) == round(1.0 - 1000.0 * short, 6) != -99.0


@pytest.mark.parametrize("broken", [[1.0], [1.0, math.nan], [1.0, math.inf], [1.0, None], [1.0, "x"], None])
@pytest.mark.parametrize("space", SPACES)
def test_an_invalid_vector_is_infinitely_far(broken: Any, space: str) -> None:
    far = distance_from([1.0, 2.0], space)(broken)
    assert far == math.inf


def test_similarity_is_one_minus_the_distance() -> None:
    assert [similarity(far) for far in (0.0, 0.25, 1.0, 1.5)] == [1.0, 0.75, 0.0, -0.5]


NAMES = st.sampled_from(["year", "title", "open"])
VALUES = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([0.5, 1.0, -2.0]),
    st.sampled_from(["a", "b", "2020-01-01"]),
    st.booleans(),
)
BOUNDS = st.one_of(st.none(), VALUES)
RANGES = st.tuples(BOUNDS, BOUNDS).filter(lambda pair: pair != (None, None))
FILTERS = st.dictionaries(
    NAMES,
    st.one_of(
        st.none(),
        VALUES,
        st.lists(st.one_of(st.none(), VALUES), max_size=4),
        RANGES.map(lambda pair: Range(gte=pair[0], lte=pair[1])),
    ),
)


def _chroma_meets(clause: dict[str, Any], metadata: dict[str, Any]) -> bool:
    """Evaluate a clause as ChromaDB's server was observed to."""
    ((key, value),) = clause.items()
    if key == "$and":
        return all(_chroma_meets(one, metadata) for one in value)
    if key == "$or":
        return any(_chroma_meets(one, metadata) for one in value)
    ((sign, wanted),) = value.items()
    found = metadata.get(key)
    if found is None or isinstance(found, str) != isinstance(wanted, str):
        return False
    if isinstance(found, bool) != isinstance(wanted, bool):
        return False
    return bool({"$eq": found == wanted, "$gte": found >= wanted, "$lte": found <= wanted}[sign])


@given(FILTERS, st.dictionaries(NAMES, VALUES))
def test_a_clause_lets_through_every_record_that_passes_the_filters(
    filters: dict[str, Any], metadata: dict[str, Any]
) -> None:
    clause = where_clause(filters)
    if passes(Document("x", "", metadata), filters):
        assert clause is None or _chroma_meets(clause, metadata)


def test_only_filters_that_chromadb_can_evaluate_become_clauses() -> None:
    assert where_clause({}) is None
    assert where_clause({"a": None, "b": [], "c": Range(gte="2020")}) is None
    assert where_clause({"a": [None, "x"]}) is where_clause({"a": [1 << 60]}) is None
    assert where_clause({"a": "x"}) == {"a": {"$eq": "x"}}
    assert where_clause({"a": ["x", 1], "b": Range(gte=1, lte=2)}) == {
        "$and": [
            {"$or": [{"a": {"$eq": "x"}}, {"a": {"$eq": 1}}]},
            {"b": {"$gte": 1}},
            {"b": {"$lte": 2}},
        ]
    }


@given(st.text(min_size=1), st.integers(0, 10**9))
def test_a_chunk_belongs_to_its_document(document: str, number: int) -> None:
    record = f"{document}::chunk::{number}"
    assert document_of(record, None) == document_of(record, {"document_id": ""}) == document
    assert document_of(record, {"document_id": "other"}) == "other"
    assert chunk_order(record) == (number, record)


def test_a_record_without_a_chunk_number_is_its_own_document() -> None:
    assert document_of("a::chunk::x", {}) == "a::chunk::x"
    assert chunk_order("a") == (-1, "a")


@pytest.mark.parametrize(
    ("fields", "deleted"),
    [
        ({}, False),
        ({"deleted": True}, True),
        ({"deleted": False, "is_deleted": 0, "deleted_at": None, "processing_status": "completed"}, False),
        ({"is_deleted": "true"}, True),
        ({"is_deleted": 1}, True),
        ({"deleted_at": "2024-01-01"}, True),
        ({"deleted_at": ""}, False),
        ({"deleted_at": "False"}, False),
        ({"processing_status": "failed"}, True),
        ({"processing_status": "deleted"}, True),
        ({"processing_status": "Archived"}, True),
    ],
)
def test_tombstone_fields_mark_a_document_as_deleted(fields: dict[str, Any], deleted: bool) -> None:
    assert is_deleted(fields) is deleted


def test_archived_documents_are_live_with_include_archived() -> None:
    assert not is_deleted({"processing_status": "archived"}, include_archived=True)
    assert is_deleted({"processing_status": "failed"}, include_archived=True)


@given(st.text())
def test_a_lucene_query_contains_no_operator(text: str) -> None:
    query = lucene_query(text) or ""
    bare = query
    for char in '+-!(){}[]^"~*?:\\/&|<>=':
        bare = bare.replace("\\" + char, "")
    assert not set(bare) & set('+-!(){}[]^"~*?:\\/&|<>=')
    assert not set(query.split()) & {"AND", "OR", "NOT", "TO"}


def test_a_lucene_query_escapes_words_and_drops_punctuation() -> None:
    assert lucene_query('Bau "Recht" OR a/b * - §') == r"Bau \"Recht\" or a\/b"
    assert lucene_query(" * && ") is None


@given(st.text(min_size=1))
def test_cypher_text_contains_no_value(value: str) -> None:
    marked = f"«{value}»"
    filters = {marked: [marked, None], marked + "2": Range(gte=marked)}
    for statement in (by_content(marked, filters, ["failed"]), by_index(marked, marked, filters, ["failed"])):
        assert "«" not in statement.text


@given(st.lists(st.tuples(st.text(max_size=3), st.floats(0, 2))))
def test_the_lowest_score_of_each_document_in_order(found: list[tuple[str, float]]) -> None:
    lowest: dict[str, float] = {}
    for document, score in found:
        lowest[document] = min(score, lowest.get(document, score))
    with ScratchDatabase() as database:
        lowest_scores = LowestScores(database)
        for one in found:
            lowest_scores.add([one])
        ranked = [pair for page in lowest_scores.ranked() for pair in page]
        assert ranked == sorted(lowest.items(), key=lambda pair: (pair[1], pair[0].encode()))


def test_pages_of_a_long_list_are_bounded() -> None:
    with ScratchDatabase() as database:
        lowest_scores = LowestScores(database)
        lowest_scores.add((f"{number:05d}", 0.5) for number in range(2500))
        assert [len(page) for page in lowest_scores.ranked()] == [1000, 1000, 500]


def test_a_full_disk_is_a_transient_error_for_every_list() -> None:
    with ScratchDatabase() as database:
        ids = SortedIds(database)
        database.execute("PRAGMA max_page_count = 8")
        with pytest.raises(SourceUnavailable, match="full") as caught:
            ids.add(f"document {number}" for number in range(5_000))
        assert "TMPDIR" in (caught.value.hint or "")


@given(st.lists(st.text(min_size=1, max_size=3)), st.integers(1, 4))
def test_ids_are_listed_once_in_byte_order(names: list[str], most: int) -> None:
    with ScratchDatabase() as database:
        sorted_ids = SortedIds(database)
        sorted_ids.add(["before"])
        sorted_ids.clear()
        for name in names:
            sorted_ids.add([name])
        found, last = list[str](), ""
        while page := sorted_ids.after(last, most):
            assert len(page) <= most
            found, last = found + page, page[-1]
        assert found == sorted(set(names), key=str.encode)
        assert sorted_ids.count() == len(found)


def test_neighbours_are_ordered_by_their_nearest_hit() -> None:
    with ScratchDatabase() as database:
        visited = VisitedNodes(database)
        visited.add(0, [("n1", "a", True)])
        visited.add(1, [("n1", "a", True), ("n3", "z", True), ("n2", "b", True), ("n4", "hidden", False)])
        visited.add(2, [("n2", "b", True), ("n5", "c", True), ("n6", "a", True)])
        assert visited.at(1, "", 2) == ["n2", "n3"]
        assert visited.at(1, "n3", 2) == ["n4"]
        assert list(visited.neighbours()) == [[("b", 1), ("z", 1), ("c", 2)]]


def test_the_first_alias_of_a_document_is_kept() -> None:
    aliases = AliasIndex()
    aliases.add([("a", "u2"), ("a", "u1"), ("b", "u3")])
    assert aliases.find(["b", "x", "a"]) == [("u3", "b"), ("u1", "a")]


@given(st.lists(st.lists(FLOAT32, min_size=3, max_size=3), min_size=1, max_size=5), st.data())
def test_pooling_leaves_out_masked_tokens(tokens: list[list[float]], data: st.DataObject) -> None:
    mask = data.draw(st.lists(st.integers(0, 1), min_size=len(tokens), max_size=len(tokens)))
    kept = [vector for vector, counts in zip(tokens, mask, strict=True) if counts]
    assert mean_pooled(tokens, mask) == mean_pooled(kept, [1] * len(kept)) if kept else [0.0, 0.0, 0.0]
    length = math.hypot(*normalized(tokens[0]))
    assert length == pytest.approx(1.0) or not any(tokens[0])
