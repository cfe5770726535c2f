"""A job over the fake ThemisDB, planned and read: what the tests of that source share."""

import asyncio
from datetime import UTC, datetime
from typing import Any

from shardline_common.job.spec import JobSpec, ThemisSource
from shardline_common.memory.store import MemoryStore
from shardline_producer.plan import make_plan
from shardline_producer.plan_pages import StoredPlanPages
from shardline_producer.sources.planned import PlannedSource
from shardline_producer.sources.source import SourceItem
from shardline_producer.sources.themis.client import ThemisOptions
from shardline_producer.sources.themis.limiter import RateLimiter
from shardline_producer.sources.themis.planned_store import ThemisTable
from tests.make import job
from tests.themis_server import READER, ThemisServer


class InstantClock:
    """A clock whose sleeps take no time and move its seconds."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        await asyncio.sleep(0)


class ThemisJob:
    """A job over the fake server. `fields` are those of its source and of ThemisOptions."""

    def __init__(
        self,
        server: ThemisServer,
        *,
        rate: float = 0,
        query: dict[str, Any] | None = None,
        row_format: dict[str, Any] | None = None,
        **fields: Any,
    ) -> None:
        option_names = ("page", "max_response_bytes", "token", "url", "timeout")
        options: dict[str, Any] = {name: fields.pop(name) for name in option_names if name in fields}
        self.spec: JobSpec = job(
            source={"type": "themis", **fields}, query=query or {}, format=row_format or {}
        )
        assert isinstance(self.spec.source, ThemisSource)
        self.clock = InstantClock()
        options = dict[str, Any](url=server.url, token=READER, timeout=20) | options
        self.limiter = RateLimiter(rate, self.clock)
        table = ThemisTable(self.spec, self.spec.source, ThemisOptions(**options), self.limiter, self.clock)
        self.source = PlannedSource(self.spec, table, StoredPlanPages(MemoryStore(), ""))

    async def items(self) -> list[SourceItem]:
        """Plan the job and read all its items."""
        plan = await make_plan(self.spec, self.source)
        self.columns, self.notes = plan.columns, plan.notes
        self.frozen = plan.frozen
        return [item async for batch in self.source.read(plan.frozen, None) for item in batch]


async def read_items(server: ThemisServer, **fields: Any) -> list[SourceItem]:
    """All items of a job with these fields."""
    return await ThemisJob(server, **fields).items()


def row(number: int, **more: Any) -> dict[str, Any]:
    """A row whose category is a for even and b for odd numbers."""
    return {"doc_id": f"d-{number:05d}", "content": f"text {number}", "category": "ab"[number % 2]} | more


def fill_documents(server: ThemisServer, count: int = 50, **more: Any) -> None:
    """Fill the table documents with rows, and index it."""
    server.fill("documents", "doc_id", [row(number, **more) for number in range(count)])
