"""SQL over UDS3's tables: pure. Values are parameters, names come quoted from the catalogue."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from shardline_common.job.spec import Range
from shardline_producer.sources.uds3.postgres.schema import (
    CONTENT,
    KEY,
    MARKERS,
    REFS,
    STATUS,
    VECTOR,
    Field,
    Schema,
    Table,
    alias,
    fields,
)

_INT64 = 1 << 63
_TRUE = "('true', 't', '1', 'yes')"
_NEVER = "FALSE"


@dataclass(slots=True)
class Statement:
    """A text with $1, $2 …, and the values for them."""

    text: str = ""
    values: list[Any] = field(default_factory=list)

    def add(self, value: object, cast: str) -> str:
        """The placeholder of one more value."""
        self.values.append(value)
        return f"${len(self.values)}::{cast}"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which documents count: not marked deleted, and passing the filters."""

    schema: Schema
    filters: Mapping[str, Any]
    archived: bool = False

    def known_fields(self) -> dict[str, Field]:
        """The fields that filters may name."""
        sql = f"t0.{self.schema.tables[0].key}"
        key = Field(KEY, sql, "string", "text", is_text=True, tables=frozenset({0}))
        return {KEY: key} | fields(self.schema)


def page(selection: Selection, after: str | None, limit: int) -> Statement:
    """The next ids in byte order, and whether they count: rows (id, live).

    With filters only what counts comes. Without, each id comes, and the rows of one page alone are looked at:
    so the first page does not read the whole table.
    """
    return _matching(selection, after, limit) if selection.filters else _candidates(selection, after, limit)


def _matching(selection: Selection, after: str | None, limit: int) -> Statement:
    statement, main = Statement(), selection.schema.tables[0]
    conditions, tables = _conditions(selection, statement)
    if after is not None:
        conditions.append(f"{_ordered(main)} > {statement.add(after, 'text')}")
    statement.text = (
        f"SELECT t0.{main.key} AS id, TRUE AS live FROM {main.quoted} t0"
        f"{_joins(selection.schema, tables - {0}, f't0.{main.key}')} WHERE {' AND '.join(conditions)}"
        f"{_once(main)} ORDER BY {_ordered(main)} LIMIT {statement.add(limit, 'int8')}"
    )
    return statement


def _candidates(selection: Selection, after: str | None, limit: int) -> Statement:
    statement, main = Statement(), selection.schema.tables[0]
    behind = "" if after is None else f" WHERE {_ordered(main)} > {statement.add(after, 'text')}"
    # The id goes out as the column has it: under another collation the join could not use the key's index.
    inner = (
        f"SELECT t0.{main.key} AS id FROM {main.quoted} t0{behind}{_once(main)}"
        f" ORDER BY {_ordered(main)} LIMIT {statement.add(limit, 'int8')}"
    )
    deleted, tables = _deleted(selection)
    statement.text = (
        f"SELECT k.id, NOT ({deleted}) AS live FROM ({inner}) k"
        f'{_lookups(selection.schema, tables, "k.id")} ORDER BY k.id COLLATE "C"'
    )
    return statement


def _once(main: Table) -> str:
    return "" if main.unique else f" GROUP BY t0.{main.key}"


def ranked(selection: Selection, text: str) -> Statement:
    """Documents that match a text, the best first: rows (id, score). A table's rank is ts_rank_cd(…, 32).

    Where several tables can be searched, the best of a document's ranks counts.
    """
    statement = Statement()
    words = statement.add(text, "text")
    searches = [
        _search(table, words, statement)
        for table in selection.schema.tables
        if table.config or table.column(CONTENT)
    ]
    conditions, tables = _conditions(selection, statement)
    statement.text = (
        f"SELECT h.id, max(h.score)::float8 AS score FROM ({' UNION ALL '.join(searches)}) h"
        f"{_joins(selection.schema, tables, 'h.id')} WHERE {' AND '.join(conditions)}"
        ' GROUP BY h.id ORDER BY 2 DESC, h.id COLLATE "C"'
    )
    return statement


def _search(table: Table, words: str, statement: Statement) -> str:
    config = f"{statement.add(table.config or 'german', 'text')}::regconfig"
    vector = f"s.{VECTOR}"
    if table.config is None:
        # No vector is kept: the same is made on the way, with the weights of UDS3's own trigger.
        parts = [(KEY, "A"), (CONTENT, "B"), ("classification", "C")]
        found = [(table.column(name), weight) for name, weight in parts]
        vector = " || ".join(
            f"setweight(to_tsvector({config}, coalesce(s.{column.quoted}::text, '')), '{weight}')"
            for column, weight in found
            if column is not None
        )
    query = f"plainto_tsquery({config}, {words})"
    return (
        f"SELECT s.{table.key} AS id, ts_rank_cd({vector}, {query}, 32) AS score"
        f" FROM {table.quoted} s WHERE ({vector}) @@ {query}"
    )


def gate(selection: Selection, ids: list[str]) -> Statement:
    """Whether hits of another store count: rows (id, known, passes)."""
    statement = Statement()
    # In the order of the index: keys that lie side by side share its pages.
    wanted = statement.add(sorted(ids), "text[]")
    conditions, _ = _conditions(selection, statement)
    statement.text = (
        f"SELECT w.id, {_known(selection.schema)} AS known,"
        f" ({' AND '.join(conditions)}) IS TRUE AS passes FROM unnest({wanted}) AS w (id)"
        f"{_lookups(selection.schema, range(len(selection.schema.tables)), 'w.id')}"
    )
    return statement


def contents(selection: Selection, ids: list[str], longest: int, budget: int) -> Statement:
    """Texts and metadata by id, in the order asked for, as many as have `budget` bytes; at least one.

    Rows (id, known, deleted, size, body, digest, refs, metadata). Of a text over `longest` bytes only the
    start comes, and its sha256. Sizes of large texts are known to the server without reading them.
    """
    schema, statement = selection.schema, Statement()
    wanted, most = statement.add(ids, "text[]"), statement.add(longest, "int8")
    room = statement.add(budget, "int8")
    deleted, _ = _deleted(selection)
    bodies = [f"{alias(n)}.{column.quoted}::text" for n, column in _every(schema, CONTENT)]
    refs = [f"{alias(n)}.{column.quoted}::text" for n, column in _every(schema, REFS)]
    chosen = ", ".join(f"{one.sql} AS {one.label}" for one in fields(schema).values())
    inner = (
        f"SELECT w.n, w.id, {_known(schema)} AS known, ({deleted}) AS deleted,"
        f" {_first_of(bodies)} AS body, {_first_of(refs)} AS refs,"
        f" {_as_json(chosen)} AS metadata FROM unnest({wanted}) WITH ORDINALITY AS w (id, n)"
        f"{_lookups(schema, range(len(schema.tables)), 'w.id')}"
    )
    sized = f"SELECT f.*, octet_length(f.body) AS size FROM ({inner}) f"
    summed = (
        f"SELECT s.*, sum(least(coalesce(size, 0), {most}) + 256) OVER (ORDER BY n) AS upto FROM ({sized}) s"
    )
    statement.text = (
        f"SELECT id, known, deleted, size, refs, metadata,"
        f" CASE WHEN size > {most} THEN left(body, 65536) ELSE body END AS body,"
        f" CASE WHEN size > {most} THEN encode(sha256(convert_to(body, 'UTF8')), 'hex') END AS digest"
        f" FROM ({summed}) r WHERE upto <= {room} OR n = 1 ORDER BY n"
    )
    return statement


def _every(schema: Schema, name: str) -> list[tuple[int, Any]]:
    found = [(number, table.column(name)) for number, table in enumerate(schema.tables)]
    return [(number, column) for number, column in found if column is not None]


def _first_of(parts: list[str]) -> str:
    return f"coalesce({', '.join(parts)})" if parts else "NULL::text"


def _as_json(chosen: str) -> str:
    return f"(SELECT row_to_json(m)::text FROM (SELECT {chosen}) m)" if chosen else "'{}'::text"


def _known(schema: Schema) -> str:
    return "(" + " OR ".join(f"{alias(n)}.{t.key} IS NOT NULL" for n, t in enumerate(schema.tables)) + ")"


def _ordered(main: Table) -> str:
    return f"t0.{main.key}" if main.bytewise else f't0.{main.key} COLLATE "C"'


def _joins(schema: Schema, numbers: Iterable[int], key: str) -> str:
    """Join tables as sets: the planner chooses how."""
    return "".join(
        f" LEFT JOIN {table.quoted} {name} ON {name}.{table.key} = {key}"
        if table.unique
        else _lookup(table, name, key)
        for number in sorted(numbers)
        for table, name in [(schema.tables[number], alias(number))]
    )


def _lookups(schema: Schema, numbers: Iterable[int], key: str) -> str:
    """Look each key up by itself: for few keys of a large table, which must not be read whole for them."""
    return "".join(_lookup(schema.tables[number], alias(number), key) for number in sorted(numbers))


def _lookup(table: Table, name: str, key: str) -> str:
    columns = ", ".join(f"r.{column.quoted}" for column in table.columns)
    # Several rows of one document must not make it several documents; which one counts must not hang on luck.
    order = "" if table.unique else f' ORDER BY ROW({columns})::text COLLATE "C"'
    return (
        f" LEFT JOIN LATERAL (SELECT {columns} FROM {table.quoted} r"
        f" WHERE r.{table.key} = {key}{order} LIMIT 1) {name} ON TRUE"
    )


def _conditions(selection: Selection, statement: Statement) -> tuple[list[str], set[int]]:
    deleted, tables = _deleted(selection)
    conditions = [f"NOT ({deleted})"]
    known = selection.known_fields()
    for name, wanted in selection.filters.items():
        conditions.append(_condition(known[name], wanted, statement))
        tables |= known[name].tables
    return conditions, tables


def _deleted(selection: Selection) -> tuple[str, set[int]]:
    found: list[str] = []
    tables: set[int] = set()
    for number, table in enumerate(selection.schema.tables):
        for column in table.columns:
            if (
                sql := _marker(column.name, f"{alias(number)}.{column.quoted}", selection.archived)
            ) is not None:
                found.append(f"coalesce({sql}, FALSE)")
                tables.add(number)
    return " OR ".join(found) or "FALSE", tables


def _marker(name: str, sql: str, archived: bool) -> str | None:
    if name == "deleted_at":
        return f"lower({sql}::text) NOT IN ('', 'false')"
    if name in MARKERS:
        return f"lower({sql}::text) IN {_TRUE}"
    if name == STATUS:
        gone = "('failed', 'deleted')" if archived else "('failed', 'deleted', 'archived')"
        return f"lower({sql}::text) IN {gone}"
    return None


def _condition(one: Field, wanted: object, statement: Statement) -> str:
    if isinstance(wanted, Range):
        bounds = [(">=", wanted.gte), ("<=", wanted.lte)]
        parts = [_compare(one, sign, bound, statement) for sign, bound in bounds if bound is not None]
        return "(" + " AND ".join(parts) + ")"
    values = wanted if isinstance(wanted, list) else [wanted]
    return "(" + (" OR ".join(_compare(one, "=", value, statement) for value in values) or _NEVER) + ")"


def _compare(one: Field, sign: str, value: object, statement: Statement) -> str:
    """One comparison; what cannot compare (a number with a text) is never met."""
    if value is None:
        return f"{one.sql} IS NULL"
    if isinstance(value, bool):
        return f"{one.sql} {sign} {statement.add(value, 'bool')}" if one.kind == "bool" else _NEVER
    if isinstance(value, int | float):
        return _compare_number(one, sign, value, statement)
    if one.kind != "string":
        return _NEVER
    if one.type in ("date", "timestamp", "timestamptz"):
        return f"{one.sql} {sign} {statement.add(value, 'text')}::{one.type}"
    order = "" if sign == "=" else ' COLLATE "C"'
    sql = one.sql if one.is_text else f"{one.sql}::text"
    return f"{sql}{order} {sign} {statement.add(value, 'text')}"


def _compare_number(one: Field, sign: str, value: float, statement: Statement) -> str:
    if one.kind not in ("int", "float"):
        return _NEVER
    if isinstance(value, int) and one.kind == "int":
        if not -_INT64 <= value < _INT64:
            # Beyond all integers of a column: a range has no end there, or no beginning.
            return _NEVER if sign == "=" or (sign == ">=") == (value > 0) else f"{one.sql} IS NOT NULL"
        return f"{one.sql} {sign} {statement.add(value, 'int8')}"
    return f"{one.sql}::float8 {sign} {statement.add(float(value), 'float8')}"
