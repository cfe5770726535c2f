"""ThemisDB as a planned store. Each description, listing and fetcher opens its own connections."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

from shardline_common.job.findings import Findings
from shardline_common.job.spec import JobSpec, ThemisSource
from shardline_common.ports.clock import Clock
from shardline_producer.sources.planned_store import Description, Entry, Fetcher
from shardline_producer.sources.themis.client import ThemisOptions, open_themis
from shardline_producer.sources.themis.conditions import Conditions
from shardline_producer.sources.themis.fetching import LosslessFetcher, LossyFetcher, RowReader
from shardline_producer.sources.themis.limiter import RateLimiter
from shardline_producer.sources.themis.planning import TablePlanner
from shardline_producer.sources.themis.queries import TableQuery
from shardline_producer.sources.themis.selection import RowSelection
from shardline_producer.sources.themis.table_check import ThemisSession, check_table


class ThemisTable:
    """Implements `PlannedStore` for one job.

    All jobs of a process share one limiter, because ThemisDB limits the requests of a user.
    """

    why_whole = (
        "ThemisDB limits the requests of a user, and several producers would exceed the limit together"
    )

    def __init__(
        self, spec: JobSpec, source: ThemisSource, options: ThemisOptions, limiter: RateLimiter, clock: Clock
    ) -> None:
        self._spec = spec
        self._source = source
        self._options = options
        self._limiter = limiter
        self._clock = clock

    async def describe(self) -> Description:
        """Check indexes and fields, infer the columns, and estimate the number of rows."""
        async with self._connect() as session:
            return await TablePlanner(session, self._spec, self._source).describe()

    async def entries(
        self,
        facts: Mapping[str, Any],
        after: Entry | None,
        limit: int | None,
        findings: Findings,
    ) -> AsyncGenerator[list[Entry], None]:
        """The matching rows in the server's order of the key column."""
        listed = 0
        async with self._connect() as session:
            lister = session.lister(self._selection(facts))
            async with aclosing(lister.entries(after.id if after else None, limit, findings)) as pages:
                async for page in pages:
                    yield page
                    listed += len(page)
            if limit is None or listed < limit:
                # A server that has come back empty, or another one, lists nothing further either.
                await check_table(session, self._source, facts)

    async def check_standing(self, facts: Mapping[str, Any]) -> None:
        """Check that the table and its range index are those of the planning, and not empty."""
        async with self._connect() as session:
            await check_table(session, self._source, facts)

    @asynccontextmanager
    async def fetcher(self, facts: Mapping[str, Any]) -> AsyncIterator[Fetcher]:
        """A fetcher of rows without or with losses, as the plan says."""
        selection = self._selection(facts)
        async with self._connect() as session:
            lister = session.lister(selection)
            reader = RowReader(session.client, lister, selection)
            if selection.lossless:
                yield LosslessFetcher(reader, self._limiter, session.concurrency)
            else:
                yield LossyFetcher(reader, lister, selection, session.page)

    @asynccontextmanager
    async def _connect(self) -> AsyncIterator[ThemisSession]:
        options = self._options
        async with open_themis(options, self._limiter, self._clock) as client:
            yield ThemisSession(client, self._limiter, options.page, options.connections)

    def _selection(self, facts: Mapping[str, Any]) -> RowSelection:
        query = TableQuery(self._source.table, self._source.key, facts["predicates"])
        conditions = Conditions.of(self._source, self._spec.query)
        how = facts["lossless"], facts["keyed"], facts.get("unchecked", ""), facts.get("reads_empty", False)
        return RowSelection(query, conditions, *how)
