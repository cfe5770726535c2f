"""Filters of a query over documents in hand: equality by JSON value, lists, inclusive ranges."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from shardline_common.errors import FailureCode, JobFailed
from shardline_common.job.spec import Range
from shardline_producer.sources.source import Document

_OWN = ("document_id", "content", "score")


def check_filters(filters: Mapping[str, Any], fields: Sequence[str]) -> None:
    """Check that every filter names a field there is.

    Raises:
        JobFailed: naming the unknown one and those there are.
    """
    check_known(filters, {*fields, *_OWN})


def check_known(filters: Mapping[str, Any], known: Collection[str], whose: str = "the source") -> None:
    """Check that every filter names one of these fields. Raises JobFailed."""
    for name in filters:
        if name not in known:
            raise JobFailed(
                FailureCode.SOURCE_INVALID,
                f"query.filters: {whose} has no field '{name}'; it has {', '.join(sorted(known))}",
            )


def passes(document: Document, filters: Mapping[str, Any]) -> bool:
    """Whether a document meets every filter."""
    return all(_meets(_field(document, name), wanted) for name, wanted in filters.items())


def _field(document: Document, name: str) -> object:
    if name == "document_id":
        return document.id
    if name == "content":
        return document.text
    if name == "score" and name not in document.metadata:
        return document.relevance
    return document.metadata.get(name)


def _meets(value: object, wanted: object) -> bool:
    if isinstance(wanted, Range):
        above = wanted.gte is None or _reaches(value, wanted.gte)
        return above and (wanted.lte is None or _reaches(wanted.lte, value))
    if isinstance(wanted, list):
        return any(_equal(value, one) for one in wanted)
    return _equal(value, wanted)


def _reaches(high: object, low: object) -> bool:
    # Numbers compare with numbers and text with text; all else is outside of the range.
    if isinstance(high, str) and isinstance(low, str):
        return high >= low
    if isinstance(high, int | float) and isinstance(low, int | float):
        return not isinstance(high, bool) and not isinstance(low, bool) and high >= low
    return False


def _equal(value: object, wanted: object) -> bool:
    # True is 1 in Python, and is not in JSON.
    return value == wanted and isinstance(value, bool) == isinstance(wanted, bool)
