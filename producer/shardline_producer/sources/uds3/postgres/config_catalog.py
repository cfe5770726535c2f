"""The text search configurations of the tables, from PostgreSQL's catalogue."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from shardline_common.errors import FailureCode, JobFailed
from shardline_producer.sources.uds3.postgres.options import PostgresOptions
from shardline_producer.sources.uds3.postgres.schema import VECTOR, PostgresTable
from shardline_producer.sources.uds3.postgres.search_configs import (
    SETTING,
    KnownConfigs,
    SearchConfig,
    SqlSource,
    default_config,
    find_config,
)

_log = logging.getLogger(__name__)

_CONFIGS_QUERY = """
SELECT n.nspname, c.cfgname, format('%I.%I', n.nspname, c.cfgname) AS quoted,
       current_setting('default_text_search_config') AS usual
FROM pg_ts_config c JOIN pg_namespace n ON n.oid = c.cfgnamespace
WHERE pg_ts_config_is_visible(c.oid) OR has_schema_privilege(n.oid, 'USAGE')
"""
# A view has the vector of a table below it; a table that inherits has triggers of its own.
_SOURCES_QUERY = """
WITH RECURSIVE used (oid) AS (
  SELECT to_regclass($1)::oid
  UNION
  SELECT next.oid FROM used CROSS JOIN LATERAL (
    SELECT d.refobjid FROM pg_rewrite w
    JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
    WHERE w.ev_class = used.oid AND d.refclassid = 'pg_class'::regclass
    UNION ALL SELECT inhrelid FROM pg_inherits WHERE inhparent = used.oid
  ) next (oid)
), found (rank, place, text, arguments) AS (
  SELECT 0, format('column %s of %s', a.attname, a.attrelid::regclass), pg_get_expr(e.adbin, e.adrelid), ''
  FROM used JOIN pg_attrdef e ON e.adrelid = used.oid
  JOIN pg_attribute a ON a.attrelid = e.adrelid AND a.attnum = e.adnum
  WHERE a.atttypid = 'tsvector'::regtype AND a.attgenerated <> ''
  UNION ALL
  SELECT CASE g.tgenabled WHEN 'D' THEN 4 ELSE 1 END,
         format('trigger %s of %s', g.tgname, g.tgrelid::regclass),
         pg_get_triggerdef(g.oid) || ';' || p.prosrc,
         substring(pg_get_triggerdef(g.oid) FROM 'EXECUTE (?:FUNCTION|PROCEDURE) [^(]*\\((.*)\\)$')
  FROM used JOIN pg_trigger g ON g.tgrelid = used.oid JOIN pg_proc p ON p.oid = g.tgfoid
  WHERE NOT g.tgisinternal
  UNION ALL
  SELECT 2, format('view %s', used.oid::regclass), pg_get_viewdef(used.oid), ''
  FROM used JOIN pg_class c ON c.oid = used.oid WHERE c.relkind IN ('v', 'm')
  UNION ALL
  SELECT 3, format('index %s', i.indexrelid::regclass), pg_get_indexdef(i.indexrelid), ''
  FROM used JOIN pg_index i ON i.indrelid = used.oid WHERE i.indexprs IS NOT NULL AND $2
)
SELECT place, text, coalesce(arguments, '') AS arguments FROM found ORDER BY rank, place
"""
_FUNCTIONS_QUERY = """
SELECT f.proname, f.text FROM (
  SELECT p.oid, p.proname, CASE WHEN p.prokind IN ('f', 'p') THEN pg_get_functiondef(p.oid) END AS text
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
  WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND l.lanname IN ('sql', 'plpgsql')
) f WHERE f.text ~* 'to_tsvector' ORDER BY f.proname, f.oid
"""


class ConfigCatalog:
    """Finds the text search configurations of tables."""

    def __init__(self, connection: Any, options: PostgresOptions) -> None:
        self._connection = connection
        self._options = options

    async def with_configs(self, tables: Sequence[PostgresTable]) -> list[PostgresTable]:
        """The tables, each searchable one with its configuration.

        Raises:
            JobFailed: the configuration that the settings name does not exist.
        """
        searchable = [table for table in tables if table.searchable]
        if not searchable:
            return list(tables)
        rows = await self._connection.fetch(_CONFIGS_QUERY)
        known = KnownConfigs([(row[0], row[1], row[2]) for row in rows], rows[0]["usual"])
        chosen = self._chosen(known)
        functions: Mapping[str, str] = {}
        if chosen is None:
            functions = {row[0]: row[1] for row in await self._connection.fetch(_FUNCTIONS_QUERY)}
        return [
            _with_config(table, chosen or await self._read(table, functions, known))
            if table in searchable
            else table
            for table in tables
        ]

    def _chosen(self, known: KnownConfigs) -> SearchConfig | None:
        wanted = self._options.search_config
        if wanted is None:
            return None
        name = known.find(wanted, self._options.schema)
        if name is None:
            raise JobFailed(
                FailureCode.SOURCE_INVALID,
                f"{self._options.address} has no text search configuration {wanted!r} ({SETTING}); it has "
                f"{', '.join(sorted(one[1] for one in known.configs))}",
                hint=f"set {SETTING} to one of them, with its schema if it is not public",
            )
        return SearchConfig(name, "", SETTING)

    async def _read(
        self, table: PostgresTable, functions: Mapping[str, str], known: KnownConfigs
    ) -> SearchConfig | None:
        # The expression of an index is that of a search without a vector; it does not fill a vector.
        rows = await self._connection.fetch(_SOURCES_QUERY, table.quoted, table.config is None)
        sources = [SqlSource(row["place"], row["text"] or "", row["arguments"]) for row in rows]
        columns = {column.name: column.quoted for column in table.columns}
        return find_config(sources, functions, columns, known, self._options.schema)


def _with_config(table: PostgresTable, config: SearchConfig | None) -> PostgresTable:
    if config is None:
        what = f"assumed, as UDS3 makes the table; {SETTING} sets another"
        if table.config is None:
            what = f"as UDS3, because the table has no {VECTOR}"
        config = SearchConfig(default_config(table.name) if table.config is not None else "german", "", what)
    _log.info(
        "%s is searched with the configuration %s (%s)",
        table.name,
        config.name or config.column,
        config.place,
    )
    return replace(
        table,
        config=None if table.config is None else config.name or table.config,
        search_config=config.name,
        config_column=config.column,
        config_place=config.place,
    )
