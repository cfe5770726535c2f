"""A database in memory, as a planned source. Shipped: tests and simulations change it while it is read."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from shardline_common.errors import FailureCode, JobFailed
from shardline_common.job.spec import JobSpec
from shardline_producer.sources.planned import Description, Entry, vanished
from shardline_producer.sources.query_filters import check_filters, passes
from shardline_producer.sources.source import Document, InvalidDocument

_PAGE = 1_000
_FETCH_SIZE = 1 << 20


class MemoryDatabase:
    """Implements `PlannedStore` on a dict of documents, which its owner may change at any time.

    With `query.text` it finds the documents that contain the text, those that have it more often first.
    """

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
        facts: Mapping[str, Any],  # noqa: ARG002 - there is but one way to list them
        after: Entry | None,
        limit: int | None,
    ) -> AsyncGenerator[list[Entry], None]:
        """By id in byte order, or by rank."""
        found = self._ranked() if self._query.text is not None else self._scanned(after)
        found = found[:limit]
        for start in range(0, len(found), _PAGE):
            yield found[start : start + _PAGE]

    def _ranked(self) -> list[Entry]:
        text = self._query.text or ""
        hits = [
            Entry(found.id, float(found.text.count(text))) for found in self._passing() if text in found.text
        ]
        return sorted(hits, key=lambda hit: (-hit.score, hit.id.encode()))

    def _scanned(self, after: Entry | None) -> list[Entry]:
        floor = after.id.encode() if after else b""
        ids = sorted((found.id for found in self._passing()), key=str.encode)
        return [Entry(identity) for identity in ids if identity.encode() > floor]

    def _passing(self) -> list[Document]:
        return [found for found in self.documents.values() if passes(found, self._query.filters)]

    @asynccontextmanager
    async def fetcher(self, facts: Mapping[str, Any]) -> AsyncIterator["MemoryDatabase"]:  # noqa: ARG002 - as above
        """This database."""
        self.connections += 1
        try:
            yield self
        finally:
            self.connections -= 1

    async def fetch(self, entries: Sequence[Entry]) -> list[Document | InvalidDocument]:
        """Contents as they are now, about a MiB of them."""
        found: list[Document | InvalidDocument] = []
        size = 0
        for entry in entries:
            document = self.documents.get(entry.id)
            size += len(document.text) if document else 0
            if found and size > _FETCH_SIZE:
                break
            found.append(vanished(entry.id) if document is None else _copy(document))
        return found


def _copy(document: Document) -> Document:
    return Document(document.id, document.text, document.metadata)
