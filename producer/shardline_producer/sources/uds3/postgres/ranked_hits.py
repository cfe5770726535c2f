"""The hits of a keyword search, the best first: read as a whole, or the first ones at once."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from shardline_common.errors import SourceUnavailable
from shardline_producer.sources.uds3.postgres import sql
from shardline_producer.sources.uds3.postgres.copied_rows import copied_rows
from shardline_producer.sources.uds3.postgres.keyless import keyless_id
from shardline_producer.sources.uds3.postgres.options import PostgresOptions
from shardline_producer.sources.uds3.postgres.text_indexes import have_exact_indexes
from shardline_producer.sources.uds3.store_ports import Hit

PAGE = 5_000
# The longest list that is read at once: its hits are in memory, here and on the server.
MAX_FIRST = 4 * PAGE

# A transaction has the snapshot of its first statement. That statement may have waited for a table that was
# truncated or rewritten meanwhile: by the snapshot, the rows in its new file are not there yet.
# pg_relation_filenode knows the file of now, pg_class that of the snapshot.
_STALE_QUERY = """
SELECT count(*) FROM pg_class
WHERE oid = ANY ($1::int8[]::oid[]) AND relfilenode <> 0
  AND pg_relation_filenode(oid) IS DISTINCT FROM relfilenode::oid
"""


class RankedHits:
    """Reads the hits of one search over an open connection.

    `deleted`: only the documents that are marked deleted,
    instead of those that are not.
    """

    def __init__(
        self,
        connection: Any,
        options: PostgresOptions,
        selection: sql.DocumentSelection,
        text: str,
        *,
        deleted: bool,
    ) -> None:
        self._connection = connection
        self._options = options
        self._selection = selection
        self._text = text
        self._deleted = deleted
        self._statement = sql.marked_hits(selection, text) if deleted else sql.ranked(selection, text)

    async def pages(self, skipped: int = 0) -> AsyncGenerator[list[Hit], None]:
        """All pages behind the first `skipped` hits, in the snapshot of the caller's transaction.

        Behind them come the rows that match and have no id (`keyless_id`).
        """
        await self._prefer_indexes()
        left = skipped
        copied = copied_rows(
            self._connection, self._options.address, self._statement, self._options.statement_seconds
        )
        async with aclosing(copied) as pages:
            async for rows in pages:
                page = [Hit(identity, float(score)) for identity, score in rows[left:]]
                left = max(0, left - len(rows))
                if page:
                    yield page
        if left:
            raise self._short()
        async for page in self._keyless():
            yield page

    async def first_pages(self, wanted: int) -> AsyncGenerator[list[Hit], None]:
        """The same pages, of which the first has at least `wanted` hits, if there are so many.

        PostgreSQL sorts no more than the first page then. The pages end without a first one if the
        snapshot of the transaction is older than a file that it reads: then read `pages` in another one.
        """
        limit = wanted + PAGE
        await self._prefer_indexes()
        statement = sql.best_hits(self._statement, limit)
        # One row: a page of rows could be cut by what lies between, and would look like the end of the list.
        found = await self._connection.fetchrow(statement.text, *statement.values)
        if found is None:
            raise self._short()
        if await self._is_stale():
            return
        yield [Hit(identity, score) for identity, score in zip(found["ids"], found["scores"], strict=True)]
        rest = self._keyless() if len(found["ids"]) < limit else self.pages(limit)
        async with aclosing(rest):
            async for page in rest:
                yield page

    async def _prefer_indexes(self) -> None:
        """Find the hits by the full-text indexes, also when nearly all rows are hits.

        The planner then prefers to read every row, because it does not count that the vector of a long text
        is unpacked to compare it, and again to rank it.
        """
        schema = self._selection.schema
        searched = [schema.tables[number] for number in sql.searched_tables(schema)]
        # Joined tables are read as a whole for as many hits: their indexes would be slower.
        if not searched or sql.joins_tables(self._selection):
            return
        if await have_exact_indexes(self._connection, searched):
            await self._connection.execute("SET LOCAL enable_seqscan = off")

    async def _is_stale(self) -> bool:
        schema = self._selection.schema
        oids = {*(table.oid for table in schema.tables), *(one.oid for one in schema.relations)}
        return bool(await self._connection.fetchval(_STALE_QUERY, sorted(oids)))

    async def _keyless(self) -> AsyncGenerator[list[Hit], None]:
        schema = self._selection.schema
        for number in [] if self._deleted else sql.searched_tables(schema):
            statement = sql.keyless_hits(self._selection, self._text, number)
            count: int = await self._connection.fetchval(statement.text, *statement.values)
            name = schema.tables[number].name
            for start in range(0, count, PAGE):
                numbers = range(start + 1, min(count, start + PAGE) + 1)
                yield [Hit(keyless_id(name, one), 0.0) for one in numbers]

    def _short(self) -> SourceUnavailable:
        message = f"{self._options.address} ended the list of a search before its last row"
        return SourceUnavailable(message, hint="look for a pooler or proxy that changes its answers")
