"""The statements of the graph search. Values and property names are parameters, never text of a query."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shardline_common.job.spec import Range

EDGES = "RELATED_TO|CITES|SUPERSEDES"
_ID = "toString(coalesce(n.document_id, n.id))"
_LIVE = (
    "NOT toLower(coalesce(toStringOrNull(n.deleted), '')) IN $yes "
    "AND NOT toLower(coalesce(toStringOrNull(n.is_deleted), '')) IN $yes "
    "AND toLower(coalesce(toStringOrNull(n.deleted_at), '')) IN ['', 'false'] "
    "AND NOT toLower(coalesce(toStringOrNull(n.processing_status), '')) IN $ended"
)
_YES = ("true", "1", "yes", "t")


@dataclass(frozen=True, slots=True)
class Statement:
    """A query and its parameters."""

    text: str
    parameters: Mapping[str, Any]


def by_index(index: str, words: str, filters: Mapping[str, Any], ended: Sequence[str]) -> Statement:
    """Documents by a full-text index, the best score first, ties by id."""
    fits, values = _conditions(filters)
    return Statement(
        "CALL db.index.fulltext.queryNodes($index, $words) YIELD node AS n, score "
        f"WITH n, score WHERE n:Document AND {_LIVE} AND {fits} "
        f"WITH {_ID} AS id, max(score) AS score, collect(elementId(n)) AS nodes WHERE id IS NOT NULL "
        "RETURN id, score, nodes ORDER BY score DESC, id",
        {"index": index, "words": words, **_live(ended), **values},
    )


def by_content(text: str, filters: Mapping[str, Any], ended: Sequence[str]) -> Statement:
    """Documents whose content or name contains the text, in any case, by id; each scores 1.0."""
    fits, values = _conditions(filters)
    return Statement(
        f"MATCH (n:Document) WHERE {_LIVE} AND {fits} "
        "AND (toLower(toStringOrNull(n.content)) CONTAINS toLower($words) "
        "OR toLower(toStringOrNull(n.name)) CONTAINS toLower($words)) "
        f"WITH {_ID} AS id, collect(elementId(n)) AS nodes WHERE id IS NOT NULL "
        "RETURN id, 1.0 AS score, nodes ORDER BY id",
        {"words": text, **_live(ended), **values},
    )


def neighbours(nodes: Sequence[str], filters: Mapping[str, Any], ended: Sequence[str]) -> Statement:
    """The documents one edge away, in either direction, and whether they pass the filters."""
    fits, values = _conditions(filters)
    return Statement(
        f"MATCH (m)-[:{EDGES}]-(n:Document) WHERE elementId(m) IN $nodes AND {_LIVE} "
        f"WITH DISTINCT elementId(n) AS node, {_ID} AS id, {fits} AS fits WHERE id IS NOT NULL "
        "RETURN node, id, coalesce(fits, false) AS fits",
        {"nodes": list(nodes), **_live(ended), **values},
    )


def removed(ended: Sequence[str]) -> Statement:
    """The ids of all documents that are marked deleted."""
    return Statement(
        f"MATCH (n:Document) WHERE NOT ({_LIVE}) WITH {_ID} AS id WHERE id IS NOT NULL RETURN id",
        _live(ended),
    )


def _live(ended: Sequence[str]) -> dict[str, Any]:
    return {"yes": list(_YES), "ended": list(ended)}


def _conditions(filters: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """All filters as one condition over n, and its parameters."""
    texts, values = ["true"], dict[str, Any]()
    for number, (field, wanted) in enumerate(filters.items()):
        name, value = f"field{number}", f"value{number}"
        values[name] = field
        if isinstance(wanted, Range):
            for sign, bound, end in ((">=", wanted.gte, "low"), ("<=", wanted.lte, "high")):
                if bound is not None:
                    texts.append(_bounded(name, sign, value + end, bound))
                    values[value + end] = bound
            continue
        options = wanted if isinstance(wanted, list) else [wanted]
        values[value] = [option for option in options if option is not None]
        equal = f"n[${name}] IN ${value} OR {_as_text(name)} IN ${value}"
        missing = f" OR n[${name}] IS NULL" if None in options else ""
        texts.append(f"(coalesce({equal}, false){missing})")
    return " AND ".join(texts), values


def _bounded(name: str, sign: str, value: str, bound: object) -> str:
    # Text is compared with text, times as their ISO text with text, numbers with numbers.
    if isinstance(bound, bool):
        return "false"
    left = _as_text(name) if isinstance(bound, str) else f"n[${name}]"
    return f"coalesce({left} {sign} ${value}, false)"


def _as_text(name: str) -> str:
    times = "DATE | LOCAL DATETIME | ZONED DATETIME"
    return f"CASE WHEN n[${name}] IS :: STRING | {times} THEN toStringOrNull(n[${name}]) END"
