"""Shares of digits, capitals, symbols and markup: prose has little of them, tables and code have much."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import Field

from shardline_common.curation.characters import CATEGORIES, of_ascii
from shardline_common.curation.filter import FilterKind, Part, Rule
from shardline_common.curation.text_facts import TextFacts
from shardline_consumer.filters.parameters import Parameters, Share, first_match, share

# What prose in German and English writes between its words.
_OF_PROSE = ".,;:!?'\"()/-%&"
_OF_PROSE_TOO = frozenset("§€–—„“”‚‘’»«›‹…·°\xad")  # noqa: RUF001 - so prose is set
_SYMBOLS = bytes(set(of_ascii(rest=True)) - set(_OF_PROSE.encode()) - set(range(32)) - {127})
_TAG = re.compile(r"</?[a-zA-Z!][^<>\n]{0,500}>|&(?:[a-zA-Z]{2,8}|#\d{1,6}|#x[0-9a-fA-F]{1,5});", re.ASCII)
_DIGITS = re.compile(r"[0-9][0-9.,:/ -]*[0-9]")
_CAPITALS = re.compile(r"[A-ZÄÖÜ]{2,}(?:[^a-zäöüß]*[A-ZÄÖÜ]{2,})*")
_SYMBOL_RUN = re.compile(f"[{re.escape(_SYMBOLS.decode())}]+")


class Symbols(Parameters):
    """Bounds of characters."""

    max_digits: Share = Field(
        0.2, description="The largest part of digits in all that is not white space.", examples=[0.2]
    )
    max_capitals: Share = Field(
        0.3, description="The largest part of capitals in all letters.", examples=[0.3]
    )
    max_symbols: Share = Field(
        0.1,
        description="The largest part of symbols in all that is not white space. Letters, digits, and what "
        "prose writes between its words are none: . , ; : ! ? brackets, quotation marks, dashes, / % & § €",
        examples=[0.1],
    )
    max_markup: Share = Field(
        0.1, description="The largest part of characters in tags and entities of HTML.", examples=[0.05]
    )


def _rules(bounds: Symbols, _: Mapping[str, Path]) -> Sequence[Rule]:
    return (
        Rule("digits", _digits, most=bounds.max_digits, parameter="max_digits", find=first_match(_DIGITS)),
        Rule(
            "capitals",
            _capitals,
            most=bounds.max_capitals,
            parameter="max_capitals",
            find=first_match(_CAPITALS),
        ),
        Rule("symbols", _symbols, most=bounds.max_symbols, parameter="max_symbols", find=_first_symbols),
        Rule("markup", _markup, most=bounds.max_markup, parameter="max_markup", find=first_match(_TAG)),
    )


def _digits(facts: TextFacts) -> float:
    return share(facts.digits, facts.visible)


def _capitals(facts: TextFacts) -> float:
    return share(facts.capitals, facts.letters)


def _symbols(facts: TextFacts) -> float:
    others = sum([count for one, count in facts.others.items() if _is_symbol(one)])
    return share(facts.count_ascii(_SYMBOLS) + others, facts.visible)


def _is_symbol(one: str) -> bool:
    return one not in _OF_PROSE_TOO and CATEGORIES[one][0] in "SPC" and CATEGORIES[one] != "Cc"


def _first_symbols(facts: TextFacts) -> Part | None:
    return first_match(_SYMBOL_RUN)(facts) or next(
        ((place, place + 1) for place, one in enumerate(facts.text) if one > "\x7f" and _is_symbol(one)), None
    )


def _markup(facts: TextFacts) -> float:
    if "<" not in facts.text and "&" not in facts.text:
        return share(0, len(facts.text))
    return share(sum(map(len, _TAG.findall(facts.text))), len(facts.text))


FILTER = FilterKind("symbols", 1, Symbols, _rules)
