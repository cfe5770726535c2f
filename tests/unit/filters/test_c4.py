"""The filter `c4`."""

import pytest

from shardline_consumer.filters.c4 import FILTER
from tests.unit.filters.judged import found, reason, value
from tests.unit.filters.texts import ARTICLE_DE, ARTICLE_EN

VALUES = [
    ("curly_brackets", "if (a) { b(); } else { c(); }", 2),
    ("lorem_ipsum", "Lorem Ipsum dolor", 1),
    ("javascript_lines", "Bitte JavaScript einschalten\nText\n\nmehr", 1 / 3),
    ("policy_lines", "Diese Seite verwendet Cookies.\nText.", 0.5),
    ("policy_lines", "Our Privacy Policy\nText\nText\nText", 0.25),
    ("policy_lines", "Das Datenschutzrecht gilt.", 0),
    ("sentence_lines", "Ein ganzer Satz.\nkein Ende hier\nzwei Worte.\nUnd so weiter...", 0.25),
    ("sentence_lines", "Er sagte: „Ja, sofort.“", 1),
    ("too_few_sentences", "Das ist eins. Das ist zwei! Ist es drei?\nkein Ende", 3),
    ("too_few_sentences", "Es gilt § 3 Abs. 2 Nr. 4 und z. B. Art. 5 der Verordnung.", 3),
    ("too_few_sentences", "Es sind genau 3.", 1),
]
VERDICTS = [
    (ARTICLE_EN, {}, None),
    (ARTICLE_DE, {"min_sentences": 3}, None),
    ("function () { return 1; }", {}, "curly_brackets"),
    ("Lorem ipsum dolor sit amet", {}, "lorem_ipsum"),
    ("Please enable JavaScript.", {}, "javascript_lines"),
    ("This site uses cookies.", {}, "policy_lines"),
    ("Ein Satz ohne Nachbarn.", {}, "too_few_sentences"),
    ("Ein Satz ohne Nachbarn.", {"min_sentences": None}, None),
    ("kein Ende\nEin Satz hier.", {"min_sentence_lines": 0.6, "min_sentences": None}, "sentence_lines"),
]


@pytest.mark.parametrize(("rule", "text", "expected"), VALUES)
def test_a_rule_measures_what_c4_would_leave(rule: str, text: str, expected: float) -> None:
    assert value(FILTER, rule, text) == pytest.approx(expected)


@pytest.mark.parametrize(("text", "parameters", "expected"), VERDICTS)
def test_the_first_bound_that_does_not_hold_is_the_reason(
    text: str, parameters: dict[str, object], expected: str | None
) -> None:
    assert reason(FILTER, text, **parameters) == expected


def test_a_reader_is_shown_the_place() -> None:
    assert found(FILTER, "curly_brackets", "a {b}") == "{"
    assert found(FILTER, "policy_lines", "Text.\nWe use cookies here.") == "We use cookies here."
    assert found(FILTER, "sentence_lines", "Ein ganzer Satz.\nkein Ende") == "kein Ende"
