"""Texts in sentences have the small words of their language: articles, prepositions, auxiliary verbs."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from shardline_common.curation.filter import FilterKind, Rule
from shardline_common.curation.text_facts import TextFacts
from shardline_consumer.filters.parameters import Count, Parameters, Share, share

# English: those of Gopher. German: those of FineWeb2.
STOP_WORDS: Mapping[str, tuple[str, ...]] = {
    "de": tuple("der und die in von im den des mit das er dem als wurde für".split()),  # noqa: SIM905
    "en": tuple("the be to of and that have with".split()),  # noqa: SIM905
}


class StopWords(Parameters):
    """Bounds of stop words. They are those of one language, and others that the job lists."""

    language: Literal["de", "en"] | None = Field(
        "en", description="The language of the built-in list; null: only `words`.", examples=["de"]
    )
    words: Annotated[list[Annotated[str, Field(min_length=1, max_length=40)]], Field(max_length=500)] = Field(
        [], description="More words, in lower case.", examples=[["gemäß", "sowie"]]
    )
    min_different: Count = Field(2, description="The fewest different stop words.", examples=[2])
    min_share: Share = Field(
        None, description="The smallest part of words that are stop words.", examples=[0.1]
    )


def _rules(bounds: StopWords, _: Mapping[str, Path]) -> Sequence[Rule]:
    listed = [*(STOP_WORDS[bounds.language] if bounds.language else ()), *bounds.words]
    # As `letter_words` has words.
    known = frozenset(word.encode("utf-8", "surrogatepass").lower() for word in listed)
    return (
        Rule("too_few", partial(_different, known), least=bounds.min_different, parameter="min_different"),
        Rule("too_rare", partial(_share, known), least=bounds.min_share, parameter="min_share"),
    )


def _different(known: frozenset[bytes], facts: TextFacts) -> float:
    return len(known & facts.word_counts.keys())


def _share(known: frozenset[bytes], facts: TextFacts) -> float:
    counts = facts.word_counts
    return share(sum([counts[word] for word in known & counts.keys()]), len(facts.letter_words))


FILTER = FilterKind("stop_words", 1, StopWords, _rules)
