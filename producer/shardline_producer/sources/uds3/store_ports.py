"""What UDS3's stores are to a job: some rank documents, some hold their bodies."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from shardline_common.job.spec import Query, SearchType
from shardline_producer.sources.documents import DeadLetterReason


@dataclass(frozen=True, slots=True)
class Hit:
    """A document that a search found, with the store's own score."""

    id: str
    score: float


Tell = Callable[[Sequence[str]], Awaitable[None]]
"""Takes ids of documents that are marked deleted."""


class Ranker(Protocol):
    """One kind of search over one store. All methods open what they need and close it again.

    They raise SourceUnavailable where a later try may help, JobFailed (`source_invalid`) where not.
    """

    name: SearchType

    async def fields(self) -> Sequence[str]:
        """The filter fields that it knows."""

    def sees_all(self, query: Query) -> bool:
        """Whether `rank` comes by every document before its first hit, and so can tell what is removed."""

    def rank(self, query: Query, tell: Tell | None = None) -> AsyncGenerator[list[Hit], None]:
        """Pages of hits, the best first, ties by document id in byte order, each id once, to the end.

        `query.filters` holds only fields that it knows; `query.top_k` is not looked at. `tell`, where it
        sees all, is given what `removed` would give, before the first hit.
        """

    def removed(self) -> AsyncGenerator[list[str], None]:
        """Pages of the ids of all documents that the store marks deleted, whatever is searched for.

        In any order, and an id may come again. One of several records or nodes with the mark is enough.
        """

    async def check(self) -> str:
        """Look whether the store can be searched; a sentence for `doctor`."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A document whose body is wanted. `refs`: the master table's couchdb_refs, {db: {doc_id}}, or {}."""

    id: str
    refs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Body:
    """A document's text. `metadata` is what the store knows beside it, for documents without a row."""

    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A body that is there and is no text: why. `original` is its start, for the dead letter."""

    reason: DeadLetterReason
    original: bytes = b""


# The body is marked deleted: no other store is asked for it, and the document is a dead letter.
REMOVED = Unreadable(DeadLetterReason.VANISHED)


class Bodies(Protocol):
    """A store of bodies."""

    async def bodies(self, wanted: Sequence[Wanted], longest: int) -> Mapping[str, Body | Unreadable]:
        """All bodies that are there, by document id; one marked deleted comes as `REMOVED`.

        At most 50 are wanted at once, so that what is held stays bounded: a body of more than `longest`
        bytes comes as `Unreadable(TOO_LARGE, its first 64 KiB)`.

        Raises:
            SourceUnavailable: try again later.
            JobFailed: the store refuses for good.
        """

    async def check(self) -> str:
        """Look whether the store can be read; a sentence for `doctor`."""
