"""Bytes that were written as text: base64, hexadecimal digits and percent signs."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import Field

from shardline_common.curation.filter import FilterKind, Part, Rule
from shardline_common.curation.text_facts import TextFacts
from shardline_consumer.filters.parameters import Parameters, Share, share

_LONG = 40
_BASE64 = re.compile(rf"[A-Za-z0-9+/_-]{{{_LONG},}}={{0,2}}")
# Upper case, lower case, digits and signs change behind 64 of 100 characters of random base64; in words, in
# names of files and in paths of addresses behind 20 at most.
_SAME_KIND = re.compile(r"[a-z]+|[A-Z]+|[0-9]+|[+/_-]+")
_FEWEST_CHANGES = 0.4
_HEX = re.compile(
    r"(?:[0-9a-fA-F]{2}[ :,\n-]){15,}[0-9a-fA-F]{0,2}|[0-9a-fA-F]{32,}"
    r"|(?:\\x[0-9a-fA-F]{2}|0x[0-9a-fA-F]{2},? ?){8,}"
)
_PERCENT = re.compile(r"(?:%[0-9a-fA-F]{2}){6,}")


def _mapped(characters: bytes, gaps: bytes) -> bytes:
    """Characters become `a`, gaps a space, all others a point."""
    return bytes(0x61 if code in characters else 0x20 if code in gaps else 0x2E for code in range(256))


# To search a mapped text for one fixed string takes a hundredth of the time of a pattern.
_AS_BASE64 = _mapped(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/_-", b"")
_AS_HEX = _mapped(b"0123456789abcdefABCDEF", b" :,\n-")


class Encoded(Parameters):
    """Bounds of encoded bytes."""

    max_base64: Share = Field(
        0.05,
        description=f"The largest part of characters in base64 of {_LONG} characters or more.",
        examples=[0.05],
    )
    max_hex: Share = Field(
        0.05,
        description="The largest part of characters in 32 hexadecimal digits or more, or 15 pairs of them.",
        examples=[0.05],
    )
    max_percent: Share = Field(
        0.05, description="The largest part of characters in runs of %C3%A4.", examples=[0.05]
    )


def _rules(bounds: Encoded, _: Mapping[str, Path]) -> Sequence[Rule]:
    return (
        Rule("base64", _base64, most=bounds.max_base64, parameter="max_base64", find=_first_base64),
        Rule("hex", _hex, most=bounds.max_hex, parameter="max_hex", find=_first_hex),
        Rule("percent", _percent, most=bounds.max_percent, parameter="max_percent", find=_first_percent),
    )


def _base64_parts(facts: TextFacts) -> list[Part]:
    if b"a" * _LONG not in facts.utf8.translate(_AS_BASE64):
        return []
    return [found.span() for found in _BASE64.finditer(facts.text) if _is_random(found[0])]


def _is_random(run: str) -> bool:
    return len(_SAME_KIND.findall(run)) >= _FEWEST_CHANGES * len(run)


def _base64(facts: TextFacts) -> float:
    return share(_length(_base64_parts(facts)), len(facts.text))


def _first_base64(facts: TextFacts) -> Part | None:
    return next(iter(_base64_parts(facts)), None)


def _hex_parts(facts: TextFacts) -> list[Part]:
    mapped = facts.utf8.translate(_AS_HEX)
    if (
        b"a" * 32 not in mapped
        and b" aa" * 7 not in mapped
        and "\\x" not in facts.text
        and "0x" not in facts.text
    ):
        return []
    return [found.span() for found in _HEX.finditer(facts.text) if not _is_number(found[0])]


def _is_number(run: str) -> bool:
    """Whether a run has no letter: dates and tables of numbers have pairs of digits, too."""
    return not any(one in "abcdefABCDEF" for one in run)


def _hex(facts: TextFacts) -> float:
    return share(_length(_hex_parts(facts)), len(facts.text))


def _first_hex(facts: TextFacts) -> Part | None:
    return next(iter(_hex_parts(facts)), None)


def _percent_parts(facts: TextFacts) -> list[Part]:
    if "%" not in facts.text:
        return []
    return [found.span() for found in _PERCENT.finditer(facts.text)]


def _percent(facts: TextFacts) -> float:
    return share(_length(_percent_parts(facts)), len(facts.text))


def _first_percent(facts: TextFacts) -> Part | None:
    return next(iter(_percent_parts(facts)), None)


def _length(parts: Sequence[Part]) -> int:
    return sum([end - start for start, end in parts])


FILTER = FilterKind("encoded", 1, Encoded, _rules)
