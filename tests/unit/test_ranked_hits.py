"""The first hits of a search come as one row: nothing between may cut them."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

import pytest

from shardline_common.errors import SourceUnavailable
from shardline_producer.sources.uds3.postgres import ranked_hits, sql
from shardline_producer.sources.uds3.postgres.options import PostgresOptions
from shardline_producer.sources.uds3.postgres.schema import PostgresSchema, PostgresTable
from shardline_producer.sources.uds3.postgres.session import PostgresSession
from shardline_producer.sources.uds3.postgres.sql import DocumentSelection
from shardline_producer.sources.uds3.postgres.statement import SqlStatement


class Server:
    """A connection to PostgreSQL with these hits, of which its cursor has only the first `sent`."""

    def __init__(self, hits: str, sent: int | None = None, *, row: bool = True, stale: bool = False) -> None:
        self._hits = hits
        self._sent = hits if sent is None else hits[:sent]
        self._row = row
        self._stale = stale
        self._at = 0
        self.calls: list[str] = []

    def transaction(self, *, isolation: str | None = None, **_: Any) -> AbstractAsyncContextManager[None]:
        self.calls.append(isolation or "read_committed")
        return nullcontext()

    async def fetchrow(self, _: str, limit: int) -> dict[str, Sequence[Any]] | None:
        self.calls.append(f"first {limit}")
        found = self._hits[:limit]
        return {"ids": list(found), "scores": [1.0 for _ in found]} if self._row else None

    async def fetchval(self, *_: Any) -> int:
        return int(self._stale)

    async def fetch(self, *_: Any) -> list[Any]:
        return []

    async def execute(self, statement: str) -> None:
        assert statement == "SET LOCAL enable_seqscan = off"

    async def cursor(self, *_: Any) -> "_Cursor":
        self.calls.append("cursor")
        return _Cursor(self._sent, self._hits)


class _Cursor:
    def __init__(self, sent: str, hits: str) -> None:
        self._sent, self._hits, self._at = sent, hits, 0

    async def forward(self, count: int) -> int:
        moved = min(count, len(self._hits) - self._at)
        self._at += moved
        return moved

    async def fetch(self, count: int) -> list[dict[str, Any]]:
        found = self._sent[self._at : self._at + count]
        self._at += len(found)
        return [{"id": name, "score": 1.0} for name in found]


TABLE = PostgresTable("t", "t", "document_id", True, True, None, ())


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranked_hits, "PAGE", 2)
    monkeypatch.setattr(sql, "ranked", lambda *_, **__: SqlStatement())


async def ranked(server: Server, wanted: int | None) -> list[str]:
    session = PostgresSession(server, PostgresOptions("db", 5432, "u", None, "uds3"))
    pages = session.rank(DocumentSelection(PostgresSchema((TABLE,)), {}), "law", wanted=wanted)
    return ["".join(hit.id for hit in page) async for page in pages]


async def test_the_first_page_needs_no_cursor_when_it_is_the_last_one() -> None:
    server = Server("abcd")
    assert await ranked(server, 3) == ["abcd"]
    assert server.calls == ["repeatable_read", "first 5"]


async def test_a_cursor_goes_on_behind_the_first_page() -> None:
    server = Server("abcdefgh")
    assert await ranked(server, 1) == ["abc", "de", "fg", "h"]
    assert server.calls == ["repeatable_read", "first 3", "cursor"]


@pytest.mark.parametrize("wanted", [None, ranked_hits.MAX_FIRST + 1])
async def test_a_long_list_is_read_by_a_cursor_alone(wanted: int | None) -> None:
    server = Server("abc")
    assert await ranked(server, wanted) == ["ab", "c"]
    assert server.calls == ["read_committed", "cursor"]


async def test_a_snapshot_that_is_older_than_its_tables_is_given_up() -> None:
    server = Server("abcd", stale=True)
    assert await ranked(server, 1) == ["ab", "cd"]
    assert server.calls == ["repeatable_read", "first 3", "read_committed", "cursor"]


@pytest.mark.parametrize("server", [Server("abcdefgh", 5), Server("abc", row=False)])
async def test_a_list_that_is_cut_is_not_the_whole(server: Server) -> None:
    with pytest.raises(SourceUnavailable, match="before its last row"):
        await ranked(server, 1)


async def test_a_server_that_loses_the_hits_of_the_first_page_is_refused() -> None:
    class Forgetful(Server):
        async def cursor(self, *_: Any) -> _Cursor:
            return _Cursor("a", "a")

    with pytest.raises(SourceUnavailable, match="before its last row"):
        await ranked(Forgetful("abcdefgh"), 1)
