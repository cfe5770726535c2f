"""The quality rules of Gopher (arXiv 2112.11446, table A1), but for those of repetition and stop words.

Words are what white space separates. Where datatrove counts the words of spaCy, a bound has another meaning.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import Field

from shardline_common.curation.filter import FilterKind, Rule
from shardline_common.curation.text_facts import TextFacts
from shardline_consumer.filters.parameters import Count, Parameters, Ratio, Share, first_line, share

_BULLETS = ("•", "-")
_BULLET_STARTS = ("\n-", "\n•", "\n ", "\n\t", "\n\xa0")
_ELLIPSES = ("...", "…")


class Gopher(Parameters):
    """Bounds of words and lines. The defaults are those of Gopher."""

    min_words: Count = Field(50, description="The fewest words that have a letter or a digit.", examples=[50])
    max_words: Count = Field(
        100_000, description="The most words that have a letter or a digit.", examples=[100_000]
    )
    min_mean_word: Ratio = Field(
        3, description="The smallest mean length of these words, in letters and digits.", examples=[3]
    )
    max_mean_word: Ratio = Field(
        10, description="The largest mean length of these words, in letters and digits.", examples=[15]
    )
    max_hashes: Ratio = Field(0.1, description="The most signs # for each word.", examples=[0.1])
    max_ellipses: Ratio = Field(
        0.1, description="The most ellipses (… or ...) for each word.", examples=[0.1]
    )
    max_bullet_lines: Share = Field(
        0.9, description="The largest part of lines that begin with • or -.", examples=[0.9]
    )
    max_ellipsis_lines: Share = Field(
        0.3, description="The largest part of lines that end with an ellipsis.", examples=[0.3]
    )
    min_letter_words: Share = Field(
        0.8, description="The smallest part of words that have a letter.", examples=[0.774]
    )


def _rules(bounds: Gopher, _: Mapping[str, Path]) -> Sequence[Rule]:
    return (
        Rule("too_short", _words, least=bounds.min_words, parameter="min_words"),
        Rule("too_long", _words, most=bounds.max_words, parameter="max_words"),
        Rule("short_words", _mean_word, least=bounds.min_mean_word, parameter="min_mean_word"),
        Rule("long_words", _mean_word, most=bounds.max_mean_word, parameter="max_mean_word", find=_longest),
        Rule("hashes", _hashes, most=bounds.max_hashes, parameter="max_hashes"),
        Rule("ellipses", _ellipses, most=bounds.max_ellipses, parameter="max_ellipses"),
        Rule(
            "bullet_lines",
            _bullet_lines,
            most=bounds.max_bullet_lines,
            parameter="max_bullet_lines",
            find=first_line(_has_bullet),
        ),
        Rule(
            "ellipsis_lines",
            _ellipsis_lines,
            most=bounds.max_ellipsis_lines,
            parameter="max_ellipsis_lines",
            find=first_line(_ends_open),
        ),
        Rule("few_letters", _letter_words, least=bounds.min_letter_words, parameter="min_letter_words"),
    )


def _words(facts: TextFacts) -> float:
    return facts.spoken


def _mean_word(facts: TextFacts) -> float:
    return share(facts.letters + facts.digits, facts.spoken)


def _longest(facts: TextFacts) -> tuple[int, int] | None:
    longest = max(facts.words, key=len, default="")
    start = facts.text.find(longest)
    return (start, start + len(longest)) if longest else None


def _hashes(facts: TextFacts) -> float:
    return share(facts.text.count("#"), len(facts.words))


def _ellipses(facts: TextFacts) -> float:
    return share(facts.text.count("...") + facts.text.count("…"), len(facts.words))


def _bullet_lines(facts: TextFacts) -> float:
    # Most texts have no line that begins with a bullet, or with white space before one.
    if not any(start in facts.text for start in _BULLET_STARTS) and not _has_bullet(facts.text):
        return share(0, len(facts.lines))
    return share(sum(map(_has_bullet, facts.lines)), len(facts.lines))


def _has_bullet(line: str) -> bool:
    return line.lstrip().startswith(_BULLETS)


def _ellipsis_lines(facts: TextFacts) -> float:
    if "..." not in facts.text and "…" not in facts.text:
        return share(0, len(facts.lines))
    return share(sum(map(_ends_open, facts.lines)), len(facts.lines))


def _ends_open(line: str) -> bool:
    return line.rstrip().endswith(_ELLIPSES)


def _letter_words(facts: TextFacts) -> float:
    return share(len(facts.letter_words), len(facts.words))


FILTER = FilterKind("gopher", 1, Gopher, _rules)
