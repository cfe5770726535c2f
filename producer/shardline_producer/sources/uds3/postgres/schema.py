"""What UDS3's tables look like in one installation: pure, made from what the catalogue tells.

Names come quoted by the server itself (`quote_ident`), so that no text of ours or a user's becomes SQL.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter

from shardline_common.errors import FailureCode, JobFailed

KEY = "document_id"
CONTENT = "content"
SCORE = "score"
VECTOR = "search_vector"
REFS = "couchdb_refs"
DOCUMENTS, METADATA, MASTER = "documents", "documents_metadata", "uds3_master_documents"
KNOWN_TABLES = (DOCUMENTS, METADATA, MASTER)
MARKERS = ("deleted", "is_deleted", "deleted_at")
STATUS = "processing_status"

_HIDDEN = frozenset({KEY, CONTENT, VECTOR, *MARKERS, REFS, "chromadb_refs", "neo4j_refs"})
_FIRST = ("title", "domain", "document_type")
_NUMBERS = {
    "int2": "int",
    "int4": "int",
    "int8": "int",
    "float4": "float",
    "float8": "float",
    "numeric": "float",
}
_OTHERS = {"uuid": "string", "json": "json", "jsonb": "json"}
_BYTEWISE = frozenset({"C", "POSIX", "C.UTF-8", "C.utf8", "ucs_basic"})
_CONFIG = re.compile(
    r"to_tsvector\s*\(\s*'(?:pg_catalog\.)?(\w+)'|tsvector_update_trigger\s*\([^)]*?'pg_catalog\.(\w+)'"
)


@dataclass(frozen=True, slots=True)
class Column:
    """A column. `kind`: the type its values have in JSON; `type`: PostgreSQL's name for it."""

    name: str
    quoted: str
    kind: str
    type: str

    @property
    def is_text(self) -> bool:
        """Whether it compares with text as it is."""
        return self.type in ("text", "varchar")


@dataclass(frozen=True, slots=True)
class Table:
    """A table or view. `bytewise`: its key's index has the order of bytes; `config`: of its search vector."""

    name: str
    quoted: str
    key: str
    unique: bool
    bytewise: bool
    config: str | None
    columns: tuple[Column, ...]

    def column(self, name: str) -> Column | None:
        """A column by name."""
        return next((column for column in self.columns if column.name == name), None)


@dataclass(frozen=True, slots=True)
class Schema:
    """The tables in use, the main one first: its rows are the documents, the others tell more of them."""

    tables: tuple[Table, ...]

    def to_json(self) -> dict[str, Any]:
        """As the plan keeps it."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Schema":
        """The schema of its JSON."""
        return _SCHEMA.validate_python(value)

    @property
    def has_contents(self) -> bool:
        """Whether any table has a column for texts."""
        return any(table.column(CONTENT) for table in self.tables)

    @property
    def searchable(self) -> bool:
        """Whether any table has a search vector, or a content that one can be made of."""
        return self.has_contents or any(table.config for table in self.tables)


_SCHEMA = TypeAdapter(Schema)


def kind_of(type_name: str, category: str) -> str | None:
    """The JSON type of a PostgreSQL type; None for what is no metadata, such as vectors and bytes."""
    if category == "N":
        return _NUMBERS.get(type_name, "string")
    if category == "B":
        return "bool"
    if category in "AC":
        return "json"
    return _OTHERS.get(type_name) if category == "U" else "string"


def marks_deleted(name: str) -> bool:
    """Whether a column of that name tells that a document is deleted."""
    return name in MARKERS or name == STATUS


def is_bytewise(collation: str | None) -> bool:
    """Whether a collation, by the locale it stands for, is the order of bytes."""
    return collation in _BYTEWISE


def search_config(table: str, sources: Sequence[str]) -> str:
    """The text search configuration that fills a table's vector, as its trigger, default or index says."""
    for text in sources:
        if found := _CONFIG.search(text):
            return found[1] or found[2]
    return "english" if table == MASTER else "german"


def choose(tables: Mapping[str, Table], wanted: str | None, place: str) -> Schema:
    """The schema of the tables that are there: main is the one wanted, else the first known one.

    Raises:
        JobFailed: none of them is there, or it has no usable key.
    """
    names = [wanted] if wanted else list(KNOWN_TABLES)
    main = next((tables[name] for name in names if name in tables), None)
    if main is None:
        raise JobFailed(
            FailureCode.SOURCE_INVALID,
            f"{place} has no table {' or '.join(names)} that may be read and has a text column {KEY}",
            hint="check POSTGRES_DATABASE, POSTGRES_SCHEMA, POSTGRES_TABLE, and GRANT SELECT to the user",
        )
    beside = [tables[name] for name in KNOWN_TABLES if name in tables and name != main.name]
    return Schema((main, *beside))


@dataclass(frozen=True, slots=True)
class Field:
    """A metadata field as SQL. `type`: of a date, by which texts are compared; `tables` it needs."""

    label: str
    sql: str
    kind: str
    type: str
    is_text: bool
    tables: frozenset[int]


def alias(number: int) -> str:
    """The name of a table in our statements."""
    return f"t{number}"


def fields(schema: Schema) -> dict[str, Field]:
    """Every metadata field: title, domain and document_type first, then as the tables have them.

    Where several tables have a column, that of documents_metadata counts, then the main table's.
    """
    found: dict[str, Field] = {}
    for number, table in _by_authority(schema):
        for column in table.columns:
            if column.name not in _HIDDEN and column.name not in found:
                found[column.name] = _field(number, column)
    if (domain := _domain(found)) is not None:
        found["domain"] = domain
    first = {name: found[name] for name in _FIRST if name in found}
    return first | found


def _by_authority(schema: Schema) -> list[tuple[int, Table]]:
    numbered = list(enumerate(schema.tables))
    return sorted(numbered, key=lambda pair: pair[1].name != METADATA)


def _field(number: int, column: Column) -> Field:
    sql = f"{alias(number)}.{column.quoted}"
    if column.type == "numeric":
        sql = f"{sql}::float8"
    return Field(column.quoted, sql, column.kind, column.type, column.is_text, frozenset({number}))


def _domain(found: Mapping[str, Field]) -> Field | None:
    # UDS3 has no domain of its own: the legal area is the nearest thing to it, then the classification.
    parts = [found[name] for name in ("domain", "rechtsgebiet", "classification") if name in found]
    parts = [part for part in parts if part.kind == "string"]
    if not parts:
        return None
    sql = ", ".join(f"nullif({part.sql}::text, '')" for part in parts)
    tables = frozenset[int]().union(*(part.tables for part in parts))
    return Field("domain", f"coalesce({sql})", "string", "text", is_text=True, tables=tables)


def columns(schema: Schema) -> dict[str, str]:
    """Names and types of the metadata columns that rows get; what is JSON has none, nor has a score."""
    found = {name: field.kind for name, field in fields(schema).items() if field.kind != "json"}
    if found.get(SCORE) in ("int", "float"):
        del found[SCORE]
    return found
