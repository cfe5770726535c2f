"""A database in memory, as a planned store. It is shipped for tests that change it during a read."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from shardline_common.errors import FailureCode, JobFailed
from shardline_common.job.findings import Findings, Level
from shardline_common.job.spec import JobSpec
from shardline_producer.sources.planned_store import Description, Entry, vanished
from shardline_producer.sources.query_filters import check_filters, passes
from shardline_producer.sources.source import Document, InvalidDocument

_BATCH = 1_000
_FETCH_SIZE = 1 << 20


class MemoryDatabase:
    """Implements `PlannedStore` and `Fetcher` over a dict of documents that may change at any time.

    With `query.text` it finds the documents that contain the text, ranked by how often they contain it.
    `connections` counts the open fetchers.
    """

    why_whole = None

    def __init__(
        self, spec: JobSpec, documents: dict[str, Document], columns: Mapping[str, str] | None = None
    ) -> None:
        self.documents = documents
        self.connections = 0
        self._query = spec.query
        self._columns = columns

    async def describe(self) -> Description:
        """Check the filters against the declared columns."""
        if self._columns is None and self._query.filters:
            raise JobFailed(FailureCode.SOURCE_INVALID, "query.filters: this store declares no fields")
        check_filters(self._query.filters, list(self._columns or ()))
        ranked = self._query.text is not None
        return Description({}, ranked, self._columns, estimate=len(self.documents))

    async def entries(
        self,
        facts: Mapping[str, Any],  # noqa: ARG002 - `describe` returns no facts
        after: Entry | None,
        limit: int | None,
        findings: Findings,
    ) -> AsyncGenerator[list[Entry], None]:
        """By rank, or by id in byte order."""
        findings.note("memory", Level.PROVEN, "the whole list was taken at once")
        found = [item for item in self.documents.values() if passes(item, self._query.filters)]
        if (text := self._query.text) is not None:
            entries = [Entry(item.id, float(item.text.count(text))) for item in found if text in item.text]
            entries.sort(key=lambda entry: (-entry.score, entry.id.encode()))
        else:
            last = after.id.encode() if after else b""
            ids = sorted((item.id for item in found), key=str.encode)
            entries = [Entry(identity) for identity in ids if identity.encode() > last]
        entries = entries[:limit]
        for start in range(0, len(entries), _BATCH):
            yield entries[start : start + _BATCH]

    @asynccontextmanager
    async def fetcher(self, facts: Mapping[str, Any]) -> AsyncIterator["MemoryDatabase"]:  # noqa: ARG002 - as above
        """This database; `connections` is one more while the context lasts."""
        self.connections += 1
        try:
            yield self
        finally:
            self.connections -= 1

    async def check_standing(self, facts: Mapping[str, Any]) -> None:  # noqa: ARG002 - as above
        """Fail when the database was emptied."""
        if not self.documents:
            raise JobFailed(
                FailureCode.SOURCE_CHANGED,
                "the database is empty, and was not when it was planned",
                hint="submit a new job",
            )

    async def fetch(self, entries: Sequence[Entry]) -> list[Document | InvalidDocument]:
        """The current contents of the first entries, about 1 MiB of them."""
        found: list[Document | InvalidDocument] = []
        size = 0
        for entry in entries:
            document = self.documents.get(entry.id)
            size += len(document.text) if document else 0
            if found and size > _FETCH_SIZE:
                break
            # A copy, because the caller sets its relevance.
            found.append(
                Document(document.id, document.text, document.metadata) if document else vanished(entry.id)
            )
        return found
