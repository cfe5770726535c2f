"""The tables that a database has, from PostgreSQL's catalogue."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import asyncpg

from shardline_common.errors import FailureCode, JobFailed, SourceUnavailable
from shardline_producer.sources.uds3.postgres.config_catalog import ConfigCatalog
from shardline_producer.sources.uds3.postgres.fields import NO_METADATA
from shardline_producer.sources.uds3.postgres.keys import KEY_TYPES, KeyKind, key_kind
from shardline_producer.sources.uds3.postgres.options import PostgresOptions
from shardline_producer.sources.uds3.postgres.relations import Relation, TableState, table_change
from shardline_producer.sources.uds3.postgres.schema import (
    CONTENT,
    KEY,
    KNOWN_TABLES,
    MANY_ROWS,
    VECTOR,
    PostgresColumn,
    PostgresSchema,
    PostgresTable,
    UnfitTable,
    is_bytewise,
    json_type,
    select_tables,
)
from shardline_producer.sources.uds3.postgres.search_configs import default_config
from shardline_producer.sources.uds3.tombstones import TOMBSTONE_FIELDS

_log = logging.getLogger(__name__)
_STORED = ("r", "p")  # tables and partitioned tables

# An index proves nothing while it is built or if building it failed, if it covers a part of the rows, or if
# it is checked only at the end of a transaction. An index of a table does not cover the tables that inherit.
_COLUMNS_QUERY = """
SELECT c.oid::int8 AS oid, c.relname, format('%I.%I', n.nspname, c.relname) AS quoted, a.attname,
       quote_ident(a.attname) AS column, t.typname, t.typcategory::text AS category,
       CASE WHEN t.typname = 'numeric' AND a.atttypmod >= 4
            THEN (((a.atttypmod - 4) & 2047) # 1024) - 1024 END AS scale,
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
               WHERE s.srrelid = c.oid AND s.srsubstate <> 'r') AS syncing,
       CASE WHEN c.relkind IN ('v', 'm') THEN md5(pg_get_viewdef(c.oid)) ELSE '' END AS view
FROM used JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') ORDER BY c.oid
"""
_STATES_QUERY = """
SELECT c.relname, c.oid::int8 AS oid, current_setting('row_security') AS row_security,
       ARRAY (SELECT ARRAY[a.attname::text, t.typname::text]
              FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
              WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relname = ANY ($2::text[]) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
"""


class Catalog:
    """The catalogue of the database, over an open connection."""

    def __init__(self, connection: Any, options: PostgresOptions) -> None:
        self._connection = connection
        self._options = options
        # The states that `verify` accepted last: they are read for each batch of documents.
        self._verified: tuple[PostgresSchema, Sequence[Any]] | None = None

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
        main, *joined = schema.tables
        others = ", ".join(table.quoted for table in joined) or "none"
        _log.info("the documents are the rows of %s; joined by their ids: %s", main.quoted, others)
        counts = await self._rows(schema.tables, MANY_ROWS)
        configured = await ConfigCatalog(self._connection, self._options).with_configs(schema.tables)
        counted = zip(configured, counts, strict=True)
        return replace(
            schema,
            tables=tuple(replace(table, rows=rows) for table, rows in counted),
            relations=await self.relations([table.oid for table in schema.tables]),
            standby=await self._connection.fetchval("SELECT pg_is_in_recovery()"),
            guessed=not chosen,
        )

    async def relations(self, oids: Sequence[int]) -> tuple[Relation, ...]:
        """These relations, and those that reading them reads: partitions, and tables under views."""
        return tuple(Relation(**row) for row in await self._connection.fetch(_RELATIONS_QUERY, list(oids)))

    async def verify(self, schema: PostgresSchema) -> None:
        """Check that the tables are those of the plan, with the same columns, and were not emptied.

        A view is not read to find out whether it is empty, because that may mean to compute all of it.

        Raises:
            JobFailed: they are not (`source_changed`).
            SourceUnavailable: the session is another one, which may hide rows.
        """
        names = [table.name for table in schema.tables if table.oid]
        if not names:
            return
        names = list(dict.fromkeys([*names, *KNOWN_TABLES]))
        rows = await self._connection.fetch(_STATES_QUERY, self._options.schema, names)
        if self._verified is None or self._verified[0] is not schema or self._verified[1] != rows:
            self._check_states(schema, rows)
            self._verified = (schema, rows)
        kinds = {relation.oid: relation.kind for relation in schema.relations}
        stored = [table for table in schema.tables if kinds.get(table.oid) in _STORED]
        filled = [table for table in stored if table.rows >= MANY_ROWS]
        for table, rows in zip(filled, await self._rows(filled, 1), strict=True):
            if not rows:
                raise self.changed(f"table {table.name} was emptied")

    def _check_states(self, schema: PostgresSchema, rows: Sequence[Any]) -> None:
        if any(row["row_security"] != "off" for row in rows):
            raise SourceUnavailable(
                f"{self._options.address} forgot the settings of the session, as a pooler makes it do",
                hint="set pool_mode = session in the pooler, or connect to the server itself",
            )
        planned = {
            table.name: TableState(table.oid, {column.name: column.type for column in table.columns})
            for table in schema.tables
            if table.oid
        }
        # A table below a view is not joined again: the view decides which of its rows and marks count.
        below = {relation.oid for relation in schema.relations}
        found = {
            row["relname"]: TableState(row["oid"], dict(row["columns"]))
            for row in rows
            if row["relname"] in planned or row["oid"] not in below
        }
        if (change := table_change(planned, found, TOMBSTONE_FIELDS)) is not None:
            raise self.changed(change)

    async def _rows(self, tables: Sequence[PostgresTable], most: int) -> list[int]:
        """The number of rows of each table, `most` at most."""
        # Names are quoted by the server.
        rows = [f"SELECT FROM {table.quoted} LIMIT {most}" for table in tables]
        chosen = ", ".join(f"(SELECT count(*) FROM ({each}) r)" for each in rows)  # noqa: S608
        return list(await self._connection.fetchrow(f"SELECT {chosen}")) if chosen else []

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
        problem, hint = self._problem(name, found)
        if key is None or kind is None or problem:
            marks = any(row["attname"] in TOMBSTONE_FIELDS for row in found)
            return UnfitTable(name, found[0]["oid"], problem, hint, hidden=not rows, marks=marks)
        config = None
        if any(row["attname"] == VECTOR and row["typname"] == "tsvector" for row in rows):
            config = default_config(name)
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

    def _problem(self, name: str, found: Sequence[Any]) -> tuple[str, str]:
        """Why a table cannot be used, and what to do; two empty texts if it can."""
        key = next((row for row in found if row["attname"] == KEY), None)
        hidden = [row["attname"] for row in found if not row["readable"]]
        marks = [column for column in hidden if column in TOMBSTONE_FIELDS]
        # Without the column of texts, another store would be asked, and may have an older text.
        needed = [column for column in hidden if column in (KEY, CONTENT)]
        if marks or needed:
            user = self._options.user or "the user"
            hint = f"GRANT SELECT ON {found[0]['quoted']} TO {user}, or name another table in POSTGRES_TABLE"
            if marks:
                return f"{name} ({', '.join(marks)}) marks documents as deleted, and cannot be read", hint
            return f"{', '.join(needed)} cannot be read", hint
        hint = f"set POSTGRES_TABLE to a view of {name} with a column {KEY} of {KEY_TYPES}"
        if key is None:
            return f"it has no column {KEY}", hint
        if key_kind(key["base"], key["base_category"]) is None:
            return f"its column {KEY} is of type {key['typname']}, which is not read as an id", hint
        return "", ""

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


def _column(row: Any, *, is_key: bool) -> PostgresColumn | None:
    # The key is always a column, because its value tells whether a table has a document.
    kind = "string" if is_key else json_type(row["typname"], row["category"], row["base"], row["scale"])
    if kind is None:
        if row["attname"] not in NO_METADATA:
            _log.warning(
                "column %s of table %s is left out, because its type %s is no metadata; a view can cast it",
                row["attname"],
                row["relname"],
                row["typname"],
            )
        return None
    return PostgresColumn(
        row["attname"], row["column"], kind, row["typname"], row["deterministic"], row["base"]
    )
