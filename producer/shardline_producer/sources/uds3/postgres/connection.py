"""PostgreSQL: the only file that speaks to it. It reads, and needs SELECT on UDS3's tables alone."""

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import asyncpg
import orjson

from shardline_common.errors import FailureCode, JobFailed, ShardlineError, SourceUnavailable
from shardline_producer.sources.uds3.postgres import sql
from shardline_producer.sources.uds3.postgres.schema import (
    KEY,
    KNOWN_TABLES,
    VECTOR,
    Column,
    Schema,
    Table,
    choose,
    is_bytewise,
    kind_of,
    marks_deleted,
    search_config,
)
from shardline_producer.sources.uds3.store_ports import Hit

if TYPE_CHECKING:
    from collections.abc import Iterator

_PAGE = 5_000
_CONNECT_SECONDS = 10.0
_FETCH_BYTES = 1 << 20
# Time in UTC and as ISO 8601, whatever the server's defaults; sorts of a part's ids stay in memory.
_SESSION = {
    "default_transaction_read_only": "on",
    "search_path": "pg_catalog",
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "work_mem": "64MB",
    "jit": "off",
    "application_name": "shardline",
}
_COLUMNS = """
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
_CONFIG_SOURCES = """
SELECT pg_get_triggerdef(g.oid) || ' ' || p.prosrc FROM pg_trigger g JOIN pg_proc p ON p.oid = g.tgfoid
WHERE g.tgrelid = $1 AND NOT g.tgisinternal
UNION ALL SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = $1
UNION ALL SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = $1
"""


@dataclass(frozen=True, slots=True)
class PostgresOptions:
    """Where the database is, who asks, and how long an answer may take in seconds."""

    host: str
    port: int
    user: str | None
    password: str | None = field(repr=False)
    database: str
    schema: str = "public"
    table: str | None = None
    sslmode: str = "prefer"
    sslrootcert: str | None = None
    statement_seconds: float = 300.0

    @property
    def place(self) -> str:
        """The database, for messages."""
        return f"PostgreSQL {self.host}:{self.port}/{self.database}"


@dataclass(frozen=True, slots=True)
class Row:
    """What the tables hold of one document; `digest` is that of a text too long to be sent whole."""

    id: str
    known: bool
    deleted: bool
    size: int | None
    body: str | None
    digest: str | None
    refs: str | None
    metadata: str


class Postgres:
    """UDS3's tables. Each call opens a connection of its own and closes it."""

    def __init__(self, options: PostgresOptions) -> None:
        self._options = options

    async def check(self) -> str:
        """Look whether the database can be read; a sentence for `doctor`."""
        async with self.connect() as session:
            schema = await session.schema()
        tables = ", ".join(table.name for table in schema.tables)
        searched = "can be searched" if schema.searchable else "has nothing to search in"
        return f"{self._options.place} answers; it has {tables} and {searched}"

    @asynccontextmanager
    async def connect(self) -> AsyncIterator["Session"]:
        """A connection that only reads.

        Raises:
            SourceUnavailable: try again later.
            JobFailed: it refuses for good: password, database, privileges.
        """
        with self._translated():
            connection = await self._open()
            try:
                yield Session(connection, self._options)
            finally:
                # A query under way is cancelled by the client when its task is; what remains is the goodbye.
                await connection.close(timeout=_CONNECT_SECONDS)

    async def _open(self) -> Any:
        options = self._options
        connection = await asyncpg.connect(
            host=options.host,
            port=options.port,
            user=options.user,
            password=options.password,
            database=options.database,
            ssl=_tls(options),
            timeout=_CONNECT_SECONDS,
            command_timeout=options.statement_seconds + _CONNECT_SECONDS,
        )
        session = _SESSION | {"statement_timeout": f"{int(options.statement_seconds * 1000)}ms"}
        try:
            await connection.execute(
                "SELECT "
                + ", ".join(f"set_config('{name}', '{value}', FALSE)" for name, value in session.items())
            )
        except BaseException:
            await connection.close(timeout=_CONNECT_SECONDS)
            raise
        return connection

    @contextmanager
    def _translated(self) -> "Iterator[None]":
        try:
            yield
        except ShardlineError:
            raise
        except ssl.SSLCertVerificationError as error:
            raise self._refused(error, "check POSTGRES_SSLMODE and POSTGRES_SSLROOTCERT") from None
        except asyncpg.InterfaceError as error:
            if isinstance(error, ValueError):
                # The client cannot express what was asked for.
                raise self._refused(error, None) from None
            raise self._away(error) from error
        except _AWAY as error:
            raise self._away(error) from error
        except (asyncpg.UndefinedColumnError, asyncpg.UndefinedTableError) as error:
            raise JobFailed(
                FailureCode.SOURCE_CHANGED,
                f"{self._options.place}: a table is not what it was at planning: {_said(error)}",
                hint="put it back and retry, or submit a new job",
            ) from None
        except asyncpg.PostgresError as error:
            raise self._refused(error, _HINTS.get(type(error))) from None

    def _away(self, error: Exception) -> SourceUnavailable:
        return SourceUnavailable(
            f"{self._options.place} is away: {_said(error)}",
            hint="check POSTGRES_HOST and POSTGRES_PORT, and that the server runs",
        )

    def _refused(self, error: Exception, hint: str | None) -> JobFailed:
        return JobFailed(
            FailureCode.SOURCE_INVALID, f"{self._options.place} refuses: {_said(error)}", hint=hint
        )


_AWAY = (
    OSError,
    asyncio.TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    asyncpg.exceptions.PostgresSystemError,
)
_HINTS: Mapping[type[BaseException], str] = {
    asyncpg.InvalidPasswordError: "check POSTGRES_USER and POSTGRES_PASSWORD",
    asyncpg.InvalidAuthorizationSpecificationError: "check POSTGRES_USER, and the server's pg_hba.conf",
    asyncpg.InvalidCatalogNameError: "check POSTGRES_DATABASE",
    asyncpg.InsufficientPrivilegeError: "GRANT SELECT on UDS3's tables to the user",
    asyncpg.InvalidDatetimeFormatError: "a filter of a date column needs dates such as 2020-01-31",
    asyncpg.DatetimeFieldOverflowError: "a filter of a date column needs dates such as 2020-01-31",
}


def _said(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _tls(options: PostgresOptions) -> Any:
    if options.sslmode in ("disable", "prefer"):
        return False if options.sslmode == "disable" else "prefer"
    try:
        context = ssl.create_default_context(cafile=options.sslrootcert)
    except OSError as error:
        raise JobFailed(
            FailureCode.SOURCE_INVALID,
            f"POSTGRES_SSLROOTCERT: {options.sslrootcert} cannot be read: {error}",
            hint="it names the PEM file of the authority that signed the server's certificate",
        ) from None
    context.check_hostname = options.sslmode == "verify-full"
    if options.sslmode == "require":
        context.verify_mode = ssl.CERT_NONE
    return context


class Session:
    """One open connection."""

    def __init__(self, connection: Any, options: PostgresOptions) -> None:
        self._connection = connection
        self._options = options

    async def schema(self) -> Schema:
        """The tables in use, as the catalogue tells.

        Raises:
            JobFailed: there is none that can be used.
        """
        names = list(dict.fromkeys([*KNOWN_TABLES, *([self._options.table] if self._options.table else [])]))
        rows = await self._connection.fetch(_COLUMNS, self._options.schema, names)
        tables = {}
        for name in dict.fromkeys(row["relname"] for row in rows):
            table = await self._table(name, [row for row in rows if row["relname"] == name])
            if table is not None:
                tables[name] = table
        place = f"{self._options.place}, schema {self._options.schema},"
        return choose(tables, self._options.table, place)

    async def _table(self, name: str, found: Sequence[Any]) -> Table | None:
        rows = [row for row in found if row["readable"]]
        key = next(
            (row for row in rows if row["attname"] == KEY and row["typname"] in ("text", "varchar")), None
        )
        hidden = [row["attname"] for row in found if marks_deleted(row["attname"]) and not row["readable"]]
        if hidden or (key is None and any(marks_deleted(row["attname"]) for row in found)):
            raise self._unreadable(name, hidden)
        if key is None:
            return None
        config = None
        if any(row["attname"] == VECTOR and row["typname"] == "tsvector" for row in rows):
            sources = await self._connection.fetch(_CONFIG_SOURCES, key["oid"])
            config = search_config(name, [row[0] for row in sources if row[0]])
        columns = [
            Column(row["attname"], row["column"], kind, row["typname"])
            for row in rows
            if (kind := kind_of(row["typname"], row["category"])) is not None
        ]
        bytewise = key["provider"] == "c" and is_bytewise(key["locale"])
        return Table(name, key["quoted"], key["column"], key["unique"], bytewise, config, tuple(columns))

    def _unreadable(self, name: str, hidden: Sequence[str]) -> JobFailed:
        what = f"{name} ({', '.join(hidden)})" if hidden else f"{name} ({KEY})"
        return JobFailed(
            FailureCode.SOURCE_INVALID,
            f"{self._options.place}: {what} tells which documents are deleted, and cannot be read",
            hint=f"GRANT SELECT on {what} to the user; {KEY} must be text",
        )

    async def estimate(self, schema: Schema) -> int | None:
        """About how many rows the main table has, where the server has counted them before."""
        query = "SELECT reltuples::int8 FROM pg_class WHERE oid = $1::text::regclass"
        count: int = await self._connection.fetchval(query, schema.tables[0].quoted)
        return count if count > 0 else None

    async def page(self, selection: sql.Selection, after: str | None, limit: int) -> list[tuple[str, bool]]:
        """Ids behind `after` in byte order, and whether they count; fewer than `limit` at the end."""
        found = await self._fetch(sql.page(selection, after, limit))
        return [(row["id"], row["live"]) for row in found]

    async def rank(self, selection: sql.Selection, text: str) -> AsyncGenerator[list[Hit], None]:
        """Documents that match a text, the best first, in one snapshot."""
        statement = sql.ranked(selection, text)
        async with self._connection.transaction(readonly=True):
            cursor = await self._connection.cursor(statement.text, *statement.values)
            while page := await cursor.fetch(_PAGE):
                yield [Hit(row["id"], row["score"]) for row in page]

    async def gate(self, selection: sql.Selection, ids: Sequence[str]) -> dict[str, tuple[bool, bool]]:
        """Of each id whether the tables know it, and whether it counts."""
        found = await self._fetch(sql.gate(selection, list(ids)))
        return {row["id"]: (row["known"], row["passes"]) for row in found}

    async def contents(self, selection: sql.Selection, ids: Sequence[str], longest: int) -> list[Row]:
        """What the tables hold of the first of these ids; about a MiB of it."""
        found = await self._fetch(sql.contents(selection, list(ids), longest, _FETCH_BYTES))
        return [Row(**row) for row in found]

    async def _fetch(self, statement: sql.Statement) -> list[Any]:
        rows: list[Any] = await self._connection.fetch(statement.text, *statement.values)
        return rows


def metadata_of(row: Row) -> dict[str, Any]:
    """The metadata of a row, without what is null."""
    return {name: value for name, value in orjson.loads(row.metadata).items() if value is not None}
