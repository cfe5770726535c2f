"""The one rule of all stores of UDS3: which fields mark a document as deleted, and which is its id.

A deleted document stays in the stores, marked, and is never exported. PostgreSQL and Neo4j evaluate the
patterns themselves: each must mean the same in Python, in PostgreSQL and in Java, whatever the case.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from shardline_producer.sources.exact_json import is_unicode

FLAGS = ("deleted", "is_deleted")
TIME = "deleted_at"
STATUS = "processing_status"
# Where the flag has a value, the time does not count: UDS3's archive manager writes both, and sets only the
# flag to false when it restores a document.
ARCHIVED = "archived"
ARCHIVED_AT = "archived_at"
TOMBSTONE_FIELDS = (*FLAGS, TIME, STATUS, ARCHIVED, ARCHIVED_AT)

# The text may be in quotes (\x22), as in a column of JSON.
# A flag marks a document if the whole text of its value is this: a word for true, or a number other than 0.
FLAG_PATTERN = r"[\s\x22]*(true|t|yes|y|on|[-+]?(?=[0-9.]*[1-9])[0-9]*\.?[0-9]*)[\s\x22]*"
# The time marks a document unless the whole text of its value is this: nothing, a word for no time, or 0. A
# time in the future marks it too: whether it has passed would depend on when the job runs.
NO_TIME_PATTERN = (
    r"[\s\x22]*(|false|f|no|n|off|never|null|none|nil|undefined|nan|nat|[-+]?inf|[-+]?infinity|\[\s*\]|\{\s*\}"
    r"|[-+]?0*\.?0*)[\s\x22]*"
)
# A flag without a value.
NO_VALUE_PATTERN = r"[\s\x22]*(|null|none|nil|undefined)[\s\x22]*"
_NO_VALUE = re.compile(NO_VALUE_PATTERN, re.IGNORECASE | re.ASCII)
_FLAG = re.compile(FLAG_PATTERN, re.IGNORECASE | re.ASCII)
_NO_TIME = re.compile(NO_TIME_PATTERN, re.IGNORECASE | re.ASCII)


def is_deleted(fields: Mapping[str, Any], *, include_archived: bool = False) -> bool:
    """Whether any of the tombstone fields marks the document as deleted."""
    if any(_FLAG.fullmatch(_text(fields.get(name))) for name in FLAGS):
        return True
    if not _NO_TIME.fullmatch(_text(fields.get(TIME))):
        return True
    pattern = status_pattern(deleted_statuses(include_archived=include_archived))
    if re.fullmatch(pattern, _text(fields.get(STATUS)), re.IGNORECASE | re.ASCII):
        return True
    return not include_archived and _is_archived(_text(fields.get(ARCHIVED)), _text(fields.get(ARCHIVED_AT)))


def _is_archived(flag: str, time: str) -> bool:
    if not _NO_VALUE.fullmatch(flag):
        return bool(_FLAG.fullmatch(flag))
    return not _NO_TIME.fullmatch(time)


def _text(value: object) -> str:
    return "" if value is None else str(value)


def deleted_statuses(*, include_archived: bool) -> tuple[str, ...]:
    """The values of `processing_status`, in lower case, of documents that are not exported."""
    return ("deleted", "failed") if include_archived else ("deleted", "failed", "archived")


def status_pattern(statuses: Iterable[str]) -> str:
    """The pattern of a whole `processing_status` that is one of these words."""
    return rf"[\s\x22]*({'|'.join(statuses)})[\s\x22]*"


def id_text(value: object) -> str | None:
    """A value as a document id: text that is not empty, or a number as its text. None: it is no id."""
    if isinstance(value, str):
        # No other store and no plan holds half of a surrogate pair.
        return value if value and is_unicode(value) else None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number else None


def document_id(fields: Mapping[str, Any], names: tuple[str, ...] = ("document_id", "id")) -> str | None:
    """The id in the first of these fields that holds one. An empty `document_id` does not hide `id`."""
    return next((found for name in names if (found := id_text(fields.get(name))) is not None), None)
