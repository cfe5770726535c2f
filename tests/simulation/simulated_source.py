"""Sources in memory, which give their items in batches of any size."""

import random
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from shardline_common.errors import SourceUnavailable
from shardline_common.job.findings import Findings, Level
from shardline_common.job.messages import Position
from shardline_producer.sources.source import Cuts, DeclaredSource, Document, Frozen, Part, SourceItem
from tests.simulation.world import World


def documents(count: int) -> list[SourceItem]:
    """The items of a source of plain documents."""
    full = {"title": "t", "domain": "d", "document_type": "x"}
    return [
        SourceItem((0, number, number), Document(f"doc-{number}", "w" * 300, full), 100)
        for number in range(1, count + 1)
    ]


class MemorySource:
    """Gives its items."""

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
        if self._items:
            yield list(self._items)

    def check_query(self, fields: Sequence[str]) -> None:
        """There is no query."""

    async def cut(self, frozen: Frozen, slices: int) -> Cuts:
        """Ranges of items, none of them empty."""
        assert frozen[0]["items"] == len(self._items)
        count = max(1, min(slices, len(self._items)))
        starts = [len(self._items) * number // count for number in range(count + 1)]
        ranges = [{"first": first, "end": end} for first, end in pairwise(starts)]
        return Cuts(ranges, "there are no more items" if count < slices else "")

    async def read(
        self, frozen: Frozen, after: Position | None, part: Part | None = None
    ) -> AsyncGenerator[list[SourceItem], None]:
        """Batches behind a position."""
        assert frozen[0]["items"] == len(self._items)
        first, end = self._range(part)
        start = first + (after[-1] if after else 0)
        while start < end:
            size = self._dice.randint(1, 12)
            items = self._items[start : min(start + size, end)]
            yield [replace(one, position=(*one.position[:-1], one.position[-1] - first)) for one in items]
            start += size

    def progress(self, frozen: Frozen, position: Position | None, part: Part | None = None) -> float:
        """The fraction before a position."""
        assert frozen[0]["items"] == len(self._items)
        first, end = self._range(part)
        return position[-1] / (end - first) if position else 0.0

    def _range(self, part: Part | None) -> tuple[int, int]:
        return (part["first"], part["end"]) if part else (0, len(self._items))

    def findings(self, frozen: Frozen) -> Findings:
        """All items are in memory."""
        found = Findings()
        found.note("memory", Level.PROVEN, f"{frozen[0]['items']} items are in memory")
        return found


class FaultySource(MemorySource):
    """Gives the items of a schedule, and is unreachable now and then."""

    def __init__(self, world: World) -> None:
        super().__init__(world.scenario.items, world.dice)
        self._world = world

    async def read(
        self, frozen: Frozen, after: Position | None, part: Part | None = None
    ) -> AsyncGenerator[list[SourceItem], None]:
        """Batches behind a position."""
        async for batch in super().read(frozen, after, part):
            if self._dice.random() < self._world.harm.refused / 4:
                self._world.count("source unavailable")
                raise SourceUnavailable("the source does not answer")
            yield batch
