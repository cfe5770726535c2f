"""Listing the rows of a table: pages of keys in the server's order, each checked against the rows themselves.

The keys are read from the index, but the server cuts each key at its last ':'. A cut key names no row, or
another row. So a page is valid only if keys and rows are the same, each once, in rising order. A page
without keys is the end of the list. The index may lack rows, so the keys of each page are compared with
those that the server reads from the rows themselves (`completeness`).
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

from shardline_common.errors import FailureCode, JobFailed, ShardlineError, SourceUnavailable
from shardline_common.http.client import ResponseTooLarge
from shardline_common.job.findings import Findings, Level
from shardline_common.runtime.tasks import gather_limited
from shardline_common.runtime.threads import run_in_thread
from shardline_producer.sources.planned_store import Entry
from shardline_producer.sources.themis.client import KeyScan, QueryRejected, ThemisClient
from shardline_producer.sources.themis.completeness import ExpectedKeys, not_json, not_listed, stale_entries
from shardline_producer.sources.themis.conditions import matches_predicates
from shardline_producer.sources.themis.key_faults import (
    column_error,
    cut_key_error,
    is_rising,
    key_fault,
    rows_of_keys,
)
from shardline_producer.sources.themis.matching import RowMatcher
from shardline_producer.sources.themis.queries import (
    MAX_ROWS,
    MissingIndex,
    TableQuery,
    ThemisRow,
    is_json,
    is_readable,
    keys_of,
    order_key,
    rows_of,
)
from shardline_producer.sources.themis.selection import RowSelection

STORE = "themis"
_MAX_FAILURES = 4
_FILTER_PROBES = 4
_MAX_PROBES = 20
# One less than a query may ask for, so that a check can ask for one more and see that there is none.
_MAX_KEYS = MAX_ROWS - 1


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
        self._matcher = RowMatcher(client, selection, concurrency)
        self._expected: ExpectedKeys | None = None
        self._max_keys = MAX_ROWS

    async def entries(
        self, after: str | None, limit: int | None, findings: Findings
    ) -> AsyncGenerator[list[Entry], None]:
        """Implements `PlannedStore.entries`, behind the id `after`. Raises as `pages`."""
        left = limit
        wanted = limit if self._selection.conditions.empty else None
        await self._expect(after, findings)
        async with aclosing(self.pages(after, wanted)) as pages:
            async for page in pages:
                entries = [Entry(row.id or "") for row in await self._matcher.matching(page)]
                entries = entries if left is None else entries[:left]
                if entries:
                    yield entries
                left = None if left is None else left - len(entries)
                if left == 0:
                    return

    async def _expect(self, after: str | None, findings: Findings) -> None:
        """Read the keys that the list must have, and note how certain that makes it."""
        query, keyed = self._table_query, self._selection.keyed
        if not keyed:
            # The order of the keys is not that of the column, so no page can be compared.
            how = f"'{query.key}' does not hold the keys; the keys were compared when the job was planned"
            level = Level.UNPROVEN if self._selection.unchecked else Level.COUNTED
            findings.note(STORE, level, self._selection.unchecked or how)
            return
        scan = await self.scan()
        if scan.keys is None and query.predicates:
            # What the equality index lacks, only the rows show.
            self._table_query = replace(query, predicates={})
            scan = await self.scan()
        if scan.keys is None:
            how = f"{scan.why}, so they could not be compared with the index"
            level = Level.UNPROVEN if self._selection.unchecked else Level.COUNTED
            counted = f"{how}; their number was compared when the job was planned"
            findings.note(STORE, level, self._selection.unchecked or counted)
            return
        await self._expect_behind(after, scan)
        how = f"all keys, read from the rows, were compared with the list of the index on '{query.key}'"
        findings.note(STORE, Level.PROVEN, how)

    async def scan(self) -> KeyScan:
        """The keys of the rows that match the predicates, read without an index."""
        query = self._table_query
        unindexed = None
        if query.predicates and (unindexed := await self._column_without_range_index()) is None:
            return KeyScan(None, None, "each filtered column has a range index")
        try:
            return await self._client.scan(query.scan(unindexed))
        except QueryRejected as error:
            raise self._refused(error) from None

    async def _column_without_range_index(self) -> str | None:
        for column in self._table_query.predicates:
            try:
                await self._client.query(
                    TableQuery(self._table_query.table, column, {}).page(None, 1, keys=True)
                )
            except QueryRejected as error:
                if MissingIndex.named_in(str(error)) == MissingIndex(column, "range"):
                    return column
                raise self._refused(error) from None
        return None

    async def _is_complete(self, behind: str, until: str | None, keys: Sequence[str]) -> bool:
        """Whether the keys behind a value up to another are all that there are. False: list them again.

        Raises:
            JobFailed: the index does not list some rows (`source_changed`).
        """
        missing = self._expected.missing(until, keys) if self._expected else []
        if not missing:
            return True
        # 1. A key that is gone is that of a row that was removed.
        scan = await self.scan()
        left = sorted(set(missing).intersection(scan.keys or ()), key=order_key)
        if not left:
            await self._expect_behind(until, scan)
            return True
        # 2. The equality index lacks rows: from now on, only the conditions filter.
        if self._table_query.predicates:
            self._table_query = replace(self._table_query, predicates={})
            await self._expect_behind(behind, await self.scan())
            return False
        # 3. The range index lacks rows, or lacked them a moment ago.
        await self._expect_behind(behind, scan)
        found = await gather_limited(
            [partial(self.lists, one) for one in left[:_MAX_PROBES]], self._concurrency
        )
        if unlisted := [key for key, is_listed in zip(left, found, strict=False) if not is_listed]:
            rows = None if len(unlisted) == len(left) else f"at least {len(unlisted):,} rows"
            raise await self.unlisted_error(unlisted, FailureCode.SOURCE_CHANGED, rows)
        return False

    async def unlisted_error(self, keys: Sequence[str], code: FailureCode, rows: str | None) -> JobFailed:
        """The error for rows that the range index does not list. See `not_listed`."""
        query = self._table_query
        for key in keys[:_MAX_PROBES]:
            # No index lists a row that is not JSON. To read it alone is safe; a rebuild would end the server.
            if is_readable(query.table, key) and await self._is_not_json(key):
                return not_json(query.table, key)
        return not_listed(query.table, query.key, keys, code, rows)

    async def _is_not_json(self, key: str) -> bool:
        try:
            blob = await self._client.entity(self._table_query.table, key)
        except (JobFailed, QueryRejected):
            # The token may only query.
            return False
        return blob is not None and not is_json(blob)

    async def _expect_behind(self, behind: str | None, scan: KeyScan) -> None:
        # On a thread, because a million keys are sorted in seconds.
        keys = scan.keys
        make = partial(ExpectedKeys, keys or (), behind)
        self._expected = None if keys is None else await run_in_thread(make)

    async def lists(self, key: str) -> bool:
        """Whether the range index lists a key. A key that the server cuts is listed nowhere."""
        query = replace(self._table_query, predicates={}).between(key, key, 1) | {"return": "keys"}
        return bool(keys_of(await self._query(query)))

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
            problem: ShardlineError | None = None
            if not keys or not await self._is_filtering(behind, len(keys)):
                if await self._is_complete(behind, None, ()):
                    return
                problem, keys = self._index_in_flux(), []
            # 2. Check the keys themselves.
            problem, done = problem or await self._key_problem(behind, keys), 0
            # 3. Read the rows of the keys, page by page. Check them against the keys, and the keys against
            #    the table.
            while problem is None and done < len(keys):
                page = keys[done : done + self._page]
                try:
                    rows, problem = await self._checked_rows(behind, page)
                except ResponseTooLarge:
                    self._halve_page(len(page))
                    continue
                if problem is None and not await self._is_complete(behind, page[-1], page):
                    problem = self._index_in_flux()
                if problem is None:
                    yield rows
                    # Of a column that does not hold the keys, only the row shows the value.
                    last = page[-1] if self._selection.keyed else rows[-1].id
                    behind, failures, done = last or "", 0, done + len(page)
            # 4. Continue behind the last row that was checked. A row may be inserted or removed between two
            #    queries, so a problem is raised only when it repeats.
            if problem is None:
                # Also after fewer keys than the limit: only an empty response shows the end of the index.
                continue
            failures += 1
            if failures == _MAX_FAILURES:
                raise await self._stale_entries(keys) or problem

    def _halve_page(self, rows: int) -> None:
        if rows == 1:
            message = (
                f"ThemisDB's table '{self._table_query.table}' has a row that is too large for this process"
            )
            raise JobFailed(FailureCode.SOURCE_INVALID, message, hint="shorten that row, or remove it")
        self._page = rows // 2

    def _index_in_flux(self) -> SourceUnavailable:
        query = self._table_query
        return SourceUnavailable(
            f"the range index on '{query.key}' of ThemisDB's table '{query.table}' does not list all rows: "
            "it lists other ones each time",
            hint="wait until it is rebuilt",
        )

    async def _stale_entries(self, keys: Sequence[str]) -> JobFailed | None:
        """The error of keys in the index that no row has: it was made anew, with its old entries."""
        scan, query = await self.scan(), self._table_query
        gone = sorted(set(keys).difference(scan.keys), key=order_key) if scan.keys is not None else []
        # A row that was removed meanwhile is in no index.
        stale = [key for key in gone[:_MAX_PROBES] if await self.lists(key)]
        return stale_entries(query.table, query.key, stale) if stale else None

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
        if "" in keys or not is_rising(behind, keys):
            return await self._fault(behind, keys)
        # If the last key were in the wrong position, the index would have more keys up to its value, of which
        # some are behind it. Keys that come and go meanwhile are in their places.
        up_to_last = await self._keys_up_to(behind, keys[-1], len(keys) + 1)
        if up_to_last is not None and is_rising(behind, up_to_last):
            is_last = not up_to_last or order_key(up_to_last[-1]) <= order_key(keys[-1])
            return None if is_last else await self._fault(behind, keys)
        return await self._fault(behind, keys)

    async def _fault(self, behind: str, keys: Sequence[str]) -> JobFailed:
        shown = keys[: self._page]
        try:
            return key_fault(self._table_query, shown, await self.rows(behind, len(shown)))
        except ResponseTooLarge:
            return cut_key_error(self._table_query, keys[-1])

    async def _checked_rows(
        self, behind: str, keys: Sequence[str]
    ) -> tuple[list[ThemisRow], JobFailed | None]:
        """The rows of the keys, and their error, if there is one."""
        if self._selection.keyed:
            rows = await self.rows(behind, len(keys), keys[-1])
            found, problem = rows_of_keys(self._table_query, keys, rows)
            if problem is not None and (unchanged := await self._unchanged(keys, rows)) is not None:
                return unchanged, None
            return found, problem
        rows = await self.rows(behind, len(keys))
        ids = [row.id or "" for row in rows]
        if not all(ids):
            return [], column_error(
                self._table_query, f"has a row without a text in '{self._table_query.key}'"
            )
        up_to_last = await self._keys_up_to(behind, ids[-1], len(keys) + 1) if ids else []
        if repeated := next((one for one, other in pairwise(ids) if one == other), None):
            what = f"has more than one row with '{repeated}' in '{self._table_query.key}'"
            return [], column_error(self._table_query, what)
        complete = len(ids) == len(keys) == len(up_to_last or ()) and is_rising(behind, ids)
        return rows, None if complete else cut_key_error(self._table_query, "")

    async def _unchanged(self, keys: Sequence[str], rows: Sequence[ThemisRow]) -> list[ThemisRow] | None:
        """The rows of the keys that were not removed since; None when the others are not merely changes."""
        present = {row.id for row in rows}
        gone, new = [key for key in keys if key not in present], present.difference(keys)
        found = [row for row in rows if row.id not in new]
        still = [key for key in keys if key in present]
        # Of many keys that are gone, the next list is free, unless the index has old entries.
        if len(gone) > _MAX_PROBES or None in present or [row.id for row in found] != still:
            return None
        scan = await self.scan()
        if scan.keys is None:
            return None
        known = set(scan.keys)
        if not new.issubset(known) or known.intersection(gone) or await self._lists_any(gone):
            return None
        return found

    async def _lists_any(self, keys: Sequence[str]) -> bool:
        return any(await gather_limited([partial(self.lists, key) for key in keys], self._concurrency))

    async def keys(self, behind: str, limit: int) -> list[str]:
        """The keys of the index behind a value, at most `limit`; none mean that the index has ended.

        Fewer than the limit do not mean that: long keys may need several responses.

        Raises:
            JobFailed: an index is missing; the hint names the requests that create it.
        """
        while True:
            query = self._table_query.page(behind or None, min(limit, self._max_keys), keys=True)
            try:
                return keys_of(await self._query(query))
            except ResponseTooLarge:
                # Not a half: the checks of a page request one key more.
                self._max_keys = max(1, min(limit, self._max_keys) // 4)

    async def _keys_up_to(self, behind: str, last: str, limit: int) -> list[str] | None:
        """The keys up to and with a value; None when they do not fit into a response."""
        query = self._table_query.page(behind or None, limit, until=last, keys=True)
        try:
            return keys_of(await self._query(query))
        except ResponseTooLarge:
            return None

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
            raise self._refused(error) from None

    def _refused(self, error: QueryRejected) -> JobFailed:
        table, missing = self._table_query.table, MissingIndex.named_in(str(error))
        if missing is not None:
            return missing.error(table)
        return JobFailed(FailureCode.SOURCE_INVALID, f"ThemisDB refuses a query of '{table}': {error}")
