"""The filters of a query, applied to documents in memory: equal JSON values, lists, inclusive ranges.

This is the rule for every source. A database that checks filters itself follows it.

- Equality is that of the JSON values, as the document shows them.
- A range compares numbers with numbers and texts with texts. Any other pair is outside the range.
- Texts compare by their code points, with two exceptions for dates. An upper bound that is a day includes
  the whole day: it compares with the first 10 characters. A bound that is a date with a time compares as a
  moment with values that are dates: without a zone both are in UTC, and a day is its midnight.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from shardline_common.errors import FailureCode, JobFailed
from shardline_common.job.field_faults import did_you_mean
from shardline_common.job.spec import Range
from shardline_producer.sources.source import Document

OWN_FIELDS = ("document_id", "content", "score")
"""The names of a document's id, text and score in filters."""

DAY_LENGTH = 10

_LEAP_YEAR = "[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00"
# Only days that exist, because PostgreSQL refuses to convert any other.
DAY_PATTERN = (
    "(?!0000)(?:[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    "|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
    f"|(?:{_LEAP_YEAR})-02-29)"
)
_TIME_PATTERN = (
    "[T ](?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:[.][0-9]{1,6})?)?"
    "(?:Z|[+-](?:0[0-9]|1[0-4]):[0-5][0-9])?"
)
DATE_PATTERN = f"{DAY_PATTERN}(?:{_TIME_PATTERN})?"
"""Days and times that compare as moments. Python and PostgreSQL read this expression in the same way."""

_DAY = re.compile(DAY_PATTERN)
_MOMENT = re.compile(DAY_PATTERN + _TIME_PATTERN)
_DATE = re.compile(DATE_PATTERN)
_FIRST = datetime(1, 1, 1, tzinfo=UTC)


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
            near = did_you_mean(name, sorted(known))
            raise JobFailed(
                FailureCode.SOURCE_INVALID,
                f"query.filters: {owner} has no field '{name}'; it has {', '.join(sorted(known))}"
                + (f"; did you mean `{near}`?" if near else ""),
            )


def check_types(filters: Mapping[str, Any], documents: Sequence[Document]) -> None:
    """Check that a value of each filter's type is in one of the first documents, where the field has values.

    The cells of CSV are text: a filter with a number would leave out every row without a word.

    Raises:
        JobFailed: a filter compares with values of other types than those of its field (`source_invalid`).
    """
    for name, wanted in filters.items():
        asked = _types_of(wanted)
        found = {_type_of(_field(document, name)) for document in documents} - {"null"}
        if not found or "null" in asked or asked & found:
            continue
        are = " or ".join(sorted(found))
        hint = "filter by another field, or lift a value in it with source.flatten"
        if found == {"text"}:
            hint = (
                f"write a text, such as {{{json.dumps(name)}: {json.dumps(_as_text(wanted))}}}; texts are "
                "compared character by character, so that 10 is before 9"
            )
        elif "number" in found:
            hint = f"write a number, such as {{{json.dumps(name)}: 1}}, without quotes"
        elif "boolean" in found:
            hint = f"write {{{json.dumps(name)}: true}} or false, without quotes"
        raise JobFailed(
            FailureCode.SOURCE_INVALID,
            f"query.filters: '{name}' is compared with {' or '.join(sorted(asked))}, and its values are "
            f"{are} in the first {len(documents):,} documents: no document would pass",
            hint=hint,
        )


def _types_of(wanted: object) -> set[str]:
    if isinstance(wanted, Range):
        return {_type_of(bound) for bound in (wanted.gte, wanted.lte) if bound is not None}
    return {_type_of(item) for item in wanted} if isinstance(wanted, list) else {_type_of(wanted)}


def _type_of(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "text"
    return "list" if isinstance(value, list) else "object"


def _as_text(wanted: object) -> object:
    """The comparison of a filter with texts in place of its values."""
    if isinstance(wanted, Range):
        bounds = {"gte": wanted.gte, "lte": wanted.lte}
        return {bound: _as_text(value) for bound, value in bounds.items() if value is not None}
    if isinstance(wanted, list):
        return [_as_text(item) for item in wanted]
    return wanted if isinstance(wanted, str) else json.dumps(wanted)


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
        above = wanted.gte is None or in_range(value, wanted.gte, upper=False)
        return above and (wanted.lte is None or in_range(value, wanted.lte, upper=True))
    if isinstance(wanted, list):
        return any(_equal(value, item) for item in wanted)
    return _equal(value, wanted)


def in_range(value: object, bound: object, *, upper: bool) -> bool:
    """Whether a value is on the right side of one bound of a range."""
    if isinstance(value, bool) or isinstance(bound, bool):
        return False
    if isinstance(value, int | float) and isinstance(bound, int | float):
        return value <= bound if upper else value >= bound
    if not isinstance(value, str) or not isinstance(bound, str):
        return False
    if is_moment(bound) and _DATE.fullmatch(value):
        return _moment(value) <= _moment(bound) if upper else _moment(value) >= _moment(bound)
    if upper:
        return (value[:DAY_LENGTH] if is_day(bound) else value) <= bound
    return value >= bound


def is_day(text: str) -> bool:
    """Whether a bound is a day, which an upper bound includes as a whole."""
    return _DAY.fullmatch(text) is not None


def is_moment(text: str) -> bool:
    """Whether a bound is a date with a time, which compares as a moment."""
    return _MOMENT.fullmatch(text) is not None


def microseconds(text: str) -> int:
    """The microseconds from 1970 in UTC to a moment."""
    return (_moment(text) - _moment("1970-01-01")) // timedelta(microseconds=1)


@lru_cache(maxsize=1024)
def _moment(text: str) -> timedelta:
    """The time since the year 1 in UTC. A datetime in UTC would overflow at the ends of the calendar."""
    found = datetime.fromisoformat(text)
    return found.replace(tzinfo=UTC) - _FIRST - (found.utcoffset() or timedelta())


def _equal(value: object, wanted: object) -> bool:
    # In Python True equals 1; in JSON it does not.
    return value == wanted and isinstance(value, bool) == isinstance(wanted, bool)
