"""ThemisDB as a planned store: every describe, listing and fetching has connections of its own."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

from shardline_common.job.spec import JobSpec, ThemisSource
from shardline_common.ports.clock import Clock
from shardline_producer.sources.planned import Description, Entry, Fetcher
from shardline_producer.sources.themis.client import ThemisOptions, open_themis
from shardline_producer.sources.themis.conditions import Conditions
from shardline_producer.sources.themis.fetching import QuickRows, WholeRows
from shardline_producer.sources.themis.limiter import RateLimiter
from shardline_producer.sources.themis.listing import Wanted
from shardline_producer.sources.themis.planning import Planner, Reach
from shardline_producer.sources.themis.queries import Target


class ThemisTable:
    """Implements `PlannedStore` for one job. The limiter is the process's: ThemisDB counts per user."""

    def __init__(
        self, spec: JobSpec, source: ThemisSource, options: ThemisOptions, limiter: RateLimiter, clock: Clock
    ) -> None:
        self._spec = spec
        self._source = source
        self._options = options
        self._limiter = limiter
        self._clock = clock

    async def describe(self) -> Description:
        """Indexes, fields, columns, and whether the job can be done in reasonable time."""
        async with self._reach() as reach:
            return await Planner(reach, self._spec, self._source).describe()

    async def entries(
        self, facts: Mapping[str, Any], after: Entry | None, limit: int | None
    ) -> AsyncGenerator[list[Entry], None]:
        """Rows in the order of the key column."""
        async with self._reach() as reach:
            listing = reach.listing(self._wanted(facts))
            async with aclosing(listing.entries(after.id if after else None, limit)) as pages:
                async for page in pages:
                    yield page

    @asynccontextmanager
    async def fetcher(self, facts: Mapping[str, Any]) -> AsyncIterator[Fetcher]:
        """Reads rows whole, or quickly, as the plan says."""
        wanted = self._wanted(facts)
        async with self._reach() as reach:
            if wanted.lossless:
                yield WholeRows(reach.client, self._limiter, wanted, reach.width)
            else:
                yield QuickRows(reach.listing(wanted), wanted, reach.page)

    @asynccontextmanager
    async def _reach(self) -> AsyncIterator[Reach]:
        options = self._options
        async with open_themis(options, self._limiter, self._clock) as client:
            yield Reach(client, self._limiter, options.page, options.connections)

    def _wanted(self, facts: Mapping[str, Any]) -> Wanted:
        target = Target(self._source.table, self._source.key, facts["predicates"])
        conditions = Conditions.of(self._source, self._spec.query)
        return Wanted(target, conditions, facts["lossless"], facts["keyed"])
