"""Neo4j: a node with a value that the driver or JSON cannot hold spoils no other node, and loses nothing."""

from collections.abc import Mapping
from typing import Any

from shardline_common.job.columns import infer
from shardline_producer.rows import RowRenderer
from shardline_producer.sources.documents import DeadLetterReason
from shardline_producer.sources.source import Document
from shardline_producer.sources.uds3.neo4j.body_store import Neo4jBodyStore
from shardline_producer.sources.uds3.neo4j.options import Neo4jOptions
from shardline_producer.sources.uds3.store_ports import BodyRequest, DocumentBody, InvalidBody
from tests.make import job
from tests.stores import cypher_async

# By Cypher, what a row shows.
VALUES: Mapping[str, Any] = {
    "date('-0044-03-15')": "-0044-03-15",
    "date('+999999-12-31')": "+999999-12-31",
    "localdatetime('+10000-01-01T00:00')": "+10000-01-01T00:00:00",
    "datetime('-0044-03-15T12:00Z')": "-0044-03-15T12:00:00Z",
    "datetime('+20000-01-01T00:00[Europe/Berlin]')": "+20000-01-01T00:00:00+01:00[Europe/Berlin]",
    "[date('2020-01-02'), date('+20000-01-01')]": ["2020-01-02", "+20000-01-01"],
    "date('9999-12-31')": "9999-12-31",
    "date('0001-01-01')": "0001-01-01",
    "datetime('2020-01-02T12:00:00.5Z')": "2020-01-02T12:00:00.500000000+00:00",
    "time('12:00+18:00')": "12:00:00.000000000+18:00",
    "duration('P1DT-1S')": [0, 1, -1, 0],
    "0.0/0.0": "NaN",
    "1.0/0.0": "Infinity",
    "-1.0/0.0": "-Infinity",
    "[0.5, 0.0/0.0]": [0.5, "NaN"],
    "9223372036854775807": 9223372036854775807,
    "1.7976931348623157e308": 1.7976931348623157e308,
    "point({x: 1.5, y: 2})": [1.5, 2.0],
    "'a' + $zero": "a\0",
    "[]": [],
}
NO_TEXTS = ("date('+20000-01-01')", "0.0/0.0", "['x']", "point({x: 1.5, y: 2})", "7")


async def test_values_that_the_driver_or_json_cannot_hold_are_shown_as_text(emptied: Neo4jOptions) -> None:
    nodes = [f"id: 'd{n}', content: 'x', odd: {value}, near: {n}" for n, value in enumerate(VALUES)]
    nodes += [f"id: 'n{n}', content: {value}" for n, value in enumerate(NO_TEXTS)]
    await cypher_async(emptied, f"CREATE {', '.join(f'(:Document {{{node}}})' for node in nodes)}", zero="\0")
    names = [*(f"d{number}" for number in range(len(VALUES))), *(f"n{n}" for n in range(len(NO_TEXTS)))]
    found = await Neo4jBodyStore(emptied).bodies([BodyRequest(name) for name in names], 100)
    assert list(found) == sorted(found, key=names.index)
    assert len(found) == len(names)
    for number, shown in enumerate(VALUES.values()):
        body = found[f"d{number}"]
        assert body == DocumentBody("x", {"odd": shown, "near": number})
        document = Document("d", body.text, dict(body.metadata))
        assert RowRenderer(job(), infer([document])).render(document).head
    no_texts = [found[f"n{number}"] for number in range(len(NO_TEXTS))]
    assert no_texts == [InvalidBody(DeadLetterReason.CONTENT_NOT_TEXT)] * len(NO_TEXTS)
