"""Reciprocal rank fusion: the fused list on disk equals the definition, computed with fractions."""

from collections.abc import Collection, Sequence
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from multiprocessing import get_context

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardline_common.errors import SourceUnavailable
from shardline_producer.sources.planned_store import Entry
from shardline_producer.sources.uds3.fusion import Fusion, RankedDocument, fused_score

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=3)
LISTS = st.lists(st.lists(NAMES, unique=True, max_size=12), min_size=1, max_size=3)
WEIGHTS = st.floats(0.001, 10)


def fused(
    lists: Sequence[Sequence[str]],
    weights: Sequence[float],
    limit: int | None = None,
    page: int = 4,
    excluded: Collection[str] = (),
    exclude_last: bool = False,
) -> list[Entry]:
    fusion = Fusion(weights)

    def exclude() -> None:
        assert fusion.exclude([*excluded, *excluded]) == len(set(excluded))
        assert fusion.exclude([*excluded]) == 0

    try:
        if not exclude_last:
            exclude()
        for number, names in enumerate(lists):
            for start in range(0, len(names), page):
                fusion.add(
                    number, [RankedDocument(name, foreign=False) for name in names[start : start + page]]
                )
        if exclude_last:
            exclude()
        for number, names in enumerate(lists):
            assert fusion.count(number) == len({*names} - {*excluded})
        return [entry for entries in fusion.pages(limit) for entry in entries]
    finally:
        fusion.close()


@given(LISTS, st.data())
def test_scores_match_the_definition_in_order_with_ties_by_id(
    lists: list[list[str]], data: st.DataObject
) -> None:
    weights = data.draw(st.lists(WEIGHTS, min_size=len(lists), max_size=len(lists)))
    found = fused(lists, weights)
    expected = {
        name: float(
            sum(
                Fraction(weight / (60 + names.index(name) + 1))
                for weight, names in zip(weights, lists, strict=True)
                if name in names
            )
        )
        for name in set().union(*map(set, lists))
    }
    assert {entry.id: entry.score for entry in found} == expected
    assert found == sorted(found, key=lambda entry: (-entry.score, entry.id.encode()))
    for limit in (1, 3, len(found)):
        assert fused(lists, weights, limit, page=1) == found[:limit]


@given(
    st.lists(st.none() | st.integers(1, 1 << 40), min_size=3, max_size=3), st.permutations([0, 1, 2]), WEIGHTS
)
def test_the_order_of_lists_with_equal_weights_does_not_matter(
    ranks: list[int | None], order: list[int], weight: float
) -> None:
    assert fused_score([weight] * 3, ranks) == fused_score([weight] * 3, [ranks[place] for place in order])


@given(st.integers(1, 1 << 30), st.integers(1, 1 << 30), WEIGHTS)
def test_a_better_rank_never_scores_lower(one: int, other: int, weight: float) -> None:
    better, worse = sorted((one, other))
    assert fused_score([weight], [better]) >= fused_score([weight], [worse])


@given(LISTS, st.sets(NAMES), st.data())
def test_excluded_documents_take_no_rank(
    lists: list[list[str]], others: set[str], data: st.DataObject
) -> None:
    known = sorted(set().union(*lists))
    excluded = others | (data.draw(st.sets(st.sampled_from(known))) if known else set())
    weights = data.draw(st.lists(WEIGHTS, min_size=len(lists), max_size=len(lists)))
    live = [[name for name in names if name not in excluded] for names in lists]
    assert fused(lists, weights, excluded=excluded) == fused(live, weights)
    assert fused(lists, weights, excluded=excluded, exclude_last=True) == fused(live, weights)


def test_hits_that_were_excluded_before_are_not_counted() -> None:
    fusion = Fusion([1.0])
    try:
        fusion.exclude(["b"])
        assert fusion.count(0) == 0
        fusion.add(0, [RankedDocument(name, foreign=False) for name in "abc"])
        assert fusion.count(0) == 2
    finally:
        fusion.close()


def test_a_document_listed_twice_keeps_its_better_rank() -> None:
    found = fused([["a", "b", "a"]], [1.0])
    assert [(entry.id, entry.score) for entry in found] == [("a", 1 / 61), ("b", 1 / 62)]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_hits() -> None:
    # In a process of its own: in one with a large heap, what others freed may be taken again, or not.
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        pool.submit(fuse_many_hits).result(timeout=120)


def fuse_many_hits() -> None:
    process = psutil.Process()
    fusion = Fusion([0.4, 0.6])
    before = process.memory_info().rss
    for start in range(0, 400_000, 5_000):
        page = [
            RankedDocument(f"document-with-a-long-name/{n:09d}", foreign=False)
            for n in range(start, start + 5_000)
        ]
        fusion.add(0, page)
        fusion.add(1, page)
    pages = fusion.pages(None)
    count = sum(len(page) for page in pages)
    assert count == 400_000
    assert process.memory_info().rss - before < 64 << 20
    fusion.close()


def test_a_full_disk_while_adding_hits_is_a_transient_error() -> None:
    fusion = Fusion([1.0])
    fusion._database.execute("PRAGMA max_page_count = 8")
    with pytest.raises(SourceUnavailable, match="full") as caught:
        fusion.add(0, [RankedDocument(f"document {n}", foreign=False) for n in range(5_000)])
    assert "TMPDIR" in (caught.value.hint or "")
    fusion.close()


def test_a_full_disk_while_excluding_is_a_transient_error() -> None:
    fusion = Fusion([1.0])
    fusion._database.execute("PRAGMA max_page_count = 8")
    with pytest.raises(SourceUnavailable, match="full"):
        fusion.exclude([f"document {n}" for n in range(5_000)])
    fusion.close()


def test_excluded_hits_count_for_the_first_store_that_excludes_them() -> None:
    fusion = Fusion([1.0])
    try:
        fusion.add(0, [RankedDocument(name, foreign=False) for name in "abcd"])
        fusion.exclude(["a", "x"], 2)
        fusion.exclude(["a", "b", "y"], 1)
        fusion.exclude(["b", "c"], 3)
        fusion.exclude(["y"], 3, are_hits=True)
        # x is in no list, and y would have been in one.
        assert fusion.left_out() == {1: 3, 3: 1}
    finally:
        fusion.close()
