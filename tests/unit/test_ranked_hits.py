"""The first hits of a search come as one row: nothing between may cut them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any

import pytest

from shardline_common.errors import SourceUnavailable
from shardline_producer.sources.uds3.postgres import ranked_hits, sql
from shardline_producer.sources.uds3.postgres.copied_rows import copied_rows
from shardline_producer.sources.uds3.postgres.options import PostgresOptions
from shardline_producer.sources.uds3.postgres.schema import PostgresSchema, PostgresTable
from shardline_producer.sources.uds3.postgres.session import PostgresSession
from shardline_producer.sources.uds3.postgres.sql import DocumentSelection
from shardline_producer.sources.uds3.postgres.statement import SqlStatement
from tests.uds3_data import FakeTransaction


class Server:
    """A connection to PostgreSQL with these hits, of which COPY sends only the first `sent`."""

    def __init__(self, hits: str, sent: int | None = None, *, row: bool = True, stale: bool = False) -> None:
        self._hits = hits
        self._sent = hits if sent is None else hits[:sent]
        self._row = row
        self._stale = stale
        self.terminated = False
        self.calls: list[str] = []

    def transaction(self, *, isolation: str, readonly: bool) -> FakeTransaction:
        assert readonly
        self.calls.append(isolation)
        return FakeTransaction()

    def is_closed(self) -> bool:
        return self.terminated

    def terminate(self) -> None:
        self.terminated = True

    async def fetchrow(self, _: str, limit: int) -> dict[str, Sequence[Any]] | None:
        self.calls.append(f"first {limit}")
        found = self._hits[:limit]
        return {"ids": list(found), "scores": [1.0 for _ in found]} if self._row else None

    async def fetchval(self, statement: str, *_: Any) -> int | str:
        return "5min" if "statement_timeout" in statement else int(self._stale)

    async def fetch(self, *_: Any) -> list[Any]:
        return []

    async def execute(self, statement: str) -> None:
        assert statement.startswith("SET LOCAL ")

    async def copy_from_query(self, *_: Any, output: Callable[[bytes], Awaitable[None]], **__: Any) -> str:
        self.calls.append("copy")
        # Two hits at a time, and cut where a row has not ended.
        rows = "".join(f"{name}\t1\n" for name in self._sent).encode()
        for start in range(0, len(rows), 8):
            await output(rows[start : start + 8])
        return f"COPY {len(self._hits)}"


async def _no_index(*_: Any) -> bool:
    return False


TABLE = PostgresTable("t", "t", "document_id", True, True, None, ())


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranked_hits, "PAGE", 2)
    monkeypatch.setattr(ranked_hits, "have_exact_indexes", _no_index)
    monkeypatch.setattr(sql, "ranked", lambda *_, **__: SqlStatement())


async def ranked(server: Server, wanted: int | None, patience: float = 20.0) -> list[str]:
    options = PostgresOptions("db", 5432, "u", None, "uds3", statement_seconds=patience)
    session = PostgresSession(server, options)
    pages = session.rank(DocumentSelection(PostgresSchema((TABLE,)), {}), "law", wanted=wanted)
    return ["".join(hit.id for hit in page) async for page in pages]


async def test_the_first_page_needs_no_copy_when_it_is_the_last_one() -> None:
    server = Server("abcd")
    assert await ranked(server, 3) == ["abcd"]
    assert server.calls == ["repeatable_read", "first 5"]


async def test_a_copy_goes_on_behind_the_first_page() -> None:
    server = Server("abcdefgh")
    assert await ranked(server, 1) == ["abc", "d", "ef", "gh"]
    assert server.calls == ["repeatable_read", "first 3", "copy"]


@pytest.mark.parametrize("wanted", [None, ranked_hits.MAX_FIRST + 1])
async def test_a_long_list_is_read_by_a_copy_alone(wanted: int | None) -> None:
    server = Server("abc")
    assert await ranked(server, wanted) == ["ab", "c"]
    assert server.calls == ["read_committed", "copy"]


async def test_a_snapshot_that_is_older_than_its_tables_is_given_up() -> None:
    server = Server("abcd", stale=True)
    assert await ranked(server, 1) == ["ab", "cd"]
    assert server.calls == ["repeatable_read", "first 3", "read_committed", "copy"]


@pytest.mark.parametrize("server", [Server("abcdefgh", 5), Server("abc", row=False)])
async def test_a_list_that_is_cut_is_not_the_whole(server: Server) -> None:
    with pytest.raises(SourceUnavailable, match="before its last row"):
        await ranked(server, 1)


async def test_a_server_that_loses_the_hits_of_the_first_page_is_refused() -> None:
    class Forgetful(Server):
        async def fetchrow(self, *_: Any) -> dict[str, Sequence[Any]]:
            return {"ids": ["a", "b", "c"], "scores": [1.0, 1.0, 1.0]}

    with pytest.raises(SourceUnavailable, match="before its last row"):
        await ranked(Forgetful("a"), 1)


async def test_a_row_that_is_cut_is_not_read() -> None:
    class Cut(Server):
        async def copy_from_query(
            self, *_: Any, output: Callable[[bytes], Awaitable[None]], **__: Any
        ) -> str:
            await output(b"a\t1\nb\t")
            return "COPY 1"

    with pytest.raises(SourceUnavailable, match="before its last row"):
        await ranked(Cut(""), None)


async def test_a_server_that_sends_nothing_is_given_up() -> None:
    class Silent(Server):
        ended = False

        async def copy_from_query(self, *_: Any, **__: Any) -> str:
            try:
                await asyncio.Event().wait()
            finally:
                self.ended = True
            return ""

    server = Silent("")
    with pytest.raises(SourceUnavailable, match=r"sent no row of a search for less than 0\.1 s"):
        await ranked(server, None, patience=0.01)
    assert server.ended


async def test_closing_the_list_ends_the_copy() -> None:
    class Endless(Server):
        ended = False

        async def copy_from_query(
            self, *_: Any, output: Callable[[bytes], Awaitable[None]], **__: Any
        ) -> str:
            try:
                while True:
                    await output(b"a\t1\n")
            finally:
                self.ended = True

    server = Endless("")
    async with aclosing(copied_rows(server, "db", SqlStatement(), 20.0)) as rows:
        assert await anext(rows) == [["a", "1"]]
    assert (server.ended, server.terminated) == (True, True)
