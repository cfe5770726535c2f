"""Bodies from CouchDB: by reference, by id, by metadata.document_id; in fields and in attachments."""

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
from shardline_producer.sources.planned_store import Entry
from shardline_producer.sources.source import Document
from shardline_producer.sources.uds3.contents import ContentFetcher
from shardline_producer.sources.uds3.couch.body_store import CouchBodyStore, CouchOptions, basic_auth
from shardline_producer.sources.uds3.store_ports import (
    DELETED_BODY,
    BodyRequest,
    BodyStore,
    DocumentBody,
    InvalidBody,
)
from tests.couch_data import CouchData
from tests.stores import Address, connections_to, http_options
from tests.uds3_data import DictBodyStore

MAX_BYTES = 4096
SECRET = "do-not-show-me"  # noqa: S105 - of this test
PDF = b"%PDF-1.7\n no text"


def couch_options(couch: Address, database: str | None, **changes: Any) -> CouchOptions:
    headers = basic_auth(couch.user, couch.password) if couch.user else {}
    return CouchOptions(http_options(couch, **({"headers": headers} | changes)), database)


def attachment(data: bytes, kind: str = "application/octet-stream", name: str = "body.bin") -> dict[str, Any]:
    return {name: {"content_type": kind, "data": b64encode(data).decode()}}


async def filled(couch: Address, *documents: dict[str, Any]) -> CouchData:
    data = CouchData(couch)
    await data.create(*documents)
    return data


async def bodies(
    options: CouchOptions, *wanted: str | BodyRequest, max_bytes: int = MAX_BYTES
) -> dict[str, Any]:
    requests = [BodyRequest(one) if isinstance(one, str) else one for one in wanted]
    return await CouchBodyStore(options).bodies(requests, max_bytes)


async def test_bodies_are_read_by_id_from_a_field(couch: Address) -> None:
    data = await filled(
        couch,
        {"_id": "law/1 ä+%", "content": "Text eins\u2028", "title": "T", "metadata": {"title": "U", "n": 1}},
        {"_id": "b", "text": "Text zwei"},
        {"_id": "empty", "content": ""},
        {"_id": "both", "content": "", "text": "second"},
        {"_id": "object", "content": {"no": "text"}},
        {"_id": "nothing", "title": "T"},
    )
    found = await bodies(
        couch_options(couch, data.name), "law/1 ä+%", "b", "empty", "both", "object", "nothing", "nowhere"
    )
    assert found == {
        "law/1 ä+%": DocumentBody("Text eins\u2028", {"title": "U", "n": 1}),
        "b": DocumentBody("Text zwei", {}),
        "empty": DocumentBody("", {}),
        "both": DocumentBody("second", {}),
        "object": InvalidBody(DeadLetterReason.CONTENT_NOT_TEXT),
    }


async def test_bodies_are_read_from_attachments(couch: Address) -> None:
    text = "Grüße".encode()
    data = await filled(
        couch,
        {"_id": "bytes", "_attachments": attachment(text)},
        {"_id": "text", "_attachments": attachment(b"no") | attachment(text, "text/plain", "z/ä.txt")},
        {
            "_id": "latin",
            "_attachments": attachment("Grüße".encode("latin-1"), "text/plain; charset=ISO-8859-1"),
        },
        {"_id": "marked", "_attachments": attachment(b"\xef\xbb\xbf" + text, "text/markdown")},
        {"_id": "pdf", "_attachments": attachment(PDF, "application/pdf")},
        {"_id": "pdf-bytes", "_attachments": attachment(PDF)},
        {"_id": "broken", "_attachments": attachment(b"\xff\xfe", "text/plain")},
        {"_id": "binary", "_attachments": attachment(b"\xff\xfe")},
        {"_id": "field", "content": "first", "_attachments": attachment(text)},
    )
    names = ("bytes", "text", "latin", "marked", "pdf", "pdf-bytes", "broken", "binary", "field")
    assert await bodies(couch_options(couch, data.name), *names) == {
        "bytes": DocumentBody("Grüße"),
        "text": DocumentBody("Grüße"),
        "latin": DocumentBody("Grüße"),
        "marked": DocumentBody("Grüße"),
        "pdf": InvalidBody(DeadLetterReason.NO_TEXT),
        "pdf-bytes": InvalidBody(DeadLetterReason.NO_TEXT, PDF),
        "broken": InvalidBody(DeadLetterReason.INVALID_UTF8, b"\xff\xfe"),
        "binary": InvalidBody(DeadLetterReason.NO_TEXT, b"\xff\xfe"),
        "field": DocumentBody("first"),
    }


async def test_couchdb_refs_take_precedence_over_ids(couch: Address) -> None:
    main = await filled(couch, {"_id": "a", "content": "of main"}, {"_id": "b", "content": "of main"})
    other = await filled(
        couch,
        {"_id": "uuid-1", "content": "by reference", "metadata": {"document_id": "a"}},
        {"_id": "uuid-2", "content": "removed", "deleted": True},
    )
    third = await filled(couch, {"_id": "e", "content": "of the third"})
    wanted = [
        BodyRequest("e", {third.name: {"doc_id": "e"}}),
        BodyRequest("a", {other.name: {"doc_id": "uuid-1"}}),
        BodyRequest("a2", {other.name: "uuid-1", "no-such-database": {"doc_id": "x"}}),
        BodyRequest("b", {other.name: {"doc_id": "nowhere"}, "odd": None}),
        BodyRequest("c", {other.name: {"doc_id": "uuid-2"}}),
    ]
    found = await bodies(couch_options(couch, main.name), *wanted)
    assert found.pop("c") == DELETED_BODY
    assert {one: body.text for one, body in found.items()} == {
        "a": "by reference",
        "a2": "by reference",
        "b": "of main",
        "e": "of the third",
    }
    assert set(await bodies(couch_options(couch, None), *wanted)) == {"a", "a2", "c", "e"}


@pytest.mark.parametrize("indexed", [False, True])
async def test_bodies_are_found_by_metadata_document_id(couch: Address, indexed: bool) -> None:
    many = [
        {"_id": f"u-{number:04d}", "content": f"t{number}", "metadata": {"document_id": f"d{number}"}}
        for number in range(700)
    ]
    data = await filled(
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
    found = await bodies(
        couch_options(couch, data.name), *names, "twice", "gone", "renewed", "own", "nowhere"
    )
    expected = {name: "t" + name[1:] for name in names} | {"twice": "first", "renewed": "new", "own": "own"}
    assert found.pop("gone") == DELETED_BODY
    assert {one: body.text for one, body in found.items()} == expected
    assert await data.post("/_all_docs", {}) == before


async def test_deleted_documents_are_deleted_bodies(couch: Address) -> None:
    data = await filled(
        couch,
        {"_id": "a", "content": "x", "deleted": True},
        {"_id": "b", "content": "x", "metadata": {"deleted_at": "2024-01-01"}},
        {"_id": "c", "content": "x", "processing_status": "archived"},
        {"_id": "d", "content": "x", "deleted": False},
        {"_id": "e", "content": "x", "_deleted": True},
        {"_id": "copy", "content": "x", "metadata": {"document_id": "a"}},
    )
    names = ("a", "b", "c", "d", "e")
    found = await bodies(couch_options(couch, data.name), *names)
    assert found == dict.fromkeys("abce", DELETED_BODY) | {"d": DocumentBody("x", found["d"].metadata)}
    archived = replace(couch_options(couch, data.name), include_archived=True)
    assert {one for one, body in (await bodies(archived, *names)).items() if body != DELETED_BODY} == {
        "c",
        "d",
    }


async def test_a_text_that_was_removed_does_not_come_from_another_store(couch: Address) -> None:
    data = await filled(
        couch,
        {"_id": "file", "_attachments": attachment(b"x", "text/plain", "t.txt")},
        {"_id": "gone", "content": "x"},
        {"_id": "again", "content": "old"},
        {"_id": "uuid-1", "_attachments": attachment(b"x", "text/plain", "t.txt")},
        {"_id": "uuid-2", "content": "x"},
        {"_id": "never", "title": "T"},
    )
    for path in ("file/t.txt", "gone", "again", "uuid-1/t.txt", "uuid-2"):
        await data.delete(path)
    await data.post("/_bulk_docs", {"docs": [{"_id": "again", "content": "new"}]})
    wanted = [BodyRequest(name) for name in ("file", "gone", "again", "never", "nowhere")]
    wanted += [BodyRequest(f"by-{name}", {data.name: {"doc_id": name}}) for name in ("uuid-1", "uuid-2")]
    found = await bodies(couch_options(couch, data.name), *wanted)
    assert found == {
        "file": InvalidBody(DeadLetterReason.NO_CONTENT),
        "gone": DELETED_BODY,
        "again": DocumentBody("new"),
        "by-uuid-1": InvalidBody(DeadLetterReason.NO_CONTENT),
        "by-uuid-2": DELETED_BODY,
    }
    old = DictBodyStore({name: DocumentBody(f"old {name}") for name in ("file", "gone", "never", "nowhere")})
    stores: list[BodyStore] = [CouchBodyStore(couch_options(couch, data.name)), old]
    fetcher = ContentFetcher(None, None, stores, 4_194_304)
    contents = await fetcher.fetch([Entry(name) for name in ("file", "gone", "never", "nowhere")])
    assert [one.text if isinstance(one, Document) else one.dead_letter.reason for one in contents] == [
        "no_content",
        "vanished",
        "old never",
        "old nowhere",
    ]


async def test_a_body_over_the_limit_is_invalid_and_keeps_its_start(couch: Address) -> None:
    data = await filled(
        couch,
        {"_id": "field", "content": "ä" * 100},
        {"_id": "file", "_attachments": attachment(b"x" * 101, "text/plain")},
        {"_id": "fits", "content": "ä" * 50},
        {"_id": "fits-too", "_attachments": attachment(b"x" * 100)},
    )
    found = await bodies(couch_options(couch, data.name), "field", "file", "fits", "fits-too", max_bytes=100)
    assert found["field"] == InvalidBody(DeadLetterReason.TOO_LARGE, ("ä" * 100).encode())
    assert found["file"].reason == DeadLetterReason.TOO_LARGE
    assert found["file"].original.startswith(b"x")
    assert (found["fits"].text, found["fits-too"].text) == ("ä" * 50, "x" * 100)


async def test_a_small_answer_limit_does_not_change_the_result(couch: Address) -> None:
    documents = [
        {"_id": one["document_id"], "content": one["content"]} for one in map(sample_document, range(40))
    ]
    data = await filled(couch, *documents, {"_id": "huge", "content": "x" * 50_000})
    names = [str(document["_id"]) for document in documents]
    whole = await bodies(couch_options(couch, data.name), *names, max_bytes=50_000)
    assert {one: body.text for one, body in whole.items()} == {
        document["_id"]: document["content"] for document in documents
    }
    small = couch_options(couch, data.name, max_bytes=40_000)
    narrow = await bodies(small, *names, "huge", max_bytes=50_000)
    assert narrow.pop("huge").reason == DeadLetterReason.TOO_LARGE
    assert narrow == whole


async def test_errors_name_the_database_and_hide_the_password(couch: Address) -> None:
    with pytest.raises(JobFailed, match="no database 'nowhere'") as error:
        await bodies(couch_options(couch, "nowhere"), "a")
    assert "COUCH_DATABASE" in (error.value.hint or "")
    wrong = couch_options(couch, "nowhere", headers=basic_auth(couch.user or "x", SECRET))
    for call in (bodies(wrong, "a"), _check(wrong)):
        with pytest.raises(JobFailed, match="refuses the credentials") as error:
            await call
        assert SECRET not in repr(error.value) + repr(wrong)


async def _check(options: CouchOptions) -> str:
    return await CouchBodyStore(options).check()


async def test_check_reports_the_database_and_its_documents(couch: Address) -> None:
    data = await filled(couch, {"_id": "a"}, {"_id": "b"})
    assert (
        await _check(couch_options(couch, data.name))
        == f"the store at {couch.url} has 2 documents in {data.name}"
    )
    assert "couchdb_refs" in await _check(couch_options(couch, None))
    with pytest.raises(JobFailed, match="no database"):
        await _check(couch_options(couch, "nowhere"))


async def test_a_server_that_is_down_is_a_transient_error() -> None:
    (port,) = free_ports(1)
    with pytest.raises(SourceUnavailable, match=f"127.0.0.1:{port} cannot be read"):
        await bodies(couch_options(Address(f"http://127.0.0.1:{port}"), "x"), "a")


@asynccontextmanager
async def stub(statuses: Sequence[int]) -> AsyncIterator[CouchOptions]:
    """A server that answers with these statuses, then with one document."""
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


async def test_transient_statuses_are_retried_and_others_are_not() -> None:
    async with stub([503, 429]) as options:
        assert await bodies(options, "a") == {"a": DocumentBody("x")}
    async with stub([500] * 3) as options:
        with pytest.raises(SourceUnavailable, match="500 not now"):
            await bodies(options, "a")
    async with stub([418]) as options:
        with pytest.raises(JobFailed, match="418 not now"):
            await bodies(options, "a")


async def test_cancellation_closes_the_connections(couch: Address) -> None:
    data = await filled(
        couch, *({"_id": f"d{n}", "_attachments": attachment(b"x" * 1000)} for n in range(50))
    )
    work = asyncio.create_task(_read(CouchBodyStore(couch_options(couch, data.name))))
    while not connections_to(couch.port):
        await asyncio.sleep(0)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    while connections_to(couch.port):
        await asyncio.sleep(0)


async def _read(store: CouchBodyStore) -> None:
    while True:
        await store.bodies([BodyRequest(f"d{number}") for number in range(50)], MAX_BYTES)
