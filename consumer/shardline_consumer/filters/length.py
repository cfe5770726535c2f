"""The length of a text, in characters, words and lines."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from shardline_common.curation.filter import FilterKind, Rule
from shardline_common.curation.text_facts import TextFacts
from shardline_common.job.blank import is_blank
from shardline_common.job.row_text import count_words
from shardline_consumer.filters.parameters import Count, Parameters


class Length(Parameters):
    """The bounds of the length of a text. White space separates words, and line feeds lines."""

    min_chars: Annotated[Count, Field(description="The fewest characters.", examples=[200])] = None
    max_chars: Annotated[Count, Field(description="The most characters.", examples=[1_000_000])] = None
    min_words: Annotated[Count, Field(description="The fewest words.", examples=[50])] = None
    max_words: Annotated[Count, Field(description="The most words.", examples=[100_000])] = None
    min_lines: Annotated[Count, Field(description="The fewest lines that are not blank.", examples=[2])] = (
        None
    )
    max_lines: Annotated[
        Count, Field(description="The most lines that are not blank.", examples=[10_000])
    ] = None


def _rules(bounds: Length, _: Mapping[str, Path]) -> Sequence[Rule]:
    return (
        Rule("too_few_chars", _chars, least=bounds.min_chars, parameter="min_chars"),
        Rule("too_many_chars", _chars, most=bounds.max_chars, parameter="max_chars"),
        Rule("too_few_words", _words, least=bounds.min_words, parameter="min_words"),
        Rule("too_many_words", _words, most=bounds.max_words, parameter="max_words"),
        Rule("too_few_lines", _lines, least=bounds.min_lines, parameter="min_lines"),
        Rule("too_many_lines", _lines, most=bounds.max_lines, parameter="max_lines"),
    )


def _chars(facts: TextFacts) -> float:
    return len(facts.text)


def _words(facts: TextFacts) -> float:
    return count_words(facts.text)


def _lines(facts: TextFacts) -> float:
    return sum(1 for line in facts.lines if not is_blank(line))


FILTER = FilterKind("length", 1, Length, _rules)
