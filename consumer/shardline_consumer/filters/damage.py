"""Texts that were decoded wrongly, cut out of binary files, or read badly from pages."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import Field

from shardline_common.curation.characters import CATEGORIES
from shardline_common.curation.filter import FilterKind, Rule
from shardline_common.curation.text_facts import TextFacts
from shardline_consumer.filters.parameters import Parameters, Ratio, Share, first_match, share


def _misread(codec: str) -> str:
    """The characters that the second to fourth bytes of UTF-8 become, as a class of a pattern."""
    read = {bytes([code]).decode(codec, "ignore") for code in range(0x80, 0xC0)}
    return re.escape("".join(sorted(read)))


# UTF-8 that was read as Latin-1, as Windows-1252 (`für` becomes `fÃ¼r`) or as code page 437 or 850 (`f├╝r`).
_SECOND = f"[\x80-\xbf{_misread('cp1252')}]"
_LEADS = "ÂÃÐÑâ├┬"
_MOJIBAKE = re.compile(
    f"[ÂÃ]{_SECOND}|â{_SECOND}{{2}}|(?:[ÐÑ]{_SECOND}){{2,}}|[├┬][{_misread('cp437')}{_misread('cp850')}]"
)
_REPLACEMENT = "\ufffd"
_REPLACED = re.compile(_REPLACEMENT)
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\v\f\r")) + b"\x7f"
# U+0085 is a line end of old machines.
_CONTROL = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ue000-\uf8ff\ufdd0-\ufdef\ufffe\uffff\U000f0000-\U0010ffff]"
)
_LOST = re.compile(r"[A-Za-z]\?[a-z]|(?<![^\s(])\?[a-z]{3}")
_LETTERS = frozenset(bytes([code]) for code in b"abcdefghijklmnopqrstuvwxyz")
_SPACED = re.compile(r"(?<!\S)[^\W\d_](?: [^\W\d_]){3,}(?!\S)")


class Damage(Parameters):
    """Bounds of damaged characters."""

    max_mojibake: Ratio = Field(
        0.02,
        description="The most characters in UTF-8 that was read in another encoding, for each word.",
        examples=[0.02],
    )
    max_replaced: Ratio = Field(
        0.01, description="The most replacement characters (U+FFFD), for each word.", examples=[0.01]
    )
    max_lost: Ratio = Field(
        0.02, description="The most question marks inside of words, for each word.", examples=[0.02]
    )
    max_controls: Share = Field(
        0.001,
        description="The largest part of control characters, characters of private use and lone surrogates.",
        examples=[0.001],
    )
    max_single_letters: Share = Field(
        0.3, description="The largest part of words that are one letter of ASCII.", examples=[0.3]
    )


def _rules(bounds: Damage, _: Mapping[str, Path]) -> Sequence[Rule]:
    return (
        Rule(
            "replaced",
            _replaced,
            most=bounds.max_replaced,
            parameter="max_replaced",
            find=first_match(_REPLACED),
        ),
        Rule(
            "controls",
            _controls,
            most=bounds.max_controls,
            parameter="max_controls",
            find=first_match(_CONTROL),
        ),
        Rule(
            "mojibake",
            _mojibake,
            most=bounds.max_mojibake,
            parameter="max_mojibake",
            find=first_match(_MOJIBAKE),
        ),
        Rule("lost", _lost, most=bounds.max_lost, parameter="max_lost", find=first_match(_LOST)),
        Rule(
            "single_letters",
            _single_letters,
            most=bounds.max_single_letters,
            parameter="max_single_letters",
            find=first_match(_SPACED),
        ),
    )


def _replaced(facts: TextFacts) -> float:
    return share(facts.others[_REPLACEMENT], len(facts.words))


def _controls(facts: TextFacts) -> float:
    others = sum(
        [count for one, count in facts.others.items() if CATEGORIES[one][0] == "C" and _CONTROL.match(one)]
    )
    return share(facts.count_ascii(_CONTROLS) + others, len(facts.text))


def _mojibake(facts: TextFacts) -> float:
    found = 0
    if any(lead in facts.others for lead in _LEADS):
        found = sum(map(len, _MOJIBAKE.findall(facts.text)))
    return share(found, len(facts.words))


def _lost(facts: TextFacts) -> float:
    found = 0
    if facts.text.count("?") > facts.text.count("? "):
        addresses = facts.text.count("://")
        # The query of an address has a question mark inside of what looks like a word.
        found = max(0, len(_LOST.findall(facts.text)) - addresses)
    return share(found, len(facts.words))


def _single_letters(facts: TextFacts) -> float:
    counts = facts.word_counts
    return share(sum([counts[letter] for letter in _LETTERS & counts.keys()]), len(facts.letter_words))


FILTER = FilterKind("damage", 1, Damage, _rules)
