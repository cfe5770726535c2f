"""The licence of a document, as a field of its metadata names it."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from shardline_common.curation.filter import FilterKind, Rule
from shardline_common.curation.text_facts import TextFacts
from shardline_consumer.filters.parameters import Parameters


class Licence(Parameters):
    """The licences that documents may have, in the spelling of SPDX or a usual other one, in any case.

    An expression such as `MIT OR GPL-3.0-only` is allowed if one of its licences is, with `AND` if all are.
    An exception (`WITH`) only grants more. Of a list, all licences must be allowed. The reasons are
    `licence.missing` and `licence.not_allowed`.
    """

    allow: Annotated[
        list[str],
        Field(
            min_length=1,
            description="The licences that are allowed.",
            examples=[["cc0-1.0", "cc-by-4.0", "mit"]],
        ),
    ]
    field: Annotated[str, Field(description="The metadata field with the licence.", examples=["license"])] = (
        "license"
    )
    allow_missing: Annotated[
        bool, Field(description="Keep documents that name no licence.", examples=[False])
    ] = False


_CREATIVE_COMMONS = re.compile(
    r"creativecommons\.org/(?:licenses/([a-z-]+)/([0-9.]+)|(publicdomain/zero/1\.0))"
)
_ADDRESSES = re.compile(
    r"^(?:https?://)?(?:www\.)?(?:(?=apache-)|opensource\.org/licenses?|spdx\.org/licenses|apache\.org/licenses"
    r"|gnu\.org/licenses)/?"
)
_ENDS = re.compile(r"(?:\.(?:html?|txt|php|json))?/*$")
_VERSION_WORDS = re.compile(r"[ ,_-]+(?:version|ver\.?|v\.?)[ _-]*(?=[0-9])|(?<=gpl)-?v(?=[0-9])")
_GNU_NAME = re.compile(r"^(?:the )?gnu (affero |lesser |library )?general public licen[sc]e")
_WORD_LICENCE = re.compile(
    r"^the (?=mit|apache|bsd|unlicense)|[ ,_-]+(?:software )?licen[sc]e\b|\blicen[sc]e[ -](?=[0-9])"
)
_SPACES = re.compile("[ _-]+")
# Other spellings, after case, spaces and versions.
_OTHER_NAMES = {
    "apache": "apache-2.0",
    "apache-2": "apache-2.0",
    "apache2": "apache-2.0",
    "apache2.0": "apache-2.0",
    "expat": "mit",
    "bsd-2": "bsd-2-clause",
    "bsd-3": "bsd-3-clause",
    "2-clause-bsd": "bsd-2-clause",
    "3-clause-bsd": "bsd-3-clause",
    "simplified-bsd": "bsd-2-clause",
    "new-bsd": "bsd-3-clause",
    "cc0": "cc0-1.0",
    "cc-0": "cc0-1.0",
    "cc-zero": "cc0-1.0",
    "mpl-2": "mpl-2.0",
    "odc-by": "odc-by-1.0",
    "odbl": "odbl-1.0",
    "boost-1.0": "bsl-1.0",
}
_GNU = re.compile(r"^(a|l)?gpl-?([0-9](?:\.[0-9])?)(?:(\+)|-(only|or-later))?$")
_GNU_VERSIONS = {"1": "1.0", "2": "2.0", "3": "3.0"}


def normal_licence(name: str) -> str:
    """The SPDX identifier of a licence in small letters, as far as the spelling is known."""
    plain = name.strip().lower()
    commons = _CREATIVE_COMMONS.search(plain)
    if commons is not None:
        return "cc0-1.0" if commons[3] else f"cc-{commons[1]}-{commons[2]}"
    plain = _ENDS.sub("", _ADDRESSES.sub("", plain.replace("apache.org/licenses/license-", "apache-")))
    plain = _GNU_NAME.sub(lambda found: f"{(found[1] or '')[:1]}gpl", plain)
    plain = _VERSION_WORDS.sub("-", _WORD_LICENCE.sub("", plain)).replace("creative commons", "cc")
    plain = _SPACES.sub("-", plain).strip("-,")
    gnu = _GNU.match(plain)
    if gnu is not None:
        kept = "or-later" if gnu[3] or gnu[4] == "or-later" else "only"
        return f"{gnu[1] or ''}gpl-{_GNU_VERSIONS.get(gnu[2], gnu[2])}-{kept}"
    return _OTHER_NAMES.get(plain, plain)


def _is_allowed(value: object, allowed: frozenset[str]) -> bool:
    if isinstance(value, list):
        return bool(value) and all(_is_allowed(one, allowed) for one in value)
    if not isinstance(value, str):
        return False
    if normal_licence(value) in allowed:
        return True
    return _either(_tokens(value), allowed)


_TOKENS = re.compile(r"\(|\)|\b(?:OR|AND|WITH)\b|(?:(?!\b(?:OR|AND|WITH)\b)[^()])+")


def _tokens(expression: str) -> list[str]:
    found = [token.strip() for token in _TOKENS.findall(expression)]
    return [token for token in reversed(found) if token]


def _either(tokens: list[str], allowed: frozenset[str]) -> bool:
    """The value of the tokens, the next one last, up to a closing bracket. AND binds stronger than OR."""
    result = _all(tokens, allowed)
    while tokens and tokens[-1] == "OR":
        tokens.pop()
        result = _all(tokens, allowed) or result
    return result


def _all(tokens: list[str], allowed: frozenset[str]) -> bool:
    result = _one(tokens, allowed)
    while tokens and tokens[-1] == "AND":
        tokens.pop()
        result = _one(tokens, allowed) and result
    return result


def _one(tokens: list[str], allowed: frozenset[str]) -> bool:
    name = tokens.pop() if tokens else ""
    if name == "(":
        result = _either(tokens, allowed)
        if not tokens or tokens.pop() != ")":
            return False
        return result
    if tokens and tokens[-1] == "WITH":
        del tokens[-2:]
    return normal_licence(name) in allowed


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip()) or value == []


def _rules(parameters: Licence, _: Mapping[str, Path]) -> Sequence[Rule]:
    allowed = frozenset(map(normal_licence, parameters.allow))
    field = parameters.field

    def missing(facts: TextFacts) -> float:
        return float(_is_missing(facts.metadata.get(field)))

    def not_allowed(facts: TextFacts) -> float:
        value = facts.metadata.get(field)
        return float(not _is_missing(value) and not _is_allowed(value, allowed))

    return (
        Rule("missing", missing, most=None if parameters.allow_missing else 0, parameter="allow_missing"),
        Rule("not_allowed", not_allowed, most=0, parameter="allow"),
    )


FILTER = FilterKind("licence", 1, Licence, _rules)
