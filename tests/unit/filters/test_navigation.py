"""The filter `navigation`."""

import pytest

from shardline_consumer.filters.navigation import FILTER
from tests.unit.filters.judged import found, reason, value
from tests.unit.filters.texts import ARTICLE_DE, ARTICLE_EN, LAW, NAVIGATION

VALUES = [
    ("links", "siehe https://a.org und [hier](b.html)", 0.5),
    ("separators", "Home | Kontakt » AGB", 2 / 5),
    ("menu_words", "Home Kontakt Impressum und mehr Text", 0.5),
    ("menu_words", "Der Kontakt steht im Impressum", 0),
    ("menu_lines", "Startseite\nÜber uns\n\nDas ist ein ganzer Satz.\nUnd ein Absatz ohne Punkt", 0.5),
    ("menu_lines", "(weggefallen)\n1. Gesetz,", 0),
    ("boilerplate_lines", "Alle Rechte vorbehalten\nText", 0.5),
    ("boilerplate_lines", "Alle Rechte werden gewahrt\nText", 0),
    (
        "boilerplate_lines",
        "Das Gesetz über den Datenschutz regelt, wer welche Daten unter welchen Bedingungen speichern darf",
        0,
    ),
]
VERDICTS = [
    (LAW, {}, None),
    (ARTICLE_DE, {}, None),
    (ARTICLE_EN, {}, None),
    (NAVIGATION, {}, "menu_words"),
    (NAVIGATION, {"max_menu_words": None}, "menu_lines"),
    (NAVIGATION, {"max_menu_words": None, "max_menu_lines": None}, "boilerplate_lines"),
    ("Gesetze | Urteile | Aufsätze | Bücher | Formulare", {}, "separators"),
    ("[a](b) [c](d) [e](f)", {}, "links"),
]


@pytest.mark.parametrize(("rule", "text", "expected"), VALUES)
def test_a_rule_measures_what_is_not_text(rule: str, text: str, expected: float) -> None:
    assert value(FILTER, rule, text) == pytest.approx(expected)


@pytest.mark.parametrize(("text", "parameters", "expected"), VERDICTS)
def test_a_menu_is_dropped(text: str, parameters: dict[str, object], expected: str | None) -> None:
    assert reason(FILTER, text, **parameters) == expected


def test_a_reader_is_shown_the_place() -> None:
    assert found(FILTER, "links", "siehe www.example.org hier") == "www.example.org"
    assert found(FILTER, "separators", "Home » AGB") == "»"
    assert found(FILTER, "menu_lines", "Das ist ein Satz.\nÜber uns") == "Über uns"
    assert found(FILTER, "boilerplate_lines", "Text\nread more") == "read more"
