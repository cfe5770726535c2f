"""The metadata fields of a document as expressions over UDS3's tables. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from shardline_producer.sources.uds3.postgres.schema import (
    CONTENT,
    KEY,
    METADATA,
    REFS,
    SCORE,
    VECTOR,
    PostgresColumn,
    PostgresSchema,
    PostgresTable,
)
from shardline_producer.sources.uds3.tombstones import FLAGS, TIME

JSON_TYPES = ("json", "jsonb")

_METADATA_JSON = "metadata_json"
NO_METADATA = frozenset({KEY, CONTENT, VECTOR, *FLAGS, TIME, REFS, "chromadb_refs", "neo4j_refs"})
"""The columns that are no metadata of a document."""

_LEADING = ("title", "domain", "document_type")
# UDS3 has no column `domain`: the legal area is the nearest field, then the classification.
_DOMAIN_COLUMNS = ("domain", "rechtsgebiet", "classification")
_DOMAIN_KEYS = ("domain", "rechtsgebiet")
# The types of one class are shown alike, so one expression can take the first value of several columns.
_CLASSES = {
    "text": "text",
    "varchar": "text",
    "int2": "int8",
    "int4": "int8",
    "int8": "int8",
    "float8": "float8",
    "bool": "bool",
    "date": "date",
    "timestamp": "timestamp",
    "timestamptz": "timestamptz",
}
# The largest float8, and the least that is not 0. A numeric outside cannot be converted to float8.
_LARGEST, _LEAST = "1.7976931348623157e308", "5e-324"
_INT64 = 1 << 63

# Below this, a float8 has fewer digits than others.
_LEAST_NORMAL = "2.2250738585072014e-308"
_FLOAT_DIGITS = 17
# The exponents and lengths of numbers in JSON that can be converted to numeric.
_LONG_EXPONENT, _LONGEST = "'[eE][+-]?0*[1-9][0-9]{3}'", 4000
# What json may hold and no text of PostgreSQL does: zeros, and halves of surrogate pairs.
_BAD_ESCAPE = r"'\\u(0000|d[89a-f])'"
_BAD_ESCAPES = (
    r"'\\u0000'",
    r"'\\ud[89ab][0-9a-f]{2}(?!\\ud[c-f])'",
    r"'(?<!\\ud[89ab][0-9a-f]{2})\\ud[c-f][0-9a-f]{2}'",
)


def readable_json(sql: str) -> str:
    """A value of type json, with U+FFFD for what no text of PostgreSQL holds.

    The operators of json fail for such an escape anywhere in a value, and one row would end a statement.
    """
    # The backslash before the `u` may be the second one of an escaped backslash.
    text = rf"replace({sql}::text, '\\', '\u005c')"
    for escape in _BAD_ESCAPES:
        text = rf"regexp_replace({text}, {escape}, '\\ufffd', 'gi')"
    return f"CASE WHEN {sql}::text ~* {_BAD_ESCAPE} THEN {text}::json ELSE {sql} END"


def float_of(numeric: str, sql: str) -> str:
    """A numeric, or the text of one, as float8; null where no float8 holds it. A cast alone would fail."""
    return (
        f"CASE WHEN abs({numeric}) BETWEEN {_LEAST} AND {_LARGEST} THEN {sql}::float8"
        f" WHEN abs({numeric}) < {_LEAST} THEN 0::float8 END"
    )


def is_exact_number(numeric: str) -> str:
    """Whether a numeric is shown as a number: an integer of 64 bits, or digits that a float8 gives back."""
    near = float_of(numeric, numeric)
    return (
        f"CASE WHEN {numeric} = trunc({numeric}) THEN {numeric} BETWEEN {-_INT64} AND {_INT64 - 1}"
        f" ELSE coalesce(({near})::text::numeric = {numeric}, FALSE) END"
    )


def is_json_number(text: str) -> str:
    """Whether the text of a number in JSON is shown as a number, as in `exact_json.parse_row`."""
    near = float_of(f"{text}::numeric", text)
    mantissa = f"regexp_replace({text}, '[eE].*$', '')"
    digits = f"length(rtrim(translate(regexp_replace({mantissa}, '^-?[0.]*', ''), '.', ''), '0'))"
    return (
        f"CASE WHEN length({text}) > {_LONGEST} OR {text} ~ {_LONG_EXPONENT} THEN FALSE"
        f" WHEN {text} ~ '^-?[0-9]+$' THEN TRUE"
        f" WHEN abs({near}) >= {_LEAST_NORMAL} AND {digits} <= {_FLOAT_DIGITS} THEN TRUE"
        f" ELSE coalesce(({near})::text::numeric = {text}::numeric, FALSE) END"
    )


@dataclass(frozen=True, slots=True)
class ValueExpression:
    """A value of one or several tables in SQL.

    `kind` and `base` as in PostgresColumn. `plain`: the bytes of texts decide whether they are equal by `=`.
    `tables`: the numbers of the tables that it reads. `exact`: no number of it is rounded.
    """

    sql: str
    kind: str
    base: str
    plain: bool
    tables: frozenset[int]
    exact: bool = False

    @property
    def is_text(self) -> bool:
        """Whether it is shown as it is."""
        return self.base in ("text", "varchar")

    @property
    def text(self) -> str:
        """The text that JSON shows of it. A cast to text differs for some types, such as char(n) and inet."""
        if self.is_text:
            return self.sql
        value = readable_json(self.sql) if self.base == "json" else self.sql
        return f"(json_build_array({value}) ->> 0)"

    @property
    def number(self) -> str:
        """A number as the float8 that JSON shows; null for a numeric that is shown as text."""
        if self.base == "float4":
            # 0.7 is shown, and is 0.699999988 when it is converted without the text.
            return f"{self.sql}::text::float8"
        return float_of(self.sql, self.sql) if self.base == "numeric" else self.sql

    @property
    def json(self) -> str:
        """It as JSON."""
        if self.base != "numeric":
            return f"to_json({self.sql})"
        if self.exact:
            return (
                f"CASE WHEN NOT ({is_exact_number(self.sql)}) THEN to_json({self.sql}::text)"
                f" WHEN {self.sql} = trunc({self.sql}) THEN to_json({self.sql}::int8)"
                f" ELSE to_json({self.number}) END"
            )
        return f"coalesce(to_json({self.number}), to_json({self.sql}::text))"


@dataclass(frozen=True, slots=True)
class FieldExpression:
    """A metadata field: the first of `values` that is not null. `label`: its quoted name."""

    label: str
    values: tuple[ValueExpression, ...]

    @property
    def kind(self) -> str:
        """The type of the column that shows it."""
        return self.values[0].kind

    @property
    def tables(self) -> frozenset[int]:
        """The numbers of the tables that it reads."""
        return frozenset[int]().union(*(value.tables for value in self.values))

    @property
    def shown(self) -> str:
        """The value that the document shows."""
        if len(self.values) > 1:
            return f"coalesce({', '.join(value.json for value in self.values)})"
        [value] = self.values
        return value.json if value.base == "numeric" else value.sql


def alias(number: int) -> str:
    """The alias of table `number` in statements."""
    return f"t{number}"


def metadata_fields(schema: PostgresSchema) -> dict[str, FieldExpression]:
    """All metadata fields: title, domain and document_type first, then in the order of the tables' columns.

    Of several columns of one name the first value that is not null counts: that of documents_metadata, then
    that of the main table. title, domain and document_type of `metadata_json` come last.
    """
    by_precedence = sorted(enumerate(schema.tables), key=lambda pair: pair[1].name != METADATA)
    columns: dict[str, list[tuple[int, PostgresColumn]]] = {}
    for number, table in by_precedence:
        for column in table.columns:
            if column.name not in NO_METADATA:
                columns.setdefault(column.name, []).append((number, column))
    found = {
        name: FieldExpression(each[0][1].quoted, _merged([_value(schema, *one) for one in each]))
        for name, each in columns.items()
    }
    keys = [_json_keys(number, table) for number, table in by_precedence]
    for name in ("title", "document_type"):
        values = (*(found[name].values if name in found else ()), *(key[name] for key in keys if key))
        if values:
            found[name] = FieldExpression(name, values)
    if (domain := _domain(found, [key for key in keys if key])) is not None:
        found["domain"] = domain
    leading = {name: found[name] for name in _LEADING if name in found}
    return leading | found


def _value(schema: PostgresSchema, number: int, column: PostgresColumn) -> ValueExpression:
    base, sql = column.base or column.type, f"{alias(number)}.{column.quoted}"
    # A relevance is rounded anyway.
    exact = schema.exact and column.name != SCORE
    if base == "numeric" and column.kind != "float" and not exact:
        # A domain over numeric is shown with all its digits.
        base, sql = "json", f"to_json({sql})"
    return ValueExpression(sql, column.kind, base, column.deterministic, frozenset({number}), exact)


def _merged(values: Sequence[ValueExpression]) -> tuple[ValueExpression, ...]:
    """One expression if all values are shown alike."""
    classes = {_CLASSES.get(value.base) for value in values}
    base = next(iter(classes))
    if len(values) == 1 or len(classes) > 1 or base is None:
        return tuple(values)
    sql = f"coalesce({', '.join(value.sql for value in values)})"
    if base == "text":
        # PostgreSQL compares no texts of columns that have different collations.
        sql = f'({sql} COLLATE "C")'
    tables = frozenset[int]().union(*(value.tables for value in values))
    return (replace(values[0], sql=sql, base=base, plain=True, tables=tables),)


def _json_keys(number: int, table: PostgresTable) -> dict[str, ValueExpression]:
    """The fields that UDS3's migration 001 keeps in `metadata_json`, without JSON's null."""
    if (whole := json_column(number, table)) is None:
        return {}
    tables, base = frozenset({number}), _json_base(table)
    texts = {
        name: ValueExpression(f"({whole} ->> '{name}')", "string", "text", True, tables)
        for name in _DOMAIN_KEYS
    }
    return texts | {
        name: ValueExpression(_without_null(f"{whole} -> '{name}'", base), "string", base, True, tables)
        for name in ("title", "document_type")
    }


def _without_null(sql: str, base: str) -> str:
    # The type json has no equality.
    return f"CASE WHEN {base}_typeof({sql}) <> 'null' THEN {sql} END"


def json_column(number: int, table: PostgresTable) -> str | None:
    """The column `metadata_json` of a table, with readable texts; None if it has none."""
    column, base = table.column(_METADATA_JSON), _json_base(table)
    if column is None or base not in JSON_TYPES:
        return None
    name = f"{alias(number)}.{column.quoted}"
    return f"({readable_json(name)})" if base == "json" else name


def _json_base(table: PostgresTable) -> str:
    """The type of the column `metadata_json`, or that below a domain; "" if there is none."""
    column = table.column(_METADATA_JSON)
    return "" if column is None else column.base or column.type


def _domain(
    found: Mapping[str, FieldExpression], keys: Sequence[Mapping[str, ValueExpression]]
) -> FieldExpression | None:
    fields = [found[name] for name in _DOMAIN_COLUMNS if name in found and found[name].kind == "string"]
    sources = [value for field in fields for value in field.values]
    sources += [key[name] for name in _DOMAIN_KEYS for key in keys]
    if not sources:
        return None
    sql = ", ".join(f"nullif({source.sql}::text COLLATE \"C\", '')" for source in sources)
    tables = frozenset[int]().union(*(source.tables for source in sources))
    return FieldExpression("domain", (ValueExpression(f"coalesce({sql})", "string", "text", True, tables),))


def metadata_columns(schema: PostgresSchema) -> dict[str, str]:
    """The names and types of the rows' metadata columns: all fields but JSON values and a numeric score."""
    found = {name: field.kind for name, field in metadata_fields(schema).items() if field.kind != "json"}
    if found.get(SCORE) in ("int", "float"):
        del found[SCORE]
    return found
