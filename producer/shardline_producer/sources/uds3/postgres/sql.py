"""SQL over UDS3's tables. Pure. Values are parameters, names are quoted by the server."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from shardline_common.job.messages import MAX_ORIGINAL_BYTES
from shardline_producer.sources.uds3.postgres.conditions import condition
from shardline_producer.sources.uds3.postgres.fields import (
    FieldExpression,
    ValueExpression,
    alias,
    metadata_fields,
)
from shardline_producer.sources.uds3.postgres.keys import (
    KeyKind,
    has_id,
    id_bytes,
    id_cast,
    id_text,
    listed_id,
)
from shardline_producer.sources.uds3.postgres.row_fields import RowFields
from shardline_producer.sources.uds3.postgres.schema import (
    CONTENT,
    KEY,
    REFS,
    SCORE,
    VECTOR,
    PostgresSchema,
    PostgresTable,
)
from shardline_producer.sources.uds3.postgres.search_configs import COMPUTED
from shardline_producer.sources.uds3.postgres.statement import SqlStatement
from shardline_producer.sources.uds3.postgres.tombstone_sql import is_deleted

_NO_ID = "NULL::text"


@dataclass(frozen=True, slots=True)
class DocumentSelection:
    """Which documents are read: those that are not deleted and pass the filters."""

    schema: PostgresSchema
    filters: Mapping[str, Any]
    include_archived: bool = False

    def known_fields(self) -> dict[str, FieldExpression]:
        """The fields that filters may name."""
        main, tables = self.schema.tables[0], frozenset({0})
        plain = main.key_kind != KeyKind.TEXT or main.deterministic
        key = ValueExpression(id_text(main, "t0"), "string", "text", plain, tables)
        found = {KEY: FieldExpression(KEY, (key,))} | metadata_fields(self.schema)
        score = found.get(SCORE)
        if score is not None and score.kind in ("int", "float"):
            # A document without a score has the relevance 0, and passes filters with it.
            none = ValueExpression("0::float8", "float", "float8", True, frozenset())
            found[SCORE] = replace(score, values=(*score.values, none))
        return found


def page(selection: DocumentSelection, after: str | None, limit: int) -> SqlStatement:
    """The next ids in byte order: rows (id, live, repeated).

    `live`: the document is not marked deleted. With filters, all rows pass them. Without filters, all ids are
    rows, and only the ids of one page are looked up in the other tables: the first page does not read a whole
    table. `repeated`: several rows have the id. Rows without an id are not listed.
    """
    if selection.filters:
        return _filtered_page(selection, after, limit)
    return _unfiltered_page(selection, after, limit)


def _filtered_page(selection: DocumentSelection, after: str | None, limit: int) -> SqlStatement:
    statement, main = SqlStatement(), selection.schema.tables[0]
    (live, *conditions), tables = _conditions(selection, statement)
    passing = " AND ".join([*conditions, f"t0.{main.key} IS NOT NULL"])
    behind = "" if after is None else f" AND {id_bytes(main, 't0')} > {_after(main, after, statement)}"
    order = id_bytes(main, "t0")
    selected = listed_id(main, "t0")
    rows = (
        f" FROM {main.quoted} t0{_joins(selection.schema, tables - {0}, id_text(main, 't0'))}"
        f" WHERE {passing}{behind}"
    )
    found = f"SELECT {selected} AS id, {live} AS live, FALSE AS repeated{rows}"
    if not main.unique:
        # Of several rows with one id, one is the document: that one must pass, and not another.
        found = (
            f"SELECT k.id, {live} AS live, k.repeated"
            f" FROM (SELECT {selected} AS id, {_repeated(main)}{rows}{_group_by_id(main)}) k"
            f"{_lookups(selection.schema, tables | {0}, 'k.id')} WHERE {passing}"
        )
        order = 'k.id COLLATE "C"'
    statement.text = f"{found} ORDER BY {order} LIMIT {statement.add(limit, 'int8')}"
    return statement


def _unfiltered_page(selection: DocumentSelection, after: str | None, limit: int) -> SqlStatement:
    statement, main = SqlStatement(), selection.schema.tables[0]
    behind = f" WHERE t0.{main.key} IS NOT NULL"
    if after is not None:
        behind = f" WHERE {id_bytes(main, 't0')} > {_after(main, after, statement)}"
    inner = (
        f"SELECT {listed_id(main, 't0')} AS id, {_repeated(main)} FROM {main.quoted} t0{behind}"
        f"{_group_by_id(main)} ORDER BY {id_bytes(main, 't0')} LIMIT {statement.add(limit, 'int8')}"
    )
    deleted, tables = is_deleted(selection.schema, include_archived=selection.include_archived)
    statement.text = (
        f"SELECT k.id, NOT ({deleted}) AS live, k.repeated FROM ({inner}) k"
        f'{_lookups(selection.schema, tables, "k.id")} ORDER BY k.id COLLATE "C"'
    )
    return statement


def keyless_rows(selection: DocumentSelection) -> SqlStatement:
    """The number of rows of the main table that are in the selection and have no id: one row (count)."""
    statement, main = SqlStatement(), selection.schema.tables[0]
    conditions, tables = _conditions(selection, statement)
    statement.text = (
        f"SELECT count(*) AS count FROM {main.quoted} t0{_lookups(selection.schema, tables - {0}, _NO_ID)}"
        f" WHERE t0.{main.key} IS NULL AND {' AND '.join(conditions)}"
    )
    return statement


def has_rows(main: PostgresTable, up_to: str | None) -> SqlStatement:
    """Whether the table has rows, up to an id in byte order: one row (found)."""
    statement = SqlStatement()
    where = "" if up_to is None else f" WHERE {id_bytes(main, 't0')} <= {_after(main, up_to, statement)}"
    statement.text = f"SELECT EXISTS (SELECT FROM {main.quoted} t0{where}) AS found"
    return statement


def _after(main: PostgresTable, after: str, statement: SqlStatement) -> str:
    value = statement.add(after, "text")
    return value if id_cast(main) == "text" else f"{value}::{id_cast(main)}"


def _group_by_id(main: PostgresTable) -> str:
    return "" if main.unique else f" GROUP BY {id_bytes(main, 't0')}"


def _repeated(main: PostgresTable) -> str:
    return f"{'FALSE' if main.unique else 'count(*) > 1'} AS repeated"


def ranked(selection: DocumentSelection, text: str) -> SqlStatement:
    """Documents that match a text, the best first: rows (id, score).

    A table scores by ts_rank_cd(…, 32). A document has the best of its scores in all searchable tables.
    """
    statement = SqlStatement()
    found, alone = _hits(selection, text, statement)
    # To group the hits, the leader would need every hit of the parallel workers, and not only the best ones.
    score, grouped = ("h.score", "") if alone else ("max(h.score)", " GROUP BY h.id")
    statement.text = (
        f'SELECT h.id, {score}::float8 AS score{found}{grouped} ORDER BY 2 DESC, h.id COLLATE "C"'
    )
    return statement


def marked_hits(selection: DocumentSelection, text: str) -> SqlStatement:
    """Documents that match a text and are marked deleted, in no order and without scores: rows (id, 0)."""
    statement = SqlStatement()
    found, _ = _hits(selection, text, statement, deleted=True)
    statement.text = f"SELECT DISTINCT h.id, 0::float8 AS score{found}"
    return statement


def _hits(
    selection: DocumentSelection, text: str, statement: SqlStatement, *, deleted: bool = False
) -> tuple[str, bool]:
    """FROM and WHERE of hits (h.id, h.score), and whether each document is one hit.

    `deleted`: those that are marked deleted, whose scores are 0, instead of those that are not.
    """
    words, schema = statement.add(text, "text"), selection.schema
    numbers = searched_tables(schema)
    (live, *conditions), tables = _conditions(selection, statement)
    passing = " AND ".join([f"NOT ({live})" if deleted else live, *conditions])
    searches = []
    for number in numbers:
        table, name = schema.tables[number], alias(number)
        chosen = f'{id_text(table, name)} COLLATE "C" AS id, 0 AS score' if deleted else ""
        search = _search(table, words, statement, name, chosen)
        searches.append(f"{search} AND {name}.{table.key} IS NOT NULL")
    # One table with unique ids has one row of each document.
    alone = len(numbers) == 1 and schema.tables[numbers[0]].unique
    if alone and not joins_tables(selection):
        return f" FROM ({searches[0]} AND {passing}) h", alone
    joins = _joins(schema, tables, "h.id")
    return f" FROM ({' UNION ALL '.join(searches)}) h{joins} WHERE {passing}", alone


def joins_tables(selection: DocumentSelection) -> bool:
    """Whether a search joins tables, for marks and filters, to those that it searches."""
    _, tables = _conditions(selection, SqlStatement())
    numbers, schema = searched_tables(selection.schema), selection.schema
    # The marks and fields of a document are those of its hit, if each is one row.
    own = set(numbers) if len(numbers) == 1 and schema.tables[numbers[0]].unique else set[int]()
    return bool(tables - own)


def best_hits(hits: SqlStatement, limit: int) -> SqlStatement:
    """The first hits of `ranked` as one row (ids, scores): two arrays in the same order."""
    statement = SqlStatement(values=[*hits.values])
    order = 'ORDER BY r.score DESC, r.id COLLATE "C"'
    chosen = (f"coalesce(array_agg(r.{name} {order}), '{{}}') AS {name}s" for name in ("id", "score"))
    limited = f"{hits.text} LIMIT {statement.add(limit, 'int8')}"
    statement.text = f"SELECT {', '.join(chosen)} FROM ({limited}) r"
    return statement


def keyless_hits(selection: DocumentSelection, text: str, number: int) -> SqlStatement:
    """The number of rows of table `number` that match a text and have no id: one row (count)."""
    statement, schema = SqlStatement(), selection.schema
    name, table = alias(number), schema.tables[number]
    conditions, tables = _conditions(selection, statement)
    joins = _lookups(schema, tables - {number}, _NO_ID)
    search = _search(table, statement.add(text, "text"), statement, name, "count(*) AS count", joins)
    statement.text = f"{search} AND {name}.{table.key} IS NULL AND {' AND '.join(conditions)}"
    return statement


def searched_tables(schema: PostgresSchema) -> list[int]:
    """The numbers of the tables that a text is searched in."""
    return [n for n, table in enumerate(schema.tables) if table.searchable]


def _search(
    table: PostgresTable,
    words: str,
    statement: SqlStatement,
    name: str,
    chosen: str = "",
    joins: str = "",
) -> str:
    config = f"{name}.{table.config_column}::text::regconfig"
    if not table.config_column:
        config = f"{statement.add(table.search_config or table.config or 'german', 'text')}::regconfig"
    vector, computed = f"{name}.{VECTOR}", ""
    if table.config is None:
        # The table has no vector.
        found = [(table.column(name), weight) for name, weight in COMPUTED]
        parts = " || ".join(
            f"setweight(to_tsvector({config}, coalesce({name}.{column.quoted}::text, '')), '{weight}')"
            for column, weight in found
            if column is not None
        )
        # With OFFSET 0 it is computed once for each row, and not again for the rank.
        vector, computed = "v.vector", f" CROSS JOIN LATERAL (SELECT {parts} AS vector OFFSET 0) v"
    query = f"plainto_tsquery({config}, {words})"
    scored = f'{id_text(table, name)} COLLATE "C" AS id, ts_rank_cd({vector}, {query}, 32) AS score'
    return f"SELECT {chosen or scored} FROM {table.quoted} {name}{computed}{joins} WHERE {vector} @@ {query}"


def check_hits(selection: DocumentSelection, ids: list[str]) -> SqlStatement:
    """Check hits of another store: rows (id, known, passes).

    `known`: a table has the document. `passes`: it is not deleted and passes the filters.
    """
    statement = SqlStatement()
    # Sorted keys are looked up in the order of the index, where neighbours share pages.
    wanted = statement.add(sorted(ids), "text[]")
    conditions, _ = _conditions(selection, statement)
    statement.text = (
        f"SELECT w.id, {_is_known(selection.schema)} AS known,"
        f" ({' AND '.join(conditions)}) IS TRUE AS passes FROM unnest({wanted}) AS w (id)"
        f"{_lookups(selection.schema, range(len(selection.schema.tables)), 'w.id')}"
    )
    return statement


def marked(selection: DocumentSelection, ids: list[str]) -> SqlStatement:
    """Those of the documents that are marked deleted and pass the filters: rows (id)."""
    statement = SqlStatement()
    wanted = statement.add(sorted(ids), "text[]")
    (live, *conditions), _ = _conditions(selection, statement)
    statement.text = (
        f"SELECT w.id FROM unnest({wanted}) AS w (id)"
        f"{_lookups(selection.schema, range(len(selection.schema.tables)), 'w.id')}"
        f" WHERE {' AND '.join([f'NOT ({live})', _is_known(selection.schema), *conditions])}"
    )
    return statement


def references(selection: DocumentSelection, ids: list[str]) -> SqlStatement | None:
    """The couchdb_refs of those of the documents that have them: rows (id, refs); None without the column."""
    holders = [number for number, table in enumerate(selection.schema.tables) if table.column(REFS)]
    if not holders:
        return None
    statement = SqlStatement()
    wanted, refs = statement.add(sorted(ids), "text[]"), _first_value(selection.schema, REFS)
    statement.text = (
        f"SELECT w.id, {refs} AS refs FROM unnest({wanted}) AS w (id)"
        f"{_lookups(selection.schema, holders, 'w.id')} WHERE {refs} IS NOT NULL"
    )
    return statement


def contents(selection: DocumentSelection, ids: list[str], max_bytes: int, budget: int) -> SqlStatement:
    """Texts and metadata of the first ids, in their order: at least one row, up to `budget` bytes of rows.

    Rows (id, known, deleted, size, body, digest, refs), then the columns of `RowFields`. For a text of more
    than `max_bytes` bytes, `body` is only its start and `digest` its sha256. The server has the size of a
    large text without reading the text.
    """
    schema, statement = selection.schema, SqlStatement(values=contents_values(ids, max_bytes, budget))
    wanted, limit, room = "$1::text::text[]", "$2::int8", "$3::int8"
    deleted, _ = is_deleted(selection.schema, include_archived=selection.include_archived)
    fields = RowFields.of(schema)
    inner = (
        f"SELECT w.n, w.id, {_is_known(schema)} AS known, ({deleted}) AS deleted,"
        f" {_first_value(schema, CONTENT)} AS body, {_first_value(schema, REFS)} AS refs,"
        f" {fields.columns} FROM unnest({wanted}) WITH ORDINALITY AS w (id, n)"
        f"{_lookups(schema, range(len(schema.tables)), 'w.id')}"
    )
    sized = f"SELECT f.*, octet_length(f.body) AS size FROM ({inner}) f"
    summed = (
        f"SELECT s.*, sum(least(coalesce(size, 0), {limit}) + 256) OVER (ORDER BY n) AS upto FROM ({sized}) s"
    )
    statement.text = (
        f"SELECT id, known, deleted, size,"
        f" CASE WHEN size > {limit} THEN left(body, {MAX_ORIGINAL_BYTES}) ELSE body END AS body,"
        f" CASE WHEN size > {limit} THEN encode(sha256(convert_to(body, 'UTF8')), 'hex') END AS digest,"
        f" refs, {fields.labels} FROM ({summed}) r WHERE upto <= {room} OR n = 1 ORDER BY n"
    )
    return statement


def contents_values(ids: list[str], max_bytes: int, budget: int) -> list[Any]:
    """The values of `contents`, whose text is the same for all documents of a selection."""
    return [_array(ids), max_bytes, budget]


def _array(ids: list[str]) -> str:
    """An array of texts as PostgreSQL writes it: the driver takes longer to encode a list."""
    joined = '","'.join(ids)
    if "\\" in joined or joined.count('"') != 2 * (len(ids) - 1):
        joined = '","'.join([one.replace("\\", "\\\\").replace('"', '\\"') for one in ids])
    return f'{{"{joined}"}}'


def _first_value(schema: PostgresSchema, name: str) -> str:
    """The first value that is not null in the tables' columns of this name, as text."""
    found = [(number, table.column(name)) for number, table in enumerate(schema.tables)]
    values = [f"{alias(number)}.{column.quoted}::text" for number, column in found if column is not None]
    return f"coalesce({', '.join(values)})" if values else "NULL::text"


def _is_known(schema: PostgresSchema) -> str:
    return "(" + " OR ".join(f"{alias(n)}.{t.key} IS NOT NULL" for n, t in enumerate(schema.tables)) + ")"


def _joins(schema: PostgresSchema, numbers: Iterable[int], key: str) -> str:
    """Join whole tables; the server chooses how."""
    return "".join(
        f" LEFT JOIN {table.quoted} {name} ON {has_id(table, name, key)}"
        if table.unique
        else _lookup(table, name, key)
        for number in sorted(numbers)
        for table, name in [(schema.tables[number], alias(number))]
    )


def _lookups(schema: PostgresSchema, numbers: Iterable[int], key: str) -> str:
    """Look up each key alone: for a few keys the server must not read a whole large table."""
    return "".join(_lookup(schema.tables[number], alias(number), key) for number in sorted(numbers))


def _lookup(table: PostgresTable, name: str, key: str) -> str:
    columns = ", ".join(f"r.{column.quoted}" for column in table.columns)
    # A document with several rows must be one document, with its metadata always from the same row.
    order = "" if table.unique else f' ORDER BY ROW({columns})::text COLLATE "C"'
    return (
        f" LEFT JOIN LATERAL (SELECT {columns} FROM {table.quoted} r"
        f" WHERE {has_id(table, 'r', key)}{order} LIMIT 1) {name} ON TRUE"
    )


def _conditions(selection: DocumentSelection, statement: SqlStatement) -> tuple[list[str], set[int]]:
    deleted, tables = is_deleted(selection.schema, include_archived=selection.include_archived)
    conditions = [f"NOT ({deleted})"]
    known = selection.known_fields()
    for name, wanted in selection.filters.items():
        conditions.append(condition(known[name], wanted, statement))
        tables |= known[name].tables
    return conditions, tables
