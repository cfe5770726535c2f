"""The Cypher of the graph search. Pure. Values and property names are parameters, never part of the text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shardline_common.job.spec import Range
from shardline_producer.sources.query_filters import (
    DATE_PATTERN,
    DAY_LENGTH,
    is_day,
    is_moment,
    microseconds,
)
from shardline_producer.sources.uds3.tombstones import (
    FLAG_PATTERN,
    NO_TIME_PATTERN,
    NO_VALUE_PATTERN,
    status_pattern,
)

_DATES = {"date": DATE_PATTERN, "zoned": ".*(Z|[+-][0-9]{2}:[0-9]{2})"}
_EDGES = "RELATED_TO|CITES|SUPERSEDES"

# Neo4j counts characters in 32 bits.
_MOST_CHARACTERS = (1 << 31) - 1


def _id_in(name: str) -> str:
    # As `tombstones.id_text`: without `NOT NULL`, a missing property would be of every type.
    value = f"n.{name}"
    return f"WHEN {value} IS :: STRING | INTEGER | FLOAT AND toString({value}) <> '' THEN toString({value})"


_ID = f"CASE {_id_in('document_id')} {_id_in('id')} END"
_LIVE = (
    "NOT coalesce(toStringOrNull(n.deleted), '') =~ $flag "
    "AND NOT coalesce(toStringOrNull(n.is_deleted), '') =~ $flag "
    # A list has no text. One that is not empty holds a time.
    "AND CASE WHEN n.deleted_at IS :: LIST<ANY> NOT NULL THEN size(n.deleted_at) = 0 "
    "ELSE coalesce(toStringOrNull(n.deleted_at), '') =~ $no_time END "
    "AND NOT coalesce(toStringOrNull(n.processing_status), '') =~ $status "
    "AND ($archived OR CASE WHEN coalesce(toStringOrNull(n.archived), '') =~ $no_value "
    "THEN coalesce(toStringOrNull(n.archived_at), '') =~ $no_time "
    "ELSE NOT coalesce(toStringOrNull(n.archived), '') =~ $flag END)"
)


_TIME = "DATE NOT NULL | LOCAL DATETIME NOT NULL | ZONED DATETIME NOT NULL"
_TIMES = (
    f"[key IN keys(n) WHERE key <> 'content' AND n[key] IS :: {_TIME} | [key, toString(n[key])]] + "
    # A list of properties has values of one type.
    "[key IN keys(n) WHERE key <> 'content' AND n[key] IS :: LIST<ANY> NOT NULL "
    f"AND n[key][0] IS :: {_TIME} | [key, [time IN n[key] | toString(time)]]]"
)


@dataclass(frozen=True, slots=True)
class CypherStatement:
    """A statement and its parameters."""

    text: str
    parameters: Mapping[str, Any]


_CONTAINS = (
    "(toLower(toStringOrNull(n.content)) CONTAINS toLower($words) "
    "OR toLower(toStringOrNull(n.name)) CONTAINS toLower($words))"
)
_FOUND = "CALL db.index.fulltext.queryNodes($index, $words) YIELD node AS n, score"


def by_index(index: str, words: str, filters: Mapping[str, Any], statuses: Sequence[str]) -> CypherStatement:
    """Documents that a full-text index finds: rows (id, score, nodes), the best score first, ties by id."""
    passes, values = _conditions(filters)
    return CypherStatement(
        f"{_FOUND} WITH n, score WHERE n:Document AND {_LIVE} AND {passes} "
        f"WITH {_ID} AS id, max(score) AS score, collect(elementId(n)) AS nodes WHERE id IS NOT NULL "
        "RETURN id, score, nodes ORDER BY score DESC, id",
        {"index": index, "words": words, **_live_values(statuses), **values},
    )


def by_content(text: str, filters: Mapping[str, Any], statuses: Sequence[str]) -> CypherStatement:
    """Documents whose content or name contains the text, in any case: rows (id, score 1.0, nodes) by id."""
    passes, values = _conditions(filters)
    return CypherStatement(
        f"MATCH (n:Document) WHERE {_LIVE} AND {passes} AND {_CONTAINS} "
        f"WITH {_ID} AS id, collect(elementId(n)) AS nodes WHERE id IS NOT NULL "
        "RETURN id, 1.0 AS score, nodes ORDER BY id",
        {"words": text, **_live_values(statuses), **values},
    )


def left_out(
    index: str | None, words: str, filters: Mapping[str, Any], statuses: Sequence[str]
) -> CypherStatement:
    """The hits that are marked deleted, and those without an id: rows (id), which is null for the latter.

    `index`: the full-text index that finds hits; None: hits contain the words.
    """
    passes, values = _conditions(filters)
    matched = f"{_FOUND} WITH n WHERE n:Document" if index else f"MATCH (n:Document) WHERE {_CONTAINS}"
    return CypherStatement(
        f"{matched} AND {passes} WITH {_ID} AS id, NOT ({_LIVE}) AS deleted WHERE deleted OR id IS NULL "
        "RETURN id",
        {"index": index, "words": words, **_live_values(statuses), **values},
    )


def neighbours(nodes: Sequence[str], filters: Mapping[str, Any], statuses: Sequence[str]) -> CypherStatement:
    """The documents one edge away, in either direction: rows (node, id, is_hit).

    `is_hit`: it passes the filters.
    """
    passes, values = _conditions(filters)
    return CypherStatement(
        f"MATCH (m)-[:{_EDGES}]-(n:Document) WHERE elementId(m) IN $nodes AND {_LIVE} "
        f"WITH DISTINCT elementId(n) AS node, {_ID} AS id, {passes} AS passes WHERE id IS NOT NULL "
        "RETURN node, id, coalesce(passes, false) AS is_hit",
        {"nodes": list(nodes), **_live_values(statuses), **values},
    )


def deleted(statuses: Sequence[str]) -> CypherStatement:
    """All documents that are marked deleted: rows (id)."""
    return CypherStatement(
        f"MATCH (n:Document) WHERE NOT ({_LIVE}) WITH {_ID} AS id WHERE id IS NOT NULL RETURN id",
        _live_values(statuses),
    )


def texts(
    ids: Sequence[str], values: Sequence[float | str], max_characters: int, statuses: Sequence[str]
) -> CypherStatement:
    """The nodes of documents: rows (id, deleted, content, fields, times).

    `values`: the ids as properties may hold them, so that an index on them helps. `content`: a text of more
    than `max_characters` characters is cut behind them; false if it is no text. `fields`: the other
    properties. `times`: pairs of a property that holds days or times, and their texts: the driver has none
    outside of the years 1 to 9999.
    """
    return CypherStatement(
        "MATCH (n:Document) WHERE n.document_id IN $values OR n.id IN $values "
        f"WITH n, {_ID} AS id WHERE id IN $ids "
        f"RETURN id, NOT ({_LIVE}) AS deleted, CASE WHEN n.content IS :: STRING NOT NULL "
        "THEN left(n.content, $most) WHEN n.content IS NOT NULL THEN false END AS content, "
        f"n {{.*, content: null}} AS fields, {_TIMES} AS times",
        {
            "ids": list(ids),
            "values": list(values),
            "most": min(max_characters + 1, _MOST_CHARACTERS),
            **_live_values(statuses),
        },
    )


def _live_values(statuses: Sequence[str]) -> dict[str, Any]:
    return {
        "flag": f"(?i){FLAG_PATTERN}",
        "no_time": f"(?i){NO_TIME_PATTERN}",
        "status": f"(?i){status_pattern(statuses)}",
        "no_value": f"(?i){NO_VALUE_PATTERN}",
        "archived": "archived" not in statuses,
    }


def _conditions(filters: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The filters as one condition on n, and its parameters."""
    texts, values = ["true"], dict[str, Any]()
    for number, (field, wanted) in enumerate(filters.items()):
        name, value = f"field{number}", f"value{number}"
        values[name] = field
        if isinstance(wanted, Range):
            for sign, bound, end in ((">=", wanted.gte, "low"), ("<=", wanted.lte, "high")):
                if bound is not None:
                    texts.append(_bound_condition(name, sign, value + end, bound))
                    values[value + end] = bound
                    if isinstance(bound, str) and is_moment(bound):
                        values |= {value + end + "moment": microseconds(bound), **_DATES}
            continue
        options = wanted if isinstance(wanted, list) else [wanted]
        values[value] = [option for option in options if option is not None]
        equal = f"n[${name}] IN ${value} OR {_as_text(name)} IN ${value}"
        missing = f" OR n[${name}] IS NULL" if None in options else ""
        texts.append(f"(coalesce({equal}, false){missing})")
    return " AND ".join(texts), values


def _bound_condition(name: str, sign: str, value: str, bound: object) -> str:
    # A text bound compares with texts and with the ISO text of times, a number with numbers.
    if isinstance(bound, bool):
        return "false"
    if not isinstance(bound, str):
        return f"coalesce(n[${name}] {sign} ${value}, false)"
    text = _as_text(name)
    compared = f"{text} {sign} ${value}"
    if is_moment(bound):
        moment = f"{_microseconds(text)} {sign} ${value}moment"
        compared = f"CASE WHEN {text} =~ $date THEN {moment} ELSE {compared} END"
    elif sign == "<=" and is_day(bound):
        compared = f"left({text}, {DAY_LENGTH}) {sign} ${value}"
    return f"coalesce({compared}, false)"


def _microseconds(text: str) -> str:
    # Two times of one moment in two zones are not equal in Cypher, their numbers are.
    iso = f"replace({text}, ' ', 'T')"
    time = (
        f"datetime(CASE WHEN size({text}) = {DAY_LENGTH} THEN {text} + 'T00:00Z' "
        f"WHEN {text} =~ $zoned THEN {iso} ELSE {iso} + 'Z' END)"
    )
    return f"({time}.epochSeconds * 1000000 + {time}.microsecond)"


def _as_text(name: str) -> str:
    times = "DATE | LOCAL DATETIME | ZONED DATETIME"
    return f"CASE WHEN n[${name}] IS :: STRING | {times} THEN toStringOrNull(n[${name}]) END"
