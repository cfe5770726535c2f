"""The chunks of documents in ChromaDB: each record is a chunk, or a whole document."""

import re
from collections.abc import Mapping
from typing import Any

_CHUNK = re.compile(r"(?s)(.+)::chunk::(\d{1,18})")


def document_of(record_id: str, metadata: Mapping[str, Any] | None) -> str:
    """The document id of a record: metadata.document_id, else the text before `::chunk::<n>`, else its id."""
    named = (metadata or {}).get("document_id")
    if isinstance(named, str) and named:
        return named
    match = _CHUNK.fullmatch(record_id)
    return match[1] if match else record_id


def chunk_order(record_id: str) -> tuple[int, str]:
    """The sort key of a record in its document: the chunk's number (-1 without one), then its id."""
    match = _CHUNK.fullmatch(record_id)
    return (int(match[2]) if match else -1, record_id)
