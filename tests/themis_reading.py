"""A job over the stand-in for ThemisDB, planned and read: what the tests of that source share."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from shardline_common.job.spec import JobSpec, ThemisSource
from shardline_common.memory.store import MemoryStore
from shardline_producer.plan import make_plan
from shardline_producer.plan_pages import StoredPlanPages
from shardline_producer.sources.planned import PlannedSource
from shardline_producer.sources.source import Document, InvalidDocument, SourceItem
from shardline_producer.sources.themis.client import ThemisOptions
from shardline_producer.sources.themis.limiter import RateLimiter
from shardline_producer.sources.themis.planned_store import ThemisTable
from tests.make import job
from tests.themis_server import READER, Themis


class Instant:
    """A clock on which waiting takes no time."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        await asyncio.sleep(0)


class Reading:
    """A job over the stand-in, planned and read."""

    def __init__(
        self, server: Themis, *, rate: float = 0, query: dict[str, Any] | None = None, **fields: Any
    ) -> None:
        given = ("page", "answer_bytes", "token", "url")
        options: dict[str, Any] = {name: fields.pop(name) for name in given if name in fields}
        self.spec: JobSpec = job(source={"type": "themis", **fields}, query=query or {})
        assert isinstance(self.spec.source, ThemisSource)
        self.clock = Instant()
        options = dict[str, Any](url=server.url, token=READER, timeout=20) | options
        self.limiter = RateLimiter(rate, self.clock)
        table = ThemisTable(self.spec, self.spec.source, ThemisOptions(**options), self.limiter, self.clock)
        self.source = PlannedSource(self.spec, table, StoredPlanPages(MemoryStore(), ""))

    async def items(self) -> list[SourceItem]:
        plan = await make_plan(self.spec, self.source)
        self.columns = plan.columns
        self.frozen = plan.frozen
        return [item async for batch in self.source.read(plan.frozen, None) for item in batch]


async def read(server: Themis, **fields: Any) -> list[SourceItem]:
    return await Reading(server, **fields).items()


def names(items: Sequence[SourceItem]) -> list[str]:
    return [one.content.id if isinstance(one.content, Document) else one.content.key for one in items]


def reasons(items: Sequence[SourceItem]) -> dict[str, str]:
    return {
        one.content.key: one.content.dead_letter.reason
        for one in items
        if isinstance(one.content, InvalidDocument)
    }


def row(number: int, **more: Any) -> dict[str, Any]:
    return {"doc_id": f"d-{number:05d}", "content": f"text {number}", "category": "ab"[number % 2]} | more


def filled(server: Themis, count: int = 50, **more: Any) -> None:
    server.fill("documents", "doc_id", [row(number, **more) for number in range(count)])
