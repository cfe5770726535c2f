"""UDS3 as a planned store: a filtered scan of PostgreSQL, or a search over the stores that are configured."""

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from shardline_common.errors import FailureCode, JobFailed, SourceUnavailable
from shardline_common.job.findings import Findings
from shardline_common.job.spec import JobSpec, SearchType, Uds3Source
from shardline_common.runtime.threads import run_in_thread
from shardline_producer.sources.planned import Description, Entry, Fetcher
from shardline_producer.sources.query_filters import check_known
from shardline_producer.sources.uds3.contents import ContentFetcher
from shardline_producer.sources.uds3.postgres.connection import Postgres
from shardline_producer.sources.uds3.postgres.schema import PostgresSchema, metadata_columns
from shardline_producer.sources.uds3.postgres.sql import DocumentSelection
from shardline_producer.sources.uds3.search import HybridSearch, SelectedTables
from shardline_producer.sources.uds3.store_ports import BodyStore, Ranker

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ConfiguredStores:
    """The stores of UDS3 that the settings of this process name.

    `rankers`: those beside PostgreSQL, by their search. `include_archived`: whether archived documents are
    exported. `model_identity`: names the model that makes the vectors of queries, for the plan; it blocks.
    """

    postgres: Postgres | None = None
    rankers: Mapping[SearchType, Ranker] = field(default_factory=dict)
    body_stores: Sequence[BodyStore] = ()
    include_archived: bool = False
    model_identity: Callable[[], str] | None = None


@dataclass(frozen=True, slots=True)
class _SearchPlan:
    """The searches to do, and those left out because their store is not configured or is down (`degraded`).

    `tombstone_stores`: the stores whose tombstones are read, including those that are not searched.
    """

    searches: list[SearchType] = field(default_factory=list)
    left_out: list[SearchType] = field(default_factory=list)
    degraded: list[SearchType] = field(default_factory=list)
    tombstone_stores: list[SearchType] = field(default_factory=list)


class Uds3Store:
    """Implements `PlannedStore`.

    A document that PostgreSQL or a ranker marks deleted is in no list, whichever store found it. If
    PostgreSQL is configured, it is never left out. It checks the filters on its fields, the rankers check the
    others.
    """

    def __init__(self, spec: JobSpec, stores: ConfiguredStores) -> None:
        if not isinstance(spec.source, Uds3Source):
            raise TypeError(spec.source.type)
        self._spec = spec
        self._source = spec.source
        self._query = spec.query
        self._stores = stores

    async def describe(self) -> Description:
        """Inspect the tables and the rankers, and check filters and searches against them."""
        schema, estimate = None, None
        if self._stores.postgres is not None:
            async with self._stores.postgres.connect() as session:
                schema = await session.schema()
                estimate = await session.estimate(schema)
        known = DocumentSelection(schema, {}).known_fields() if schema else {}
        columns = metadata_columns(schema) if schema else None
        # These names are stored in plans, which a later version must be able to read.
        facts: dict[str, Any] = {
            "schema": schema.to_json() if schema else None,
            "archived": self._stores.include_archived,
        }
        if self._query.text is None:
            if schema is None:
                raise _invalid(
                    "without query.text UDS3 is read from PostgreSQL, which is not configured",
                    "set POSTGRES_HOST, or search by query.text",
                )
            check_known(self._query.filters, known)
            self._check_texts(schema)
            return Description(facts, columns=columns, estimate=estimate)
        plan = await self._plan_searches(schema, set(known))
        self._check_texts(schema)
        notes: dict[str, Any] = {
            "searches": plan.searches,
            "left_out": plan.left_out,
            "degraded": plan.degraded,
        }
        if "vector" in plan.searches and self._stores.model_identity is not None:
            notes["model"] = await run_in_thread(self._stores.model_identity)
        facts |= {"searches": plan.searches, "marks": plan.tombstone_stores}
        return Description(facts, ranked=True, columns=columns, notes=notes)

    def _check_texts(self, schema: PostgresSchema | None) -> None:
        # Without this check every document would be read and become a dead letter.
        if not self._stores.body_stores and not (schema and schema.has_content):
            where = "no table has a column content, and no" if schema else "no"
            raise _invalid(f"{where} store of bodies is configured", "set COUCH_URL or CHROMA_HOST")

    async def _plan_searches(self, schema: PostgresSchema | None, known: set[str]) -> _SearchPlan:
        """Decide which searches are done, and check that each has the fields of the filters.

        1. Keyword: the tables must be searchable.
        2. Each other search: the store must be configured, and up unless the job may degrade.
        3. At least one search must be left.
        4. The stores that are not searched still report their tombstones.
        """
        plan, rankers = _SearchPlan(), self._stores.rankers
        for name in self._query.shares:
            if name == "keyword" and schema is not None:
                if not schema.searchable:
                    raise _invalid(
                        "the keyword search needs a column search_vector or content, and no table has one",
                        "leave keyword out of query.search_types",
                    )
                check_known(self._query.filters, known, "the keyword search")
                plan.searches.append(name)
            elif name not in rankers:
                plan.left_out.append(name)
            elif (fields := await self._filter_fields(rankers[name], plan)) is not None:
                check_known(self._query.filters, known | set(fields), f"the {name} search")
                plan.searches.append(name)
                plan.tombstone_stores.append(name)
        if not plan.searches:
            raise _invalid(
                f"none of the searches {', '.join(self._query.shares)} can be done: "
                f"not configured: {', '.join(plan.left_out) or 'none'}; down: "
                f"{', '.join(plan.degraded) or 'none'}",
                "configure a store (docs/sources.md), or ask for other query.search_types",
            )
        for name in plan.left_out:
            _log.warning("the %s search is not configured and is left out", name)
        for name, ranker in rankers.items():
            if name not in self._query.shares and await self._filter_fields(ranker, plan) is not None:
                plan.tombstone_stores.append(name)
        return plan

    async def _filter_fields(self, ranker: Ranker, plan: _SearchPlan) -> Sequence[str] | None:
        """The fields of a ranker; None if its store is down and the job may degrade, which the plan notes."""
        try:
            return await ranker.filter_fields()
        except SourceUnavailable as error:
            if not self._source.degrade:
                raise
            _log.warning("the %s store is down and is left out: %s", ranker.name, error)
            plan.degraded.append(ranker.name)
            return None

    async def entries(
        self,
        facts: Mapping[str, Any],
        after: Entry | None,
        limit: int | None,
        findings: Findings,  # noqa: ARG002 - noted by the stores
    ) -> AsyncGenerator[list[Entry], None]:
        """The documents in byte order of their ids, or the fused list of the search."""
        pages = self._scan(facts, after, limit) if self._query.text is None else self._search(facts, limit)
        async with aclosing(pages):
            async for page in pages:
                yield page

    def _selection(self, facts: Mapping[str, Any]) -> DocumentSelection:
        schema = PostgresSchema.from_json(facts["schema"])
        known = DocumentSelection(schema, {}).known_fields()
        filters = {name: wanted for name, wanted in self._query.filters.items() if name in known}
        return DocumentSelection(schema, filters, facts["archived"])

    def _postgres(self) -> Postgres:
        if self._stores.postgres is None:
            raise _invalid("the plan needs PostgreSQL, which is no longer configured", "set POSTGRES_HOST")
        return self._stores.postgres

    async def _scan(
        self, facts: Mapping[str, Any], after: Entry | None, limit: int | None
    ) -> AsyncGenerator[list[Entry], None]:
        selection, last = self._selection(facts), after.id if after else None
        if limit is None:
            raise AssertionError("a scan is planned page by page, each with a limit")
        async with self._postgres().connect() as session:
            while limit > 0:
                requested = limit
                page = await session.page(selection, last, requested)
                live = [Entry(identity) for identity, is_live in page if is_live]
                limit -= len(live)
                if live:
                    yield live
                if len(page) < requested:
                    return
                last = page[-1][0]

    def _search(self, facts: Mapping[str, Any], limit: int | None) -> AsyncGenerator[list[Entry], None]:
        search = HybridSearch(
            query=self._query,
            relevance=self._spec.quality.relevance,
            rankers=self._stores.rankers,
            tables=SelectedTables(self._postgres(), self._selection(facts)) if facts["schema"] else None,
            searches=facts["searches"],
            tombstone_stores=facts["marks"],
        )
        return search.pages(limit)

    async def check_standing(self, facts: Mapping[str, Any]) -> None:
        """Check nothing yet."""

    @asynccontextmanager
    async def fetcher(self, facts: Mapping[str, Any]) -> AsyncIterator[Fetcher]:
        """A fetcher of contents from PostgreSQL, else from the body stores."""
        max_bytes = self._spec.max_document_bytes
        if facts["schema"] is None:
            yield ContentFetcher(None, None, self._stores.body_stores, max_bytes)
            return
        async with self._postgres().connect() as session:
            yield ContentFetcher(session, self._selection(facts), self._stores.body_stores, max_bytes)


def _invalid(message: str, hint: str) -> JobFailed:
    return JobFailed(FailureCode.SOURCE_INVALID, message, hint=hint)
