"""Which tables a keyword search reads by a full-text index, and which row by row."""

from collections.abc import Sequence
from typing import Any

from shardline_producer.sources.uds3.postgres.schema import VECTOR, PostgresSchema, PostgresTable
from shardline_producer.sources.uds3.postgres.search_configs import setup_sql

# A view is searched with the indexes of the tables below it, which the planner knows better than this query.
_INDEXES_QUERY = """
SELECT c.oid::int8 AS oid, ARRAY (
  SELECT m.amname::text FROM pg_index i
  JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am m ON m.oid = x.relam
  JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
  WHERE i.indrelid = c.oid AND i.indisvalid AND i.indpred IS NULL AND a.attname = $2
    AND m.amname IN ('gin', 'gist', 'rum')) AS methods
FROM pg_class c WHERE c.oid = ANY ($1::int8[]::oid[]) AND c.relkind IN ('r', 'p', 'm')
"""
# The indexes that know which rows have all words, without reading the rows.
_EXACT = ("gin", "rum")


async def slow_searches(connection: Any, schema: PostgresSchema) -> list[str]:
    """A sentence for each searchable table without a full-text index, with the SQL that makes one."""
    searchable = [table for table in schema.tables if table.searchable]
    methods = await _methods(connection, searchable)
    slow = {oid for oid, found in methods.items() if not found}
    return [
        f"a keyword search reads every row of {table.name}, because the table has no full-text index: "
        f"{_index_sql(table)}"
        for table in searchable
        if table.oid in slow
    ]


async def have_exact_indexes(connection: Any, tables: Sequence[PostgresTable]) -> bool:
    """Whether each of the tables has an index that knows which rows have all words."""
    methods = await _methods(connection, tables)
    return all(set(_EXACT) & set(methods.get(table.oid, ())) for table in tables)


async def _methods(connection: Any, tables: Sequence[PostgresTable]) -> dict[int, list[str]]:
    rows = await connection.fetch(_INDEXES_QUERY, [table.oid for table in tables], VECTOR)
    return {row["oid"]: row["methods"] for row in rows}


def _index_sql(table: PostgresTable) -> str:
    if table.config is not None:
        return f"CREATE INDEX ON {table.quoted} USING gin ({VECTOR})"
    return setup_sql(table)
