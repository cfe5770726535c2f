"""The filter `length`."""

import pytest

from shardline_common.curation.text_facts import TextFacts
from shardline_consumer.filters.length import FILTER, Length

TABLE = [
    ("", 0, 0, 0),
    ("ein Wort mehr", 13, 3, 1),
    ("Zeile\n\n \u200b \nnoch\u2003eine", 20, 4, 2),
    ("§ 1\n§ 2", 7, 4, 2),
]


@pytest.mark.parametrize(("text", "chars", "words", "lines"), TABLE)
def test_a_text_is_measured_in_characters_words_and_lines(
    text: str, chars: int, words: int, lines: int
) -> None:
    facts = TextFacts(text, {})
    measured = {rule.name: rule.measure(facts) for rule in FILTER.rules(Length(), {})}
    for unit, value in (("chars", chars), ("words", words), ("lines", lines)):
        assert measured[f"too_few_{unit}"] == measured[f"too_many_{unit}"] == value


def test_each_rule_has_the_bound_of_its_parameter() -> None:
    names = {name: number for number, name in enumerate(Length.model_fields)}
    for rule in FILTER.rules(Length(**names), {}):
        bound = rule.least if rule.name.startswith("too_few") else rule.most
        assert rule.parameter is not None
        assert bound == names[rule.parameter]
