"""The documents of the simulated source: a few of every relevant kind."""

import random
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from shardline_common.job.messages import Position
from shardline_common.job.spec import JobSpec
from shardline_producer.sources.documents import DeadLetterReason, dead_letter
from shardline_producer.sources.source import DeclaredSource, Document, Frozen, InvalidDocument, SourceItem
from tests.make import job


def simulated_job() -> JobSpec:
    """Two partitions, segments of a few rows, a topic limit that is reached."""
    return job(
        job_id="sim",
        name="sim",
        quality={"keep_rejected": True},
        output={"shard_bytes": 1024},
        partitions=2,
        max_document_bytes=1024,
    )


def documents(count: int, seed: int) -> list[SourceItem]:
    """The items of a source: a function of count and seed."""
    dice = random.Random(seed)
    return [SourceItem((0, number, number), _content(number, dice), 100) for number in range(1, count + 1)]


def _content(number: int, dice: random.Random) -> Document | InvalidDocument:
    kind = dice.choices(("good", "poor", "empty", "broken", "large"), (60, 20, 5, 10, 5))[0]
    if kind == "broken":
        place = f"memory:{number}"
        return InvalidDocument(place, dead_letter(DeadLetterReason.INVALID_JSON, place, b"{", "00", 1))
    title = {"title": "t", "domain": "d", "document_type": "x"} if kind != "poor" else {}
    size = {"good": dice.randint(250, 700), "poor": 300, "empty": 0, "large": 2000}[kind]
    return Document(f"doc-{number}", "w" * size or " ", title)


class MemorySource:
    """Gives its items in batches of any size."""

    def __init__(self, items: Sequence[SourceItem], dice: random.Random) -> None:
        self._items = items
        self._dice = dice

    async def freeze(self) -> list[dict[str, Any]]:
        """The identity of what is read."""
        return [{"items": len(self._items)}]

    def declared(self, frozen: Frozen) -> DeclaredSource:
        """No plan is needed."""
        assert frozen[0]["items"] == len(self._items)
        return DeclaredSource()

    async def sample(self, frozen: Frozen) -> AsyncGenerator[list[SourceItem], None]:
        """All items."""
        assert frozen[0]["items"] == len(self._items)
        yield list(self._items)

    def check_query(self, fields: Sequence[str]) -> None:
        """There is no query."""

    async def read(self, frozen: Frozen, after: Position | None) -> AsyncGenerator[list[SourceItem], None]:
        """Batches behind a position."""
        assert frozen[0]["items"] == len(self._items)
        start = after[-1] if after else 0
        while start < len(self._items):
            size = self._dice.randint(1, 12)
            yield list(self._items[start : start + size])
            start += size

    def progress(self, frozen: Frozen, position: Position | None) -> float:
        """The fraction before a position."""
        return position[-1] / frozen[0]["items"] if position else 0.0
