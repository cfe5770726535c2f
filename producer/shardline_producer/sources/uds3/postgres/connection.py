"""Connections to PostgreSQL. They only read, and need SELECT on UDS3's tables and no other privilege."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import asyncpg

from shardline_common.errors import FailureCode, JobFailed, ShardlineError, SourceUnavailable
from shardline_common.http.tls import is_tls_refused
from shardline_producer.sources.uds3.postgres.options import PostgresOptions
from shardline_producer.sources.uds3.postgres.session import PostgresSession

_CONNECT_SECONDS = 10.0
# Times are in UTC and ISO 8601, independent of the server's defaults. With this work_mem a page of ids is
# sorted in memory.
_SESSION_SETTINGS = {
    "default_transaction_read_only": "on",
    "search_path": "pg_catalog",
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    # The shortest texts that give back the same number; a role or a database may have another default.
    "extra_float_digits": "1",
    # A backslash in a literal is a backslash.
    "standard_conforming_strings": "on",
    "work_mem": "64MB",
    "jit": "off",
    # A policy that hides rows from the user is an error then, and never a shorter table.
    "row_security": "off",
    "application_name": "shardline",
}


class Postgres:
    """UDS3's tables. Each call opens a connection and closes it."""

    def __init__(self, options: PostgresOptions) -> None:
        self._options = options

    async def check(self) -> str:
        """Test whether the database can be read. Returns a sentence for `doctor`."""
        async with self.connect() as session:
            schema = await session.schema()
            slow = await session.slow_searches(schema)
        tables = ", ".join(table.name for table in schema.tables)
        configs = "; ".join(f"{name} as {config}" for name, config in schema.search_configs.items())
        searched = f"can be searched: {configs}" if schema.searchable else "cannot be searched by text"
        return "; ".join([f"{self._options.address} answers; it has {tables} and {searched}", *slow])

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[PostgresSession]:
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
    asyncpg.InsufficientPrivilegeError: "GRANT SELECT on UDS3's tables to the user; "
    "against a row-level security policy: ALTER ROLE … BYPASSRLS",
    asyncpg.InvalidDatetimeFormatError: "write dates such as 2020-01-31 in filters of date columns",
    # A search computes the words of a text that is in no column search_vector.
    asyncpg.ProgramLimitExceededError: "add a column search_vector of the beginning of long texts, such as "
    "to_tsvector('german', left(content, 250000))",
    asyncpg.CharacterNotInRepertoireError: "correct the ids, and the values that a filter compares: their "
    "bytes are no text in the encoding of the database",
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
