"""Checks of a table: at planning, that its range index lists all rows; later, that it is still that table."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from shardline_common.errors import FailureCode, JobFailed
from shardline_common.job.spec import ThemisSource
from shardline_common.runtime.tasks import gather_limited
from shardline_producer.sources.themis.client import KeyScan, QueryRejected, ThemisClient
from shardline_producer.sources.themis.completeness import TableState, not_listed
from shardline_producer.sources.themis.limiter import RateLimiter
from shardline_producer.sources.themis.listing import RowLister
from shardline_producer.sources.themis.queries import MAX_ROWS, TableQuery, keys_of, order_key
from shardline_producer.sources.themis.selection import RowSelection

_MAX_PROBES = 20


@dataclass(frozen=True, slots=True)
class ThemisSession:
    """An open client, its rate limiter, and the limits on rows of a response and on concurrent requests."""

    client: ThemisClient
    limiter: RateLimiter
    page: int
    concurrency: int

    def lister(self, selection: RowSelection) -> RowLister:
        """A lister over this client."""
        return RowLister(self.client, selection, self.page, self.concurrency)


@dataclass(frozen=True, slots=True)
class IndexFindings:
    """What the check of the range index found.

    `how`: "checked" (all keys were compared), "counted" (only their numbers), or "unchecked"; `unchecked`
    says why then. `listed` is the number of keys in the index, None if unknown; `state` is that of the table.
    """

    how: str
    listed: int | None
    state: TableState
    unchecked: str = ""


class IndexCheck:
    """Checks that the range index on the key column lists all rows. The others would be lost."""

    def __init__(self, session: ThemisSession, all_rows: RowSelection, table: str, key: str) -> None:
        self._client = session.client
        self._lister = session.lister(all_rows)
        self._concurrency = session.concurrency
        self._query = TableQuery(table, key, {})

    async def run(self, first: Sequence[str], *, keyed: bool) -> IndexFindings:
        """Compare all keys of the index with those of the table. `first` are the first keys of the index.

        Raises:
            JobFailed: rows are missing in the index.
        """
        before = await self._client.scan(self._query.scan())
        if before.count is None:
            state = TableState.of(first, None)
            return IndexFindings("unchecked", None, state, f"{before.why}, so nothing was compared")
        if not keyed and (len(first) == MAX_ROWS or before.keys is None):
            why = (
                f"'{self._query.key}' does not hold the keys, and they do not fit into one response, so they "
            )
            why += "could not be compared with the index"
            return IndexFindings("unchecked", None, TableState.of(before.keys, before.count), why)
        listed = await self._listed(first, keyed=keyed)
        state = TableState.of(before.keys, before.count)
        if before.keys is None:
            return await self._compare_counts(before.count, len(listed), state)
        if missing := Counter(before.keys) - Counter(listed):
            await self._check_missing(missing, keyed=keyed)
        return IndexFindings("checked", len(listed), state)

    async def _listed(self, first: Sequence[str], *, keyed: bool) -> list[str]:
        """All keys of the index, 10,000 in a request. A cut key may end the list: it breaks the order."""
        found = list(first)
        while keyed and found:
            keys = await self._lister.keys(found[-1], MAX_ROWS)
            if not keys:
                break
            is_ordered = order_key(keys[-1]) > order_key(found[-1])
            found += keys
            if not is_ordered:
                break
        return found

    async def _check_missing(self, missing: Counter[str], *, keyed: bool) -> None:
        # Rows that were inserted or removed between the two queries are not missing.
        again = await self._client.scan(self._query.scan())
        left = missing & Counter(again.keys or ())
        keys = sorted(left, key=order_key)
        if keyed:
            probes = keys[:_MAX_PROBES]
            found = await gather_limited(
                [partial(self._lister.lists, key) for key in probes], self._concurrency
            )
            keys = [key for key, is_listed in zip(probes, found, strict=True) if not is_listed]
            # Where all of the probes are missing, so are the others.
            count = left.total() if len(keys) == len(probes) else len(keys)
        else:
            left = left - Counter(await self._lister.keys("", MAX_ROWS))
            keys, count = sorted(left), left.total()
        if keys:
            raise await self._lister.unlisted_error(keys, FailureCode.SOURCE_INVALID, f"{count:,} rows")

    async def _compare_counts(self, before: int, listed: int, state: TableState) -> IndexFindings:
        if listed >= before:
            return IndexFindings("counted", listed, state)
        now = (await self._client.scan(self._query.scan())).count
        if now == before:
            rows = f"{before - listed:,} rows"
            raise not_listed(self._query.table, self._query.key, [], FailureCode.SOURCE_INVALID, rows)
        why = f"its index listed {listed:,} of {before:,} rows while the table was written"
        return IndexFindings("unchecked", listed, state, why)


async def check_table(session: ThemisSession, source: ThemisSource, facts: Mapping[str, Any]) -> None:
    """Check that a table is the one of the plan with these facts, and not empty.

    Raises:
        JobFailed: its range index is missing, or it was emptied or made anew (`source_changed`).
        SourceUnavailable: a later try may succeed.
    """
    query, state = TableQuery(source.table, source.key, {}), TableState.from_facts(facts)
    try:
        listed = keys_of(await session.client.query(query.page(None, 1, keys=True)))
    except QueryRejected as error:
        raise _changed(source, f"no longer has a range index on '{source.key}' ({error})") from None
    scan: KeyScan = await session.client.scan(query.scan())
    change = state.change(scan.count, scan.keys)
    had_rows = state.rows or state.keys if scan.count is None else scan.count
    if change is None and not listed and had_rows:
        change = f"has rows, of which the range index on '{source.key}' lists none"
    if change is not None:
        raise _changed(source, change)


def _changed(source: ThemisSource, change: str) -> JobFailed:
    return JobFailed(
        FailureCode.SOURCE_CHANGED,
        f"ThemisDB's table '{source.table}' {change}",
        hint="submit a new job; or restore the table and its indexes, and retry this one",
    )
