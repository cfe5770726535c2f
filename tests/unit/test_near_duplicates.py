"""What near duplicates are found among documents of the sample, beside all pairs; the page of the rule."""

import random
import re
from functools import cache
from itertools import combinations
from pathlib import Path

import pytest

from shardline.services.sample import sample_document
from shardline_common.assembly.content_hash import content_hash
from shardline_common.assembly.minhash import Signer
from shardline_common.assembly.normal_text import WHITE_SPACE
from shardline_common.assembly.words import REMOVED, SEPARATORS, SINGLE, words_of
from tests.benchmarks.near_duplicates import (
    Near,
    components,
    shingles,
    similar_pairs,
    similarity,
)

PAGE = Path(__file__).parents[2] / "docs" / "minhash-v1.md"


@cache
def edited_texts() -> list[str]:
    """Texts of the sample, and copies of them with one to forty other words."""
    dice = random.Random(3)
    texts = [str(sample_document(number)["content"]) for number in range(300)]
    for text in [text for text in texts if len(text.split()) > 60][:120]:
        words = text.split()
        for _ in range(dice.choice((1, 1, 2, 3, 40))):
            words[dice.randrange(len(words))] = dice.choice(("Satzung", "permit", "2026", "Anlage"))
        texts.append(" ".join(words))
    return list(dict.fromkeys(texts))


@cache
def near() -> tuple[list[frozenset[int]], Near]:
    signer = Signer(14, 8, 0)
    texts = edited_texts()
    return [shingles(words_of(text)) for text in texts], Near(signer, [signer.sign(text) for text in texts])


def test_the_prefix_filter_leaves_out_no_similar_pair() -> None:
    sets, _ = near()
    every = {pair: similarity(sets, pair) for pair in combinations(range(len(sets)), 2)}
    assert similar_pairs(sets) == {pair: value for pair, value in every.items() if value >= 0.8}


def test_bands_find_similar_texts_and_signatures_tell_others_apart() -> None:
    sets, found = near()
    truth = similar_pairs(sets)
    assert len(truth) > 60
    pairs = found.pairs(None)
    assert {pair for pair, value in truth.items() if value >= 0.9} <= pairs
    assert len(truth.keys() & pairs) >= 0.9 * len(truth)
    verified = found.pairs(0.8)
    assert verified < pairs
    # Three standard deviations of 112 values.
    assert min(similarity(sets, pair) for pair in verified) > 0.68
    assert len(truth.keys() & verified) >= 0.85 * len(truth)


def test_a_cluster_is_what_its_edges_connect() -> None:
    assert components([(4, 9), (1, 4), (7, 8), (9, 11)]) == {1: [1, 4, 9, 11], 7: [7, 8]}


def test_exact_duplicates_are_equal_texts() -> None:
    texts = [*edited_texts(), *(f"\n{text}  " for text in edited_texts()[:9])]
    first = {" ".join(text.split()): place for place, text in reversed(list(enumerate(texts)))}
    hashes: dict[bytes, int] = {}
    for place, text in enumerate(texts):
        hashes.setdefault(content_hash(text), place)
    assert sorted(hashes.values()) == sorted(first.values())


@pytest.mark.parametrize(
    ("intro", "table"),
    [
        ("White space is", WHITE_SPACE),
        ("2. U+00AD", REMOVED),
        ("digits;", SEPARATORS),
        ("write none between words:", SINGLE),
    ],
    ids=["white space", "removed", "separators", "single"],
)
def test_the_page_has_the_tables_of_the_code(intro: str, table: str) -> None:
    page = " ".join(PAGE.read_text(encoding="utf-8").split())
    start = page.index(intro) + (0 if intro.startswith("2.") else len(intro))
    stated = page[start : re.compile(r"\.\s|are removed").search(page, start + 3).start()]  # type: ignore[union-attr]
    found = "".join(
        chr(int(first, 16)) + (f"-{chr(int(last, 16))}" if last else "")
        for first, last in re.findall(r"U\+(\w+)(?: to U\+(\w+))?", stated)
    )
    # As one class of a regular expression: the page may order and join ranges in its own way.
    every = "".join(map(chr, range(0x40000)))
    assert re.findall(f"[{found}]", every) == re.findall(f"[{table}]", every)
