"""One open connection to PostgreSQL."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import asyncpg

from shardline_common.errors import SourceUnavailable
from shardline_common.job.findings import Findings, Level
from shardline_producer.sources.uds3.postgres import sql
from shardline_producer.sources.uds3.postgres.catalog import Catalog
from shardline_producer.sources.uds3.postgres.keyless import is_storable, keyless_id, keyless_number
from shardline_producer.sources.uds3.postgres.options import PostgresOptions
from shardline_producer.sources.uds3.postgres.ranked_hits import MAX_FIRST, RankedHits
from shardline_producer.sources.uds3.postgres.relations import (
    lost_relations,
    redefined_views,
    rewritten_relations,
)
from shardline_producer.sources.uds3.postgres.row_fields import RowFields
from shardline_producer.sources.uds3.postgres.schema import MANY_ROWS, PostgresSchema, PostgresTable
from shardline_producer.sources.uds3.postgres.statement import SqlStatement
from shardline_producer.sources.uds3.postgres.text_indexes import slow_searches
from shardline_producer.sources.uds3.store_ports import Hit

# What the values of one row may be the reason for: a view that divides by zero, bytes of another encoding, a
# value that is too deep or too long, a damaged page.
ROW_ERRORS = (
    asyncpg.DataError,
    asyncpg.CardinalityViolationError,
    asyncpg.ProgramLimitExceededError,
    asyncpg.PLPGSQLError,
    asyncpg.ExternalRoutineError,
    asyncpg.DataCorruptedError,
)
_FETCH_BYTES = 1 << 20


class PostgresRow(NamedTuple):
    """The values of one document in the tables.

    `known`: a table has the document. `body` is None if no table has its text; `size` is in bytes of the
    server's encoding. `digest`: the sha256 of a text over the limit; `body` is only its start then. `refs` is
    JSON. `fields`, `json` and `decoded` are the metadata. `fault`: why the server cannot return the row,
    whose values are missing then.
    """

    id: str
    known: bool
    deleted: bool
    size: int | None
    body: str | None
    digest: str | None
    refs: str | None
    fields: RowFields
    json: str | None
    decoded: Sequence[Any]
    fault: str = ""

    def metadata_values(self) -> dict[str, Any]:
        """The metadata that is not null."""
        return self.fields.values(self.json, self.decoded)


@dataclass(frozen=True, slots=True)
class PostgresRows:
    """Rows of documents. `records` are the values of each; `fault`: that of the only one."""

    fields: RowFields
    records: Sequence[Sequence[Any]]
    fault: str = ""

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[PostgresRow]:
        return map(self.row, range(len(self.records)))

    def row(self, number: int) -> PostgresRow:
        """The row `number`, from 0 on."""
        identity, known, deleted, size, body, digest, refs, json, *decoded = self.records[number]
        return PostgresRow(
            identity, known, deleted, size, body, digest, refs, self.fields, json, decoded, self.fault
        )


class _ContentsStatement(NamedTuple):
    """The text of `sql.contents` for a selection, and the fields that it selects."""

    selection: sql.DocumentSelection
    text: str
    fields: RowFields


class PostgresSession:
    """One open connection."""

    def __init__(self, connection: Any, options: PostgresOptions) -> None:
        self._connection = connection
        self._options = options
        self._catalog = Catalog(connection, options)
        self._reading: _ContentsStatement | None = None

    @property
    def stores_utf8(self) -> bool:
        """Whether the server's sizes of texts are those in UTF-8."""
        return bool(self._connection.get_settings().server_encoding == "UTF8")

    async def schema(self) -> PostgresSchema:
        """The tables in use, as `Catalog.schema`."""
        return await self._catalog.schema()

    async def estimate(self, schema: PostgresSchema) -> int | None:
        """The approximate number of rows of the main table; None if the server has no statistics."""
        query = "SELECT reltuples::int8 FROM pg_class WHERE oid = $1::text::regclass"
        count: int = await self._connection.fetchval(query, schema.tables[0].quoted)
        return count if count > 0 else None

    async def slow_searches(self, schema: PostgresSchema) -> list[str]:
        """A sentence for each table that a keyword search reads row by row, with the SQL of an index."""
        return await slow_searches(self._connection, schema)

    async def page(
        self, selection: sql.DocumentSelection, after: str | None, limit: int, findings: Findings
    ) -> list[tuple[str, bool]]:
        """The next ids after `after` in byte order, each with whether it is in the selection.

        Each id comes once. Behind all ids come the rows that have none (`keyless_id`). There are fewer than
        `limit` only at the end.

        Raises:
            JobFailed: the tables are no longer those of the plan (`source_changed`).
        """
        # The transaction keeps the tables locked against changes of their columns until they are checked.
        async with self._connection.transaction(isolation="read_committed", readonly=True):
            found = await self._list(selection, after, limit, findings)
            await self._check_listing(selection.schema, after, ended=len(found) < limit)
        return found

    async def _list(
        self, selection: sql.DocumentSelection, after: str | None, limit: int, findings: Findings
    ) -> list[tuple[str, bool]]:
        found: list[tuple[str, bool]] = []
        repeated = False
        number = keyless_number(after)
        last, ended = after, number > 0
        while len(found) < limit and not ended:
            rows = await self._fetch(sql.page(selection, last, limit - len(found)))
            ended = len(rows) < limit - len(found)
            ids = [row[0] for row in rows]
            # Equal ids are neighbours in byte order, whatever an index says about them.
            if len({last, *ids}) == len(ids) + 1 and not any(row[2] for row in rows):
                found += [(row[0], row[1]) for row in rows]
                last = ids[-1] if ids else last
                continue
            repeated = True
            for identity, live, _ in rows:
                if identity != last:
                    found.append((identity, live))
                    last = identity
        if repeated:
            how = f"some ids of {selection.schema.tables[0].name} are in several rows, of which one is read"
            findings.note("postgresql", Level.COUNTED, how)
        if len(found) < limit:
            count = (await self._fetch(sql.keyless_rows(selection)))[0]["count"]
            name, most = selection.schema.tables[0].name, number + limit - len(found)
            found += [(keyless_id(name, one), True) for one in range(number + 1, min(count, most) + 1)]
        return found

    async def _check_listing(self, schema: PostgresSchema, after: str | None, *, ended: bool) -> None:
        """Check that the rows up to `after`, which were listed before, were not taken away as a whole."""
        catalog = self._catalog
        main, rewritten = schema.tables[0], await self._check_relations(schema)
        known = None if keyless_number(after) else after
        if rewritten and not await self._has_rows(main, known):
            raise catalog.changed(f"table {rewritten[0]} was truncated")
        if main.rows >= MANY_ROWS and ended and not await self._has_rows(main, None):
            raise catalog.changed(f"table {main.name} was emptied")

    async def check_standing(self, schema: PostgresSchema) -> None:
        """Check that the tables of a plan are still there, after many of its documents vanished.

        Raises:
            JobFailed: a table was dropped, made again, truncated, rewritten or emptied, or lost a partition
                (`source_changed`).
        """
        catalog, main = self._catalog, schema.tables[0]
        if rewritten := await self._check_relations(schema):
            raise catalog.changed(f"table {rewritten[0]} was truncated or rewritten")
        if not await self._has_rows(main, None):
            raise catalog.changed(f"table {main.name} was emptied")

    async def _check_relations(self, schema: PostgresSchema) -> list[str]:
        """Check that tables and partitions are those of the plan. Returns those whose file is another one."""
        catalog = self._catalog
        await catalog.verify(schema)
        if not schema.relations:
            return []
        found = await catalog.relations([table.oid for table in schema.tables])
        if lost := lost_relations(schema.relations, found):
            raise catalog.changed(f"{lost[0]} is no longer a part of what is read")
        if redefined := redefined_views(schema.relations, found):
            raise catalog.changed(f"view {redefined[0]} was given another definition")
        return rewritten_relations(schema.relations, found)

    async def _has_rows(self, main: PostgresTable, up_to: str | None) -> bool:
        found: bool = (await self._fetch(sql.has_rows(main, up_to)))[0]["found"]
        return found

    async def rank(
        self, selection: sql.DocumentSelection, text: str, *, deleted: bool = False, wanted: int | None = None
    ) -> AsyncGenerator[list[Hit], None]:
        """Pages of the documents that match a text, the best first, in one snapshot.

        Behind them come the rows that match and have no id (`keyless_id`). `deleted`: only the documents that
        are marked deleted, instead of those that are not. `wanted`: how many hits are probably read; None:
        all. It changes how soon the first page comes, and not what the pages have.
        """
        hits = RankedHits(self._connection, self._options, selection, text, deleted=deleted)
        if wanted is not None and wanted <= MAX_FIRST:
            begun = False
            async with (
                self._transaction("repeatable_read"),
                aclosing(hits.first_pages(wanted)) as pages,
            ):
                async for page in pages:
                    begun = True
                    yield page
            if begun:
                # Within that transaction, the catalogue would be that of its snapshot.
                await self._check_relations(selection.schema)
                return
        async with self._transaction("read_committed"):
            async with aclosing(hits.pages()) as pages:
                async for page in pages:
                    yield page
            await self._check_relations(selection.schema)

    @asynccontextmanager
    async def _transaction(self, isolation: str) -> AsyncIterator[None]:
        """A transaction for a list, which closes the connection if it is not read to its end."""
        transaction = self._connection.transaction(isolation=isolation, readonly=True)
        await transaction.start()
        try:
            yield
        except BaseException:
            if not self._connection.is_closed():
                await transaction.rollback()
            raise
        await transaction.commit()

    async def check_hits(
        self, selection: sql.DocumentSelection, ids: Sequence[str]
    ) -> dict[str, tuple[bool, bool]]:
        """For each id: whether a table has the document, and whether it is live and passes the filters."""
        found = await self._fetch(sql.check_hits(selection, [one for one in ids if is_storable(one)]))
        checks = {row["id"]: (row["known"], row["passes"]) for row in found}
        return {one: checks[one] if is_storable(one) else (False, False) for one in ids}

    async def marked(self, selection: sql.DocumentSelection, ids: Sequence[str]) -> list[str]:
        """Those of the documents that the tables mark deleted and that pass the filters."""
        storable = [one for one in ids if is_storable(one)]
        return [row["id"] for row in await self._fetch(sql.marked(selection, storable))]

    async def references(self, selection: sql.DocumentSelection, ids: Sequence[str]) -> dict[str, str]:
        """The couchdb_refs of the documents that have them, as JSON."""
        statement = sql.references(selection, [one for one in ids if is_storable(one)])
        return {} if statement is None else {row["id"]: row["refs"] for row in await self._fetch(statement)}

    async def contents(
        self, selection: sql.DocumentSelection, ids: Sequence[str], max_bytes: int
    ) -> "PostgresRows":
        """The rows of the first of these documents: at least one, up to about 1 MiB."""
        rows = await self._readable_rows(selection, list(ids), max_bytes)
        # The statement has a row for each id, also of a document that is gone.
        if not rows.records or [record[0] for record in rows.records] != list(ids[: len(rows.records)]):
            message = f"{self._options.address} answered rows of other documents than the first of {len(ids)}"
            raise SourceUnavailable(message, hint="look for a pooler or proxy that changes its answers")
        # A mark in a column that the plan does not know would not be seen.
        await self._catalog.verify(selection.schema)
        return rows

    async def _readable_rows(
        self, selection: sql.DocumentSelection, ids: list[str], max_bytes: int
    ) -> "PostgresRows":
        """The rows of the first ids. One that the server cannot return is read alone, and has a fault."""
        if self._reading is None or self._reading.selection is not selection:
            text = sql.contents(selection, ids, max_bytes, _FETCH_BYTES).text
            self._reading = _ContentsStatement(selection, text, RowFields.of(selection.schema))
        text, fields = self._reading.text, self._reading.fields
        while True:
            try:
                values = sql.contents_values(ids, max_bytes, _FETCH_BYTES)
                found = await self._fetch(SqlStatement(text, values))
            except ROW_ERRORS as error:
                if len(ids) == 1:
                    row = (ids[0], True, False, None, None, None, None, "{}")
                    return PostgresRows(fields, [row], str(error))
                ids = ids[: len(ids) // 2]
            else:
                return PostgresRows(fields, found)

    async def _fetch(self, statement: SqlStatement) -> list[Any]:
        rows: list[Any] = await self._connection.fetch(statement.text, *statement.values)
        return rows
