"""Bodies out of CouchDB's HTTP API: by reference, by id, by the id that a document names; files as well."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from deploy.dev.service import free_ports
from shardline.services.sample import sample_document
from shardline_common.errors import JobFailed, SourceUnavailable
from shardline_producer.sources.documents import DeadLetterReason
from shardline_producer.sources.uds3.couch.bodies import CouchBodies, CouchOptions, basic
from shardline_producer.sources.uds3.store_ports import REMOVED, Body, Unreadable, Wanted
from tests.couch_data import CouchData
from tests.stores import Address, connections_to, http_options

LONGEST = 4096
SECRET = "do-not-show-me"  # noqa: S105 - of this test
PDF = b"%PDF-1.7\n no text"


def options(couch: Address, database: str | None, **changes: Any) -> CouchOptions:
    headers = basic(couch.user, couch.password) if couch.user else {}
    return CouchOptions(http_options(couch, **({"headers": headers} | changes)), database)


def file(data: bytes, kind: str = "application/octet-stream", name: str = "body.bin") -> dict[str, Any]:
    return {name: {"content_type": kind, "data": b64encode(data).decode()}}


async def made(couch: Address, *documents: dict[str, Any]) -> CouchData:
    data = CouchData(couch)
    await data.create(*documents)
    return data


async def bodies(using: CouchOptions, *wanted: str | Wanted, longest: int = LONGEST) -> dict[str, Any]:
    asked = [Wanted(one) if isinstance(one, str) else one for one in wanted]
    return await CouchBodies(using).bodies(asked, longest)


async def test_bodies_by_id_as_a_field(couch: Address) -> None:
    data = await made(
        couch,
        {"_id": "law/1 ä+%", "content": "Text eins\u2028", "title": "T", "metadata": {"title": "U", "n": 1}},
        {"_id": "b", "text": "Text zwei"},
        {"_id": "empty", "content": ""},
        {"_id": "both", "content": "", "text": "second"},
        {"_id": "object", "content": {"no": "text"}},
        {"_id": "nothing", "title": "T"},
    )
    found = await bodies(
        options(couch, data.name), "law/1 ä+%", "b", "empty", "both", "object", "nothing", "nowhere"
    )
    assert found == {
        "law/1 ä+%": Body("Text eins\u2028", {"title": "U", "n": 1}),
        "b": Body("Text zwei", {}),
        "empty": Body("", {}),
        "both": Body("second", {}),
        "object": Unreadable(DeadLetterReason.CONTENT_NOT_TEXT),
    }


async def test_bodies_as_files(couch: Address) -> None:
    text = "Grüße".encode()
    data = await made(
        couch,
        {"_id": "bytes", "_attachments": file(text)},
        {"_id": "text", "_attachments": file(b"no") | file(text, "text/plain", "z/ä.txt")},
        {"_id": "latin", "_attachments": file("Grüße".encode("latin-1"), "text/plain; charset=ISO-8859-1")},
        {"_id": "marked", "_attachments": file(b"\xef\xbb\xbf" + text, "text/markdown")},
        {"_id": "pdf", "_attachments": file(PDF, "application/pdf")},
        {"_id": "pdf-bytes", "_attachments": file(PDF)},
        {"_id": "broken", "_attachments": file(b"\xff\xfe", "text/plain")},
        {"_id": "binary", "_attachments": file(b"\xff\xfe")},
        {"_id": "field", "content": "first", "_attachments": file(text)},
    )
    names = ("bytes", "text", "latin", "marked", "pdf", "pdf-bytes", "broken", "binary", "field")
    assert await bodies(options(couch, data.name), *names) == {
        "bytes": Body("Grüße"),
        "text": Body("Grüße"),
        "latin": Body("Grüße"),
        "marked": Body("Grüße"),
        "pdf": Unreadable(DeadLetterReason.NO_TEXT),
        "pdf-bytes": Unreadable(DeadLetterReason.NO_TEXT, PDF),
        "broken": Unreadable(DeadLetterReason.INVALID_UTF8, b"\xff\xfe"),
        "binary": Unreadable(DeadLetterReason.NO_TEXT, b"\xff\xfe"),
        "field": Body("first"),
    }


async def test_references_lead_first(couch: Address) -> None:
    main = await made(couch, {"_id": "a", "content": "of main"}, {"_id": "b", "content": "of main"})
    other = await made(
        couch,
        {"_id": "uuid-1", "content": "by reference", "metadata": {"document_id": "a"}},
        {"_id": "uuid-2", "content": "removed", "deleted": True},
    )
    third = await made(couch, {"_id": "e", "content": "of the third"})
    wanted = [
        Wanted("e", {third.name: {"doc_id": "e"}}),
        Wanted("a", {other.name: {"doc_id": "uuid-1"}}),
        Wanted("a2", {other.name: "uuid-1", "no-such-database": {"doc_id": "x"}}),
        Wanted("b", {other.name: {"doc_id": "nowhere"}, "odd": None}),
        Wanted("c", {other.name: {"doc_id": "uuid-2"}}),
    ]
    found = await bodies(options(couch, main.name), *wanted)
    assert found.pop("c") == REMOVED
    assert {one: body.text for one, body in found.items()} == {
        "a": "by reference",
        "a2": "by reference",
        "b": "of main",
        "e": "of the third",
    }
    assert set(await bodies(options(couch, None), *wanted)) == {"a", "a2", "c", "e"}


@pytest.mark.parametrize("indexed", [False, True])
async def test_bodies_by_the_id_that_a_document_names(couch: Address, indexed: bool) -> None:
    many = [
        {"_id": f"u-{number:04d}", "content": f"t{number}", "metadata": {"document_id": f"d{number}"}}
        for number in range(700)
    ]
    data = await made(
        couch,
        *many,
        {"_id": "u-2", "content": "later", "metadata": {"document_id": "twice"}},
        {"_id": "u-1", "content": "first", "metadata": {"document_id": "twice"}},
        {"_id": "u-3", "content": "x", "metadata": {"document_id": "gone", "deleted": True}},
        {"_id": "a-1", "content": "x", "metadata": {"document_id": "renewed", "is_deleted": True}},
        {"_id": "z-1", "content": "new", "metadata": {"document_id": "renewed"}},
        {"_id": "own", "content": "own", "metadata": {"document_id": "d1"}},
    )
    if indexed:
        await data.post("/_index", {"index": {"fields": ["metadata.document_id"]}, "type": "json"})
    before = await data.post("/_all_docs", {})
    names = [f"d{number}" for number in range(0, 700, 20)]
    found = await bodies(options(couch, data.name), *names, "twice", "gone", "renewed", "own", "nowhere")
    expected = {name: "t" + name[1:] for name in names} | {"twice": "first", "renewed": "new", "own": "own"}
    assert found.pop("gone") == REMOVED
    assert {one: body.text for one, body in found.items()} == expected
    assert await data.post("/_all_docs", {}) == before


async def test_documents_marked_deleted_are_removed(couch: Address) -> None:
    data = await made(
        couch,
        {"_id": "a", "content": "x", "deleted": True},
        {"_id": "b", "content": "x", "metadata": {"deleted_at": "2024-01-01"}},
        {"_id": "c", "content": "x", "processing_status": "archived"},
        {"_id": "d", "content": "x", "deleted": False},
        {"_id": "e", "content": "x", "_deleted": True},
        {"_id": "copy", "content": "x", "metadata": {"document_id": "a"}},
    )
    names = ("a", "b", "c", "d", "e")
    found = await bodies(options(couch, data.name), *names)
    assert found == dict.fromkeys("abc", REMOVED) | {"d": Body("x", found["d"].metadata)}
    archived = replace(options(couch, data.name), include_archived=True)
    assert {one for one, body in (await bodies(archived, *names)).items() if body != REMOVED} == {"c", "d"}


async def test_what_is_too_large_is_cut(couch: Address) -> None:
    data = await made(
        couch,
        {"_id": "field", "content": "ä" * 100},
        {"_id": "file", "_attachments": file(b"x" * 101, "text/plain")},
        {"_id": "fits", "content": "ä" * 50},
        {"_id": "fits-too", "_attachments": file(b"x" * 100)},
    )
    found = await bodies(options(couch, data.name), "field", "file", "fits", "fits-too", longest=100)
    assert found["field"] == Unreadable(DeadLetterReason.TOO_LARGE, ("ä" * 100).encode())
    assert found["file"].reason == DeadLetterReason.TOO_LARGE
    assert found["file"].original.startswith(b"x")
    assert (found["fits"].text, found["fits-too"].text) == ("ä" * 50, "x" * 100)


async def test_small_answers_change_nothing(couch: Address) -> None:
    documents = [
        {"_id": one["document_id"], "content": one["content"]} for one in map(sample_document, range(40))
    ]
    data = await made(couch, *documents, {"_id": "huge", "content": "x" * 50_000})
    names = [str(document["_id"]) for document in documents]
    whole = await bodies(options(couch, data.name), *names, longest=50_000)
    assert {one: body.text for one, body in whole.items()} == {
        document["_id"]: document["content"] for document in documents
    }
    small = options(couch, data.name, max_bytes=40_000)
    narrow = await bodies(small, *names, "huge", longest=50_000)
    assert narrow.pop("huge").reason == DeadLetterReason.TOO_LARGE
    assert narrow == whole


async def test_what_is_wrong_is_named(couch: Address) -> None:
    with pytest.raises(JobFailed, match="no database 'nowhere'") as error:
        await bodies(options(couch, "nowhere"), "a")
    assert "COUCH_DATABASE" in (error.value.hint or "")
    wrong = options(couch, "nowhere", headers=basic(couch.user or "x", SECRET))
    for call in (bodies(wrong, "a"), _check(wrong)):
        with pytest.raises(JobFailed, match="refuses the credentials") as error:
            await call
        assert SECRET not in repr(error.value) + repr(wrong)


async def _check(using: CouchOptions) -> str:
    return await CouchBodies(using).check()


async def test_check_tells_what_is_there(couch: Address) -> None:
    data = await made(couch, {"_id": "a"}, {"_id": "b"})
    assert (
        await _check(options(couch, data.name)) == f"the store at {couch.url} has 2 documents in {data.name}"
    )
    assert "couchdb_refs" in await _check(options(couch, None))
    with pytest.raises(JobFailed, match="no database"):
        await _check(options(couch, "nowhere"))


async def test_a_server_that_is_down_may_be_tried_again() -> None:
    (port,) = free_ports(1)
    with pytest.raises(SourceUnavailable, match=f"127.0.0.1:{port} cannot be read"):
        await bodies(options(Address(f"http://127.0.0.1:{port}"), "x"), "a")


@asynccontextmanager
async def stub(statuses: Sequence[int]) -> AsyncIterator[CouchOptions]:
    """A server that answers with these statuses, then with a document."""
    left = list(statuses)

    async def documents(_: web.Request) -> web.Response:
        if left:
            return web.Response(status=left.pop(0), text="not now")
        return web.json_response({"rows": [{"id": "a", "doc": {"_id": "a", "content": "x"}}]})

    app = web.Application()
    app.router.add_post("/db/_all_docs", documents)
    async with TestServer(app) as server:
        url = str(server.make_url("")).rstrip("/")
        yield CouchOptions(http_options(Address(url), attempts=3), "db")


async def test_a_passing_outage_is_waited_out() -> None:
    async with stub([503, 429]) as using:
        assert await bodies(using, "a") == {"a": Body("x")}
    async with stub([500] * 3) as using:
        with pytest.raises(SourceUnavailable, match="500 not now"):
            await bodies(using, "a")
    async with stub([418]) as using:
        with pytest.raises(JobFailed, match="418 not now"):
            await bodies(using, "a")


async def test_a_cancel_closes_the_connections(couch: Address) -> None:
    data = await made(couch, *({"_id": f"d{n}", "_attachments": file(b"x" * 1000)} for n in range(50)))
    work = asyncio.create_task(_read(CouchBodies(options(couch, data.name))))
    while not connections_to(couch.port):
        await asyncio.sleep(0)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    while connections_to(couch.port):
        await asyncio.sleep(0)


async def _read(store: CouchBodies) -> None:
    while True:
        await store.bodies([Wanted(f"d{number}") for number in range(50)], LONGEST)
