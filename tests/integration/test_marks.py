"""One rule of marks and ids for PostgreSQL, ChromaDB's and CouchDB's JSON, and Neo4j."""

import math
from contextlib import aclosing
from typing import Any

import pytest

from shardline_common.job.spec import Query
from shardline_producer.sources.uds3.neo4j.options import Neo4jOptions
from shardline_producer.sources.uds3.neo4j.ranker import Neo4jRanker
from shardline_producer.sources.uds3.tombstones import document_id, is_deleted
from tests.databases import Database
from tests.marks_data import EXPECTED, MARKS
from tests.source_items import item_ids
from tests.stores import cypher_async
from tests.uds3_reading import scan_items


@pytest.mark.parametrize(("fields", "marks"), MARKS, ids=[str(fields) for fields, _ in MARKS])
def test_the_rule_over_json(fields: dict[str, Any], marks: bool) -> None:
    assert is_deleted(fields) is marks


def test_the_rule_over_values_that_json_does_not_have() -> None:
    assert not is_deleted({"deleted": math.nan, "deleted_at": math.nan})
    assert not is_deleted({"deleted": [], "deleted_at": {}, "processing_status": ["deleted"]})
    assert is_deleted({"deleted_at": {"$date": "2024-01-01"}})


async def test_the_same_rule_in_neo4j(emptied: Neo4jOptions) -> None:
    nodes = [
        {"id": f"m{number:03d}", "content": "recht"} | fields for number, (fields, _) in enumerate(MARKS)
    ]
    statement = "UNWIND $nodes AS node CREATE (n:Document) SET n = node"
    await cypher_async(emptied, statement, nodes=nodes)
    lists = (
        "CREATE (:Document {id: 'none', content: 'recht', deleted_at: []}), "
        "(:Document {id: 'some', content: 'recht', deleted_at: ['2024']}), "
        "(:Document {id: 'time', content: 'recht', deleted_at: datetime()})"
    )
    await cypher_async(emptied, lists)
    ranker = Neo4jRanker(emptied)
    async with aclosing(ranker.deleted_ids()) as pages:
        assert {one async for page in pages for one in page} == EXPECTED | {"some", "time"}
    everything = {str(node["id"]) for node in nodes} | {"none"}
    async with aclosing(ranker.rank(Query(text="recht"))) as hits:
        assert {hit.id async for page in hits for hit in page} == everything - EXPECTED


async def test_the_same_rule_in_postgresql(database: Database) -> None:
    await database.execute(
        "CREATE TABLE documents (document_id text PRIMARY KEY, content text, deleted text, is_deleted text,"
        " deleted_at text, processing_status text)"
    )
    columns = ("document_id", "content", "deleted", "is_deleted", "deleted_at", "processing_status")
    rows = [
        (
            f"m{number:03d}",
            "law",
            *(None if (value := fields.get(name)) is None else _text(value) for name in columns[2:]),
        )
        for number, (fields, _) in enumerate(MARKS)
    ]
    await database.load("documents", columns, rows)
    found = set(item_ids(await scan_items(database)))
    assert {row[0] for row in rows} - found == EXPECTED


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


COLUMNS: list[tuple[str, str, list[str]]] = [
    ("boolean", "true", ["false", "null"]),
    ("int", "7", ["0", "null"]),
    ("numeric(10,2)", "1", ["0", "'nan'", "null"]),
    ("float8", "0.5", ["0", "-0.0", "'nan'", "'infinity'", "null"]),
    ("timestamptz", "'2024-01-01'", ["'infinity'", "null"]),
    ("date", "'2999-01-01'", ["null"]),
    ("jsonb", "'{\"$date\": 1}'", ["'{}'", "'[]'", "'null'", "'\"\"'", "null"]),
    ("char(8)", "'2024'", ["''", "'0'", "'null'", "null"]),
]


async def test_a_time_of_any_column_type_in_postgresql(database: Database) -> None:
    for type_, marking, others in COLUMNS:
        values = [("gone", marking), *((f"live{number}", value) for number, value in enumerate(others))]
        await database.execute(
            "DROP TABLE IF EXISTS documents",
            f"CREATE TABLE documents (document_id text PRIMARY KEY, content text, deleted_at {type_})",
            *(f"INSERT INTO documents VALUES ('{name}', 'law', {value})" for name, value in values),
        )
        assert item_ids(await scan_items(database)) == [name for name, _ in values[1:]], type_


@pytest.mark.parametrize(
    ("fields", "identity"),
    [
        ({"document_id": "a", "id": "b"}, "a"),
        ({"document_id": "", "id": "b"}, "b"),
        ({"document_id": None, "id": 7}, "7"),
        ({"document_id": False, "id": "b"}, "b"),
        ({"document_id": ["a"], "id": 0}, "0"),
        ({"document_id": 1.5}, "1.5"),
        ({"document_id": "", "id": ""}, None),
        ({}, None),
    ],
)
async def test_the_id_of_a_node_is_its_first_field_that_holds_one(
    fields: dict[str, Any], identity: str | None
) -> None:
    assert document_id(fields) == identity


async def test_the_same_ids_in_neo4j(emptied: Neo4jOptions) -> None:
    nodes: list[dict[str, Any]] = [
        {"document_id": "a", "id": "x"},
        {"document_id": "", "id": "b"},
        {"id": 7},
        {"document_id": False, "id": "c"},
        {"document_id": ["d"], "id": 0},
        {"document_id": 1.5},
        {"document_id": "", "id": ""},
        {},
    ]
    statement = "UNWIND $nodes AS node CREATE (n:Document) SET n = node SET n.content = 'recht'"
    await cypher_async(emptied, statement, nodes=nodes)
    async with aclosing(Neo4jRanker(emptied).rank(Query(text="recht"))) as hits:
        found = [hit.id async for page in hits for hit in page]
    expected = {name for node in nodes if (name := document_id(node)) is not None}
    assert found == sorted(expected) == ["0", "1.5", "7", "a", "b", "c"]
