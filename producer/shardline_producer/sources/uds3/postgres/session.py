"""One open connection to PostgreSQL."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from shardline_common.errors import SourceUnavailable
from shardline_producer.sources.uds3.postgres import sql
from shardline_producer.sources.uds3.postgres.catalog import Catalog
from shardline_producer.sources.uds3.postgres.options import PostgresOptions
from shardline_producer.sources.uds3.postgres.schema import PostgresSchema
from shardline_producer.sources.uds3.store_ports import Hit

_PAGE = 5_000
_FETCH_BYTES = 1 << 20


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


class PostgresSession:
    """One open connection."""

    def __init__(self, connection: Any, options: PostgresOptions) -> None:
        self._connection = connection
        self._options = options

    async def schema(self) -> PostgresSchema:
        """The tables in use, as `Catalog.schema`."""
        return await Catalog(self._connection, self._options).schema()

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
