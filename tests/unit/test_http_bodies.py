"""A response over HTTP without its end, cut JSON, or fewer answers than questions are never the whole."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from shardline_common.errors import JobFailed, SourceUnavailable
from shardline_common.http.client import HttpConnectionError, HttpOptions, HttpRequest, open_http
from shardline_common.runtime.clock import SystemClock
from shardline_common.runtime.retry import Backoff
from shardline_producer.sources.http_store import HttpStoreOptions, open_http_store
from shardline_producer.sources.themis.client import ThemisOptions, open_themis
from shardline_producer.sources.themis.limiter import RateLimiter
from shardline_producer.sources.uds3.chroma.collection import (
    ChromaCollection,
    CollectionReader,
)
from shardline_producer.sources.uds3.couch.body_store import CouchBodyStore, CouchOptions
from shardline_producer.sources.uds3.postgres import sql
from shardline_producer.sources.uds3.postgres.options import PostgresOptions
from shardline_producer.sources.uds3.postgres.schema import PostgresSchema, PostgresTable
from shardline_producer.sources.uds3.postgres.session import PostgresSession
from shardline_producer.sources.uds3.postgres.sql import DocumentSelection
from shardline_producer.sources.uds3.postgres.statement import SqlStatement
from shardline_producer.sources.uds3.scratch import ScratchDatabase
from shardline_producer.sources.uds3.spilled_lists import SortedIds
from shardline_producer.sources.uds3.store_ports import BodyRequest, DocumentBody
from tests.uds3_data import FakeTransaction

VALUE = {"version": "1", "rows": [{"a": 1}, {"a": 2}]}

Sent = bytes | Callable[[str, Any], bytes]
"""A whole response, or what makes it from the path and the JSON of the request."""


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backoff, "pause", lambda *_: 0.0)


@asynccontextmanager
async def sending(responses: list[Sent]) -> AsyncIterator[str]:
    """A server that sends these responses, the last one for ever, and closes each connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(
            (int(line[15:]) for line in head.lower().splitlines() if line.startswith("content-length")), 0
        )
        body = await reader.readexactly(length)
        sent = responses.pop(0) if len(responses) > 1 else responses[0]
        path = head.split(" ")[1]
        writer.write(sent if isinstance(sent, bytes) else sent(path, orjson.loads(body or b"null")))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def framed(value: Any, *headers: str, status: int = 200) -> bytes:
    body = value if isinstance(value, bytes) else orjson.dumps(value)
    lines = [f"HTTP/1.1 {status} -", f"Content-Length: {len(body)}", *headers, "Connection: close", "", ""]
    return "\r\n".join(lines).encode() + body


def unframed(body: bytes) -> bytes:
    return b"HTTP/1.1 200 -\r\nConnection: close\r\n\r\n" + body


def chunked(body: bytes, *headers: str) -> bytes:
    lines = ["HTTP/1.1 200 -", "Transfer-Encoding: chunked", *headers, "Connection: close", "", ""]
    return "\r\n".join(lines).encode() + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


WHOLE = orjson.dumps(VALUE)
CUT: list[bytes] = [
    unframed(WHOLE),
    unframed(WHOLE[:20]),
    unframed(b""),
    framed(WHOLE[:20]),
    framed(b""),
    chunked(WHOLE[:20]),
    chunked(WHOLE)[:-7],
    chunked(gzip.compress(WHOLE)[:-15], "Content-Encoding: gzip"),
    framed(WHOLE)[:-3],
]


@pytest.mark.parametrize("cut", CUT, ids=range(len(CUT)))
async def test_a_response_without_its_end_is_requested_again(cut: bytes) -> None:
    clock = SystemClock()
    async with (
        sending([cut, cut, framed(VALUE)]) as url,
        open_http_store(HttpStoreOptions("the store", url, attempts=3)) as http,
    ):
        assert await http.json(await http.get("/x"), "read") == VALUE
    async with (
        sending([cut, cut, framed(VALUE)]) as url,
        open_themis(ThemisOptions(url), RateLimiter(0, clock), clock) as themis,
    ):
        assert await themis.post("/query", {"table": "t"}) == VALUE
    async with sending([cut]) as url:
        async with open_http_store(HttpStoreOptions("the store", url, attempts=3)) as http:
            with pytest.raises((SourceUnavailable, JobFailed), match="the store at"):
                await http.json(await http.post("/x", {}), "read")
        async with open_themis(ThemisOptions(url), RateLimiter(0, clock), clock) as themis:
            with pytest.raises((SourceUnavailable, JobFailed), match=url):
                await themis.health()


async def test_only_a_proven_end_is_an_end_for_the_http_client() -> None:
    for response, whole in ((chunked(b"x"), True), (framed(b"x"), True), (unframed(b"x"), False)):
        async with sending([response]) as url, open_http(HttpOptions(url)) as client:
            if whole:
                assert (await client.send(HttpRequest("GET", "/"))).body == b"x"
                continue
            with pytest.raises(HttpConnectionError, match="no length"):
                await client.send(HttpRequest("GET", "/"))
            # Nobody reads this body.
            assert (await client.send(HttpRequest("POST", "/", ignore_body=True))).status == 200
    async with sending([b"HTTP/1.1 503 -\r\n\r\nbusy"]) as url, open_http(HttpOptions(url)) as client:
        assert (await client.send(HttpRequest("GET", "/"))).status == 503


def couch_rows(path: str, asked: Any) -> bytes:
    """CouchDB's answer: a row for each key."""
    if "_all_docs" in path:
        return framed({"rows": [row(key) for key in asked["keys"]]})
    return framed({"indexes": []}, status=404)


def row(key: str) -> dict[str, Any]:
    return {"key": key, "id": key, "doc": {"_id": key, "content": f"text of {key}"}}


REQUESTS = [BodyRequest(name) for name in "abcde"]


def fewer_rows(_: str, asked: Any) -> bytes:
    return framed({"rows": [row(key) for key in asked["keys"][:3]]})


def other_rows(_: str, asked: Any) -> bytes:
    return framed({"rows": [row(key) for key in reversed(asked["keys"])]})


@pytest.mark.parametrize("short", [fewer_rows, other_rows])
async def test_couchdb_must_answer_every_key(short: Sent) -> None:
    async with sending([short, short, couch_rows]) as url:
        store = CouchBodyStore(CouchOptions(HttpStoreOptions("CouchDB", url), "db"))
        found = await store.bodies(REQUESTS, 1000)
    assert {name: body.text for name, body in found.items() if isinstance(body, DocumentBody)} == {
        name: f"text of {name}" for name in "abcde"
    }
    async with sending([short]) as url:
        store = CouchBodyStore(CouchOptions(HttpStoreOptions("CouchDB", url), "db"))
        with pytest.raises(SourceUnavailable, match="rows to the keys of 5 documents"):
            await store.bodies(REQUESTS, 1000)


async def test_an_attachment_must_have_its_length() -> None:
    document = {"_id": "a", "_attachments": {"t.txt": {"content_type": "text/plain", "length": 9}}}
    rows = framed({"rows": [{"key": "a", "id": "a", "doc": document}]})
    async with sending([rows, framed(b"only"), framed(b"the whole")]) as url:
        store = CouchBodyStore(CouchOptions(HttpStoreOptions("CouchDB", url), "db"))
        found = await store.bodies([BodyRequest("a")], 1000)
    body = found["a"]
    assert isinstance(body, DocumentBody)
    assert body.text == "the whole"


async def test_couchdbs_aliases_are_listed_to_their_end() -> None:
    documents = [{"_id": f"c{number}", "metadata": {"document_id": f"d{number}"}} for number in range(5)]
    rows = [{"id": document["_id"], "key": document["_id"], "doc": document} for document in documents]
    missing = framed({"rows": [{"key": "d4", "error": "not_found"}]})
    found = framed({"rows": [{"key": "c4", "id": "c4", "doc": {"_id": "c4", "content": "x"}}]})
    pages = [framed({"rows": part}) for part in (rows[:2], [], rows[1:4], rows[3:], rows[4:])]
    async with sending([missing, framed({}, status=404), *pages, found]) as url:
        store = CouchBodyStore(CouchOptions(HttpStoreOptions("CouchDB", url), "db"))
        assert set(await store.bodies([BodyRequest("d4")], 1000)) == {"d4"}
    index = framed({"indexes": [{"type": "json", "def": {"fields": [{"metadata.document_id": "asc"}]}}]})
    pages = [
        framed({"docs": documents[:1], "bookmark": "1"}),
        framed({"docs": documents[4:], "bookmark": "2"}),
        framed({"docs": [], "bookmark": "nil"}),
    ]
    none = framed({"rows": [{"key": name, "error": "not_found"} for name in ("d0", "d4")]})
    async with sending([none, index, *pages, couch_rows]) as url:
        store = CouchBodyStore(CouchOptions(HttpStoreOptions("CouchDB", url), "db"))
        assert set(await store.bodies([BodyRequest("d0"), BodyRequest("d4")], 1000)) == {"d0", "d4"}


COLLECTION = ChromaCollection("/c", 2, "l2", None)


def records(*names: str) -> bytes:
    return framed(
        {
            "ids": list(names),
            "documents": [f"text {name}" for name in names],
            "metadatas": [{"document_id": "d"} for _ in names],
        }
    )


async def test_chromadbs_short_answers_are_completed() -> None:
    uneven = framed({"ids": ["a", "b"], "metadatas": [{}]})
    async with (
        sending([uneven, records("a"), records("b", "c"), records()]) as url,
        open_http_store(HttpStoreOptions("ChromaDB", url)) as http,
    ):
        found = await CollectionReader(http, COLLECTION).records(["a", "b", "c", "d"], ("metadatas",))
    assert [name for response in found for name in response["ids"]] == ["a", "b", "c"]


async def test_an_empty_page_of_chromadb_is_the_end_of_a_filtered_list_when_it_comes_twice() -> None:
    pages = [records("a"), records(), records("b"), records(), records()]
    async with (
        sending([*pages, *pages, framed(b"")]) as url,
        open_http_store(HttpStoreOptions("ChromaDB", url)) as http,
    ):
        with ScratchDatabase() as database:
            ids = SortedIds(database)
            await CollectionReader(http, COLLECTION).list_ids(ids, {"kind": {"$eq": "law"}})
            assert ids.after("", 10) == ["a", "b"]


class Rows:
    """A connection to PostgreSQL that answers rows of these ids."""

    def __init__(self, ids: str) -> None:
        self._ids = ids

    async def fetch(self, *_: Any) -> list[tuple[Any, ...]]:
        # Size, body, digest, references and metadata are null.
        return [(name, True, False, None, None, None, None, None) for name in self._ids]


@pytest.mark.parametrize("ids", ["", "b", "ac", "ba"])
async def test_postgresqls_rows_are_those_of_the_plan(ids: str) -> None:
    options = PostgresOptions("db", 5432, "u", None, "uds3")
    table = PostgresTable("t", "t", "document_id", True, True, None, ())
    selection = DocumentSelection(PostgresSchema((table,)), {})
    with pytest.raises(SourceUnavailable, match="rows of other documents"):
        await PostgresSession(Rows(ids), options).contents(selection, ["a", "b", "c"], 100)
    found = await PostgresSession(Rows("ab"), options).contents(selection, ["a", "b", "c"], 100)
    assert [row.id for row in found] == ["a", "b"]


class Ranked:
    """A connection to PostgreSQL that sends one row of a list, and ends before `left` rows."""

    def __init__(self, left: int) -> None:
        self._left = left

    def transaction(self, **_: Any) -> FakeTransaction:
        return FakeTransaction()

    def is_closed(self) -> bool:
        return False

    async def fetch(self, *_: Any) -> list[Any]:
        return []

    async def fetchval(self, _: str) -> str:
        return "5min"

    async def execute(self, _: str) -> None:
        """Take a setting."""

    async def copy_from_query(self, *_: Any, output: Callable[[bytes], Awaitable[None]], **__: Any) -> str:
        await output(b"a\t1\n")
        return f"COPY {1 + self._left}"


async def test_a_search_of_postgresql_ends_at_its_last_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "ranked", lambda *_: SqlStatement())
    options = PostgresOptions("db", 5432, "u", None, "uds3")
    selection = DocumentSelection(PostgresSchema(()), {})
    found = [page async for page in PostgresSession(Ranked(0), options).rank(selection, "law")]
    assert [hit.id for page in found for hit in page] == ["a"]
    with pytest.raises(SourceUnavailable, match="before its last row"):
        _ = [page async for page in PostgresSession(Ranked(3), options).rank(selection, "law")]
