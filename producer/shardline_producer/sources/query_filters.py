"""The filters of a query, applied to documents in memory: equal JSON values, lists, inclusive ranges."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from shardline_common.errors import FailureCode, JobFailed
from shardline_common.job.spec import Range
from shardline_producer.sources.source import Document

OWN_FIELDS = ("document_id", "content", "score")
"""The names of a document's id, text and score in filters."""


def check_filters(filters: Mapping[str, Any], fields: Sequence[str]) -> None:
    """Check that every filter names one of the metadata fields, or id, text or score.

    Raises:
        JobFailed: a filter names another field (`source_invalid`); the message names the known ones.
    """
    check_known(filters, {*fields, *OWN_FIELDS})


def check_known(filters: Mapping[str, Any], known: Collection[str], owner: str = "the source") -> None:
    """Check that every filter names one of the `known` fields. Raises as `check_filters`.

    `owner` names the store or search that has the fields, for the message.
    """
    for name in filters:
        if name not in known:
            raise JobFailed(
                FailureCode.SOURCE_INVALID,
                f"query.filters: {owner} has no field '{name}'; it has {', '.join(sorted(known))}",
            )


def passes(document: Document, filters: Mapping[str, Any]) -> bool:
    """Whether a document matches every filter."""
    return all(_matches(_field(document, name), wanted) for name, wanted in filters.items())


def _field(document: Document, name: str) -> object:
    if name == "document_id":
        return document.id
    if name == "content":
        return document.text
    if name == "score" and name not in document.metadata:
        return document.relevance
    return document.metadata.get(name)


def _matches(value: object, wanted: object) -> bool:
    if isinstance(wanted, Range):
        above = wanted.gte is None or _at_least(value, wanted.gte)
        return above and (wanted.lte is None or _at_least(wanted.lte, value))
    if isinstance(wanted, list):
        return any(_equal(value, item) for item in wanted)
    return _equal(value, wanted)


def _at_least(high: object, low: object) -> bool:
    # Numbers compare with numbers and text with text; any other pair is outside the range.
    if isinstance(high, str) and isinstance(low, str):
        return high >= low
    if isinstance(high, int | float) and isinstance(low, int | float):
        return not isinstance(high, bool) and not isinstance(low, bool) and high >= low
    return False


def _equal(value: object, wanted: object) -> bool:
    # In Python True equals 1; in JSON it does not.
    return value == wanted and isinstance(value, bool) == isinstance(wanted, bool)
