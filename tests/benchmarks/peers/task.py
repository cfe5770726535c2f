"""The task of the comparison: the row of a document, or None. Imported by the peers written in Python.

It needs orjson alone, because it also runs in the environments of the peers.
"""

from typing import Any

import orjson

MIN_SCORE = 0.5
_FIELDS = ("title", "domain", "document_type")
_STEPS = ((1000, 0.4), (500, 0.3), (200, 0.2))


def score(document: dict[str, Any]) -> float:
    """Clara's quality score, rounded as the rows show it."""
    chars = len(document["content"])
    length = next((points for limit, points in _STEPS if chars > limit), 0.1)
    present = sum(1 for name in _FIELDS if document.get(name) not in (None, ""))
    relevance = document.get("score") or 0.0
    return round(min(1.0, length + 0.3 * (present / len(_FIELDS)) + 0.3 * relevance), 4)


def row(document: dict[str, Any]) -> dict[str, Any] | None:
    """The row of a document that passes, with the keys of Clara's training line."""
    quality = score(document)
    if quality < MIN_SCORE or not document["content"].strip():
        return None
    return {
        "text": document["content"],
        "metadata": {name: document.get(name) for name in _FIELDS} | {"extra": None},
        "source": "files",
        "quality_score": quality,
        "document_id": document["document_id"],
        "relevance_score": document.get("score") or 0.0,
    }


def encoded(found: dict[str, Any]) -> bytes:
    """A row as a line of JSON."""
    return orjson.dumps(found, option=orjson.OPT_APPEND_NEWLINE)
