"""The checksum of each put and delete, seen by a store that records them and refuses some."""

from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import md5, sha256
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from shardline_common.errors import ObjectExists, StoreRefused, StoreUnavailable
from shardline_common.ports.store import HashedFile
from shardline_common.storage.s3 import S3Options, S3Store, open_s3

SHA256, MD5 = "x-amz-checksum-sha256", "content-md5"
DELETED = "<DeleteResult><Deleted><Key>prefix/a</Key></Deleted></DeleteResult>"


class Choosy:
    """A store that refuses headers, or requires one of some, with a status and a code."""

    def __init__(self, refused: set[str], required: set[str], status: int, code: str) -> None:
        self.headers: list[dict[str, str]] = []
        self._refused, self._required, self._status, self._code = refused, required, status, code
        self.damages = 0

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.headers.append(headers)
        refuses = self._refused & headers.keys()
        if refuses or (self._required and not self._required & headers.keys()):
            return self._error(self._status, self._code)
        for name, digest in ((SHA256, sha256), (MD5, md5)):
            if name in headers and headers[name] != b64encode(digest(body).digest()).decode():
                return self._error(400, "BadDigest")
        if self.damages:
            self.damages -= 1
            return self._error(400, "BadDigest")
        if request.method == "POST":
            return web.Response(text=DELETED, content_type="application/xml")
        return self._error(412, "PreconditionFailed") if "taken" in request.path else web.Response()

    def _error(self, status: int, code: str) -> web.Response:
        return web.Response(status=status, text=f"<Error><Code>{code}</Code></Error>")


@asynccontextmanager
async def choosy(
    refused: set[str] = frozenset(),  # type: ignore[assignment]
    required: set[str] = frozenset(),  # type: ignore[assignment]
    answer: tuple[int, str] = (400, "InvalidArgument"),
) -> AsyncIterator[tuple[S3Store, Choosy]]:
    server = Choosy(refused, required, *answer)
    app = web.Application(client_max_size=1 << 26)
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    options = S3Options(
        "bucket",
        endpoint_url=f"http://127.0.0.1:{runner.addresses[0][1]}",
        access_key_id="key",
        secret_access_key="secret",  # noqa: S106 - of no store
        addressing_style="path",
    )
    try:
        async with open_s3(options) as client:
            yield S3Store(client, "bucket", "prefix"), server
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("size", [0, 3, 1 << 20])
@pytest.mark.parametrize("kind", ["bytes", "file"])
async def test_each_put_has_the_sha256_of_its_body_as_a_header(tmp_path: Path, size: int, kind: str) -> None:
    data = b"x" * size
    (tmp_path / "body").write_bytes(data)
    async with choosy() as (store, server):
        await store.create("a", data if kind == "bytes" else tmp_path / "body")
    (headers,) = server.headers
    assert headers[SHA256] == b64encode(sha256(data).digest()).decode()
    # moto and the SDKs of AWS name the algorithm too.
    assert headers["x-amz-sdk-checksum-algorithm"] == "SHA256"
    assert headers["x-amz-content-sha256"] == sha256(data).hexdigest(), "the body is signed"
    assert int(headers["content-length"]) == size
    assert MD5 not in headers
    assert not {"x-amz-trailer", "transfer-encoding"} & headers.keys()


@pytest.mark.parametrize(
    ("refused", "sent"),
    [({SHA256}, {MD5}), ({SHA256, MD5}, set()), ({"x-amz-sdk-checksum-algorithm"}, {MD5})],
)
@pytest.mark.parametrize(
    "answer", [(400, "InvalidArgument"), (501, "NotImplemented"), (400, "InvalidRequest")]
)
async def test_a_store_that_refuses_a_checksum_is_sent_another(
    refused: set[str], sent: set[str], answer: tuple[int, str], caplog: pytest.LogCaptureFixture
) -> None:
    async with choosy(refused, answer=answer) as (store, server):
        await store.create("a", b"1")
        assert {SHA256, MD5} & server.headers[-1].keys() == sent
        tries = len(server.headers)
        await store.create("b", b"2")
        assert len(server.headers) == tries + 1, "the choice is remembered"
        await store.delete(["a"])
        deletes = len(server.headers)
        await store.delete(["b"])
        assert len(server.headers) == deletes + 1
    assert sum("refuses x-amz-checksum-sha256" in message for message in caplog.messages) == 2


@pytest.mark.parametrize("header", [SHA256, MD5])
async def test_a_store_that_requires_one_checksum_is_sent_it(header: str) -> None:
    async with choosy(required={header}) as (store, server):
        await store.create("a", b"1")
        await store.delete(["a"])
        assert header in server.headers[-1]


async def test_an_object_that_exists_shows_the_choice_too() -> None:
    async with choosy({SHA256}) as (store, server):
        for tries in (2, 3):
            with pytest.raises(ObjectExists):
                await store.create("taken", b"1")
            assert len(server.headers) == tries


async def test_a_bucket_that_begins_to_require_a_checksum_gets_one() -> None:
    async with choosy({SHA256, MD5}) as (store, server):
        await store.create("a", b"1")
        assert SHA256 not in server.headers[-1]
        server._refused, server._required = set(), {SHA256, MD5}
        await store.create("b", b"1")
        assert SHA256 in server.headers[-1]


async def test_a_refusal_for_another_reason_is_the_stores_first_answer() -> None:
    async with choosy({"if-none-match"}) as (store, server):
        with pytest.raises(StoreRefused, match="InvalidArgument"):
            await store.create("a", b"1")
        assert len(server.headers) == 3


async def test_a_body_that_was_damaged_on_the_way_is_sent_again() -> None:
    async with choosy() as (store, server):
        server.damages = 2
        await store.create("a", b"1")
        assert len(server.headers) == 3
        assert all(SHA256 in headers for headers in server.headers)


async def test_checksums_are_chosen_for_each_bucket() -> None:
    async with choosy({SHA256}) as (store, server):
        await store.create("a", b"1")
        other: Any = S3Store(store._client, "other", "")
        server._refused = set()
        await other.create("a", b"1")
        assert SHA256 in server.headers[-1]


async def test_a_known_sha256_is_sent_and_signed(tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(b"rows")
    body = HashedFile(tmp_path / "body", sha256(b"rows").hexdigest())
    async with choosy() as (store, server):
        await store.create("a", body)
        assert server.headers[-1]["x-amz-content-sha256"] == body.sha256
        assert server.headers[-1][SHA256] == b64encode(bytes.fromhex(body.sha256)).decode()


async def test_a_file_of_other_bytes_than_its_known_sha256_is_refused(tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(b"rows")
    other = sha256(b"other")
    async with choosy() as (store, server):
        with pytest.raises(StoreUnavailable, match="BadDigest"):
            await store.create("a", HashedFile(tmp_path / "body", other.hexdigest()))
        # Neither is computed from the file.
        assert {line[SHA256] for line in server.headers} == {b64encode(other.digest()).decode()}
        assert {line["x-amz-content-sha256"] for line in server.headers} == {other.hexdigest()}


async def test_a_store_without_sha256_gets_the_md5_of_a_file_whose_sha256_is_known(tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(b"rows")
    async with choosy(refused={SHA256}) as (store, server):
        await store.create("a", HashedFile(tmp_path / "body", sha256(b"rows").hexdigest()))
        assert server.headers[-1][MD5] == b64encode(md5(b"rows", usedforsecurity=False).digest()).decode()
