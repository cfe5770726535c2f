"""The filter `stop_words`."""

import pytest

from shardline_consumer.filters.stop_words import FILTER
from tests.unit.filters.judged import reason, value
from tests.unit.filters.texts import ARTICLE_DE, ARTICLE_EN, JA, NAVIGATION

VALUES = [
    ("too_few", "The cat, (that) sat with THE dog", {}, 3),
    ("too_few", "Für die Katze und der Hund für uns", {"language": "de"}, 4),
    ("too_rare", "die Katze, die Maus", {"language": "de"}, 0.5),
    ("too_few", "sowie gemäß", {"language": None, "words": ["gemäß"]}, 1),
    ("too_rare", "12 § 3", {}, float("nan")),
]
VERDICTS = [
    (ARTICLE_EN, {}, None),
    (ARTICLE_DE, {}, "too_few"),
    (ARTICLE_DE, {"language": "de", "min_share": 0.1}, None),
    (ARTICLE_EN, {"language": "de"}, "too_few"),
    (JA, {"language": "de"}, "too_few"),
    (NAVIGATION, {"language": "de"}, "too_few"),
    ("die Liste der Namen: " + "Meier " * 90, {"language": "de", "min_share": 0.1}, "too_rare"),
]


@pytest.mark.parametrize(("rule", "text", "parameters", "expected"), VALUES)
def test_a_rule_counts_stop_words(
    rule: str, text: str, parameters: dict[str, object], expected: float
) -> None:
    assert value(FILTER, rule, text, **parameters) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(("text", "parameters", "expected"), VERDICTS)
def test_a_text_in_sentences_has_stop_words(
    text: str, parameters: dict[str, object], expected: str | None
) -> None:
    assert reason(FILTER, text, **parameters) == expected
