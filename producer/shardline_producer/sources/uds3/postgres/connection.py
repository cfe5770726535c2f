"""Connections to PostgreSQL. They only read, and need SELECT on UDS3's tables and no other privilege."""

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import orjson

from shardline_common.errors import FailureCode, JobFailed, ShardlineError, SourceUnavailable
from shardline_common.http.tls import is_tls_refused
from shardline_producer.sources.uds3.postgres import sql
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
from shardline_producer.sources.uds3.store_ports import Hit
from shardline_producer.sources.uds3.tombstones import TOMBSTONE_FIELDS

_PAGE = 5_000
_CONNECT_SECONDS = 10.0
_FETCH_BYTES = 1 << 20
# Times are in UTC and ISO 8601, independent of the server's defaults. With this work_mem a page of ids is
# sorted in memory.
_SESSION_SETTINGS = {
    "default_transaction_read_only": "on",
    "search_path": "pg_catalog",
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "work_mem": "64MB",
    "jit": "off",
    "application_name": "shardline",
}
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


@dataclass(frozen=True, slots=True)
class PostgresOptions:
    """The address of the database, the user, and the time-out of a statement in seconds."""

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
    def address(self) -> str:
        """The database, for messages."""
        return f"PostgreSQL {self.host}:{self.port}/{self.database}"


@dataclass(frozen=True, slots=True)
class PostgresRow:
    """The values of one document in the tables.

    `known`: a table has the document. `body` is None if no table has its text. `digest`: the sha256 of a text
    over the limit; `body` is only its start then. `refs` and `metadata` are JSON.
    """

    id: str
    known: bool
    deleted: bool
    size: int | None
    body: str | None
    digest: str | None
    refs: str | None
    metadata: str

    def metadata_values(self) -> dict[str, Any]:
        """The metadata that is not null."""
        return {name: value for name, value in orjson.loads(self.metadata).items() if value is not None}


class Postgres:
    """UDS3's tables. Each call opens a connection and closes it."""

    def __init__(self, options: PostgresOptions) -> None:
        self._options = options

    async def check(self) -> str:
        """Test whether the database can be read. Returns a sentence for `doctor`."""
        async with self.connect() as session:
            schema = await session.schema()
        tables = ", ".join(table.name for table in schema.tables)
        searched = "can be searched" if schema.searchable else "cannot be searched by text"
        return f"{self._options.address} answers; it has {tables} and {searched}"

    @asynccontextmanager
    async def connect(self) -> AsyncIterator["PostgresSession"]:
        """Open a read-only session; leaving the context closes it.

        Raises:
            SourceUnavailable: a later attempt may succeed.
            JobFailed: the server refuses the password, the database or the privileges.
        """
        options = self._options
        settings = _SESSION_SETTINGS | {"statement_timeout": f"{int(options.statement_seconds * 1000)}ms"}
        with _translated(options):
            with _refused_connection(options):
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
            try:
                values = (f"set_config('{name}', '{value}', FALSE)" for name, value in settings.items())
                await connection.execute("SELECT " + ", ".join(values))
                yield PostgresSession(connection, options)
            finally:
                # asyncpg cancels a running query when its task is cancelled, so closing only has to send the
                # message of termination.
                await connection.close(timeout=_CONNECT_SECONDS)


_TRANSIENT_ERRORS = (
    OSError,
    asyncio.TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.LockNotAvailableError,
    asyncpg.ObjectInUseError,
    asyncpg.TransactionRollbackError,
    asyncpg.exceptions.PostgresSystemError,
)
_HINTS: Mapping[type[BaseException], str] = {
    asyncpg.InvalidPasswordError: "check POSTGRES_USER and POSTGRES_PASSWORD",
    asyncpg.InvalidAuthorizationSpecificationError: "check POSTGRES_USER, and the server's pg_hba.conf",
    asyncpg.InvalidCatalogNameError: "check POSTGRES_DATABASE",
    asyncpg.InsufficientPrivilegeError: "GRANT SELECT on UDS3's tables to the user",
    asyncpg.InvalidDatetimeFormatError: "write dates such as 2020-01-31 in filters of date columns",
    asyncpg.DatetimeFieldOverflowError: "write dates such as 2020-01-31 in filters of date columns",
}


@contextmanager
def _refused_connection(options: PostgresOptions) -> Iterator[None]:
    """Raise JobFailed for what no later attempt to connect changes; other errors are passed on."""
    hint = "check POSTGRES_SSLMODE and POSTGRES_SSLROOTCERT"
    try:
        yield
    except (asyncpg.InterfaceError, ValueError) as error:
        # The server demands a method of authentication that the client does not have, or a setting is no
        # value of its kind.
        raise _refused(options, error, "check POSTGRES_HOST, POSTGRES_USER and POSTGRES_PASSWORD") from None
    except OSError as error:
        if is_tls_refused(error):
            raise _refused(options, error, hint) from None
        # asyncpg raises the class itself, and no subclass, when TLS is required and the server does not offer
        # it. Without this requirement, a server that starts or stops answers so.
        if type(error) is ConnectionError and options.sslmode not in ("disable", "prefer"):
            raise _refused(options, error, hint) from None
        raise


@contextmanager
def _translated(options: PostgresOptions) -> Iterator[None]:
    """Raise errors of the client and the server as SourceUnavailable or JobFailed."""
    try:
        yield
    except ShardlineError:
        raise
    except asyncpg.InterfaceError as error:
        if isinstance(error, ValueError):
            # A value cannot be encoded in the type of its parameter.
            raise _refused(options, error, None) from None
        raise _unavailable(options, error) from error
    except _TRANSIENT_ERRORS as error:
        raise _unavailable(options, error) from error
    except (asyncpg.UndefinedColumnError, asyncpg.UndefinedTableError) as error:
        raise JobFailed(
            FailureCode.SOURCE_CHANGED,
            f"{options.address}: a table has changed since planning: {_message(error)}",
            hint="restore the table and retry, or submit a new job",
        ) from None
    except asyncpg.PostgresError as error:
        raise _refused(options, error, _HINTS.get(type(error))) from None


def _unavailable(options: PostgresOptions, error: Exception) -> SourceUnavailable:
    return SourceUnavailable(
        f"{options.address} is unavailable: {_message(error)}",
        hint="check POSTGRES_HOST and POSTGRES_PORT, and that the server runs",
    )


def _refused(options: PostgresOptions, error: Exception, hint: str | None) -> JobFailed:
    return JobFailed(FailureCode.SOURCE_INVALID, f"{options.address} refuses: {_message(error)}", hint=hint)


def _message(error: BaseException) -> str:
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
            hint="name the PEM file of the authority that signed the server's certificate",
        ) from None
    context.check_hostname = options.sslmode == "verify-full"
    if options.sslmode == "require":
        context.verify_mode = ssl.CERT_NONE
    return context


class PostgresSession:
    """One open connection."""

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

    async def estimate(self, schema: PostgresSchema) -> int | None:
        """The approximate number of rows of the main table; None if the server has no statistics."""
        query = "SELECT reltuples::int8 FROM pg_class WHERE oid = $1::text::regclass"
        count: int = await self._connection.fetchval(query, schema.tables[0].quoted)
        return count if count > 0 else None

    async def page(
        self, selection: sql.DocumentSelection, after: str | None, limit: int
    ) -> list[tuple[str, bool]]:
        """The next ids after `after` in byte order, each with whether it is in the selection.

        There are fewer than `limit` only at the end.
        """
        found = await self._fetch(sql.page(selection, after, limit))
        return [(row["id"], row["live"]) for row in found]

    async def rank(self, selection: sql.DocumentSelection, text: str) -> AsyncGenerator[list[Hit], None]:
        """Pages of the documents that match a text, the best first, in one snapshot."""
        statement = sql.ranked(selection, text)
        async with self._connection.transaction(readonly=True):
            cursor = await self._connection.cursor(statement.text, *statement.values)
            while page := await cursor.fetch(_PAGE):
                yield [Hit(row["id"], row["score"]) for row in page]
            # asyncpg takes a page with fewer rows for the last one, also if the server only paused there.
            if await cursor.forward(1):
                message = f"{self._options.address} ended the list of a search before its last row"
                raise SourceUnavailable(message, hint="look for a pooler or proxy that changes its answers")

    async def check_hits(
        self, selection: sql.DocumentSelection, ids: Sequence[str]
    ) -> dict[str, tuple[bool, bool]]:
        """For each id: whether a table has the document, and whether it is live and passes the filters."""
        found = await self._fetch(sql.check_hits(selection, list(ids)))
        return {row["id"]: (row["known"], row["passes"]) for row in found}

    async def contents(
        self, selection: sql.DocumentSelection, ids: Sequence[str], max_bytes: int
    ) -> list[PostgresRow]:
        """The rows of the first of these documents: at least one, up to about 1 MiB."""
        found = await self._fetch(sql.contents(selection, list(ids), max_bytes, _FETCH_BYTES))
        rows = [PostgresRow(**row) for row in found]
        # The statement has a row for each id, also of a document that is gone.
        if not rows or [row.id for row in rows] != list(ids[: len(rows)]):
            message = f"{self._options.address} answered rows of other documents than the first of {len(ids)}"
            raise SourceUnavailable(message, hint="look for a pooler or proxy that changes its answers")
        return rows

    async def _fetch(self, statement: sql.SqlStatement) -> list[Any]:
        rows: list[Any] = await self._connection.fetch(statement.text, *statement.values)
        return rows
