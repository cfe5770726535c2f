"""What a source is: it freezes what it will read, then streams it from any position on."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from shardline_common.job.messages import DeadLetter, Position
from shardline_common.job.spec import JobSpec

Frozen = Sequence[Mapping[str, Any]]
"""The identity of what a source reads (names, sizes, versions): JSON, kept in the plan."""


@dataclass(slots=True)
class Document:
    """A document as the source holds it. `relevance` is its own score, 0.0 where it has none."""

    id: str
    text: str
    metadata: dict[str, Any]
    relevance: float = 0.0


@dataclass(slots=True)
class InvalidDocument:
    """What cannot be a document. `key` is its place, in place of an id: `laws.jsonl:12`."""

    key: str
    dead_letter: DeadLetter


@dataclass(slots=True)
class SourceItem:
    """One thing read: where, what, and how many bytes it has in the source.

    The last part of a position is the ordinal: 1, 2, 3 … over all items, the source's own count.
    """

    position: Position
    content: Document | InvalidDocument
    size: int


@dataclass(frozen=True, slots=True)
class DeclaredSource:
    """What a source knows of its documents without reading one.

    `columns`: name → type of the metadata, in row order; None: look at the first documents.
    `notes`: JSON for manifest and status, such as the stores that were left out.
    """

    columns: Mapping[str, str] | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)


class Source(Protocol):
    """A store of documents under one query. Reading is repeatable as long as the frozen part holds."""

    async def freeze(self) -> list[dict[str, Any]]:
        """What there is to read, now.

        Raises:
            JobFailed: there is nothing, or it may not be read (`source_invalid`).
        """

    def declared(self, frozen: Frozen) -> DeclaredSource:
        """What is known of the documents now."""

    def sample(self, frozen: Frozen) -> AsyncGenerator[list[SourceItem], None]:
        """Items in source order: what columns are found from, where none are declared.

        Files give them without regard to the query, so that its filters can be checked; a planned
        source checks them itself and gives what it will read.
        """

    def check_query(self, fields: Sequence[str]) -> None:
        """Check the query against the fields that were found or declared.

        Raises:
            JobFailed: a filter names another field; the message names those there are.
        """

    def read(self, frozen: Frozen, after: Position | None) -> AsyncGenerator[list[SourceItem], None]:
        """Batches of items behind `after`, in a stable order, bounded in bytes.

        Raises:
            JobFailed: the source changed, is broken or stays unreachable.
        """

    def progress(self, frozen: Frozen, position: Position | None) -> float:
        """The share of the source that lies before `position`, 0 to 1."""


class PlanPages(Protocol):
    """Where the parts of a plan are kept: small JSON objects, create-only, in the dataset's own folder.

    Names are relative, `/`-separated, and sort as text. All methods raise StoreUnavailable.
    """

    async def keep(self, name: str, body: bytes) -> bytes:
        """Keep a part. The body that stands under the name: this one, or that of whoever came first."""

    async def get(self, name: str) -> bytes:
        """A part that is there."""

    async def names(self, folder: str) -> list[str]:
        """The names in a folder ("" is the root), sorted; folders below it are left out."""


OpenSource = Callable[[JobSpec, PlanPages], Source]
"""Makes the source of a job. It opens no connection yet: each freeze and read has its own, and closes it."""
