"""The tables that a database has, from PostgreSQL's catalogue."""

from collections.abc import Sequence
from typing import Any

from shardline_common.errors import FailureCode, JobFailed
from shardline_producer.sources.uds3.postgres.options import PostgresOptions
from shardline_producer.sources.uds3.postgres.schema import (
    KEY,
    KNOWN_TABLES,
    VECTOR,
    PostgresColumn,
    PostgresSchema,
    PostgresTable,
    is_bytewise,
    json_type,
    search_config,
    select_tables,
)
from shardline_producer.sources.uds3.tombstones import TOMBSTONE_FIELDS

_COLUMNS_QUERY = """
SELECT c.oid, c.relname, format('%I.%I', n.nspname, c.relname) AS quoted, a.attname,
       quote_ident(a.attname) AS column, t.typname, t.typcategory::text AS category,
       CASE l.collname WHEN 'default' THEN d.datcollate
                       ELSE coalesce(l.collcollate, l.collname) END AS locale,
       CASE l.collname WHEN 'default' THEN coalesce(to_jsonb(d) ->> 'datlocprovider', 'c')
                       ELSE l.collprovider::text END AS provider,
       has_column_privilege(c.oid, a.attnum, 'SELECT') AS readable,
       EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisunique AND i.indpred IS NULL
               AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum) AS unique
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type t ON t.oid = a.atttypid
JOIN pg_database d ON d.datname = current_database()
LEFT JOIN pg_collation l ON l.oid = a.attcollation
WHERE n.nspname = $1 AND c.relname = ANY ($2) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
  AND has_schema_privilege(n.oid, 'USAGE')
ORDER BY c.relname, a.attnum
"""
_CONFIG_SOURCES_QUERY = """
SELECT pg_get_triggerdef(g.oid) || ' ' || p.prosrc FROM pg_trigger g JOIN pg_proc p ON p.oid = g.tgfoid
WHERE g.tgrelid = $1 AND NOT g.tgisinternal
UNION ALL SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = $1
UNION ALL SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = $1
"""


class Catalog:
    """The catalogue of the database, over an open connection."""

    def __init__(self, connection: Any, options: PostgresOptions) -> None:
        self._connection = connection
        self._options = options

    async def schema(self) -> PostgresSchema:
        """Read the tables in use from the catalogue.

        Raises:
            JobFailed: there is no usable table, or the user cannot read a column that marks documents as
                deleted.
        """
        names = list(dict.fromkeys([*KNOWN_TABLES, *([self._options.table] if self._options.table else [])]))
        rows = await self._connection.fetch(_COLUMNS_QUERY, self._options.schema, names)
        tables = {}
        for name in dict.fromkeys(row["relname"] for row in rows):
            table = await self._table(name, [row for row in rows if row["relname"] == name])
            if table is not None:
                tables[name] = table
        address = f"{self._options.address}, schema {self._options.schema},"
        return select_tables(tables, self._options.table, address)

    async def _table(self, name: str, found: Sequence[Any]) -> PostgresTable | None:
        """A table from the catalogue's rows of its columns; None if it has no readable text column of ids."""
        rows = [row for row in found if row["readable"]]
        key = next(
            (row for row in rows if row["attname"] == KEY and row["typname"] in ("text", "varchar")), None
        )
        tombstones = [row for row in found if row["attname"] in TOMBSTONE_FIELDS]
        hidden = [row["attname"] for row in tombstones if not row["readable"]]
        if hidden or (tombstones and key is None):
            what = f"{name} ({', '.join(hidden or [KEY])})"
            raise JobFailed(
                FailureCode.SOURCE_INVALID,
                f"{self._options.address}: {what} marks documents as deleted, and cannot be read",
                hint=f"GRANT SELECT on {what} to the user; {KEY} must be text",
            )
        if key is None:
            return None
        config = None
        if any(row["attname"] == VECTOR and row["typname"] == "tsvector" for row in rows):
            sources = await self._connection.fetch(_CONFIG_SOURCES_QUERY, key["oid"])
            config = search_config(name, [row[0] for row in sources if row[0]])
        columns = [
            PostgresColumn(row["attname"], row["column"], kind, row["typname"])
            for row in rows
            if (kind := json_type(row["typname"], row["category"])) is not None
        ]
        bytewise = key["provider"] == "c" and is_bytewise(key["locale"])
        return PostgresTable(
            name, key["quoted"], key["column"], key["unique"], bytewise, config, tuple(columns)
        )
