"""Which documents are marked deleted: they stay in the stores, and are never exported."""

from collections.abc import Mapping
from typing import Any

_YES = ("true", "1", "yes", "t")
_NEVER = ("", "false")


def is_deleted(fields: Mapping[str, Any], *, include_archived: bool = False) -> bool:
    """Whether any of UDS3's marks says that the document is gone.

    They are `deleted`, `is_deleted`, `deleted_at`, and a `processing_status` of deleted, failed or archived.
    """
    if any(str(fields.get(name, "")).lower() in _YES for name in ("deleted", "is_deleted")):
        return True
    if str(fields.get("deleted_at") or "").lower() not in _NEVER:
        return True
    return str(fields.get("processing_status", "")).lower() in ended(include_archived=include_archived)


def ended(*, include_archived: bool) -> tuple[str, ...]:
    """The values of `processing_status` of documents that are left out."""
    return ("deleted", "failed") if include_archived else ("deleted", "failed", "archived")
