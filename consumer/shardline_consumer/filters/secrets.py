"""Keys, tokens and passwords of services in a text."""

import re
from base64 import urlsafe_b64decode
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import log2
from pathlib import Path
from typing import Annotated, Literal, get_args

import orjson
from pydantic import Field

from shardline_common.curation.filter import FilterKind, Part, Rule
from shardline_common.curation.text_facts import TextFacts
from shardline_consumer.filters.parameters import Parameters

Kind = Literal[
    "private_key",
    "aws",
    "github",
    "gitlab",
    "slack",
    "google",
    "stripe",
    "openai",
    "other_service",
    "jwt",
    "url_password",
    "assignment",
]


class Secrets(Parameters):
    """Secrets of services: private keys, keys of APIs, tokens, and passwords in URLs and assignments.

    A known form decides, and for `assignment` the name, such as `api_key`, and the entropy of the value.
    """

    kinds: Annotated[
        list[Kind] | None,
        Field(description="The kinds looked for; null: all of them.", examples=[["aws", "jwt"]]),
    ] = None
    min_entropy: Annotated[
        float,
        Field(
            description="The least entropy of an assigned value in bits a character.",
            ge=0,
            le=8,
            examples=[3.5],
        ),
    ] = 3.5


_EDGE = "(?<![0-9A-Za-z_-])"
_END = "(?![0-9A-Za-z_-])"
# For each kind, parts of which one stands in each of its secrets, and its form.
_FORMS: dict[str, tuple[tuple[str, ...], re.Pattern[str]]] = {
    "private_key": (
        ("PRIVATE KEY",),
        re.compile(
            r"-----BEGIN (?:[A-Z]{2,9} ){0,2}PRIVATE KEY(?: BLOCK)?-----"
            r"(?:\\n|\s|[A-Za-z-]{3,20}: [^\n\\]{1,80}){1,12}[A-Za-z0-9+/=]{24,}"
        ),
    ),
    "aws": (
        ("AKIA", "ASIA", "ABIA", "ACCA"),
        re.compile(f"{_EDGE}(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{{16}}{_END}"),
    ),
    "github": (
        ("gh", "github_pat_"),
        re.compile(
            f"{_EDGE}(?:gh[pousr]_[A-Za-z0-9]{{36,255}}|github_pat_[A-Za-z0-9]{{22}}_[A-Za-z0-9]{{59}}){_END}"
        ),
    ),
    "gitlab": (
        ("gl", "GR1348941"),
        re.compile(
            f"{_EDGE}(?:gl(?:pat|ptt|dt|rt|cbt|oas|soat|ft|imt|agent)-[0-9A-Za-z_-]{{20,64}}"
            f"|GR1348941[0-9A-Za-z_-]{{20}}){_END}"
        ),
    ),
    "slack": (
        ("xox", "xapp-", "hooks.slack.com"),
        re.compile(
            f"{_EDGE}xox[abeoprs]-(?:[0-9]+-)+[0-9A-Za-z-]{{10,200}}"
            f"|{_EDGE}xapp-[0-9]-[A-Z0-9]+-[0-9]+-[0-9a-z]{{20,100}}"
            r"|hooks\.slack\.com/services/T[0-9A-Z]{6,14}/B[0-9A-Z]{6,14}/[0-9A-Za-z]{20,30}"
        ),
    ),
    "google": (
        ("AIza", "GOCSPX-", "ya29."),
        re.compile(
            f"{_EDGE}(?:AIza[0-9A-Za-z_-]{{35}}|GOCSPX-[0-9A-Za-z_-]{{28}}"
            f"|ya29\\.[0-9A-Za-z_-]{{40,400}}){_END}"
        ),
    ),
    "stripe": (
        ("k_live_", "k_test_", "whsec_"),
        re.compile(
            f"{_EDGE}(?:[rs]k_(?:live|test)_[0-9A-Za-z]{{16,128}}|whsec_[0-9A-Za-z+/]{{32,64}}){_END}"
        ),
    ),
    "openai": (
        ("sk-",),
        re.compile(
            f"{_EDGE}sk-(?:(?:proj|svcacct|admin|None)-[0-9A-Za-z_-]{{40,200}}"
            f"|ant-[a-z0-9]{{3,8}}-[0-9A-Za-z_-]{{80,120}}"
            f"|or-v1-[0-9a-f]{{64}}|[0-9A-Za-z]{{48}}|[0-9a-f]{{32}}){_END}"
        ),
    ),
    "other_service": (
        (
            "hf_",
            "npm_",
            "pypi-",
            "dop_v1_",
            "SG.",
            ":AA",
            "shpat_",
            "glsa_",
            "NRAK-",
            "dckr_pat_",
            "AccountKey=",
        ),
        re.compile(
            f"{_EDGE}(?:hf_[A-Za-z]{{34}}|npm_[0-9A-Za-z]{{36}}|pypi-AgE[0-9A-Za-z_-]{{50,300}}"
            f"|dop_v1_[0-9a-f]{{64}}"
            r"|SG\.[0-9A-Za-z_-]{22}\.[0-9A-Za-z_-]{43}|[0-9]{8,10}:AA[0-9A-Za-z_-]{33}|shpat_[0-9a-f]{32}"
            r"|glsa_[0-9A-Za-z]{32}_[0-9a-f]{8}|NRAK-[0-9A-Z]{27}|dckr_pat_[0-9A-Za-z_-]{27}"
            f"|AccountKey=[0-9A-Za-z+/]{{86}}==){_END}"
        ),
    ),
    "jwt": (
        ("eyJ",),
        re.compile(
            f"{_EDGE}(eyJ[0-9A-Za-z_-]{{8,1000}})\\.eyJ[0-9A-Za-z_-]{{8,4000}}\\.[0-9A-Za-z_-]{{16,1000}}"
        ),
    ),
    "url_password": (
        ("://",),
        re.compile(r"://[^\s/:@<>\"'{}$]{0,64}:([^\s/@<>\"'{}$*]{3,64})@[0-9A-Za-z.-]{1,253}"),
    ),
    "assignment": (
        ("=", ":", ">"),
        re.compile(
            r"[=:>][ \t]{0,3}[\"'`]?([0-9A-Za-z/+_.~!@#$%^&*-]{16,200}={0,2})"
            r"(?![0-9A-Za-z/+_.~=!@#$%^&*(\[-])"
        ),
    ),
}
_NAME = re.compile(
    r"(?:api[_-]?key|secret|token|passw(?:or)?d|passwort|kennwort|\bpwd|credential|private[_-]?key"
    r"|access[_-]?key"
    r"|auth[_-]?key|encryption[_-]?key|signing[_-]?key)[0-9A-Za-z_-]{0,24}[\"'`]?\]?[ \t]{0,3}[=:]?\Z",
    re.IGNORECASE,
)
_NAME_REACH = 64
# What stands for a secret in examples.
_PLACEHOLDER = re.compile(
    r"example|placeholder|changeme|change_me|your|dummy|redacted|password|passwort|secret|xxxx|\*\*\*"
    r"|1234567|abcdef|\.\.\."
    r"|insert|replace|process\.env|os\.environ|getenv|config\.",
    re.IGNORECASE,
)
_URL_WORDS = frozenset(
    {"pass", "password", "passwd", "passwort", "pwd", "secret", "token", "user", "xxx", "port"}
)


def _secrets(kind: str, text: str, min_entropy: float) -> Iterator[Part]:
    """The secrets of a kind, in order."""
    parts, form = _FORMS[kind]
    if not any(part in text for part in parts):
        return
    for found in form.finditer(text):
        if kind == "assignment":
            if _is_assigned(text, found, min_entropy):
                yield found.span(1)
        elif kind == "jwt":
            if _is_header(found[1]):
                yield found.span()
        elif kind != "url_password" or _is_password(found[1]):
            yield found.span()


def _is_assigned(text: str, found: re.Match[str], min_entropy: float) -> bool:
    value = found[1]
    if not any(map(str.isdigit, value)) or not any(map(str.isalpha, value)) or _entropy(value) < min_entropy:
        return False
    if _NAME.search(text, max(0, found.start() - _NAME_REACH), found.start()) is None:
        return False
    return _PLACEHOLDER.search(value) is None


def _is_password(value: str) -> bool:
    return value.lower() not in _URL_WORDS and not value.isdigit() and len(set(value)) > 1


def _is_header(header: str) -> bool:
    """Whether the first part of a token is the JSON that names the algorithm."""
    try:
        read = orjson.loads(urlsafe_b64decode(header + "=" * (-len(header) % 4)))
    except ValueError:
        return False
    return isinstance(read, dict) and "alg" in read


def _entropy(value: str) -> float:
    """The entropy of the characters of a value, in bits a character."""
    counts = Counter(value).values()
    return log2(len(value)) - sum(count * log2(count) for count in counts) / len(value)


def _rules(parameters: Secrets, _: Mapping[str, Path]) -> Sequence[Rule]:
    kinds = [kind for kind in get_args(Kind) if parameters.kinds is None or kind in parameters.kinds]
    return [
        Rule(kind, _count(kind, parameters.min_entropy), most=0, find=_first(kind, parameters.min_entropy))
        for kind in kinds
    ]


def _count(kind: str, min_entropy: float) -> Callable[[TextFacts], float]:
    def count(facts: TextFacts) -> float:
        return sum(1 for _ in _secrets(kind, facts.text, min_entropy))

    return count


def _first(kind: str, min_entropy: float) -> Callable[[TextFacts], Part | None]:
    def first(facts: TextFacts) -> Part | None:
        return next(_secrets(kind, facts.text, min_entropy), None)

    return first


FILTER = FilterKind("secrets", 1, Secrets, _rules)
