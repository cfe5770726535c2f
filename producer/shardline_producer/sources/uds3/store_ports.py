"""The ports of UDS3's stores: some rank documents, some hold their bodies."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from shardline_common.job.spec import Query, SearchType
from shardline_producer.sources.documents import DeadLetterReason

MAX_BODIES = 50


@dataclass(frozen=True, slots=True)
class Hit:
    """A document that a search found, with the store's own score."""

    id: str
    score: float


OnDeleted = Callable[[Sequence[str]], Awaitable[None]]
"""A callback that takes ids of documents that are marked deleted."""


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
