"""The ports of UDS3's stores: some rank documents, some hold their bodies."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from shardline_common.job.findings import Certainty
from shardline_common.job.spec import Query, SearchType
from shardline_producer.sources.documents import DeadLetterReason

MAX_BODIES = 50
# The names of the stores in findings. A document that several of them mark deleted counts for the first.
STORE_ORDER = ("postgresql", "chromadb", "neo4j", "couchdb")
STORE_OF_SEARCH: Mapping[str, str] = {"keyword": "postgresql", "vector": "chromadb", "graph": "neo4j"}


@dataclass(frozen=True, slots=True)
class Hit:
    """A document that a search found, with the store's own score."""

    id: str
    score: float


OnDeleted = Callable[[Sequence[str]], Awaitable[None]]
"""A callback that takes ids of documents that are marked deleted."""


class MarksDeleted(Protocol):
    """A store that marks documents as deleted. Raises as `Ranker`."""

    def deleted_ids(self) -> AsyncGenerator[list[str], None]:
        """Pages of the ids of all documents that the store marks deleted, in any order, with repeats."""


@runtime_checkable
class StatesCertainty(Protocol):
    """A store that says how complete its lists are."""

    def certainty(self) -> Certainty:
        """How the lists that were read from this object to their end are proven. Without I/O."""


@runtime_checkable
class ReportsMarkedHits(Protocol):
    """A ranker that can say which hits it left out of its list."""

    def marked_hits(self, query: Query) -> AsyncGenerator[list[str], None]:
        """Pages of the ids of the direct hits of `rank(query)` that it left out: they are marked deleted."""


@runtime_checkable
class HasIdentity(Protocol):
    """A store that can tell its database from another one that was made under the same name."""

    async def identity(self) -> Mapping[str, Any]:
        """What tells the database from another one, as JSON. It is kept in the plan."""

    async def changed_since(self, planned: Mapping[str, Any]) -> str | None:
        """Why the database is not the one whose `identity` was planned, or is empty now; None if it is.

        Raises as `identity`: SourceUnavailable, or JobFailed if it no longer exists.
        """


class Ranker(Protocol):
    """One kind of search over one store. Each method opens its own connections and closes them.

    All methods raise SourceUnavailable for an error after which a later attempt may succeed, and JobFailed
    (`source_invalid`) for any other.
    """

    name: SearchType

    async def filter_fields(self) -> Sequence[str]:
        """The fields that filters may name."""

    def reports_deleted(self, query: Query) -> bool:
        """Whether `rank` reads every document of the store, and so reports all that are marked deleted."""

    def rank(self, query: Query, on_deleted: OnDeleted | None = None) -> AsyncGenerator[list[Hit], None]:
        """Pages of all hits, the best first, ties by document id in byte order, each id once.

        Args:
            query: its filters name only fields of `filter_fields`. `query.top_k` is ignored.
            on_deleted: passed only if `reports_deleted(query)`. It is called with all ids that `deleted_ids`
                would return, before the first page.
        """

    def deleted_ids(self) -> AsyncGenerator[list[str], None]:
        """Pages of the ids of all documents that the store marks deleted, in any order, with repeats.

        A document is deleted if one of its records or nodes is marked.
        """

    async def check(self) -> str:
        """Test whether the store can be searched. Returns a sentence for `doctor`."""


@dataclass(frozen=True, slots=True)
class BodyRequest:
    """A document whose body is requested. `refs`: the master table's couchdb_refs, {db: {doc_id}}, or {}."""

    id: str
    refs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DocumentBody:
    """The text of a document. `metadata`: the store's fields, for documents whose row lacks them."""

    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InvalidBody:
    """A body that is not text, with the reason. `original` is its start, for the dead letter."""

    reason: DeadLetterReason
    original: bytes = b""


# The body is marked deleted. It is not requested from another store; the document becomes a dead letter.
DELETED_BODY = InvalidBody(DeadLetterReason.VANISHED)


class BodyStore(Protocol):
    """A store of document bodies."""

    async def bodies(
        self, requests: Sequence[BodyRequest], max_bytes: int
    ) -> Mapping[str, DocumentBody | InvalidBody]:
        """The bodies that the store has, by document id. One that is marked deleted is `DELETED_BODY`.

        Memory is bounded: there are at most MAX_BODIES requests, and a body of more than `max_bytes` bytes
        is `InvalidBody(TOO_LARGE, its first 64 KiB)`.

        Raises:
            SourceUnavailable: a later attempt may succeed.
            JobFailed: no later attempt can succeed.
        """

    async def check(self) -> str:
        """Test whether the store can be read. Returns a sentence for `doctor`."""


@runtime_checkable
class PinnedBodyStore(Protocol):
    """A `BodyStore` that reads no other database than the planned one."""

    # The name of its store in findings.
    store: str

    def pin(self, planned: Mapping[str, Any]) -> None:
        """Fail with `source_changed` when the database is not the one of this `HasIdentity.identity`."""


@runtime_checkable
class MarkedBodyStore(Protocol):
    """A `BodyStore` whose marks of deletion count also for documents whose text is in PostgreSQL."""

    # Its name in findings.
    store: str

    async def check(self) -> str:
        """As `BodyStore.check`."""

    def deleted_ids(self) -> AsyncGenerator[list[str], None]:
        """As `MarksDeleted.deleted_ids`."""

    async def deleted(self, requests: Sequence[BodyRequest]) -> set[str]:
        """Those of the documents that the store marks deleted now. Their texts are not read.

        Raises as `BodyStore.bodies`.
        """
