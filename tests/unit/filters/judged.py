"""How tests of filters ask for a verdict."""

import math
from typing import Any

from shardline_common.curation.filter import AnyFilterKind, Rule
from shardline_common.curation.text_facts import TextFacts


def rules(kind: AnyFilterKind, **parameters: object) -> dict[str, Rule]:
    """The rules of a filter by their names."""
    given: dict[str, Any] = parameters
    return {rule.name: rule for rule in kind.rules(kind.parameters(**given), {})}


def reason(kind: AnyFilterKind, text: str, **parameters: object) -> str | None:
    """The first rule that drops a text."""
    facts = TextFacts(text, {})
    return next(
        (name for name, rule in rules(kind, **parameters).items() if drops(rule, rule.measure(facts))), None
    )


def drops(rule: Rule, value: float) -> bool:
    """Whether a value is out of the bounds."""
    below = rule.least is not None and value < rule.least
    return not math.isnan(value) and (below or (rule.most is not None and value > rule.most))


def value(kind: AnyFilterKind, rule: str, text: str, **parameters: object) -> float:
    """What a rule measures."""
    return rules(kind, **parameters)[rule].measure(TextFacts(text, {}))


def found(kind: AnyFilterKind, rule: str, text: str, **parameters: object) -> str | None:
    """The part of a text that a rule points at."""
    find = rules(kind, **parameters)[rule].find
    part = find(TextFacts(text, {})) if find is not None else None
    return text[slice(*part)] if part is not None else None
