"""The tables that a database has, from PostgreSQL's catalogue."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import asyncpg

from shardline_common.errors import FailureCode, JobFailed
from shardline_producer.sources.uds3.postgres.keys import KEY_TYPES, KeyKind, key_kind
from shardline_producer.sources.uds3.postgres.options import PostgresOptions
from shardline_producer.sources.uds3.postgres.relations import Relation, TableState, table_change
from shardline_producer.sources.uds3.postgres.schema import (
    KEY,
    KNOWN_TABLES,
    VECTOR,
    PostgresColumn,
    PostgresSchema,
    PostgresTable,
    UnfitTable,
    is_bytewise,
    json_type,
    search_config,
    select_tables,
)
from shardline_producer.sources.uds3.tombstones import TOMBSTONE_FIELDS

_log = logging.getLogger(__name__)

# An index proves nothing while it is built or if building it failed, if it covers a part of the rows, or if
# it is checked only at the end of a transaction. An index of a table does not cover the tables that inherit.
_COLUMNS_QUERY = """
SELECT c.oid::int8 AS oid, c.relname, format('%I.%I', n.nspname, c.relname) AS quoted, a.attname,
       quote_ident(a.attname) AS column, t.typname, t.typcategory::text AS category,
       b.typname AS base, b.typcategory::text AS base_category,
       format('%I.%I', bn.nspname, b.typname) AS base_quoted, quote_ident(bn.nspname) AS base_schema,
       CASE l.collname WHEN 'default' THEN d.datcollate
                       ELSE coalesce(l.collcollate, l.collname) END AS locale,
       CASE l.collname WHEN 'default' THEN coalesce(to_jsonb(d) ->> 'datlocprovider', 'c')
                       ELSE l.collprovider::text END AS provider,
       CASE WHEN l.oid IS NULL THEN '' ELSE format('%I.%I', ln.nspname, l.collname) END AS collation,
       coalesce(l.collisdeterministic, TRUE) AS deterministic,
       has_column_privilege(c.oid, a.attnum, 'SELECT') AS readable,
       (c.relkind = 'p' OR NOT EXISTS (SELECT FROM pg_inherits h WHERE h.inhparent = c.oid)) AND
       EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid
               AND i.indisready AND i.indislive AND i.indimmediate AND i.indpred IS NULL
               AND i.indexprs IS NULL AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum) AS unique
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type t ON t.oid = a.atttypid
CROSS JOIN LATERAL (
  WITH RECURSIVE domains (oid, base) AS (
    SELECT t.oid, t.typbasetype
    UNION ALL SELECT y.oid, y.typbasetype FROM domains JOIN pg_type y ON y.oid = domains.base
  ) SELECT oid FROM domains WHERE base = 0) last
JOIN pg_type b ON b.oid = last.oid
JOIN pg_namespace bn ON bn.oid = b.typnamespace
JOIN pg_database d ON d.datname = current_database()
LEFT JOIN pg_collation l ON l.oid = a.attcollation
LEFT JOIN pg_namespace ln ON ln.oid = l.collnamespace
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
_RELATIONS_QUERY = """
WITH RECURSIVE used (oid) AS (
  SELECT unnest($1::int8[])::oid
  UNION
  SELECT next.oid FROM used JOIN pg_class u ON u.oid = used.oid CROSS JOIN LATERAL (
    SELECT d.refobjid FROM pg_rewrite w
    JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
    WHERE w.ev_class = u.oid AND u.relkind = 'v' AND d.refclassid = 'pg_class'::regclass
    UNION ALL SELECT inhrelid FROM pg_inherits WHERE inhparent = u.oid
  ) next (oid)
)
SELECT c.oid::int8 AS oid, format('%I.%I', n.nspname, c.relname) AS name, c.relkind::text AS kind,
       coalesce(pg_relation_filenode(c.oid), 0)::int8 AS file, c.relrowsecurity AS policies,
       EXISTS (SELECT FROM pg_rewrite w
               JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
               JOIN pg_proc p ON d.refclassid = 'pg_proc'::regclass AND p.oid = d.refobjid
               WHERE w.ev_class = c.oid AND p.proretset) AS calls,
       EXISTS (SELECT FROM pg_subscription_rel s
               WHERE s.srrelid = c.oid AND s.srsubstate <> 'r') AS syncing
FROM used JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') ORDER BY c.oid
"""
_STATES_QUERY = """
SELECT c.relname, c.oid::int8 AS oid,
       ARRAY (SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid
              AND a.attname = ANY ($3::text[]) AND a.attnum > 0 AND NOT a.attisdropped) AS marks
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relname = ANY ($2::text[]) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
"""


class Catalog:
    """The catalogue of the database, over an open connection."""

    def __init__(self, connection: Any, options: PostgresOptions) -> None:
        self._connection = connection
        self._options = options

    async def schema(self) -> PostgresSchema:
        """Read the tables in use.

        Raises:
            JobFailed: a table is missing, or is there and cannot be used; rows of it are hidden; or the user
                cannot read a column that marks documents as deleted.
        """
        chosen = self._options.table
        names = list(dict.fromkeys([*KNOWN_TABLES, *([chosen] if chosen else [])]))
        rows = await self._connection.fetch(_COLUMNS_QUERY, self._options.schema, names)
        tables: dict[str, PostgresTable] = {}
        unfit: dict[str, UnfitTable] = {}
        for name in dict.fromkeys(row["relname"] for row in rows):
            table = await self._table(name, [row for row in rows if row["relname"] == name])
            if isinstance(table, UnfitTable):
                unfit[name] = table
            else:
                tables[name] = table
        below = await self.relations([tables[chosen].oid]) if chosen in tables else ()
        address = f"{self._options.address}, schema {self._options.schema},"
        schema = select_tables(tables, chosen, address, unfit, {relation.oid for relation in below})
        for table in unfit.values():
            _log.warning("table %s is left out: %s", table.name, table.problem)
        if any(one.policies for one in await self.relations([table.oid for table in schema.tables])):
            schema = await self._without_hidden(schema)
        return replace(
            schema,
            relations=await self.relations([table.oid for table in schema.tables]),
            standby=await self._connection.fetchval("SELECT pg_is_in_recovery()"),
        )

    async def relations(self, oids: Sequence[int]) -> tuple[Relation, ...]:
        """These relations, and those that reading them reads: partitions, and tables under views."""
        return tuple(Relation(**row) for row in await self._connection.fetch(_RELATIONS_QUERY, list(oids)))

    async def verify(self, schema: PostgresSchema) -> None:
        """Check that the tables are those of the plan, with the same columns that mark deleted documents.

        Raises:
            JobFailed: they are not (`source_changed`).
        """
        planned = {
            table.name: TableState(table.oid, _marks(column.name for column in table.columns))
            for table in schema.tables
            if table.oid
        }
        if not planned:
            return
        names = list(dict.fromkeys([*planned, *KNOWN_TABLES]))
        rows = await self._connection.fetch(
            _STATES_QUERY, self._options.schema, names, list(TOMBSTONE_FIELDS)
        )
        # A table below a view is not joined again: the view decides which of its rows and marks count.
        below = {relation.oid for relation in schema.relations}
        found = {
            row["relname"]: TableState(row["oid"], frozenset(row["marks"]))
            for row in rows
            if row["relname"] in planned or row["oid"] not in below
        }
        if (change := table_change(planned, found)) is not None:
            raise self.changed(change)

    def changed(self, change: str) -> JobFailed:
        """The error of a table that is no longer that of the plan."""
        return JobFailed(
            FailureCode.SOURCE_CHANGED,
            f"{self._options.address}: {change} since planning",
            hint="submit a new job, which reads the tables as they are now",
        )

    async def _table(self, name: str, found: Sequence[Any]) -> PostgresTable | UnfitTable:
        """A table from the catalogue's rows of its columns."""
        rows = [row for row in found if row["readable"]]
        key = next((row for row in found if row["attname"] == KEY), None)
        kind = key_kind(key["base"], key["base_category"]) if key is not None else None
        marks = [row["attname"] for row in found if row["attname"] in TOMBSTONE_FIELDS]
        hidden = [row["attname"] for row in found if row["attname"] in marks and not row["readable"]]
        user = self._options.user or "the user"
        problem, hint = "", f"set POSTGRES_TABLE to a view of {name} with a column {KEY} of {KEY_TYPES}"
        if hidden or (key is not None and not key["readable"]):
            columns = ", ".join(hidden or [KEY])
            problem = f"{columns} cannot be read"
            hint = f"GRANT SELECT ON {found[0]['quoted']} TO {user}, or name another table in POSTGRES_TABLE"
            if marks:
                problem = f"{name} ({columns}) marks documents as deleted, and cannot be read"
        elif key is None:
            problem = f"it has no column {KEY}"
        elif kind is None:
            problem = f"its column {KEY} is of type {key['typname']}, which is not read as an id"
        if key is None or kind is None or problem:
            return UnfitTable(name, found[0]["oid"], problem, hint, hidden=not rows, marks=bool(marks))
        config = None
        if any(row["attname"] == VECTOR and row["typname"] == "tsvector" for row in rows):
            sources = await self._connection.fetch(_CONFIG_SOURCES_QUERY, key["oid"])
            config = search_config(name, [row[0] for row in sources if row[0]])
        bytewise = key["provider"] == "c" and is_bytewise(key["locale"])
        return PostgresTable(
            name,
            key["quoted"],
            key["column"],
            key["unique"],
            (bytewise and kind == KeyKind.TEXT) or kind == KeyKind.UUID,
            config,
            tuple(column for row in rows if (column := _column(row, is_key=row is key)) is not None),
            oid=key["oid"],
            key_kind=kind,
            key_type=key["base_quoted"],
            key_schema=key["base_schema"],
            collation=key["collation"],
            deterministic=key["deterministic"],
        )

    async def _without_hidden(self, schema: PostgresSchema) -> PostgresSchema:
        """The schema without tables whose rows a policy hides from this user and the main view does not.

        With the setting row_security = off a query that a policy would change is an error, also in EXPLAIN.

        Raises:
            JobFailed: a policy hides rows of another table.
        """
        below_main = {relation.oid for relation in await self.relations([schema.tables[0].oid])}
        seen = []
        for table in schema.tables:
            try:
                query = f"EXPLAIN SELECT {table.key} FROM {table.quoted}"  # noqa: S608 - quoted by the server
                await self._connection.execute(query)
                seen.append(table)
            except asyncpg.InsufficientPrivilegeError as error:
                problem = f"a policy of row-level security may hide rows of {table.name}"
                if seen and table.oid in below_main:
                    _log.warning("table %s is left out: %s", table.name, problem)
                    continue
                user = self._options.user or "the user"
                raise JobFailed(
                    FailureCode.SOURCE_INVALID,
                    f"{self._options.address}: {problem} from {user}: {error}",
                    hint=f"ALTER ROLE {user} BYPASSRLS; or set POSTGRES_TABLE to a view of the rows that are "
                    "wanted, whose owner may read all of them",
                ) from None
        return replace(schema, tables=tuple(seen))


def _marks(names: Iterable[str]) -> frozenset[str]:
    return frozenset(names) & frozenset(TOMBSTONE_FIELDS)


def _column(row: Any, *, is_key: bool) -> PostgresColumn | None:
    # The key is always a column, because its value tells whether a table has a document.
    kind = "string" if is_key else json_type(row["typname"], row["category"])
    if kind is None:
        return None
    return PostgresColumn(row["attname"], row["column"], kind, row["typname"], row["deterministic"])
