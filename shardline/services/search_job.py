"""A search with the parameters of Clara's API as the body of a job. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any


def search_body(
    *,
    text: str,
    top_k: int,
    filters: Mapping[str, Any] | None,
    min_score: float,
    search_types: Sequence[str],
    weights: Mapping[str, float] | None,
) -> dict[str, Any]:
    """Return source, query and quality of a job over UDS3. Without weights the job's defaults apply."""
    query: dict[str, Any] = {
        "text": text,
        "top_k": top_k,
        "filters": dict(filters or {}),
        "search_types": list(search_types),
    }
    if weights:
        query["weights"] = dict(weights)
    return {"source": {"type": "uds3"}, "query": query, "quality": {"min_score": min_score}}
