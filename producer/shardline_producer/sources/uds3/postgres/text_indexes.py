"""Which tables a keyword search reads row by row, because they have no full-text index."""

from typing import Any

from shardline_producer.sources.uds3.postgres.schema import VECTOR, PostgresSchema, PostgresTable
from shardline_producer.sources.uds3.postgres.search_configs import setup_sql

# A view is searched with the indexes of the tables below it, which the planner knows better than this query.
_UNINDEXED_QUERY = """
SELECT c.oid::int8 FROM pg_class c
WHERE c.oid = ANY ($1::int8[]::oid[]) AND c.relkind IN ('r', 'p', 'm') AND NOT EXISTS (
  SELECT FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am m ON m.oid = x.relam
  JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
  WHERE i.indrelid = c.oid AND i.indisvalid AND i.indpred IS NULL AND a.attname = $2
    AND m.amname IN ('gin', 'gist', 'rum'))
"""


async def slow_searches(connection: Any, schema: PostgresSchema) -> list[str]:
    """A sentence for each searchable table without a full-text index, with the SQL that makes one."""
    searchable = [table for table in schema.tables if table.searchable]
    rows = await connection.fetch(_UNINDEXED_QUERY, [table.oid for table in searchable], VECTOR)
    slow = {row[0] for row in rows}
    return [
        f"a keyword search reads every row of {table.name}, because the table has no full-text index: "
        f"{_index_sql(table)}"
        for table in searchable
        if table.oid in slow
    ]


def _index_sql(table: PostgresTable) -> str:
    if table.config is not None:
        return f"CREATE INDEX ON {table.quoted} USING gin ({VECTOR})"
    return setup_sql(table)
