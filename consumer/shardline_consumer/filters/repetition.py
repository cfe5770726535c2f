"""Gopher's rules of repetition (arXiv 2112.11446, table A1): lines, paragraphs and word n-grams.

Shares of n-grams are in characters of the text, as datatrove counts them, with one difference: an n-gram
that occurs once is no repetition. For datatrove the first pair of a text of two words is all of it.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pydantic import Field

from shardline_common.curation.filter import FilterKind, Part, Rule
from shardline_common.curation.text_facts import TextFacts
from shardline_consumer.filters.parameters import Parameters, Share, share, words_from


def _lines_of(what: str, kind: str) -> str:
    return f"The largest part of {what} that are {kind} for the second time or more."


def _top(size: int) -> str:
    return f"The largest part of the characters that the most frequent {size} words in a row hold."


def _duplicated(size: int) -> str:
    return f"The largest part of the characters in {size} words in a row that occurred before."


class Repetition(Parameters):
    """Bounds of what occurs again. The defaults are those of Gopher."""

    max_duplicate_paragraphs: Share = Field(0.3, description=_lines_of("paragraphs", "there"), examples=[0.3])
    max_duplicate_paragraph_chars: Share = Field(
        0.2, description=_lines_of("the characters in paragraphs", "there"), examples=[0.2]
    )
    max_duplicate_lines: Share = Field(0.3, description=_lines_of("lines", "there"), examples=[0.263])
    max_duplicate_line_chars: Share = Field(
        0.2, description=_lines_of("the characters in lines", "there"), examples=[0.2]
    )
    max_top_2_grams: Share = Field(0.2, description=_top(2), examples=[0.169])
    max_top_3_grams: Share = Field(0.18, description=_top(3), examples=[0.153])
    max_top_4_grams: Share = Field(0.16, description=_top(4), examples=[0.137])
    max_duplicate_5_grams: Share = Field(0.15, description=_duplicated(5), examples=[0.141])
    max_duplicate_6_grams: Share = Field(0.14, description=_duplicated(6), examples=[0.134])
    max_duplicate_7_grams: Share = Field(0.13, description=_duplicated(7), examples=[0.126])
    max_duplicate_8_grams: Share = Field(0.12, description=_duplicated(8), examples=[0.117])
    max_duplicate_9_grams: Share = Field(0.11, description=_duplicated(9), examples=[0.108])
    max_duplicate_10_grams: Share = Field(0.1, description=_duplicated(10), examples=[0.098])


def _rules(bounds: Repetition, _: Mapping[str, Path]) -> Sequence[Rule]:
    # By the name of the rule; that of the parameter is the same behind `max_`.
    measures: dict[str, tuple[Callable[[TextFacts], float], Callable[[TextFacts], Part | None]]] = {
        "duplicate_paragraphs": (_paragraphs, _second_paragraph),
        "duplicate_paragraph_chars": (_paragraph_chars, _second_paragraph),
        "duplicate_lines": (_lines, _second_line),
        "duplicate_line_chars": (_line_chars, _second_line),
        **{f"top_{size}_grams": _top_rule(size) for size in range(2, 5)},
        **{f"duplicate_{size}_grams": _duplicate_rule(size) for size in range(5, 11)},
    }
    return [
        Rule(name, measure, most=getattr(bounds, f"max_{name}"), parameter=f"max_{name}", find=find)
        for name, (measure, find) in measures.items()
    ]


def _top_rule(size: int) -> tuple[Callable[[TextFacts], float], Callable[[TextFacts], Part | None]]:
    return (
        lambda facts: share(facts.grams.top(size).chars, len(facts.text)),
        lambda facts: words_from(facts, facts.grams.top(size).first, size),
    )


def _duplicate_rule(size: int) -> tuple[Callable[[TextFacts], float], Callable[[TextFacts], Part | None]]:
    return (
        lambda facts: share(facts.grams.duplicated(size).chars, len(facts.text)),
        lambda facts: words_from(facts, facts.grams.duplicated(size).first, size),
    )


def _lines_with_text(facts: TextFacts) -> list[str]:
    return list(filter(None, facts.lines))


def _paragraphs(facts: TextFacts) -> float:
    paragraphs = facts.paragraphs
    return share(len(paragraphs) - len(set(paragraphs)), len(paragraphs))


def _paragraph_chars(facts: TextFacts) -> float:
    return share(_duplicate_chars(facts.paragraphs), len(facts.text))


def _lines(facts: TextFacts) -> float:
    lines = _lines_with_text(facts)
    return share(len(lines) - len(set(lines)), len(lines))


def _line_chars(facts: TextFacts) -> float:
    return share(_duplicate_chars(_lines_with_text(facts)), len(facts.text))


def _duplicate_chars(elements: Sequence[str]) -> int:
    different = set(elements)
    if len(different) == len(elements):
        return 0
    return sum(map(len, elements)) - sum(map(len, different))


def _second_line(facts: TextFacts) -> Part | None:
    return _second(facts, _lines_with_text(facts))


def _second_paragraph(facts: TextFacts) -> Part | None:
    return _second(facts, facts.paragraphs)


def _second(facts: TextFacts, elements: Sequence[str]) -> Part | None:
    seen: set[str] = set()
    reached = 0
    for element in elements:
        start = facts.text.index(element, reached)
        reached = start + len(element)
        if element in seen:
            return start, reached
        seen.add(element)
    return None


FILTER = FilterKind("repetition", 1, Repetition, _rules)
