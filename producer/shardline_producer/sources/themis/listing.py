"""Listing the rows of a table: pages of keys in the server's order, each checked against the rows themselves.

The keys are read from the index and are complete, but the server cuts each key at its last ':'. A cut key
names no row, or another row. So a page is valid only if keys and rows are the same, each once, in rising
order. A page without keys is the end of the table.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise, zip_longest
from typing import Any

from shardline_common.errors import FailureCode, JobFailed
from shardline_common.http.client import ResponseTooLarge
from shardline_common.runtime.tasks import gather_limited
from shardline_producer.sources.documents import FieldNames, parse_document
from shardline_producer.sources.planned import Entry
from shardline_producer.sources.source import Document
from shardline_producer.sources.themis.client import QueryRejected, ThemisClient
from shardline_producer.sources.themis.conditions import Conditions, matches_predicates
from shardline_producer.sources.themis.queries import (
    MAX_ROWS,
    MissingIndex,
    TableQuery,
    ThemisRow,
    is_readable,
    keys_of,
    order_key,
    rows_of,
)

_MAX_FAILURES = 4
_FILTER_PROBES = 4
# One less than a query may ask for, so that a check can ask for one more and see that there is none.
_MAX_KEYS = MAX_ROWS - 1


@dataclass(frozen=True, slots=True)
class RowSelection:
    """The rows that a job reads, and how it reads them.

    `lossless`: each row is read alone, as it was stored. `keyed`: the key column holds the rows' keys, which
    is necessary to read a row alone.
    """

    query: TableQuery
    conditions: Conditions
    lossless: bool
    keyed: bool

    @property
    def names(self) -> FieldNames:
        """The fields of id and text. ThemisDB's own exporter calls the text `content`."""
        return FieldNames(self.query.key, ("content", "text"))

    def parse(self, text: str, key: str) -> Document | None:
        """The document of a row's JSON; None when it cannot be one."""
        found = parse_document(text.encode("utf-8", "surrogatepass"), key, self.names)
        return found if isinstance(found, Document) else None


class RowLister:
    """Lists the rows of a selection over one client.

    `page` limits the rows of a response, `concurrency` the requests at once.
    """

    def __init__(self, client: ThemisClient, selection: RowSelection, page: int, concurrency: int) -> None:
        self._client = client
        self._selection = selection
        self._table_query = selection.query
        self._page = page
        self._concurrency = concurrency

    async def entries(self, after: str | None, limit: int | None) -> AsyncGenerator[list[Entry], None]:
        """Implements `PlannedStore.entries`, behind the id `after`. Raises as `pages`."""
        left = limit
        wanted = limit if self._selection.conditions.empty else None
        async with aclosing(self.pages(after, wanted)) as pages:
            async for page in pages:
                entries = [Entry(row.id or "") for row in await self._matching(page)]
                entries = entries if left is None else entries[:left]
                if entries:
                    yield entries
                left = None if left is None else left - len(entries)
                if left == 0:
                    return

    async def _matching(self, page: Sequence[ThemisRow]) -> list[ThemisRow]:
        selection, conditions = self._selection, self._selection.conditions
        if conditions.empty:
            return list(page)
        decisions: list[bool | None] = []
        for row in page:
            document = selection.parse(row.text, "")
            if not selection.lossless:
                # A row that cannot be a document becomes a dead letter: the filters do not apply to it.
                decisions.append(document is None or conditions.meets(document))
            else:
                decisions.append(None if document is None else conditions.meets_lossy(document))
        undecided = [row for row, decision in zip(page, decisions, strict=True) if decision is None]
        calls = [partial(self._stored_row_matches, row.id or "") for row in undecided]
        stored = iter(await gather_limited(calls, self._concurrency))
        return [
            row
            for row, decision in zip(page, decisions, strict=True)
            if (next(stored) if decision is None else decision)
        ]

    async def _stored_row_matches(self, identity: str) -> bool:
        if not is_readable(self._table_query.table, identity):
            return True
        blob = await self._client.entity(self._table_query.table, identity)
        if blob is None:
            return False
        document = self._selection.parse(blob, identity)
        return document is None or self._selection.conditions.meets(document)

    async def pages(self, after: str | None, max_rows: int | None) -> AsyncGenerator[list[ThemisRow], None]:
        """Pages of all rows behind `after` that pass the server's filter, in order.

        `max_rows`: the number of rows that the caller needs; None: all.

        Raises:
            JobFailed: the server cannot return some rows, or returns others in their place; an index is
                missing.
            SourceUnavailable: a later try may succeed.
        """
        behind, failures = after or "", 0
        limit = _MAX_KEYS if max_rows is None else min(_MAX_KEYS, max(max_rows, 1))
        while True:
            # 1. Read the next keys of the index. If the server has dropped its filter, because no further row
            #    matches, they are keys of other rows, and the list has ended.
            keys = await self.keys(behind, limit)
            if not keys or not await self._is_filtering(behind, len(keys)):
                return
            # 2. Check the keys themselves.
            problem, done = await self._key_problem(behind, keys), 0
            # 3. Read the rows of the keys, page by page, and check them against the keys.
            while problem is None and done < len(keys):
                page = keys[done : done + self._page]
                try:
                    rows, problem = await self._checked_rows(behind, page)
                except ResponseTooLarge:
                    if len(page) == 1:
                        raise self._key_column_error("has a row that is too large for this process") from None
                    self._page = len(page) // 2
                    continue
                if problem is None:
                    yield rows
                    behind, failures, done = rows[-1].id or "", 0, done + len(page)
            # 4. Continue behind the last row that was checked. A row may be inserted or removed between two
            #    queries, so a problem is raised only when it repeats.
            if problem is None:
                # Also after fewer keys than the limit: only an empty response shows the end of the index.
                continue
            failures += 1
            if failures == _MAX_FAILURES:
                raise problem

    async def _is_filtering(self, behind: str, count: int) -> bool:
        predicates = self._table_query.predicates
        if not predicates:
            return True
        rows = await self.rows(behind, min(count, _FILTER_PROBES))
        known = [row.fields for row in rows if row.fields is not None]
        return not known or any(matches_predicates(fields, predicates) for fields in known)

    async def _key_problem(self, behind: str, keys: Sequence[str]) -> JobFailed | None:
        """The error of keys that are not the values of the key column, in order and complete; else None."""
        if not self._selection.keyed:
            return None
        if "" in keys or not _rising(behind, keys):
            return self._cut_key_error("")
        # If the last key were in the wrong position, the index would have more keys up to its value.
        up_to_last = await self._keys_up_to(behind, keys[-1], len(keys) + 1)
        return None if up_to_last == list(keys) else self._cut_key_error(keys[-1])

    async def _checked_rows(
        self, behind: str, keys: Sequence[str]
    ) -> tuple[list[ThemisRow], JobFailed | None]:
        """The rows of the keys, and their error, if there is one."""
        if self._selection.keyed:
            rows = await self.rows(behind, len(keys), keys[-1])
            if len(rows) == len(keys):
                # A row that is not valid JSON has no id. When no row is missing, its position gives the id.
                rows = [
                    row if row.id is not None else replace(row, id=key)
                    for row, key in zip(rows, keys, strict=True)
                ]
            ids = [row.id or "" for row in rows]
            if unlisted := sorted(set(ids).difference(keys)):
                return [], key_column_mismatch(self._table_query, unlisted[0])
            cut = next((key for key, identity in zip_longest(keys, ids) if key != identity), None)
            return rows, None if cut is None else self._cut_key_error(cut)
        rows = await self.rows(behind, len(keys))
        ids = [row.id or "" for row in rows]
        if not all(ids):
            return [], self._key_column_error(f"has a row without a text in '{self._table_query.key}'")
        up_to_last = await self._keys_up_to(behind, ids[-1], len(keys) + 1) if ids else []
        if repeated := next((one for one, other in pairwise(ids) if one == other), None):
            return [], self._key_column_error(
                f"has more than one row with '{repeated}' in '{self._table_query.key}'"
            )
        complete = len(ids) == len(keys) == len(up_to_last) and _rising(behind, ids)
        return rows, None if complete else self._cut_key_error("")

    def _key_column_error(self, what: str) -> JobFailed:
        return JobFailed(
            FailureCode.SOURCE_INVALID,
            f"ThemisDB's table '{self._table_query.table}' {what}",
            hint="set source.key to a column of unique texts",
        )

    def _cut_key_error(self, key: str) -> JobFailed:
        example = f", such as one that ends in ':{key}'" if key else ""
        return JobFailed(
            FailureCode.SOURCE_INVALID,
            f"ThemisDB cannot return all rows of '{self._table_query.table}': some keys hold ':'{example}, "
            f"or '{self._table_query.key}' repeats a value",
            hint="store those rows again under keys without ':'",
        )

    async def keys(self, behind: str, limit: int) -> list[str]:
        """The keys of the index behind a value, at most `limit`; none mean that the index has ended.

        Raises:
            JobFailed: an index is missing; the hint names the requests that create it.
        """
        return keys_of(await self._query(self._table_query.page(behind or None, limit, keys=True)))

    async def _keys_up_to(self, behind: str, last: str, limit: int) -> list[str]:
        query = self._table_query.page(behind or None, limit, until=last, keys=True)
        return keys_of(await self._query(query))

    async def rows(self, behind: str, limit: int, until: str | None = None) -> list[ThemisRow]:
        """The rows behind a value, up to and with `until`. Raises ResponseTooLarge, JobFailed as `keys`."""
        response = await self._query(self._table_query.page(behind or None, limit, until=until))
        return rows_of(response, self._table_query.key)

    async def rows_between(self, first: str, last: str, limit: int) -> list[ThemisRow]:
        """The rows from `first` up to and with `last`. Raises as `rows`."""
        response = await self._query(self._table_query.between(first, last, limit))
        return rows_of(response, self._table_query.key)

    async def _query(self, body: dict[str, Any]) -> dict[str, Any]:
        try:
            return await self._client.query(body)
        except QueryRejected as error:
            missing = MissingIndex.named_in(str(error))
            if missing is not None:
                raise missing.error(self._table_query.table) from None
            raise JobFailed(
                FailureCode.SOURCE_INVALID,
                f"ThemisDB refuses a query of '{self._table_query.table}': {error}",
            ) from None


def _rising(behind: str, values: Sequence[str]) -> bool:
    keys = [order_key(behind) if behind else b"", *map(order_key, values)]
    return all(one < other for one, other in pairwise(keys))


def key_column_mismatch(query: TableQuery, value: str) -> JobFailed:
    """The error for a key column that does not hold the rows' keys."""
    return JobFailed(
        FailureCode.SOURCE_INVALID,
        f"ThemisDB has no row '{query.table}:{value}', although the column '{query.key}' holds '{value}': "
        "the column does not hold the rows' keys, so no row can be read alone",
        hint="set source.key to the column that holds the keys, or source.lossless to false",
    )
