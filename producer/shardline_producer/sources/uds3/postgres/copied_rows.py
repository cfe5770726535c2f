"""The rows of one long result, as PostgreSQL computes them: by COPY, which runs with parallel workers.

A cursor reads a result in pieces too, but PostgreSQL gives it no parallel workers.
"""

import asyncio
import re
from collections.abc import AsyncGenerator
from typing import Any

from shardline_common.errors import SourceUnavailable
from shardline_common.runtime.durations import seconds_text
from shardline_common.runtime.tasks import await_uncancelled
from shardline_producer.sources.uds3.postgres.statement import SqlStatement

# asyncpg has one time limit for a whole COPY, in which a slow reader counts.
_NO_LIMIT = 10.0 * 365 * 86_400
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


async def copied_rows(
    connection: Any, address: str, statement: SqlStatement, patience: float
) -> AsyncGenerator[list[list[str]], None]:
    """The rows of a statement, in lists of bounded size. Values are their texts; none may be null.

    Runs in the caller's transaction. The server waits for a slow reader. A generator that is closed before
    the last row closes the connection.

    Raises:
        SourceUnavailable: rows are missing, or for `patience` seconds none came.
    """
    chunks = asyncio.Queue[bytes](maxsize=1)
    # The server's time limit is for a whole statement too.
    limit = await connection.fetchval("SELECT current_setting('statement_timeout')")
    await connection.execute("SET LOCAL statement_timeout = 0")
    copying = asyncio.ensure_future(
        connection.copy_from_query(
            statement.text, *statement.values, output=chunks.put, timeout=_NO_LIMIT, format="text"
        )
    )
    count, tail = 0, b""
    try:
        while (chunk := await _next(chunks, copying, patience, address)) is not None:
            # A row ends with a line feed, and line feeds in values are escaped.
            whole, line_feed, tail = (tail + chunk).rpartition(b"\n")
            if line_feed:
                rows = [_row(line) for line in whole.decode().split("\n")]
                count += len(rows)
                yield rows
    finally:
        if not copying.done():
            # After a COPY that was cancelled, asyncpg may refuse the next statement: "another operation is
            # in progress".
            connection.terminate()
            copying.cancel()
            await await_uncancelled(copying)
            if not copying.cancelled():
                copying.exception()
    if tail or copying.result() != f"COPY {count}":
        message = f"{address} ended the list of a search before its last row"
        raise SourceUnavailable(message, hint="look for a pooler or proxy that changes its answers")
    await connection.execute(f"SET LOCAL statement_timeout = '{limit}'")


async def _next(
    chunks: asyncio.Queue[bytes], copying: asyncio.Future[str], patience: float, address: str
) -> bytes | None:
    """The next chunk; None behind the last one."""
    if chunks.empty() and not copying.done():
        chunk = asyncio.ensure_future(chunks.get())
        try:
            waited: set[asyncio.Future[Any]] = {chunk, copying}
            await asyncio.wait(waited, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if chunk.done():
                return chunk.result()
        finally:
            chunk.cancel()
        if not copying.done():
            raise SourceUnavailable(
                f"{address} sent no row of a search for {seconds_text(patience)}",
                hint="raise POSTGRES_TIMEOUT_SECONDS, or add an index for the search (shardline doctor)",
            )
    if not chunks.empty():
        return chunks.get_nowait()
    # An error of the statement is raised here.
    copying.result()
    return None


def _row(line: str) -> list[str]:
    values = line.split("\t")
    return [_ESCAPE.sub(_unescaped, value) for value in values] if "\\" in line else values


def _unescaped(found: re.Match[str]) -> str:
    return _ESCAPED.get(found[1], found[1])
