"""A search over several stores: their ranked lists, fused, without documents that a store marks deleted."""

import logging
import time
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from dataclasses import dataclass
from functools import partial

from shardline_common.job.findings import Findings
from shardline_common.job.spec import Query, SearchType
from shardline_common.runtime.task_group import TaskGroup
from shardline_common.runtime.tasks import leaf_errors
from shardline_common.runtime.threads import run_in_thread
from shardline_producer.sources.planned_store import Entry
from shardline_producer.sources.uds3.fusion import RANK_CONSTANT, Fusion, RankedDocument
from shardline_producer.sources.uds3.postgres.connection import Postgres
from shardline_producer.sources.uds3.postgres.session import PostgresSession
from shardline_producer.sources.uds3.postgres.sql import DocumentSelection
from shardline_producer.sources.uds3.store_ports import (
    STORE_OF_SEARCH,
    STORE_ORDER,
    MarksDeleted,
    Ranker,
    ReportsMarkedHits,
    StatesCertainty,
)

_log = logging.getLogger(__name__)
_LOG_SECONDS = 1.0


class _Tombstones:
    """Excludes the documents that the stores mark deleted from a fusion."""

    def __init__(self, fusion: Fusion, stores: Iterable[str]) -> None:
        self._fusion = fusion
        self._counts = dict.fromkeys(stores, 0)
        self._pending = set(self._counts)

    @property
    def complete(self) -> bool:
        """Whether all stores have reported all their deleted documents."""
        return not self._pending

    async def add(self, store: str, ids: Sequence[str], *, are_hits: bool = False) -> None:
        """Exclude documents that the store marks deleted. `are_hits`: its list would have them."""
        place = STORE_ORDER.index(store)
        self._counts[store] += await run_in_thread(
            partial(self._fusion.exclude, ids, place, are_hits=are_hits)
        )

    def finish(self, store: str) -> None:
        """Note that a store has reported all its deleted documents."""
        if store in self._pending:
            self._pending.remove(store)
            _log.info("%s store: %d more documents are marked deleted", store, self._counts[store])


@dataclass(frozen=True, slots=True)
class SelectedTables:
    """UDS3's tables in PostgreSQL, and the job's selection of their documents."""

    postgres: Postgres
    selection: DocumentSelection


@dataclass(frozen=True, slots=True)
class HybridSearch:
    """One query over `searches`. The documents that the `tombstone_stores` mark deleted are left out.

    The keys of `tombstone_stores` are the names of stores in findings. What the stores say of their lists,
    and how many documents they left out, is noted in `findings` when the lists have ended.

    The keyword search is that of the tables. If there are tables, hits of the rankers are checked against
    them and against the filters on their fields.
    """

    query: Query
    relevance: str
    rankers: Mapping[SearchType, Ranker]
    tables: SelectedTables | None
    searches: Sequence[SearchType]
    tombstone_stores: Mapping[str, MarksDeleted]
    findings: Findings

    async def pages(self, limit: int | None) -> AsyncGenerator[list[Entry], None]:
        """The fused list, the best first, up to `limit` entries."""
        shares = self.query.shares
        fusion = Fusion(_weights([shares[name] for name in self.searches], self.relevance))
        try:
            with leaf_errors():
                # Only a single list may end at the limit: in a fusion any document may become the first.
                await self._fuse(fusion, limit if len(self.searches) == 1 else None)
            pages = fusion.pages(limit)
            while page := await run_in_thread(partial(next, pages, [])):
                yield page
        finally:
            await run_in_thread(fusion.close)

    async def _fuse(self, fusion: Fusion, max_documents: int | None) -> None:
        """Read all lists and tombstones concurrently.

        No list waits for another list or for tombstones, because servers close a stream that is not read.
        """
        tombstones, query = _Tombstones(fusion, self.tombstone_stores), self._query_of_rankers()
        reporting = {
            STORE_OF_SEARCH[name]
            for name in self.searches
            if STORE_OF_SEARCH[name] in self.tombstone_stores and self.rankers[name].reports_deleted(query)
        }
        async with TaskGroup() as tasks:
            for store in self.tombstone_stores:
                if store not in reporting:
                    tasks.create_task(self._read_tombstones(store, tombstones))
            for number, name in enumerate(self.searches):
                if name == "keyword":
                    documents = self._keyword_list(max_documents)
                    tasks.create_task(self._read_marked_rows(fusion))
                else:
                    store = STORE_OF_SEARCH[name]
                    documents = self._ranker_list(
                        name, query, fusion, tombstones if store in reporting else None
                    )
                    if store in self.tombstone_stores and isinstance(self.rankers[name], ReportsMarkedHits):
                        tasks.create_task(self._read_marked_hits(name, query, tombstones))
                tasks.create_task(self._read_list(number, documents, fusion, tombstones, max_documents))
        await self._note(fusion)

    async def _note(self, fusion: Fusion) -> None:
        for place, count in (await run_in_thread(fusion.left_out)).items():
            self.findings.leave_out(STORE_ORDER[place], count)
        read = {STORE_OF_SEARCH[name]: self.rankers[name] for name in self.searches if name in self.rankers}
        note_certainty({**self.tombstone_stores, **read}, self.findings)

    async def _read_tombstones(self, store: str, tombstones: _Tombstones) -> None:
        async with aclosing(self.tombstone_stores[store].deleted_ids()) as pages:
            async for page in pages:
                await tombstones.add(store, page)
        tombstones.finish(store)

    async def _read_marked_hits(self, name: SearchType, query: Query, tombstones: _Tombstones) -> None:
        ranker = self.rankers[name]
        if isinstance(ranker, ReportsMarkedHits):
            async with aclosing(ranker.marked_hits(query)) as pages:
                async for page in pages:
                    await tombstones.add(STORE_OF_SEARCH[name], page, are_hits=True)

    async def _read_list(
        self,
        number: int,
        documents: AsyncGenerator[list[RankedDocument], None],
        fusion: Fusion,
        tombstones: _Tombstones,
        max_documents: int | None,
    ) -> None:
        """Read a list into the fusion, to its end or until it has `max_documents` that are not deleted."""
        name, logged = self.searches[number], time.perf_counter()
        count = partial(run_in_thread, partial(fusion.count, number))
        _log.info("%s search begins", name)
        async with aclosing(documents):
            async for page in documents:
                await run_in_thread(partial(fusion.add, number, page))
                if max_documents is not None and tombstones.complete and await count() >= max_documents:
                    break
                if time.perf_counter() - logged >= _LOG_SECONDS:
                    logged = time.perf_counter()
                    _log.info("%s search: %d hits so far", name, await count())
        _log.info("%s search: %d hits", name, await count())

    async def _keyword_list(self, wanted: int | None) -> AsyncGenerator[list[RankedDocument], None]:
        if self.tables is None:
            raise AssertionError("planning chose a keyword search without tables")
        async with self.tables.postgres.connect() as session:
            pages = session.rank(self.tables.selection, self.query.text or "", wanted=wanted)
            async with aclosing(pages):
                async for page in pages:
                    yield [RankedDocument(hit.id, foreign=False) for hit in page]

    async def _read_marked_rows(self, fusion: Fusion) -> None:
        """Exclude the hits of the keyword search that the tables mark deleted, so that they are counted."""
        if self.tables is not None:
            async with self.tables.postgres.connect() as session:
                pages = session.rank(self.tables.selection, self.query.text or "", deleted=True)
                async with aclosing(pages):
                    async for page in pages:
                        await _exclude_rows(fusion, [hit.id for hit in page])

    async def _ranker_list(
        self, name: SearchType, query: Query, fusion: Fusion, tombstones: _Tombstones | None
    ) -> AsyncGenerator[list[RankedDocument], None]:
        """The hits of a ranker that pass the tables. `tombstones` is given if the ranker reports them."""
        store = STORE_OF_SEARCH[name]
        on_deleted = partial(tombstones.add, store, are_hits=True) if tombstones else None
        async with (
            aclosing(self.rankers[name].rank(query, on_deleted)) as pages,
            self._table_session() as session,
        ):
            async for page in pages:
                if tombstones:
                    tombstones.finish(store)
                yield await self._passing(session, [hit.id for hit in page], fusion)
        if tombstones:
            tombstones.finish(store)

    def _query_of_rankers(self) -> Query:
        """The query with the filters that the tables do not check."""
        checked = self.tables.selection.filters if self.tables else {}
        rest = {field: wanted for field, wanted in self.query.filters.items() if field not in checked}
        return self.query.model_copy(update={"filters": rest})

    def _table_session(self) -> AbstractAsyncContextManager[PostgresSession | None]:
        return self.tables.postgres.connect() if self.tables else nullcontext()

    async def _passing(
        self, session: PostgresSession | None, ids: Sequence[str], fusion: Fusion
    ) -> list[RankedDocument]:
        """The documents that the tables do not mark deleted and whose fields pass. Without tables, all."""
        if session is None or self.tables is None:
            return [RankedDocument(identity, foreign=True) for identity in ids]
        selection = self.tables.selection
        checks = await session.check_hits(selection, ids)
        found = []
        for identity in ids:
            known, passes = checks[identity]
            # A document without a row cannot pass a filter on the tables' fields, and has no tombstone there.
            if passes if known else not selection.filters:
                found.append(RankedDocument(identity, foreign=not known))
        if refused := [identity for identity in ids if checks[identity] == (True, False)]:
            await _exclude_rows(fusion, await session.marked(selection, refused))
        return found


async def _exclude_rows(fusion: Fusion, ids: Sequence[str]) -> None:
    place = STORE_ORDER.index("postgresql")
    await run_in_thread(partial(fusion.exclude, ids, place, are_hits=True))


def note_certainty(stores: Mapping[str, object], findings: Findings) -> None:
    """Note what the stores, by their names in findings, say of the lists that were read from them."""
    for store, read in stores.items():
        if isinstance(read, StatesCertainty):
            certainty = read.certainty()
            findings.note(store, certainty.level, certainty.how)


def _weights(shares: Sequence[float], relevance: str) -> list[float]:
    # Normalized: a document that is first in every list has the relevance 1.
    factor = (RANK_CONSTANT + 1) / sum(shares) if relevance == "normalized" else 1.0
    return [share * factor for share in shares]
