"""The filter `symbols`."""

import pytest

from shardline_consumer.filters.symbols import FILTER
from tests.unit.filters.judged import found, reason, value
from tests.unit.filters.texts import ARTICLE_DE, ARTICLE_EN, HTML_NAVIGATION, LAW

VALUES = [
    ("digits", "12 ab ٣", 3 / 5),
    ("capitals", "ABÄ cdß 1", 0.5),
    ("symbols", "a|b*c", 2 / 5),
    ("symbols", "„Ja“ – § 3: 5 %, 7 € (so).", 0),
    ("symbols", "■ ab ◄", 0.5),
    ("markup", "<b>fett</b> &amp; x < y", 12 / 23),
    ("markup", "a < b", 0),
    ("digits", " \n", float("nan")),
]
VERDICTS = [
    (LAW, {}, None),
    (ARTICLE_DE, {}, None),
    (ARTICLE_EN, {}, None),
    ("| 12 | 13,5 | 17,25 |\n" * 5, {}, "digits"),
    ("ACHTUNG WICHTIG: SOFORT LESEN", {}, "capitals"),
    ("*** ### === |||", {}, "symbols"),
    (HTML_NAVIGATION, {}, "symbols"),
    (HTML_NAVIGATION, {"max_symbols": None}, "markup"),
]


@pytest.mark.parametrize(("rule", "text", "expected"), VALUES)
def test_a_rule_measures_characters(rule: str, text: str, expected: float) -> None:
    assert value(FILTER, rule, text) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(("text", "parameters", "expected"), VERDICTS)
def test_prose_has_few_symbols(text: str, parameters: dict[str, object], expected: str | None) -> None:
    assert reason(FILTER, text, **parameters) == expected


def test_a_reader_is_shown_the_place() -> None:
    assert found(FILTER, "digits", "ab 12.345,6 c") == "12.345,6"
    assert found(FILTER, "capitals", "ab WICHTIG c") == "WICHTIG"
    assert found(FILTER, "symbols", "ab ■ c") == "■"
    assert found(FILTER, "symbols", "ab ** c") == "**"
    assert found(FILTER, "markup", 'x <a href="b"> c') == '<a href="b">'
