"""Clara's quality score. The worker judges documents by it; planning and previews explain it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shardline_common.job.messages import Facts

_LENGTH_STEPS = ((1000, 0.4), (500, 0.3), (200, 0.2))
_SHORT = 0.1
COUNTED_FIELDS = ("title", "domain", "document_type")
"""The fields that the score counts."""
_ABSENT = (None, "")


@dataclass(frozen=True, slots=True)
class ScoreParts:
    """What a score is made of: the length, the share of {title, domain, document_type}, the relevance."""

    length: float
    metadata: float
    relevance: float


def present_fields(metadata: Mapping[str, Any]) -> list[str]:
    """Those of the counted fields that have a value."""
    return [name for name in COUNTED_FIELDS if metadata.get(name) not in _ABSENT]


def count_present(metadata: Mapping[str, Any]) -> int:
    """The number of `present_fields`."""
    get = metadata.get
    return (
        (get("title") not in _ABSENT) + (get("domain") not in _ABSENT) + (get("document_type") not in _ABSENT)
    )


def score_parts(facts: Facts) -> ScoreParts:
    """The parts of Clara's quality score."""
    length = next((points for limit, points in _LENGTH_STEPS if facts.chars > limit), _SHORT)
    return ScoreParts(length, 0.3 * (facts.present / len(COUNTED_FIELDS)), 0.3 * facts.relevance)


def clara_score(facts: Facts) -> float:
    """Clara's quality score: the sum of its parts, 0 to 1."""
    return with_relevance(score_without_relevance(facts), facts.relevance)


def score_without_relevance(facts: Facts) -> float:
    """The sum of the other parts."""
    parts = score_parts(facts)
    return parts.length + parts.metadata


def with_relevance(others: float, relevance: float) -> float:
    """Clara's quality score, of the sum of its other parts."""
    # In this order, because a sum of floats depends on it.
    return min(1.0, others + 0.3 * relevance)
