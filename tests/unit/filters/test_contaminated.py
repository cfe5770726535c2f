"""The filter `contaminated`, beside a definition with sets of n-grams."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardline_common.assembly.words import words_of
from shardline_common.curation.filter import Rule
from shardline_common.curation.text_facts import TextFacts
from shardline_common.errors import JobFailed
from shardline_consumer.filters import ngram_index
from shardline_consumer.filters.contaminated import FILTER, Contaminated
from shardline_consumer.filters.ngram_index import NgramIndex, TooManyNgrams

QUESTION = "A train leaves the city at nine and drives for three hours before it stops at the sea"
WORDS = st.lists(st.sampled_from([b"a", b"b", b"c"]), max_size=60)


def _rule(path: Path, **given: object) -> Rule:
    parameters = Contaminated.model_validate({"lists": {"exam": "exam.jsonl"}, **given})
    assert FILTER.files is not None
    assert FILTER.files(parameters) == {"exam": "exam.jsonl"}
    (rule,) = FILTER.rules(parameters, {"exam": path})
    return rule


@given(st.lists(WORDS, max_size=4), WORDS, st.integers(2, 9))
def test_the_same_n_grams_are_found_as_by_sets(
    texts: list[list[bytes]], words: list[bytes], size: int
) -> None:
    index = NgramIndex(size, texts, 100)
    listed = {tuple(text[first : first + size]) for text in texts for first in range(len(text) - size + 1)}
    assert len(index) == len(listed)
    places = [first for first in range(len(words) - size + 1) if tuple(words[first : first + size]) in listed]
    assert list(index.places(words)) == places


def test_the_overlap_counts_n_grams_whatever_case_and_punctuation(tmp_path: Path) -> None:
    path = tmp_path / "exam"
    path.write_text(json.dumps({"text": QUESTION}) + "\n\n" + json.dumps({"text": "short"}) + "\n")
    rule = _rule(path)
    assert (rule.name, rule.most) == ("exam", 0)
    copied = f"Solve this! {QUESTION.upper().replace(' ', ', ')} Good luck."
    assert rule.measure(TextFacts(copied, {})) == len(words_of(QUESTION)) - 12
    assert rule.measure(TextFacts("another text of more than thirteen words " * 9, {})) == 0
    assert rule.measure(TextFacts(" ".join(QUESTION.split()[:12]), {})) == 0
    assert rule.find is not None
    part = rule.find(TextFacts(copied, {}))
    assert part is not None
    assert words_of(copied[slice(*part)]) == words_of(QUESTION)[:13]


def test_fields_lists_and_other_sizes(tmp_path: Path) -> None:
    path = tmp_path / "exam"
    path.write_text(json.dumps({"question": "one two three", "choices": [{"text": QUESTION}]}))
    rule = _rule(path, fields=["question", "choices"], ngram=5, max_overlap=2)
    assert rule.most == 2
    assert rule.measure(TextFacts(" ".join(QUESTION.split()[:7]), {})) == 3


def test_paragraphs_of_plain_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "exam"
    half = QUESTION.split()
    path.write_text(" ".join(half[:9]) + "\n" + " ".join(half[9:]) + "\n\nanother paragraph")
    facts = TextFacts(QUESTION, {})
    assert _rule(path).measure(facts) == len(half) - 12
    # The words of a long paragraph are cut, and the n-grams over the cut are kept.
    monkeypatch.setattr("shardline_consumer.filters.contaminated._LONGEST_PARAGRAPH", 8)
    assert _rule(path).measure(facts) == len(half) - 12


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"text": "a"}\n{"text"', "line 2 of the list exam is no JSON"),
        (b'{"other": "a"}', "has none of the fields text; it has other"),
        (b'{"text": "too short"}', "no text of the list exam has 13 words"),
        (b"", "no text of the list exam has 13 words"),
        (b"\xff\xfe\x00", "not in UTF-8"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "exam"
    path.write_bytes(content)
    with pytest.raises(JobFailed, match=message) as caught:
        _rule(path)
    assert caught.value.hint


def test_the_memory_of_a_list_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ngram_index, "MOST_NGRAMS", 10)
    NgramIndex(2, [[b"a"] * 11], 10)
    with pytest.raises(TooManyNgrams):
        NgramIndex(2, [[b"a"] * 12], 10)
    path = tmp_path / "exam"
    path.write_text(json.dumps({"text": QUESTION * 3}))
    with pytest.raises(JobFailed, match="too much memory"):
        _rule(path)
