"""The facts of a text and the repeated n-grams, against their definitions written another way."""

import re
import unicodedata
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardline_common.curation.characters import WHITE_SPACE, split_words
from shardline_common.curation.text_facts import TextFacts
from shardline_common.curation.word_grams import WordGrams

# Few letters, so that n-grams repeat, and characters of each class.
TEXTS = st.text(
    st.sampled_from("aäßÄZ09§.-„ \t\n\x1c\xa0\u2028\xad²٣あ\U0001f600\ud800"), max_size=80
) | st.text(max_size=200)
WORDS = st.lists(st.sampled_from(["a", "b", "cc", "der"]), max_size=60)


def category(one: str) -> str:
    return (
        "Zs" if one in set(re.sub(r"(.)-(.)", _between, WHITE_SPACE)) else unicodedata.ucd_3_2_0.category(one)
    )


def _between(ends: re.Match[str]) -> str:
    return "".join(map(chr, range(ord(ends[1]), ord(ends[2]) + 1)))


@given(TEXTS)
def test_characters_are_counted_by_the_categories_of_unicode_3_2(text: str) -> None:
    facts = TextFacts(text.replace("ẞ", ""), {})
    kinds = Counter(map(category, facts.text))
    assert facts.letters == sum(count for kind, count in kinds.items() if kind[0] == "L")
    assert facts.capitals == kinds["Lu"]
    assert facts.digits == kinds["Nd"]
    assert facts.visible == sum(count for kind, count in kinds.items() if kind[0] != "Z")


@given(TEXTS)
def test_words_are_reduced_to_what_is_read(text: str) -> None:
    facts = TextFacts(text.replace("ẞ", ""), {})
    plain = "".join(
        " " if category(one)[0] == "Z" else one
        for one in facts.text
        if category(one)[0] in "LMZ" or (category(one)[0] == "N")
    )
    assert facts.spoken == len(plain.split(" ")) - plain.split(" ").count("")
    letters = "".join(one for one in plain if category(one)[0] != "N").split(" ")
    expected = [word.encode("utf-8", "surrogatepass").lower() for word in letters if word]
    assert facts.letter_words == expected
    assert facts.word_counts == Counter(expected)


@given(TEXTS)
def test_words_and_their_places_are_those_of_white_space(text: str) -> None:
    facts = TextFacts(text, {})
    assert facts.words == split_words(text) == [w for w in re.split(f"[{WHITE_SPACE}]+", text) if w]
    for word, start in zip(facts.words, facts.word_starts, strict=True):
        assert text[start : start + len(word)] == word


@given(TEXTS)
def test_paragraphs_are_divided_by_two_line_feeds_or_more(text: str) -> None:
    expected = [part for part in re.split("\n{2,}", text.strip()) if part]
    assert [part for part in TextFacts(text, {}).paragraphs if part] == expected


def top(words: list[str], size: int) -> int:
    counts = Counter(" ".join(words[place : place + size]) for place in range(len(words) - size + 1))
    gram, count = counts.most_common(1)[0] if counts else ("", 0)
    return len(gram) * count if count > 1 else 0


def duplicated(words: list[str], size: int) -> int:
    seen, chars, place = set(), 0, 0
    while place <= len(words) - size:
        gram = tuple(words[place : place + size])
        if gram in seen:
            chars += sum(map(len, gram))
            place += size
        else:
            seen.add(gram)
            place += 1
    return chars


@given(WORDS)
def test_repeated_grams_are_those_of_all_grams(words: list[str]) -> None:
    grams = WordGrams(words)
    for size in range(2, 11):
        assert grams.top(size).chars == top(words, size)
        assert grams.duplicated(size).chars == duplicated(words, size)


@given(WORDS, st.lists(st.integers(2, 10), max_size=8))
def test_repeated_grams_are_the_same_in_every_order_of_asking(words: list[str], sizes: list[int]) -> None:
    grams = WordGrams(words)
    for size in sizes:
        assert grams.duplicated(size).chars == duplicated(words, size)


@pytest.mark.parametrize("words", [[], ["a"], ["a", "b"], ["a"] * 40, ["a", "b"] * 20, list("abcdefgh" * 3)])
def test_grams_point_at_the_first_of_their_kind(words: list[str]) -> None:
    grams = WordGrams(words)
    for size in range(2, 11):
        chars, first = grams.duplicated(size)
        assert (first is None) == (chars == 0)
        if first is not None:
            gram = words[first : first + size]
            assert any(words[place : place + size] == gram for place in range(first))
        chars, first = grams.top(size)
        assert (first is None) == (chars == 0)
