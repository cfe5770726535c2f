"""The rules of C4 (arXiv 1910.10683) for documents.

C4 takes lines out of a page and keeps the rest. A filter changes no text: it measures what C4 would leave.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import Field

from shardline_common.curation.filter import FilterKind, Part, Rule
from shardline_common.curation.text_facts import TextFacts
from shardline_consumer.filters.parameters import Count, Parameters, Share, first_line, first_match, share

_ENDS = (".", "?", "!", '"', "'", "“", "”", "«", "»")
_FEWEST_WORDS = 3
_POLICIES = (
    b"terms of use", b"privacy policy", b"cookie policy", b"uses cookies", b"use of cookies", b"use cookies",
    b"nutzungsbedingungen", "datenschutzerklärung".encode(), b"verwendet cookies", b"nutzt cookies",
    b"verwendung von cookies", b"einsatz von cookies", b"verwenden cookies", b"nutzen cookies",
)  # fmt: skip
_POLICY = re.compile(b"|".join(_POLICIES))
_LOREM = re.compile("lorem ipsum", re.IGNORECASE | re.ASCII)
_CURLY = re.compile(r"\{")
# A sentence ends behind a word of three letters or more, or a bracket or quote; so most abbreviations and
# numbers with a point do not end one.
_SENTENCE = re.compile(r"""(?:[^\W\d_]{3}|["')\]“”«»%])[.!?]+["')\]“”«»]*(?=\s|$)""", re.ASCII)


class C4(Parameters):
    """Bounds of lines and sentences. The defaults are those of C4, without its rule of ends of lines."""

    max_curly_brackets: Count = Field(
        0, description="The most signs {, of which code has many.", examples=[5]
    )
    max_lorem_ipsum: Count = Field(0, description="How often the text may say lorem ipsum.", examples=[0])
    max_javascript_lines: Share = Field(
        0.1, description="The largest part of lines that name JavaScript.", examples=[0.1]
    )
    max_policy_lines: Share = Field(
        0.1, description="The largest part of lines about cookies or terms of use.", examples=[0.1]
    )
    min_sentence_lines: Share = Field(
        None,
        description="The smallest part of lines that C4 keeps: at least three words, the last one with a "
        "point, a question or exclamation mark or a quotation mark.",
        examples=[0.3],
    )
    min_sentences: Count = Field(
        5, description="The fewest sentences in the lines that C4 keeps.", examples=[3]
    )


def _rules(bounds: C4, _: Mapping[str, Path]) -> Sequence[Rule]:
    return (
        Rule(
            "curly_brackets",
            _curly_brackets,
            most=bounds.max_curly_brackets,
            parameter="max_curly_brackets",
            find=first_match(_CURLY),
        ),
        Rule(
            "lorem_ipsum",
            _lorem_ipsum,
            most=bounds.max_lorem_ipsum,
            parameter="max_lorem_ipsum",
            find=first_match(_LOREM),
        ),
        Rule(
            "javascript_lines",
            _javascript_lines,
            most=bounds.max_javascript_lines,
            parameter="max_javascript_lines",
            find=first_line(_names_javascript),
        ),
        Rule(
            "policy_lines",
            _policy_lines,
            most=bounds.max_policy_lines,
            parameter="max_policy_lines",
            find=first_line(_names_policy),
        ),
        Rule(
            "sentence_lines",
            _sentence_lines,
            least=bounds.min_sentence_lines,
            parameter="min_sentence_lines",
            find=_first_other_line,
        ),
        Rule("too_few_sentences", _sentences, least=bounds.min_sentences, parameter="min_sentences"),
    )


def _curly_brackets(facts: TextFacts) -> float:
    return facts.text.count("{")


def _lorem_ipsum(facts: TextFacts) -> float:
    return facts.lower.count(b"lorem ipsum")


def _javascript_lines(facts: TextFacts) -> float:
    if b"javascript" not in facts.lower:
        return share(0, len(facts.full_lines))
    return share(sum(map(_names_javascript, facts.full_lines)), len(facts.full_lines))


def _names_javascript(line: str) -> bool:
    return b"javascript" in line.encode("utf-8", "surrogatepass").lower()


def _policy_lines(facts: TextFacts) -> float:
    # Each phrase has one of these: to look for them takes a third of the time of the pattern.
    if not any(
        word in facts.lower for word in (b"cookie", b"terms of", b"policy", b"nutzungsb", b"datenschutz")
    ):
        return share(0, len(facts.full_lines))
    return share(sum(map(_names_policy, facts.full_lines)), len(facts.full_lines))


def _names_policy(line: str) -> bool:
    return _POLICY.search(line.encode("utf-8", "surrogatepass").lower()) is not None


def _is_kept(line: str) -> bool:
    stripped = line.rstrip()
    if not stripped.endswith(_ENDS) or stripped.endswith("..."):
        return False
    return len(stripped.split(None, _FEWEST_WORDS - 1)) == _FEWEST_WORDS


def _sentence_lines(facts: TextFacts) -> float:
    return share(sum(map(_is_kept, facts.full_lines)), len(facts.full_lines))


def _first_other_line(facts: TextFacts) -> Part | None:
    return first_line(lambda line: not _is_kept(line))(facts)


def _sentences(facts: TextFacts) -> float:
    # A line that ends with a sign of an end has a sentence even if the pattern sees none.
    return sum([len(_SENTENCE.findall(line)) or 1 for line in facts.full_lines if _is_kept(line)])


FILTER = FilterKind("c4", 1, C4, _rules)
