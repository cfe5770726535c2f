"""What a source is: it freezes what it will read, then streams it from any position on."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from common.wire import DeadLetter, Position

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
class Broken:
    """What cannot be a document. `key` is its place, in place of an id: `laws.jsonl:12`."""

    key: str
    dead: DeadLetter


@dataclass(slots=True)
class Item:
    """One thing read: where, what, and how many bytes it has in the source.

    The last part of a position is the ordinal: 1, 2, 3 … over all items, the source's own count.
    """

    position: Position
    content: Document | Broken
    size: int


class Source(Protocol):
    """A store of documents under one query. Reading is repeatable as long as the frozen part holds."""

    async def freeze(self) -> list[dict[str, Any]]:
        """What there is to read, now.

        Raises:
            JobFailed: there is nothing, or it may not be read (`source_invalid`).
        """

    def sample(self, frozen: Frozen) -> AsyncGenerator[list[Item], None]:
        """Items in source order without regard to the query: what columns are found from."""

    def check_query(self, fields: Sequence[str]) -> None:
        """Check the query against the fields that were found.

        Raises:
            JobFailed: a filter names another field; the message names those there are.
        """

    def read(self, frozen: Frozen, after: Position | None) -> AsyncGenerator[list[Item], None]:
        """Batches of items behind `after`, in a stable order, bounded in bytes.

        Raises:
            JobFailed: the source changed, is broken or stays unreachable.
        """

    def progress(self, frozen: Frozen, position: Position | None) -> float:
        """The share of the source that lies before `position`, 0 to 1."""
