"""Texts of one part again and again: no pattern of a filter may backtrack without end over them.

This finds exponential patterns. A quadratic one is only slow at this length: read each new pattern for that.
"""

import pytest

from shardline_common.curation.registry import load_filter
from shardline_common.curation.text_facts import TextFacts
from tests.unit.filters.judged import rules

FILTERS = (
    "c4", "damage", "encoded", "fineweb", "gopher", "language", "navigation", "repetition", "stop_words",
    "symbols",
)  # fmt: skip
_LENGTH = 60_000


@pytest.mark.parametrize(
    "part",
    [
        "](",
        "<a",
        "&a",
        "a!",
        "'!",
        "0 ",
        "ab ",
        "%C3",
        "A",
        "Ã",
        "ÐÑ",
        "\n",
        " ",
        "0x",
        "aB3/",
        "a?",
        "😀",
        "字",
    ],
)
def test_each_rule_measures_a_text_of_one_part(part: str) -> None:
    facts = TextFacts(part * (_LENGTH // len(part)), {})
    for name in FILTERS:
        for rule in rules(load_filter(name)).values():
            rule.measure(facts)
