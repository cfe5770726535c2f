"""UDS3 as a planned store: a filtered scan of PostgreSQL, or a search over the stores that are configured."""

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from shardline_common.errors import FailureCode, JobFailed, SourceUnavailable
from shardline_common.job.findings import Findings, Level
from shardline_common.job.spec import JobSpec, SearchType, Uds3Source
from shardline_common.runtime.threads import run_in_thread
from shardline_producer.sources.planned_store import Description, Entry, Fetcher
from shardline_producer.sources.query_filters import check_known
from shardline_producer.sources.uds3.contents import ContentFetcher
from shardline_producer.sources.uds3.marked_ids import MarkedIds, read_marks
from shardline_producer.sources.uds3.postgres.connection import Postgres
from shardline_producer.sources.uds3.postgres.fields import metadata_columns
from shardline_producer.sources.uds3.postgres.relations import certainty
from shardline_producer.sources.uds3.postgres.schema import PostgresSchema
from shardline_producer.sources.uds3.postgres.search_configs import setup_sql
from shardline_producer.sources.uds3.postgres.sql import DocumentSelection
from shardline_producer.sources.uds3.scan import MarkedScan
from shardline_producer.sources.uds3.search import HybridSearch, SelectedTables, note_certainty
from shardline_producer.sources.uds3.store_ports import (
    STORE_OF_SEARCH,
    BodyStore,
    HasIdentity,
    MarkedBodyStore,
    MarksDeleted,
    PinnedBodyStore,
    Ranker,
)

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

    `tombstone_stores`: the stores whose tombstones are read, including those that are not searched: a ranker
    by its search, another one by its name in findings.
    """

    searches: list[SearchType] = field(default_factory=list)
    left_out: list[SearchType] = field(default_factory=list)
    degraded: list[str] = field(default_factory=list)
    tombstone_stores: list[str] = field(default_factory=list)


class Uds3Store:
    """Implements `PlannedStore`.

    A document that any store marks deleted is in no list, whichever store found it. If PostgreSQL is
    configured, it is never left out. It checks the filters on its fields, the rankers check the others.

    The marks of the stores beside PostgreSQL are read once by each object that lists a scan, when it lists
    its first page.
    """

    why_whole = None

    def __init__(self, spec: JobSpec, stores: ConfiguredStores) -> None:
        if not isinstance(spec.source, Uds3Source):
            raise TypeError(spec.source.type)
        self._spec = spec
        self._source = spec.source
        self._query = spec.query
        self._stores = stores
        self._marked: MarkedIds | None = None

    async def describe(self) -> Description:
        """Inspect the tables and the rankers, and check filters and searches against them."""
        schema, estimate = None, None
        if self._stores.postgres is not None:
            async with self._stores.postgres.connect() as session:
                schema = await session.schema()
                estimate = await session.estimate(schema)
                if self._query.text is not None and "keyword" in self._query.shares:
                    for sentence in await session.slow_searches(schema):
                        _log.warning("%s", sentence)
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
            if (why := schema.wrong_guess) is not None:
                raise _invalid(why, "name the table whose rows are the documents in POSTGRES_TABLE")
            scan = _SearchPlan()
            await self._plan_marks(scan)
            facts |= {"marks": scan.tombstone_stores, "degraded": scan.degraded}
            facts["identities"] = await self._identities(facts)
            down = {"degraded": scan.degraded} if scan.degraded else {}
            return Description(facts, columns=columns, estimate=estimate, notes=down)
        plan = await self._plan_searches(schema, set(known))
        self._check_texts(schema)
        notes: dict[str, Any] = {
            "searches": plan.searches,
            "left_out": plan.left_out,
            "degraded": plan.degraded,
        }
        if "keyword" in plan.searches and schema is not None and schema.search_configs:
            notes["search_config"] = schema.search_configs
        if "vector" in plan.searches and self._stores.model_identity is not None:
            notes["model"] = await run_in_thread(self._stores.model_identity)
        facts |= {
            "searches": plan.searches,
            "marks": plan.tombstone_stores,
            "degraded": plan.degraded,
        }
        facts["identities"] = await self._identities(facts)
        return Description(facts, ranked=True, columns=columns, notes=notes)

    def _check_texts(self, schema: PostgresSchema | None) -> None:
        # Without this check every document would be read and become a dead letter.
        if not self._stores.body_stores and not (schema and schema.has_content):
            where = "no table has a column content, and no" if schema else "no"
            raise _invalid(f"{where} store of bodies is configured", "set COUCH_URL or CHROMA_HOST")

    async def _plan_searches(self, schema: PostgresSchema | None, known: set[str]) -> _SearchPlan:
        """Decide which searches are done, and check that each has the fields of the filters.

        1. Keyword: left out if no table can be searched. The job fails if it asks for no other search.
        2. Each other search: the store must be configured, and up unless the job may degrade.
        3. At least one search must be left.
        4. The stores that are not searched still report their tombstones.
        """
        plan, rankers = _SearchPlan(), self._stores.rankers
        for name in self._query.shares:
            if name == "keyword" and schema is not None:
                self._plan_keyword(schema, known, plan)
            elif name not in rankers:
                plan.left_out.append(name)
            elif (fields := await self._filter_fields(rankers[name], plan)) is not None:
                check_known(self._query.filters, known | set(fields), f"the {name} search")
                plan.searches.append(name)
                plan.tombstone_stores.append(name)
        if not plan.searches:
            if "keyword" in plan.left_out and schema is not None:
                raise _not_searchable(schema)
            raise _invalid(
                f"none of the searches {', '.join(self._query.shares)} can be done: "
                f"not configured: {', '.join(plan.left_out) or 'none'}; down: "
                f"{', '.join(plan.degraded) or 'none'}",
                "configure a store (docs/sources.md), or ask for other query.search_types",
            )
        for name in plan.left_out:
            why = "finds no column search_vector" if name == "keyword" and schema else "is not configured"
            _log.warning("the %s search %s and is left out", name, why)
        await self._plan_marks(plan)
        return plan

    async def _plan_marks(self, plan: _SearchPlan) -> None:
        """Add the stores that are not searched and mark documents as deleted."""
        asked = set(self._query.shares) if self._query.text is not None else set[SearchType]()
        for search, ranker in self._stores.rankers.items():
            if search not in asked and await self._filter_fields(ranker, plan) is not None:
                plan.tombstone_stores.append(search)
        for name, store in self._marked_bodies().items():
            try:
                await store.check()
            except SourceUnavailable as error:
                self._degrade(name, plan, error)
            else:
                plan.tombstone_stores.append(name)

    def _marked_bodies(self) -> dict[str, MarkedBodyStore]:
        return {one.store: one for one in self._stores.body_stores if isinstance(one, MarkedBodyStore)}

    def _planned_marked_bodies(self, facts: Mapping[str, Any]) -> dict[str, MarkedBodyStore]:
        return {name: one for name, one in self._marked_bodies().items() if name in facts.get("marks", ())}

    def _degrade(self, name: str, plan: _SearchPlan, error: SourceUnavailable) -> None:
        """Note in the plan that a store is down, if the job may degrade."""
        if not self._source.degrade:
            raise error
        _log.warning("the %s store is down and is left out: %s", name, error)
        plan.degraded.append(name)

    def _plan_keyword(self, schema: PostgresSchema, known: set[str], plan: _SearchPlan) -> None:
        if schema.searchable:
            check_known(self._query.filters, known, "the keyword search")
            plan.searches.append("keyword")
        else:
            plan.left_out.append("keyword")

    async def _filter_fields(self, ranker: Ranker, plan: _SearchPlan) -> Sequence[str] | None:
        """The fields of a ranker; None if its store is down and the job may degrade, which the plan notes."""
        try:
            return await ranker.filter_fields()
        except SourceUnavailable as error:
            self._degrade(ranker.name, plan, error)
            return None

    def _planned_marks(self, facts: Mapping[str, Any]) -> dict[str, MarksDeleted]:
        """The stores whose marks the plan reads, by their names in findings; plans of old scans have none."""
        found: dict[str, MarksDeleted] = {}
        known: dict[str, MarksDeleted] = {str(name): one for name, one in self._stores.rankers.items()}
        known |= self._marked_bodies()
        for name in facts.get("marks", ()):
            if name not in known:
                raise _invalid(
                    f"the plan needs {STORE_OF_SEARCH.get(name, name)}, which is no longer configured",
                    "configure the stores of UDS3 as they were when the job was planned",
                )
            found[STORE_OF_SEARCH.get(name, name)] = known[name]
        return found

    def _note_degraded(self, facts: Mapping[str, Any], findings: Findings) -> None:
        for name in facts.get("degraded", ()):
            why = "it was down when the job was planned: its marks of deletion are not known"
            findings.note(STORE_OF_SEARCH.get(name, name), Level.UNPROVEN, why)

    async def _identities(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: dict(await store.identity())
            for name, store in self._planned_marks(facts).items()
            if isinstance(store, HasIdentity)
        }

    async def entries(
        self,
        facts: Mapping[str, Any],
        after: Entry | None,
        limit: int | None,
        findings: Findings,
    ) -> AsyncGenerator[list[Entry], None]:
        """The documents in byte order of their ids, or the fused list of the search."""
        self._note_degraded(facts, findings)
        if self._query.text is None:
            pages = self._scan(facts, after, limit, findings)
        else:
            pages = self._search(facts, limit, findings)
        if facts["schema"] is not None:
            schema = PostgresSchema.from_json(facts["schema"])
            found = certainty(schema.relations, standby=schema.standby)
            findings.note("postgresql", found.level, found.how)
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
        self, facts: Mapping[str, Any], after: Entry | None, limit: int | None, findings: Findings
    ) -> AsyncGenerator[list[Entry], None]:
        if limit is None:
            raise AssertionError("a scan is planned page by page, each with a limit")
        stores = self._planned_marks(facts)
        if self._marked is None:
            self._marked = await read_marks(stores)
        note_certainty(stores, findings)
        scan = MarkedScan(
            self._postgres(), self._selection(facts), self._marked, self._planned_marked_bodies(facts)
        )
        async with aclosing(scan.pages(after.id if after else None, limit, findings)) as pages:
            async for page in pages:
                yield page

    def _search(
        self, facts: Mapping[str, Any], limit: int | None, findings: Findings
    ) -> AsyncGenerator[list[Entry], None]:
        search = HybridSearch(
            query=self._query,
            relevance=self._spec.quality.relevance,
            rankers=self._stores.rankers,
            tables=SelectedTables(self._postgres(), self._selection(facts)) if facts["schema"] else None,
            searches=facts["searches"],
            tombstone_stores=self._planned_marks(facts),
            findings=findings,
        )
        return search.pages(limit)

    async def check_standing(self, facts: Mapping[str, Any]) -> None:
        """Compare the tables in PostgreSQL, and the databases of the other stores, with those of the plan."""
        if facts["schema"] is not None:
            async with self._postgres().connect() as session:
                await session.check_standing(PostgresSchema.from_json(facts["schema"]))
        for name, store in self._planned_marks(facts).items():
            planned = facts.get("identities", {}).get(name)
            if planned is None or not isinstance(store, HasIdentity):
                continue
            if (why := await store.changed_since(planned)) is not None:
                raise JobFailed(
                    FailureCode.SOURCE_CHANGED,
                    f"{name} is not as it was when the job was planned: {why}",
                    hint="restore it and retry the job, or submit a new job",
                )

    @asynccontextmanager
    async def fetcher(self, facts: Mapping[str, Any]) -> AsyncIterator[Fetcher]:
        """A fetcher of contents from PostgreSQL, else from the body stores."""
        max_bytes = self._spec.max_document_bytes
        degraded = facts.get("degraded", ())
        marked = list(self._planned_marked_bodies(facts).values())
        # Neo4j holds texts only for want of another store: a job that did without its search does so here.
        bodies = [one for one in self._stores.body_stores if getattr(one, "search", None) not in degraded]
        for body in bodies:
            identities = facts.get("identities", {})
            if isinstance(body, PinnedBodyStore) and body.store in identities:
                body.pin(identities[body.store])
        if facts["schema"] is None:
            yield ContentFetcher(None, None, bodies, max_bytes, marked)
            return
        async with self._postgres().connect() as session:
            yield ContentFetcher(session, self._selection(facts), bodies, max_bytes, marked)


def _invalid(message: str, hint: str) -> JobFailed:
    return JobFailed(FailureCode.SOURCE_INVALID, message, hint=hint)


def _not_searchable(schema: PostgresSchema) -> JobFailed:
    tables = ", ".join(table.name for table in schema.tables)
    return _invalid(
        f"the keyword search needs a column search_vector or content, and none of {tables} has one",
        setup_sql(schema.tables[0]),
    )
