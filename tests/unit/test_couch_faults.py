"""What CouchDB answers wrongly never becomes a text, nor lets an old text of another store through."""

import gzip
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from hashlib import md5
from typing import Any

import orjson
import pytest
from aiohttp import web

from shardline_common.errors import JobFailed, SourceUnavailable
from shardline_common.http.client import HttpResponse
from shardline_common.job.findings import Certainty, Level
from shardline_common.runtime.retry import Backoff
from shardline_producer.sources.documents import DeadLetterReason
from shardline_producer.sources.http_store import HttpStoreOptions, open_http_store
from shardline_producer.sources.uds3.chroma.body_store import ChromaBodyStore
from shardline_producer.sources.uds3.chroma.collection import ChromaOptions
from shardline_producer.sources.uds3.couch.attachments import (
    Attachment,
    attachment_fault,
    content_of,
    decode_attachment,
)
from shardline_producer.sources.uds3.couch.body_store import CouchBodyStore, CouchOptions
from shardline_producer.sources.uds3.embedding.embedder import EmbeddingOptions
from shardline_producer.sources.uds3.embedding.http_embedder import HttpEmbedder
from shardline_producer.sources.uds3.store_ports import DELETED_BODY, BodyRequest, DocumentBody, InvalidBody
from tests.support.answering import answering, serving

TEXT = b"the whole text"
Rows = Callable[[str], dict[str, Any]]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backoff, "pause", lambda *_: 0.0)


def digest(data: bytes) -> str:
    return "md5-" + b64encode(md5(data, usedforsecurity=False).digest()).decode()


def stub(data: bytes = TEXT, **changes: Any) -> dict[str, Any]:
    return {"content_type": "text/plain", "length": len(data), "digest": digest(data), "stub": True} | changes


def row(key: str, document: Any = None, **value: Any) -> dict[str, Any]:
    return {"id": key, "key": key, "value": {"rev": "1-a"} | value, "doc": document}


def attached(revision: str = "2-a", **changes: Any) -> dict[str, Any]:
    return row("a", {"_id": "a", "_rev": revision, "_attachments": {"t.txt": stub(**changes)}}, rev=revision)


class StandIn:
    """CouchDB over HTTP: `rows` and `files` are answered in turn, the last one for ever."""

    def __init__(
        self, *rows: dict[str, Any], files: tuple[tuple[int, bytes, dict[str, str]], ...] = ()
    ) -> None:
        self.rows, self.files = list(rows), list(files)
        self.asked: list[str] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.path_qs)
        if request.path.endswith("_all_docs"):
            one = self.rows.pop(0) if len(self.rows) > 1 else self.rows[0]
            return web.json_response({"rows": [one]})
        if request.path.endswith("_index"):
            return web.json_response({"indexes": []})
        status, body, headers = self.files.pop(0) if len(self.files) > 1 else self.files[0]
        return web.Response(status=status, body=body, headers=headers)

    @asynccontextmanager
    async def store(self) -> AsyncIterator[CouchBodyStore]:
        async with serving(self.answer) as url:
            yield CouchBodyStore(CouchOptions(HttpStoreOptions("CouchDB", url, attempts=3), "db"))

    async def body(self) -> DocumentBody | InvalidBody | None:
        async with self.store() as store:
            return (await store.bodies([BodyRequest("a")], 1000)).get("a")


GOOD = row("a", {"_id": "a", "content": "good"})
BAD_ROWS = [
    {"id": "a", "key": "a", "error": "timeout"},
    {"key": "a", "error": "unauthorized", "reason": "no shard"},
    row("a"),
    row("a", {"_id": "other", "content": "of another"}),
    row("a", "text"),
    {"id": "a", "key": "a", "value": "1-a", "doc": {"_id": "a"}},
    row("a", {"_id": "a", "_attachments": ["t.txt"]}),
    {"key": "b", "error": "not_found"},
]


@pytest.mark.parametrize("bad", BAD_ROWS, ids=range(len(BAD_ROWS)))
async def test_a_row_that_is_not_whole_is_asked_again_and_then_fails(bad: dict[str, Any]) -> None:
    assert await StandIn(bad, bad, GOOD).body() == DocumentBody("good")
    with pytest.raises(SourceUnavailable, match=r"CouchDB at .* cannot be read .*(row|document)"):
        await StandIn(bad).body()


async def test_a_tombstone_of_couchdb_is_a_deletion() -> None:
    assert await StandIn(row("a", None, deleted=True)).body() == DELETED_BODY


WRONG_FILES = [
    (200, b"<html>log in", {}),
    (200, TEXT[:-1], {}),
    (200, TEXT[::-1], {}),
    (200, gzip.compress(TEXT)[:-9], {"Content-Encoding": "gzip"}),
    (200, gzip.compress(TEXT[::-1]), {"Content-Encoding": "gzip"}),
    (200, b"no gzip at all", {"Content-Encoding": "gzip"}),
]


@pytest.mark.parametrize("wrong", WRONG_FILES, ids=range(len(WRONG_FILES)))
async def test_an_attachment_is_compared_with_its_stub(wrong: tuple[int, bytes, dict[str, str]]) -> None:
    whole = (200, TEXT, dict[str, str]())
    assert await StandIn(attached(), files=(wrong, wrong, whole)).body() == DocumentBody(TEXT.decode())
    with pytest.raises(SourceUnavailable, match=r"attachment 't\.txt'"):
        await StandIn(attached(), files=(wrong,)).body()


async def test_an_attachment_that_couchdb_keeps_compressed() -> None:
    packed = gzip.compress(TEXT)
    kept = attached(digest=digest(packed), encoding="gzip", encoded_length=len(packed))
    as_kept = (200, packed, {"Content-Encoding": "gzip"})
    for file in (as_kept, (200, TEXT, dict[str, str]())):
        assert await StandIn(kept, files=(file,)).body() == DocumentBody(TEXT.decode())
    without_encoding = attached(digest=digest(packed))
    assert await StandIn(without_encoding, files=(as_kept,)).body() == DocumentBody(TEXT.decode())
    # A proxy that compresses: the hash is that of the text.
    assert await StandIn(attached(), files=(as_kept,)).body() == DocumentBody(TEXT.decode())
    with pytest.raises(SourceUnavailable, match="another hash"):
        await StandIn(kept, files=((200, gzip.compress(TEXT[::-1]), {"Content-Encoding": "gzip"}),)).body()


def test_a_small_response_cannot_fill_the_memory() -> None:
    response = HttpResponse(200, gzip.compress(b"x" * 10_000_000), encoding="gzip")
    assert len(content_of(response, 1000) or b"") == 1001
    attachment = Attachment("t", "text/plain", "utf-8", 10_000_000, "md5-x")
    assert attachment_fault(attachment, 1000, response) is None
    found = decode_attachment(attachment, content_of(response, 1000) or b"", 1000)
    assert isinstance(found, InvalidBody)
    assert found.reason == DeadLetterReason.TOO_LARGE


async def test_an_attachment_is_read_of_the_revision_that_named_it() -> None:
    couch = StandIn(attached("7-b"), files=((200, TEXT, {}),))
    await couch.body()
    assert couch.asked[-1] == "/db/a/t.txt?rev=7-b"


async def test_an_attachment_that_was_removed_meanwhile() -> None:
    gone = ((404, b"{}", dict[str, str]()),)
    without = row("a", {"_id": "a", "_rev": "3-c"}, rev="3-c")
    assert await StandIn(attached(), without, files=gone).body() == InvalidBody(DeadLetterReason.NO_CONTENT)
    removed = row("a", None, rev="3-c", deleted=True)
    assert await StandIn(attached(), removed, files=gone).body() == DELETED_BODY
    assert await StandIn(attached(), {"key": "a", "error": "not_found"}, files=gone).body() == DELETED_BODY
    renewed = StandIn(attached(), attached("3-c"), files=(*gone, (200, TEXT, {})))
    assert await renewed.body() == DocumentBody(TEXT.decode())
    with pytest.raises(SourceUnavailable, match="lists an attachment of 'a' and does not find it"):
        await StandIn(attached(), files=gone).body()


async def test_a_document_that_lost_its_text_is_no_content() -> None:
    without: list[dict[str, Any]] = [{}, {"content": None}, {"_attachments": {}}]
    for fields in without:
        lost = row("a", {"_id": "a", "_rev": "2-b", **fields}, rev="2-b")
        assert await StandIn(lost).body() == InvalidBody(DeadLetterReason.NO_CONTENT)


async def test_aliases_are_listed_again_when_a_document_is_missing() -> None:
    named = {"_id": "u", "content": "text", "metadata": {"document_id": "a"}}
    missing = {"key": "a", "error": "not_found"}
    last = row("u", named)
    assert await StandIn(missing, row("u"), last, last, last).body() == DocumentBody("text")
    with pytest.raises(SourceUnavailable, match="the row of 'u' has no document"):
        await StandIn(missing, row("u")).body()


WRONG_JSON = [
    ('{"error": "internal", "reason": "no shard"}', "an error with the status 200: internal: no shard"),
    ('{"error": {"message": "no memory"}}', "an error with the status 200"),
    ('{"rows": [NaN], "ids": [NaN], "data": [NaN]}', "not JSON to its end"),
    ('{"rows": [{"id": "a"', "not JSON to its end"),
    ("", "not JSON to its end"),
]


@pytest.mark.parametrize(("text", "words"), WRONG_JSON)
async def test_what_is_no_answer_is_asked_again_and_named(text: str, words: str) -> None:
    asked = 0

    async def answer(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.Response(text=text, content_type="application/json")

    async with serving(answer) as url:
        options = HttpStoreOptions("the store", url, attempts=2)
        chroma, couch = ChromaOptions(options), CouchOptions(options, "db")
        for call in (
            ChromaBodyStore(chroma).bodies([BodyRequest("a")], 100),
            CouchBodyStore(couch).bodies([BodyRequest("a")], 100),
            HttpEmbedder(EmbeddingOptions(), url).embed("x"),
        ):
            before = asked
            with pytest.raises(SourceUnavailable, match=words):
                await call
            assert asked >= before + 2


async def test_json_of_another_form_is_asked_again_and_named() -> None:
    for bad in ("[1]", '{"rows": [3]}', '{"rows": [null]}', '{"rows": [{}]}'):
        async with answering(200, bad) as url:
            options = HttpStoreOptions("CouchDB", url, attempts=2)
            with pytest.raises((SourceUnavailable, JobFailed), match=f"CouchDB at {url}"):
                await CouchBodyStore(CouchOptions(options, "db")).bodies([BodyRequest("a")], 100)
        for broken in ('{"indexes": [{}]}', '{"indexes": [1]}'):
            async with (
                answering(200, broken) as url,
                open_http_store(HttpStoreOptions("x", url, attempts=2)) as http,
            ):

                def check(found: Any) -> str | None:
                    return str(found["indexes"][0]["type"])

                with pytest.raises(SourceUnavailable, match="another form than expected"):
                    await http.get("/", check=check)


async def test_half_a_surrogate_pair_does_not_hide_the_other_documents() -> None:
    async with (
        answering(200, '{"text": "\\ud800"}') as url,
        open_http_store(HttpStoreOptions("x", url)) as http,
    ):
        assert await http.json(await http.get("/"), "read") == {"text": "\ud800"}


class Database:
    """CouchDB's two lists of a database. `before_changes` runs between them."""

    def __init__(self, *documents: dict[str, Any]) -> None:
        self.documents = {one["_id"]: one for one in documents}
        self.revisions = dict.fromkeys(self.documents, 1)
        self.removed: list[str] = []
        self.hidden: set[str] = set()
        self.before_changes = list[Callable[["Database"], None]]()
        self.changes_status = 200

    def put(self, document: dict[str, Any]) -> None:
        name = document["_id"]
        self.documents[name] = document
        self.revisions[name] = self.revisions.get(name, 0) + 1

    def remove(self, name: str) -> None:
        del self.documents[name]
        self.removed.append(name)

    def row(self, name: str) -> dict[str, Any]:
        revision = f"{self.revisions.get(name, 1)}-x"
        if name in self.documents:
            return {"id": name, "key": name, "value": {"rev": revision}, "doc": self.documents[name]}
        if name in self.removed:
            return {"id": name, "key": name, "value": {"rev": revision, "deleted": True}, "doc": None}
        return {"key": name, "error": "not_found"}

    async def answer(self, request: web.Request) -> web.Response:
        if request.method == "POST":
            rows = [self.row(one) for one in (await request.json())["keys"]]
            if "include_docs" not in request.query:
                rows = [{name: value for name, value in row.items() if name != "doc"} for row in rows]
            return web.json_response({"rows": rows})
        if request.path.endswith("_all_docs"):
            start = orjson.loads(request.query.get("startkey", '""'))
            names = [name for name in sorted(self.documents) if name >= start and name not in self.hidden]
            rows = [self.row(name) for name in names[: min(3, int(request.query["limit"]))]]
            if "include_docs" not in request.query:
                rows = [{name: value for name, value in row.items() if name != "doc"} for row in rows]
            return web.json_response({"rows": rows})
        if request.path.endswith("_index"):
            return web.json_response({"indexes": []})
        if request.path.endswith("_changes"):
            while self.before_changes:
                self.before_changes.pop()(self)
            if self.changes_status != 200:
                return web.json_response({"error": "forbidden"}, status=self.changes_status)
            names = [*sorted(self.documents), *self.removed, "_design/x"]
            since = int(request.query["since"])
            results = [
                {
                    "id": name,
                    "seq": number,
                    "changes": [{"rev": f"{self.revisions.get(name, 1)}-x"}],
                    **({"deleted": True} if name in self.removed else {}),
                }
                for number, name in enumerate(names, 1)
                if number > since
            ]
            return web.json_response({"results": results[:2], "last_seq": min(since + 2, len(names))})
        return web.json_response({"doc_count": len(self.documents)})

    async def deleted(self, **options: Any) -> tuple[list[str], Certainty]:
        async with serving(self.answer) as url:
            http = HttpStoreOptions("CouchDB", url, attempts=2, **options)
            store = CouchBodyStore(CouchOptions(http, "db"))
            found = [one async for page in store.deleted_ids() for one in page]
            return sorted(found), store.certainty()


def named(name: str, document: str, **fields: Any) -> dict[str, Any]:
    return {"_id": name, "content": "x", "metadata": {"document_id": document}, **fields}


def fixed() -> Database:
    found = Database(
        {"_id": "a", "content": "x"},
        {"_id": "b", "content": "x", "deleted": True},
        {"_id": "c", "content": "x"},
        named("u1", "d", is_deleted=1),
        named("u2", "e", is_deleted=1),
        named("u3", "e"),
        named("u4", "a", is_deleted=1),
        named("u5", "f"),
        named("u6", "g", is_deleted=1),
    )
    found.remove("c")
    return found


ALWAYS = ["b", "c", "d", "u1", "u2", "u4"]
AGREE = Certainty(Level.PROVEN, "two lists of the documents, _all_docs and _changes, agree")


async def test_marks_and_tombstones_of_a_database() -> None:
    assert await fixed().deleted() == (sorted([*ALWAYS, "g", "u6"]), AGREE)


async def test_marks_that_change_while_they_are_listed_are_read_again() -> None:
    database = fixed()

    def write(found: Database) -> None:
        found.put(named("u5", "f", deleted=True))
        found.put(named("u6", "g"))
        found.put({"_id": "a", "content": "x", "deleted": True})
        found.put({"_id": "new", "content": "x", "deleted_at": "2024"})
        found.remove("u3")

    database.before_changes.append(write)
    found, certainty = await database.deleted()
    assert found == sorted([*ALWAYS, "a", "e", "f", "new", "u3", "u5"])
    assert certainty == AGREE


async def test_documents_that_a_list_lacks_are_read_by_their_ids() -> None:
    database = fixed()
    database.hidden = {"b", "u1"}
    assert await database.deleted() == (sorted([*ALWAYS, "g", "u6"]), AGREE)


async def test_a_document_that_exceeds_a_response_does_not_fail_the_list() -> None:
    database = fixed()
    database.put({"_id": "bb", "content": "x" * 9000, "deleted": True})
    database.put({"_id": "zz", "content": "x" * 9000})
    found, certainty = await database.deleted(max_bytes=5000)
    assert found == sorted([*ALWAYS, "g", "u6"])
    assert certainty == Certainty(
        Level.UNPROVEN, "2 documents are too large for one response: their marks are not known"
    )
    async with serving(database.answer) as url:
        options = HttpStoreOptions("CouchDB", url, attempts=2, max_bytes=5000)
        requests = [BodyRequest(name) for name in ("a", "b", "bb", "c", "zz")]
        assert await CouchBodyStore(CouchOptions(options, "db")).deleted(requests) == {"b", "c"}


async def test_tombstones_that_cannot_be_listed_are_said() -> None:
    database = fixed()
    database.changes_status = 404
    found, certainty = await database.deleted()
    assert "b" in found
    assert certainty == Certainty(
        Level.UNPROVEN, "its deleted documents cannot be listed (_changes answers 404)"
    )
    without = CouchBodyStore(CouchOptions(HttpStoreOptions("CouchDB", "http://127.0.0.1:1")))
    assert [page async for page in without.deleted_ids()] == []
    assert without.certainty().level == Level.UNPROVEN
