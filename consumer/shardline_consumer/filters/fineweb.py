"""The rules of FineWeb (arXiv 2406.17557), for documents that are lists, menus or cut lines."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import Field

from shardline_common.curation.filter import FilterKind, Part, Rule
from shardline_common.curation.text_facts import TextFacts
from shardline_consumer.filters.parameters import Parameters, Ratio, Share, first_line, share

# The signs that end a sentence in European, Asian and Arabic scripts (Unicode: Sentence_Terminal).
_ENDS = tuple(".?!‽⁇⁈⁉‼。！？．｡؟۔।॥՜։።")  # noqa: RUF001 - other scripts have them
_SHORT = 30


class FineWeb(Parameters):
    """Bounds of lines. The defaults are those of FineWeb for English."""

    min_line_punctuation: Share = Field(
        0.12, description="The smallest part of lines that end as a sentence does.", examples=[0.12]
    )
    max_short_lines: Share = Field(
        0.67, description=f"The largest part of lines of at most {_SHORT} characters.", examples=[0.67]
    )
    max_duplicate_chars: Share = Field(
        0.01,
        description="The largest part of the characters in lines that are there for the second time or more.",
        examples=[0.1],
    )
    max_line_ratio: Ratio = Field(0.3, description="The most line feeds for each word.", examples=[0.152])


def _rules(bounds: FineWeb, _: Mapping[str, Path]) -> Sequence[Rule]:
    return (
        Rule(
            "line_punctuation",
            _line_punctuation,
            least=bounds.min_line_punctuation,
            parameter="min_line_punctuation",
            find=first_line(lambda line: not line.endswith(_ENDS)),
        ),
        Rule(
            "short_lines",
            _short_lines,
            most=bounds.max_short_lines,
            parameter="max_short_lines",
            find=first_line(_is_short),
        ),
        Rule(
            "duplicate_chars",
            _duplicate_chars,
            most=bounds.max_duplicate_chars,
            parameter="max_duplicate_chars",
            find=_second_line,
        ),
        Rule("list", _line_ratio, most=bounds.max_line_ratio, parameter="max_line_ratio"),
    )


def _line_punctuation(facts: TextFacts) -> float:
    return share(sum([line.endswith(_ENDS) for line in facts.full_lines]), len(facts.full_lines))


def _short_lines(facts: TextFacts) -> float:
    return share(sum(map(_is_short, facts.full_lines)), len(facts.full_lines))


def _is_short(line: str) -> bool:
    return len(line) <= _SHORT


def _duplicate_chars(facts: TextFacts) -> float:
    lines = facts.full_lines
    different = set(lines)
    again = 0 if len(different) == len(lines) else sum(map(len, lines)) - sum(map(len, different))
    return share(again, len(facts.text) - len(facts.lines) + 1)


def _second_line(facts: TextFacts) -> Part | None:
    seen: set[str] = set()

    def is_second(line: str) -> bool:
        known = line in seen
        seen.add(line)
        return known

    return first_line(is_second)(facts)


def _line_ratio(facts: TextFacts) -> float:
    return share(len(facts.lines) - 1, len(facts.words))


FILTER = FilterKind("fineweb", 1, FineWeb, _rules)
