"""The filter `gopher`."""

import math

import pytest

from shardline_consumer.filters.gopher import FILTER
from tests.unit.filters.judged import found, reason, value
from tests.unit.filters.texts import ARTICLE_DE, ARTICLE_EN, JA, LAW

VALUES = [
    ("too_short", "drei Wörter – „hier“ § 12", 4),
    ("too_long", "1 2 3 ... - •", 3),
    ("short_words", "ab abcd (§ 6)", 7 / 3),
    ("long_words", "Donaudampfschifffahrt 1234", 25 / 2),
    ("hashes", "#eins #zwei drei vier", 0.5),
    ("ellipses", "und so weiter ... und… so", 1 / 3),
    ("bullet_lines", "- eins\n\n  • zwei\ndrei", 0.5),
    ("bullet_lines", "eins\nzwei", 0),
    ("bullet_lines", "\xa0- eins", 1),
    ("ellipsis_lines", "weiter ...\nmehr… \nEnde.", 2 / 3),
    ("ellipsis_lines", "Ende.", 0),
    ("few_letters", "§ 12 Abs. 3 der Verordnung", 3 / 6),
    ("few_letters", "²x 12 über", 2 / 3),
]
VERDICTS = [
    (ARTICLE_EN, {}, None),
    (ARTICLE_DE, {}, None),
    (LAW, {}, "too_short"),
    (LAW, {"min_words": None}, None),
    (JA, {}, "short_words"),
    ("word " * 100_001, {}, "too_long"),
    ("Rechtsschutzversicherungsgesellschaften " * 60, {}, "long_words"),
    ("#tag word " * 60, {}, "hashes"),
    ("more... " * 60, {}, "ellipses"),
    ("- some words of a list\n" * 20, {}, "bullet_lines"),
    ("some more words follow here and now ...\n" * 20, {"max_ellipses": None}, "ellipsis_lines"),
    ("word 1234 " * 60, {}, "few_letters"),
]


@pytest.mark.parametrize(("rule", "text", "expected"), VALUES)
def test_a_rule_measures_words_and_lines(rule: str, text: str, expected: float) -> None:
    assert value(FILTER, rule, text) == pytest.approx(expected)


@pytest.mark.parametrize(("text", "parameters", "expected"), VERDICTS)
def test_the_defaults_are_those_of_gopher(
    text: str, parameters: dict[str, object], expected: str | None
) -> None:
    assert reason(FILTER, text, **parameters) == expected


def test_what_no_word_has_is_not_measured() -> None:
    assert math.isnan(value(FILTER, "short_words", "§ – …"))
    assert reason(FILTER, "", min_words=None) is None


def test_a_reader_is_shown_the_line() -> None:
    assert found(FILTER, "bullet_lines", "eins\n- zwei") == "- zwei"
    assert found(FILTER, "ellipsis_lines", "eins\nzwei …\ndrei") == "zwei …"
    assert found(FILTER, "long_words", "ein Donaudampfschiff fährt") == "Donaudampfschiff"
