"""Chunks of documents as ChromaDB holds them: which document one belongs to, and in which place."""

import re
from collections.abc import Mapping
from typing import Any

_CHUNK = re.compile(r"(?s)(.+)::chunk::(\d{1,18})")


def document_of(record_id: str, metadata: Mapping[str, Any] | None) -> str:
    """The document of a record: metadata.document_id, else what stands before `::chunk::<n>`, else its id."""
    named = (metadata or {}).get("document_id")
    if isinstance(named, str) and named:
        return named
    match = _CHUNK.fullmatch(record_id)
    return match[1] if match else record_id


def place_of(record_id: str) -> tuple[int, str]:
    """Where a record stands in its document: by the chunk's number, then by its id."""
    match = _CHUNK.fullmatch(record_id)
    return (int(match[2]) if match else -1, record_id)
