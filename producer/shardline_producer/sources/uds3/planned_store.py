"""UDS3 as a planned store: a filtered scan of PostgreSQL, or a hybrid search over whatever is there."""

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from shardline_common.errors import FailureCode, JobFailed, SourceUnavailable
from shardline_common.job.spec import JobSpec, SearchType, Uds3Source
from shardline_common.runtime.threads import run_in_thread
from shardline_producer.sources.planned import Description, Entry, Fetcher
from shardline_producer.sources.query_filters import check_known
from shardline_producer.sources.uds3.contents import ContentFetcher
from shardline_producer.sources.uds3.postgres.connection import Postgres
from shardline_producer.sources.uds3.postgres.schema import Schema, columns
from shardline_producer.sources.uds3.postgres.sql import Selection
from shardline_producer.sources.uds3.search import Search, Tables
from shardline_producer.sources.uds3.store_ports import Bodies, Ranker

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Stores:
    """The stores of an installation that this process is set up for.

    `rankers` are those beside PostgreSQL. `archived`: whether archived documents count. `model` tells what
    makes the vectors of queries, for the plan.
    """

    postgres: Postgres | None = None
    rankers: Mapping[SearchType, Ranker] | None = None
    bodies: Sequence[Bodies] = ()
    archived: bool = False
    model: Callable[[], str] | None = None

    @property
    def others(self) -> Mapping[SearchType, Ranker]:
        """The rankers beside PostgreSQL, by the search they do."""
        return self.rankers or {}


@dataclass(slots=True)
class _Choice:
    """Which searches are done, and which are not: their store is not configured, or is down.

    `marks`: whose marks of deletion are asked for, also those of stores that are not searched.
    """

    done: list[SearchType]
    left_out: list[SearchType]
    degraded: list[SearchType]
    marks: list[SearchType]


class Uds3Store:
    """Implements `PlannedStore`.

    What PostgreSQL or a ranker marks deleted is in no list, whatever store found it. PostgreSQL, where it
    is configured, is never left out. Filters on its fields are checked there, others by the rankers.
    """

    def __init__(self, spec: JobSpec, stores: Stores) -> None:
        if not isinstance(spec.source, Uds3Source):
            raise TypeError(spec.source.type)
        self._spec = spec
        self._source = spec.source
        self._query = spec.query
        self._stores = stores

    async def describe(self) -> Description:
        """Look at the tables and the rankers, and check filters and search against them."""
        schema, estimate = await self._look()
        known = Selection(schema, {}).known_fields() if schema else {}
        facts: dict[str, Any] = {
            "schema": schema.to_json() if schema else None,
            "archived": self._stores.archived,
        }
        found = columns(schema) if schema else None
        if self._query.text is None:
            if schema is None:
                raise _invalid(
                    "without query.text UDS3 is read from PostgreSQL, which is not configured",
                    "set POSTGRES_HOST, or search by query.text",
                )
            check_known(self._query.filters, known)
            self._check_texts(schema)
            return Description(facts, columns=found, estimate=estimate)
        choice = await self._choose(schema, set(known))
        self._check_texts(schema)
        notes: dict[str, Any] = {"searches": choice.done, "left_out": choice.left_out}
        notes["degraded"] = choice.degraded
        if "vector" in choice.done and self._stores.model is not None:
            notes["model"] = await run_in_thread(self._stores.model)
        facts |= {"searches": choice.done, "marks": choice.marks}
        return Description(facts, ranked=True, columns=found, notes=notes)

    def _check_texts(self, schema: Schema | None) -> None:
        # Else every document would be read, and be a dead letter.
        if not self._stores.bodies and not (schema and schema.has_contents):
            where = "no table has a column content, and no" if schema else "no"
            raise _invalid(f"{where} store of bodies is configured", "set COUCH_URL or CHROMA_HOST")

    async def _look(self) -> tuple[Schema | None, int | None]:
        if self._stores.postgres is None:
            return None, None
        async with self._stores.postgres.connect() as session:
            schema = await session.schema()
            return schema, await session.estimate(schema)

    async def _choose(self, schema: Schema | None, known: set[str]) -> _Choice:
        choice = _Choice([], [], [], [])
        for name in self._query.shares:
            if name == "keyword":
                self._choose_keyword(schema, known, choice)
            elif (ranker := self._stores.others.get(name)) is None:
                choice.left_out.append(name)
            else:
                await self._choose_ranker(ranker, known, choice)
        if not choice.done:
            raise _invalid(
                f"none of the searches {', '.join(self._query.shares)} can be done: "
                f"not configured: {', '.join(choice.left_out) or 'none'}; down: "
                f"{', '.join(choice.degraded) or 'none'}",
                "configure a store (docs/sources.md), or ask for other query.search_types",
            )
        for name in choice.left_out:
            _log.warning("the %s search is not configured and is left out", name)
        for name, ranker in self._stores.others.items():
            if name not in self._query.shares and await self._fields(ranker, choice) is not None:
                choice.marks.append(name)
        return choice

    def _choose_keyword(self, schema: Schema | None, known: set[str], choice: _Choice) -> None:
        if schema is None:
            choice.left_out.append("keyword")
            return
        if not schema.searchable:
            raise _invalid(
                "the keyword search needs a column search_vector or content, and no table has one",
                "leave keyword out of query.search_types",
            )
        check_known(self._query.filters, known, "the keyword search")
        choice.done.append("keyword")

    async def _choose_ranker(self, ranker: Ranker, known: set[str], choice: _Choice) -> None:
        if (fields := await self._fields(ranker, choice)) is None:
            return
        check_known(self._query.filters, known | set(fields), f"the {ranker.name} search")
        choice.done.append(ranker.name)
        choice.marks.append(ranker.name)

    async def _fields(self, ranker: Ranker, choice: _Choice) -> Sequence[str] | None:
        try:
            return await ranker.fields()
        except SourceUnavailable as error:
            if not self._source.degrade:
                raise
            _log.warning("going on without the %s store: %s", ranker.name, error)
            choice.degraded.append(ranker.name)
            return None

    async def entries(
        self, facts: Mapping[str, Any], after: Entry | None, limit: int | None
    ) -> AsyncGenerator[list[Entry], None]:
        """A scan in byte order of the ids, or the fused search."""
        pages = self._scan(facts, after, limit) if self._query.text is None else self._search(facts, limit)
        async with aclosing(pages):
            async for page in pages:
                yield page

    def _selection(self, facts: Mapping[str, Any]) -> Selection:
        schema = Schema.from_json(facts["schema"])
        known = Selection(schema, {}).known_fields()
        filters = {name: wanted for name, wanted in self._query.filters.items() if name in known}
        return Selection(schema, filters, facts["archived"])

    def _postgres(self) -> Postgres:
        if self._stores.postgres is None:
            raise _invalid("PostgreSQL was configured at planning, and is not any more", "set POSTGRES_HOST")
        return self._stores.postgres

    async def _scan(
        self, facts: Mapping[str, Any], after: Entry | None, limit: int | None
    ) -> AsyncGenerator[list[Entry], None]:
        selection, last = self._selection(facts), after.id if after else None
        if limit is None:
            raise AssertionError("a scan is planned part by part")
        async with self._postgres().connect() as session:
            while limit > 0:
                asked = limit
                page = await session.page(selection, last, asked)
                live = [Entry(identity) for identity, counts in page if counts]
                limit -= len(live)
                if live:
                    yield live
                if len(page) < asked:
                    return
                last = page[-1][0]

    def _search(self, facts: Mapping[str, Any], limit: int | None) -> AsyncGenerator[list[Entry], None]:
        search = Search(
            query=self._query,
            relevance=self._spec.quality.relevance,
            rankers=self._stores.others,
            tables=Tables(self._postgres(), self._selection(facts)) if facts["schema"] else None,
            searches=facts["searches"],
            marks=facts["marks"],
        )
        return search.pages(limit)

    @asynccontextmanager
    async def fetcher(self, facts: Mapping[str, Any]) -> AsyncIterator[Fetcher]:
        """Contents from PostgreSQL, else from the stores of bodies."""
        longest = self._spec.max_document_bytes
        if facts["schema"] is None:
            yield ContentFetcher(None, None, self._stores.bodies, longest)
            return
        async with self._postgres().connect() as session:
            yield ContentFetcher(session, self._selection(facts), self._stores.bodies, longest)


def _invalid(message: str, hint: str) -> JobFailed:
    return JobFailed(FailureCode.SOURCE_INVALID, message, hint=hint)
