"""The filter `repetition`."""

import pytest

from shardline_consumer.filters.repetition import FILTER
from tests.unit.filters.judged import found, reason, value
from tests.unit.filters.texts import ARTICLE_DE, ARTICLE_EN, JA, LAW

OFF = {
    f"max_duplicate_{name}": None for name in ("paragraphs", "paragraph_chars", "lines", "line_chars")
}  # fmt: skip
VALUES = [
    ("duplicate_paragraphs", "a\n\nb\n\n\na\n\na", 0.5),
    ("duplicate_paragraph_chars", "abc\n\nabc", 3 / 8),
    ("duplicate_lines", "a\n\nb\na\na\n", 0.5),
    ("duplicate_line_chars", "abc\nabc\n", 3 / 8),
    # The pair "der Hund" twice: 8 characters each time.
    ("top_2_grams", "der Hund und der Hund", 16 / 21),
    ("top_3_grams", "der Hund und der Hund", 0),
    ("top_3_grams", "a b c a b c", 10 / 11),
    # Of equally frequent ones the first.
    ("top_2_grams", "aa bb cc d e aa bb d e", 10 / 22),
    ("top_4_grams", "a b c d", 0),
    ("duplicate_5_grams", "a b c d e a b c d e", 5 / 19),
    ("duplicate_5_grams", "a a a a a a a a a a a", 10 / 21),
    ("duplicate_10_grams", "a b c d e f g h i j " * 3, 20 / 60),
    ("duplicate_10_grams", "", float("nan")),
]
VERDICTS = [
    (ARTICLE_DE, {}, None),
    (ARTICLE_EN, {}, None),
    (LAW, {}, None),
    (JA, {}, "top_2_grams"),
    ((ARTICLE_DE + "\n\n") * 2, {}, "duplicate_paragraphs"),
    ((ARTICLE_DE + "\n\n") * 2, OFF, "duplicate_5_grams"),
    ("Zeile eins\n" * 3, {}, "duplicate_lines"),
    ("zwei Worte", {}, None),
]


@pytest.mark.parametrize(("rule", "text", "expected"), VALUES)
def test_a_rule_measures_what_occurs_again(rule: str, text: str, expected: float) -> None:
    assert value(FILTER, rule, text) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(("text", "parameters", "expected"), VERDICTS)
def test_the_defaults_are_those_of_gopher(
    text: str, parameters: dict[str, object], expected: str | None
) -> None:
    assert reason(FILTER, text, **parameters) == expected


def test_a_reader_is_shown_what_occurs_again() -> None:
    assert found(FILTER, "duplicate_lines", "eins\nzwei\neins") == "eins"
    assert found(FILTER, "duplicate_paragraphs", "a b\n\nc\n\na b") == "a b"
    assert found(FILTER, "top_2_grams", "und der  Hund bellt, der\nHund") == "der  Hund"
    assert found(FILTER, "duplicate_5_grams", "a b c d e, a b c d e a b c d e") == "a b c d e"
    assert found(FILTER, "duplicate_5_grams", "a b c d e") is None
