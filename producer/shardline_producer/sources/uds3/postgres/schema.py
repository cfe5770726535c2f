"""The schema of UDS3's tables in one installation: pure functions of PostgreSQL's catalogue.

The server quotes all names (`quote_ident`), so a name cannot inject SQL.
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from pydantic import TypeAdapter

from shardline_common.errors import FailureCode, JobFailed
from shardline_producer.sources.uds3.postgres.keys import KeyKind
from shardline_producer.sources.uds3.postgres.relations import Relation

KEY = "document_id"
CONTENT = "content"
SCORE = "score"
VECTOR = "search_vector"
REFS = "couchdb_refs"
DOCUMENTS, METADATA, MASTER = "documents", "documents_metadata", "uds3_master_documents"
# A table with fewer rows may lose all of them one by one, and is the same table.
MANY_ROWS = 10
KNOWN_TABLES = (DOCUMENTS, METADATA, MASTER)

_NUMBERS = {
    "int2": "int",
    "int4": "int",
    "int8": "int",
    "float4": "float",
    "float8": "float",
    "numeric": "float",
}
_JSON_TYPES = {"json": "json", "jsonb": "json", "hstore": "json"}
# Of the types without a category, those that are read as text. The others are vectors, bytes and shapes.
_TEXT_TYPES = frozenset(
    ("uuid", "xml", "macaddr", "macaddr8", "ltree", "lquery", "ltxtquery", "jsonpath", "pg_lsn")
) | {"xid", "xid8", "cid", "tid", "cube", "semver"}
_BYTE_ORDER_LOCALES = frozenset({"C", "POSIX", "C.UTF-8", "C.utf8", "ucs_basic"})


@dataclass(frozen=True, slots=True)
class PostgresColumn:
    """A column. `kind`: the type of its values in JSON; `type`: its type in PostgreSQL.

    `deterministic`: its collation calls only the same bytes equal. `base`: the type below a domain, which
    decides how values are shown ("" in plans of before: as `type`).

    The names of the fields are stored in plans, like those of the two classes below.
    """

    name: str
    quoted: str
    kind: str
    type: str
    deterministic: bool = True
    base: str = ""


@dataclass(frozen=True, slots=True)
class PostgresTable:
    """A table or view.

    `unique`: an index proves that no id is in two rows. `bytewise`: the index of its key is in byte order.
    `config`: the text search configuration of its column search_vector; None if it has no such column.
    `oid`: its identity; 0 in plans of versions that did not store it. `rows`: how many it had at planning,
    MANY_ROWS at most.
    `search_config`: the configuration of queries ("" in plans of before: as `config`); `config_column`: the
    column that has that of each row; `config_place`: where they were found. The others as in `KeyColumn`.
    """

    name: str
    quoted: str
    key: str
    unique: bool
    bytewise: bool
    config: str | None
    columns: tuple[PostgresColumn, ...]
    oid: int = 0
    rows: int = 0
    key_kind: KeyKind = KeyKind.TEXT
    key_type: str = ""
    key_schema: str = ""
    collation: str = ""
    deterministic: bool = True
    search_config: str = ""
    config_column: str = ""
    config_place: str = ""

    @property
    def searchable(self) -> bool:
        """Whether a keyword search can use the table."""
        return self.config is not None or self.column(CONTENT) is not None

    def column(self, name: str) -> PostgresColumn | None:
        """The column of this name."""
        return next((column for column in self.columns if column.name == name), None)


@dataclass(frozen=True, slots=True)
class UnfitTable:
    """A table that is there and cannot be used.

    `hidden`: the user may read no column of it. `marks`: it has a column that marks documents as deleted.
    """

    name: str
    oid: int
    problem: str
    hint: str
    hidden: bool
    marks: bool


@dataclass(frozen=True, slots=True)
class PostgresSchema:
    """The tables in use. Rows of the first, the main table, are the documents; the others add fields.

    `relations`: all that reading them reads, as it was at planning. `standby`: the server follows another.
    `guessed`: no setting names the main table. `exact`: no number is rounded; False in plans of before.
    """

    tables: tuple[PostgresTable, ...]
    relations: tuple[Relation, ...] = ()
    standby: bool = False
    guessed: bool = False
    exact: bool = False

    @property
    def wrong_guess(self) -> str | None:
        """Why the main table is hardly the one that was meant; None if there is no reason."""
        main, *joined = self.tables
        others = [table.name for table in joined if table.rows]
        if not self.guessed or main.rows or not others:
            return None
        return f"table {main.name} is empty, and {' and '.join(others)} has rows"

    def to_json(self) -> dict[str, Any]:
        """The schema as JSON, for the plan."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "PostgresSchema":
        """The schema from its JSON."""
        return _SCHEMA.validate_python(value)

    @property
    def has_content(self) -> bool:
        """Whether any table has a column for texts."""
        return any(table.column(CONTENT) for table in self.tables)

    @property
    def search_configs(self) -> dict[str, str]:
        """The configuration of each table that is searched, and where it was found, for people."""
        return {
            table.name: f"{table.search_config or table.config_column} ({table.config_place})"
            for table in self.tables
            if table.config_place
        }

    @property
    def searchable(self) -> bool:
        """Whether any table has a search vector, or a column of texts to compute one from."""
        return self.has_content or any(table.config for table in self.tables)


_SCHEMA = TypeAdapter(PostgresSchema)


def json_type(type_name: str, category: str, base: str = "", scale: int | None = None) -> str | None:
    """The JSON type of a PostgreSQL type; None for types that are no metadata, such as vectors and bytes.

    `base`: the type that a domain is over. `scale`: the decimals of a numeric; None if it may have any.
    """
    if category == "N":
        if type_name == "numeric" and scale is not None and scale <= 0:
            return "int"
        return _NUMBERS.get(type_name, "string")
    if category == "B":
        return "bool"
    if category in "AC":
        return "json"
    if category != "U":
        return "string"
    name = base or type_name
    return "string" if name in _TEXT_TYPES else _JSON_TYPES.get(name)


def is_bytewise(locale: str | None) -> bool:
    """Whether a collation of this locale sorts text by its bytes."""
    return locale in _BYTE_ORDER_LOCALES


def select_tables(
    tables: Mapping[str, PostgresTable],
    main_name: str | None,
    address: str,
    unfit: Mapping[str, UnfitTable] = MappingProxyType({}),
    below_main: Collection[int] = (),
) -> PostgresSchema:
    """The schema of the existing tables. The main table is `main_name`, else the first known one there is.

    A table that exists and cannot be used is an error, because its documents, marks or fields would be
    missing without a word. Left out are only: a table of which the user may read nothing; a table that the
    main view reads; and, if the user has named the main table, a table without marks of deletion.

    Args:
        tables: those that can be used, by name.
        main_name: the table that the user has named.
        address: the database, for messages.
        unfit: those that exist and cannot be used.
        below_main: the oids of what the main table reads if it is a view.

    Raises:
        JobFailed: there is no such table, or one cannot be used.
    """
    names = [main_name] if main_name else list(KNOWN_TABLES)
    main = next((name for name in names if name in tables or name in unfit), None)
    if main is None:
        raise JobFailed(
            FailureCode.SOURCE_INVALID,
            f"{address} has no table {' or '.join(names)} that may be read and has a column {KEY}",
            hint="check POSTGRES_DATABASE, POSTGRES_SCHEMA, POSTGRES_TABLE, and GRANT SELECT to the user",
        )
    for name, table in unfit.items():
        absent = table.oid in below_main or ((table.hidden or main_name is not None) and not table.marks)
        if name == main or not absent:
            message = f"{address} table {name} cannot be used: {table.problem}"
            raise JobFailed(FailureCode.SOURCE_INVALID, message, hint=table.hint)
    others = [tables[name] for name in KNOWN_TABLES if name in tables and name != main]
    return PostgresSchema((tables[main], *others), exact=True)
