"""What a store of planned documents is for `PlannedSource`: it lists ids, and fetches their documents."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

from shardline_common.job.findings import Findings
from shardline_producer.sources.documents import DeadLetterReason, invalid_document
from shardline_producer.sources.source import (
    Document,
    InvalidDocument,
    Render,
    RenderedItem,
)


class Entry(NamedTuple):
    """A document to be read. `foreign`: a search store has it and the main store does not."""

    id: str
    score: float = 0.0
    foreign: bool = False


@dataclass(frozen=True, slots=True)
class Description:
    """The result of `PlannedStore.describe`. All of it is JSON and is kept in the job's plan.

    `facts` are the store's decisions at planning; every later call receives them and must follow them.
    `ranked`: the list is one search, ranked to its end at planning; else it is a scan, listed while reading.
    `columns`, `notes` and `without_column` as in `DeclaredSource`. `estimate` is the approximate number of
    documents.
    """

    facts: Mapping[str, Any]
    ranked: bool = False
    columns: Mapping[str, str] | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)
    estimate: int | None = None
    without_column: int = 0


class Fetcher(Protocol):
    """Reads the contents of planned entries over one connection. One call runs at a time."""

    async def fetch(self, entries: Sequence[Entry]) -> list[Document | InvalidDocument]:
        """Read the contents of the first entries, in their order.

        At least one content, and as many as about 1 MiB holds; the caller passes the remaining entries
        again. The content of an entry has the entry's id. A document's `relevance` is its own score; in a
        ranked plan the entry's score replaces it. A document that was removed or marked deleted since it
        was planned is `vanished(id)`. A call may be repeated; for unchanged data it returns the same.

        Raises:
            SourceUnavailable: a later try may succeed.
            JobFailed: no retry helps.
        """


@runtime_checkable
class RenderingFetcher(Protocol):
    """A fetcher that can also render documents where it reads them."""

    async def fetch_rendered(
        self, entries: Sequence[Entry], first: int, render: Render, *, ranked: bool
    ) -> list[RenderedItem | Document | InvalidDocument]:
        """As `Fetcher.fetch`. Documents may be rendered, each at its position.

        `first` is the ordinal of the first entry. `ranked`: the relevance is the score of the entry.
        """


class PlannedStore(Protocol):
    """A database under one job's query: it lists the ids that match, and reads their contents.

    `entries` and `fetcher` may be called on another object in another process than `describe`; `facts` is
    all that they share. Each call opens its own connections and closes them when it ends, when its
    generator or context is closed, and when its task is cancelled.
    """

    @property
    def why_whole(self) -> str | None:
        """Why one producer reads the whole list; None where several may read it, each a range of it."""

    async def describe(self) -> Description:
        """Inspect the database, and check the job's query against it. It may run more than once.

        Raises:
            SourceUnavailable: a later try may succeed.
            JobFailed: a table, index or search that the job needs is missing, or a filter names an unknown
                field; the message names the known ones (`source_invalid`).
        """

    def entries(
        self, facts: Mapping[str, Any], after: Entry | None, limit: int | None, findings: Findings
    ) -> AsyncGenerator[list[Entry], None]:
        """List up to `limit` entries behind `after`, in batches of bounded size.

        The store notes in `findings` how the list is proven, and how many documents it leaves out of it
        because they are marked deleted. They are kept with the list.

        Fewer than `limit` entries mean that the list has ended. No id comes twice in the whole list.

        A scan is in a total order of the ids that never changes. `after` is the last entry of the previous
        page. It may have been removed from the database since; the scan continues behind its id. `limit` is
        always set; the caller may close the generator before it is reached.

        A ranked list is read once: `after` is None, and `limit` is `query.top_k`. Equal scores are ordered
        by id, so that the ranking of unchanged data is always the same.

        Raises as `describe`.
        """

    def fetcher(self, facts: Mapping[str, Any]) -> AbstractAsyncContextManager[Fetcher]:
        """Connect for reading contents; leaving the context closes the connection."""

    async def check_standing(self, facts: Mapping[str, Any]) -> None:
        """Check that the tables, collections and indexes of `facts` are those of the planning, and not empty.

        It is called when all documents of a fetch have vanished.

        Raises:
            JobFailed: one is missing, was emptied, or was made anew (`source_changed`).
            SourceUnavailable: a later try may succeed.
        """


def vanished(identity: str) -> InvalidDocument:
    """The InvalidDocument of a planned document that no longer exists."""
    return invalid_document(identity, DeadLetterReason.VANISHED)
