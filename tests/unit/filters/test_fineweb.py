"""The filter `fineweb`."""

import pytest

from shardline_consumer.filters.fineweb import FILTER
from tests.unit.filters.judged import found, reason, value
from tests.unit.filters.texts import ARTICLE_DE, ARTICLE_EN, NAVIGATION

VALUES = [
    ("line_punctuation", "Ein Satz.\nkein Ende\n\n \nFrage?\nRuf! ", 0.5),
    ("short_lines", "kurz\n\n" + "x" * 30 + "\n" + "x" * 31, 2 / 3),
    ("duplicate_chars", "abc\n\nabc\nde", 3 / 8),
    ("duplicate_chars", "abc\nde", 0),
    ("list", "eins zwei\ndrei\n\nvier", 3 / 4),
    ("list", "\n\n", float("nan")),
]
VERDICTS = [
    (ARTICLE_EN, {}, None),
    (ARTICLE_DE, {}, None),
    (NAVIGATION, {}, "line_punctuation"),
    (NAVIGATION, {"min_line_punctuation": None}, "short_lines"),
    (NAVIGATION, {"min_line_punctuation": None, "max_short_lines": None}, "duplicate_chars"),
    ("ein Wort.\n" * 3 + "noch eins und zwei", {"max_short_lines": None, "max_duplicate_chars": None}, None),
    ("\n".join(f"{number} Dinge." for number in range(20)), {"max_short_lines": None}, "list"),
]


@pytest.mark.parametrize(("rule", "text", "expected"), VALUES)
def test_a_rule_measures_lines(rule: str, text: str, expected: float) -> None:
    assert value(FILTER, rule, text) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(("text", "parameters", "expected"), VERDICTS)
def test_the_defaults_are_those_of_fineweb(
    text: str, parameters: dict[str, object], expected: str | None
) -> None:
    assert reason(FILTER, text, **parameters) == expected


def test_a_reader_is_shown_the_line() -> None:
    assert found(FILTER, "line_punctuation", "Ein Satz.\nkein Ende") == "kein Ende"
    assert found(FILTER, "duplicate_chars", "abc\nde\nabc") == "abc"
