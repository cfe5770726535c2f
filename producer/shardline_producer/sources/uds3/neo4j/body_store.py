"""Bodies from Neo4j's nodes, for documents whose text is in no other store."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import orjson

from shardline_common.job.spec import SearchType
from shardline_producer.sources.documents import DeadLetterReason
from shardline_producer.sources.uds3.body_limit import limited
from shardline_producer.sources.uds3.neo4j.cypher import texts
from shardline_producer.sources.uds3.neo4j.options import Neo4jOptions
from shardline_producer.sources.uds3.neo4j.ranker import open_graph
from shardline_producer.sources.uds3.store_ports import DELETED_BODY, BodyRequest, DocumentBody, InvalidBody
from shardline_producer.sources.uds3.tombstones import deleted_statuses, id_text

_IDS = ("document_id", "id")


class Neo4jBodyStore:
    """Implements `BodyStore`: the text of a node is its property `content`.

    Of several nodes with one id the first text in byte order is taken, so that the choice does not depend on
    the order in which the database returns them.
    """

    search: SearchType = "graph"

    def __init__(self, options: Neo4jOptions) -> None:
        self._options = options
        self._statuses = deleted_statuses(include_archived=options.include_archived)

    async def bodies(
        self, requests: Sequence[BodyRequest], max_bytes: int
    ) -> dict[str, DocumentBody | InvalidBody]:
        """The bodies of the documents that have a node with a text, or one that is marked deleted."""
        ids = [request.id for request in requests]
        statement = texts(ids, [*ids, *_numbers(ids)], max_bytes, self._statuses)
        nodes: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        async with open_graph(self._options) as graph:
            for row in await graph.rows(statement):
                nodes[row["id"]].append(row)
        return {
            identity: body
            for identity, rows in nodes.items()
            if (body := _body(identity, rows, max_bytes)) is not None
        }

    async def check(self) -> str:
        """Test whether nodes can be read."""
        await self.bodies([], 1)
        return f"{self._options.address} can be read for bodies"


def _numbers(ids: Sequence[str]) -> list[float]:
    """The numbers whose text is one of the ids: a node may hold its id as a number."""
    found: list[float] = []
    for identity in ids:
        for kind in (int, float):
            # ValueError also for more digits than Python parses; Neo4j's integers have 64 bits.
            with suppress(ValueError, OverflowError):
                number = kind(identity)
                if id_text(number) == identity and abs(number) < 1 << 63:
                    found.append(number)
    return found


def _body(
    identity: str, rows: Sequence[Mapping[str, Any]], max_bytes: int
) -> DocumentBody | InvalidBody | None:
    if any(row["deleted"] for row in rows):
        return DELETED_BODY
    known = [row for row in rows if row["content"] is not None]
    if not known:
        return None
    found = [
        (row["content"], _metadata(identity, row["fields"], dict(row["times"])))
        for row in known
        if type(row["content"]) is str
    ]
    if not found:
        return InvalidBody(DeadLetterReason.CONTENT_NOT_TEXT)
    content, metadata = min(
        found,
        key=lambda one: (one[0].encode(errors="replace"), orjson.dumps(one[1], option=orjson.OPT_SORT_KEYS)),
    )
    text = limited(content, max_bytes)
    return text if isinstance(text, InvalidBody) else DocumentBody(text, metadata)


def _metadata(identity: str, fields: Mapping[str, Any], times: Mapping[str, Any]) -> dict[str, Any]:
    """The properties of a node as JSON values, without its text and its id.

    `times`: the texts of days and times, for those that the driver does not have.
    """
    return {
        name: _plain(value, times.get(name))
        for name, value in fields.items()
        if value is not None and not (name in _IDS and id_text(value) == identity)
    }


def _plain(value: Any, time: Any = None) -> Any:
    """A property as a JSON value: times as ISO 8601, points as their coordinates, bytes as null.

    NaN and the infinities, which JSON does not have, are text. `time`: the text of a day or time, or the
    texts of a list of them.
    """
    if isinstance(value, list | tuple):
        times = time if isinstance(time, list) else [None] * len(value)
        return [_plain(one, text) for one, text in zip(value, times, strict=True)]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if value is None or isinstance(value, str | int | float):
        return value
    return str(value.iso_format()) if hasattr(value, "iso_format") else time
