"""A filtered scan of PostgreSQL, without the documents that any store marks deleted."""

from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from shardline_common.job.findings import Findings
from shardline_common.runtime.threads import run_in_thread
from shardline_producer.sources.planned_store import Entry
from shardline_producer.sources.uds3.contents import body_request
from shardline_producer.sources.uds3.marked_ids import MarkedIds
from shardline_producer.sources.uds3.postgres.connection import Postgres
from shardline_producer.sources.uds3.postgres.session import PostgresSession
from shardline_producer.sources.uds3.postgres.sql import DocumentSelection
from shardline_producer.sources.uds3.store_ports import MarkedBodyStore

# Where most documents are marked, smaller pages would be many.
_LEAST_PAGE = 500


@dataclass(frozen=True, slots=True)
class MarkedScan:
    """The documents of a selection, in byte order of their ids.

    `marked`: those that the stores beside PostgreSQL mark deleted. `references`: the stores whose documents
    the rows name, by their names in findings.
    """

    postgres: Postgres
    selection: DocumentSelection
    marked: MarkedIds
    references: Mapping[str, MarkedBodyStore]

    async def pages(
        self, after: str | None, limit: int, findings: Findings
    ) -> AsyncGenerator[list[Entry], None]:
        """Up to `limit` entries behind an id. What is left out is counted in `findings` by store."""
        # The next plan page begins behind its last entry. So only what was left out before an entry, or
        # before the end of the list, is counted with it; what follows is listed again.
        waiting: Counter[str] = Counter()
        last = after
        async with self.postgres.connect() as session:
            while limit > 0:
                requested = max(limit, _LEAST_PAGE)
                page = await session.page(self.selection, last, requested, findings)
                marks = await self._marks(session, [identity for identity, is_live in page if is_live])
                entries = _live(page, marks, limit, waiting, findings)
                limit -= len(entries)
                if len(page) < requested:
                    _leave_out(waiting, findings)
                if entries:
                    yield entries
                if len(page) < requested:
                    return
                last = page[-1][0]

    async def _marks(self, session: PostgresSession, ids: Sequence[str]) -> dict[str, str]:
        """The stores that mark documents, by the documents' ids: under these ids, or under those of rows."""
        found = await run_in_thread(partial(self.marked.stores_of, ids))
        if not self.references:
            return found
        refs = await session.references(self.selection, [one for one in ids if one not in found])
        requests = [body_request(identity, value) for identity, value in refs.items()]
        for name, store in self.references.items():
            found |= dict.fromkeys(await store.deleted(requests) if requests else (), name)
        return found


def _live(
    page: Sequence[tuple[str, bool]],
    marks: Mapping[str, str],
    limit: int,
    waiting: Counter[str],
    findings: Findings,
) -> list[Entry]:
    """The first entries of a page that nothing marks, up to `limit`; the others are counted."""
    if not marks and not waiting and all(is_live for _, is_live in page):
        return [Entry(identity) for identity, _ in page[:limit]]
    entries = list[Entry]()
    for identity, is_live in page:
        if not is_live or identity in marks:
            waiting[marks[identity] if is_live else "postgresql"] += 1
            continue
        entries.append(Entry(identity))
        if waiting:
            _leave_out(waiting, findings)
        if len(entries) == limit:
            break
    return entries


def _leave_out(waiting: Counter[str], findings: Findings) -> None:
    for store, count in waiting.items():
        findings.leave_out(store, count)
    waiting.clear()
