"""The tombstones of UDS3: a deleted document stays in the stores, marked by fields, and is never exported."""

from collections.abc import Mapping
from typing import Any

FLAGS = ("deleted", "is_deleted")
TIME = "deleted_at"
STATUS = "processing_status"
TOMBSTONE_FIELDS = (*FLAGS, TIME, STATUS)

# In lower case: the values of a flag that mark a document, and the values of the time that do not mark it.
TRUE_VALUES = ("true", "1", "yes", "t")
NO_TIME_VALUES = ("", "false")


def is_deleted(fields: Mapping[str, Any], *, include_archived: bool = False) -> bool:
    """Whether any of the tombstone fields marks the document as deleted."""
    if any(str(fields.get(name, "")).lower() in TRUE_VALUES for name in FLAGS):
        return True
    if str(fields.get(TIME) or "").lower() not in NO_TIME_VALUES:
        return True
    status = str(fields.get(STATUS, "")).lower()
    return status in deleted_statuses(include_archived=include_archived)


def deleted_statuses(*, include_archived: bool) -> tuple[str, ...]:
    """The values of `processing_status`, in lower case, of documents that are not exported."""
    return ("deleted", "failed") if include_archived else ("deleted", "failed", "archived")
