"""A search over several stores at once: their lists, fused, without what any store marks deleted."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from shardline_common.job.spec import Query, SearchType
from shardline_common.runtime.tasks import leaf_errors
from shardline_common.runtime.threads import run_in_thread
from shardline_producer.sources.planned import Entry
from shardline_producer.sources.uds3.fusion import CONSTANT, Found, Fusion
from shardline_producer.sources.uds3.postgres.connection import Postgres, Session
from shardline_producer.sources.uds3.postgres.sql import Selection
from shardline_producer.sources.uds3.store_ports import Ranker

_log = logging.getLogger(__name__)
_TELL_SECONDS = 1.0


class _Marks:
    """Marks of deletion on their way into a fusion."""

    def __init__(self, fusion: Fusion, stores: Sequence[str]) -> None:
        self._fusion = fusion
        self._missing = set(stores)
        self._counts = dict.fromkeys(stores, 0)

    @property
    def complete(self) -> bool:
        """Whether those of all stores are in."""
        return not self._missing

    async def take(self, store: str, ids: Sequence[str]) -> None:
        """Take in documents that a store marks deleted."""
        self._counts[store] += await run_in_thread(partial(self._fusion.exclude, ids))

    def whole(self, store: str) -> None:
        """All that this store marks deleted was taken in."""
        if store in self._missing:
            self._missing.remove(store)
            _log.info("%s store: %d more documents are marked deleted", store, self._counts[store])


@dataclass(frozen=True, slots=True)
class Tables:
    """UDS3's tables, and what of them a job asks for."""

    postgres: Postgres
    selection: Selection


@dataclass(frozen=True, slots=True)
class Search:
    """One query over `searches`; `marks` names the rankers whose marks of deletion count.

    The tables, where there are any, do the keyword search, and what rankers find is checked against them
    and the filters on their fields.
    """

    query: Query
    relevance: str
    rankers: Mapping[SearchType, Ranker]
    tables: Tables | None
    searches: Sequence[SearchType]
    marks: Sequence[SearchType]

    async def pages(self, limit: int | None) -> AsyncGenerator[list[Entry], None]:
        """The fused list, the best first, up to `limit`."""
        shares = self.query.shares
        fusion = Fusion(_weights([shares[name] for name in self.searches], self.relevance))
        try:
            with leaf_errors():
                # Of one list alone what stands behind the limit cannot come before it.
                await self._fuse(fusion, limit if len(self.searches) == 1 else None)
            pages = fusion.pages(limit)
            while page := await run_in_thread(partial(next, pages, [])):
                yield page
        finally:
            await run_in_thread(fusion.close)

    async def _fuse(self, fusion: Fusion, enough: int | None) -> None:
        """Ask all stores at once. No list waits for another or for marks: servers end what stands still."""
        marks = _Marks(fusion, self.marks)
        telling = {name for name in self.marks if name in self.searches and self._tells(name)}
        async with asyncio.TaskGroup() as tasks:
            for name in self.marks:
                if name not in telling:
                    tasks.create_task(self._ask_for_marks(name, marks))
            for number, name in enumerate(self.searches):
                hits = self._keyword() if name == "keyword" else self._ranker(name, marks, name in telling)
                tasks.create_task(self._take(name, number, hits, fusion, marks, enough))

    def _tells(self, name: SearchType) -> bool:
        return self.rankers[name].sees_all(self._rest())

    async def _ask_for_marks(self, name: SearchType, marks: _Marks) -> None:
        async with aclosing(self.rankers[name].removed()) as pages:
            async for page in pages:
                await marks.take(name, page)
        marks.whole(name)

    async def _take(
        self,
        name: SearchType,
        number: int,
        hits: AsyncGenerator[list[Found], None],
        fusion: Fusion,
        marks: _Marks,
        enough: int | None,
    ) -> None:
        _log.info("%s search begins", name)
        told = time.perf_counter()
        async with aclosing(hits):
            async for page in hits:
                await run_in_thread(partial(fusion.add, number, page))
                if enough is not None and marks.complete and await _count(fusion, number) >= enough:
                    break
                if time.perf_counter() - told >= _TELL_SECONDS:
                    told = time.perf_counter()
                    _log.info("%s search: %d hits so far", name, await _count(fusion, number))
        _log.info("%s search: %d hits", name, await _count(fusion, number))

    async def _keyword(self) -> AsyncGenerator[list[Found], None]:
        if self.tables is None:
            raise AssertionError("planning chose a keyword search without tables")
        async with self.tables.postgres.connect() as session:
            pages = session.rank(self.tables.selection, self.query.text or "")
            async with aclosing(pages):
                async for page in pages:
                    yield [Found(hit.id, foreign=False) for hit in page]

    def _rest(self) -> Query:
        """The query with the filters that the tables do not check."""
        checked = self.tables.selection.filters if self.tables else {}
        rest = {field: wanted for field, wanted in self.query.filters.items() if field not in checked}
        return self.query.model_copy(update={"filters": rest})

    async def _ranker(
        self, name: SearchType, marks: _Marks, telling: bool
    ) -> AsyncGenerator[list[Found], None]:
        tell = partial(marks.take, name) if telling else None
        pages = self.rankers[name].rank(self._rest(), tell)
        async with aclosing(pages), self._gate() as passing:
            async for page in pages:
                if telling:
                    marks.whole(name)
                yield await passing([hit.id for hit in page])
        if telling:
            marks.whole(name)

    @asynccontextmanager
    async def _gate(self) -> AsyncIterator[Callable[[Sequence[str]], Awaitable[list[Found]]]]:
        """What passes the tables, of ids that a ranker found; all of them where there are no tables."""
        if self.tables is None:
            yield _foreign
            return
        async with self.tables.postgres.connect() as session:
            yield partial(_passing, session, self.tables.selection)


async def _count(fusion: Fusion, number: int) -> int:
    return await run_in_thread(partial(fusion.count, number))


def _weights(shares: Sequence[float], relevance: str) -> list[float]:
    # Normalized: a document that is first in every list has the relevance 1.
    factor = (CONSTANT + 1) / sum(shares) if relevance == "normalized" else 1.0
    return [share * factor for share in shares]


async def _foreign(ids: Sequence[str]) -> list[Found]:
    return [Found(identity, foreign=True) for identity in ids]


async def _passing(session: Session, selection: Selection, ids: Sequence[str]) -> list[Found]:
    gate = await session.gate(selection, ids)
    found = []
    for identity in ids:
        known, passes = gate[identity]
        # What the tables do not know cannot pass a filter on their fields, and is not deleted there.
        if passes if known else not selection.filters:
            found.append(Found(identity, foreign=not known))
    return found
