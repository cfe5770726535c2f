"""JSON over HTTP: retries, refusals, the limit on an answer, and TLS trust."""

import asyncio
import ssl
import subprocess
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from shardline_common.errors import JobFailed, SourceUnavailable, UsageError
from shardline_common.http.client import HttpResponse, ResponseTooLarge
from shardline_producer.sources.http_store import HttpStore, HttpStoreOptions, open_http_store

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
SECRET = "do-not-show-me"  # noqa: S105 - of this test


@asynccontextmanager
async def client(
    handler: Handler, context: ssl.SSLContext | None = None, **options: Any
) -> AsyncIterator[HttpStore]:
    """A store whose server has one handler for every path."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    server = TestServer(app, scheme="https" if context else "http")
    await server.start_server(ssl=context)
    values: dict[str, Any] = {"name": "the store", "url": str(server.make_url("")).rstrip("/"), "attempts": 3}
    try:
        async with open_http_store(HttpStoreOptions(**(values | options))) as store:
            yield store
    finally:
        await server.close()


async def test_path_is_sent_unchanged() -> None:
    async def echo(request: web.Request) -> web.Response:
        body = await request.json() if request.can_read_body else None
        return web.json_response({"path": request.raw_path, "method": request.method, "body": body})

    async with client(echo) as store:
        got = await store.json(await store.get("/a%2Fb/c%20d", {"q": "ä&"}), "read")
        assert got == {"path": "/a%2Fb/c%20d?q=%C3%A4%26", "method": "GET", "body": None}
        assert (await store.json(await store.post("/x", {"a": "ü"}), "read"))["body"] == {"a": "ü"}


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_transient_status_is_retried(status: int) -> None:
    asked = 0

    async def flaky(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.Response(status=status, text="busy") if asked < 3 else web.json_response(asked)

    async with client(flaky) as store:
        assert await store.json(await store.get("/"), "read") == 3
    asked = -3
    async with client(flaky) as store:
        with pytest.raises(SourceUnavailable, match=f"{status} busy"):
            await store.get("/")
    assert asked == 0


async def test_truncated_answer_is_retried() -> None:
    asked = 0

    async def breaks(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        response = web.StreamResponse(headers={"Content-Length": "6"})
        await response.prepare(request)
        await response.write(b"[1, ")
        if asked > 1:
            await response.write(b"2]")
        elif request.transport is not None:
            request.transport.close()
        return response

    async with client(breaks) as store:
        assert await store.json(await store.get("/"), "read") == [1, 2]


async def test_silent_store_is_unavailable() -> None:
    over = asyncio.Event()

    async def silent(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"[")
        await over.wait()
        return response

    async with client(silent, timeout=0.2, attempts=1) as store:
        with pytest.raises(SourceUnavailable, match=r"the store at http.*cannot be read"):
            await store.get("/")
        over.set()


@pytest.mark.parametrize("status", [401, 403])
async def test_refused_credentials_are_not_retried(status: int) -> None:
    asked = []

    async def refuses(request: web.Request) -> web.Response:
        asked.append(request.headers["Authorization"])
        return web.Response(status=status, text=SECRET)

    headers = {"Authorization": f"Bearer {SECRET}"}
    named: dict[str, Any] = {"secret_setting": "THE_TOKEN"}
    async with client(refuses, headers=headers, **named) as store:
        with pytest.raises(JobFailed, match="refuses the credentials") as error:
            await store.get("/")
    assert asked == [f"Bearer {SECRET}"]
    assert error.value.hint == "check THE_TOKEN"
    assert SECRET not in str(error.value)


async def test_redirect_is_not_followed_with_credentials() -> None:
    async def moved(_: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": "http://elsewhere.example/"})

    async with client(moved, headers={"Authorization": SECRET}) as store:
        with pytest.raises(JobFailed, match="cannot read: it answers 307"):
            await store.json(await store.get("/"), "read")


async def test_answer_over_the_limit_is_not_read_to_its_end() -> None:
    async def long(_: web.Request) -> web.Response:
        return web.Response(body=b"x" * 100_001)

    async with client(long, max_bytes=100_000) as store:
        for call in (store.get("/"), store.post("/", {}), store.get("/", limit=1 << 30)):
            with pytest.raises(ResponseTooLarge) as error:
                await call
            assert error.value.start.startswith(b"xxx")
    async with client(long, max_bytes=200_000) as store:
        assert len((await store.get("/")).body) == 100_001
        with pytest.raises(ResponseTooLarge):
            await store.get("/", limit=100_000)


async def test_answer_that_is_no_json_fails_the_job() -> None:
    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<html>" + " " * 100_000)

    async with client(page, address_setting="THE_URL") as store:
        with pytest.raises(JobFailed, match="cannot read: the response is not JSON") as error:
            await store.json(await store.get("/"), "read")
        assert error.value.hint == "check THE_URL"
        with pytest.raises(JobFailed, match="not JSON"):
            await store.json(HttpResponse(200, b"{"), "read")


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1 and its key, in one file."""
    path = tmp_path / "own.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    subprocess.run(
        [*new, "-keyout", str(path), "-out", str(tmp_path / "cert.pem"), *subject],
        check=True,
        capture_output=True,
    )
    path.write_text(path.read_text() + (tmp_path / "cert.pem").read_text())
    return path


async def test_only_the_configured_ca_is_trusted(certificate: Path) -> None:
    async def fine(_: web.Request) -> web.Response:
        return web.json_response("fine")

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    trusted = str(certificate.parent / "cert.pem")
    async with client(fine, context, ca_file=trusted) as store:
        assert await store.json(await store.get("/"), "read") == "fine"
    async with client(fine, context) as store:
        with pytest.raises(JobFailed, match="ertificate") as error:
            await store.get("/")
        assert "CA" in (error.value.hint or "")
    with pytest.raises(UsageError, match=r"the CA file .* cannot be read"):
        async with client(fine, ca_file=trusted + ".missing"):
            pass


async def test_connections_that_fail_say_why_and_name_the_setting() -> None:
    cases = {
        "http://127.0.0.1:1": (SourceUnavailable, "nothing listens", "start it, or correct THE_URL"),
        "http://no-such-host.invalid": (SourceUnavailable, "host name cannot be resolved", "THE_URL"),
        "http://h:99999": (JobFailed, "its address is not valid", "correct THE_URL"),
    }
    for url, (kind, words, hint) in cases.items():
        options = HttpStoreOptions("the store", url, attempts=1, address_setting="THE_URL")
        async with open_http_store(options) as store:
            with pytest.raises(kind, match=words) as failed:
                await store.get("/")
        assert hint in str(failed.value.hint)  # type: ignore[attr-defined]


async def test_the_page_of_a_proxy_is_named_without_secrets() -> None:
    async def login(_: web.Request) -> web.Response:
        return web.Response(text=f"<title>Log\x1b in</title> {SECRET}", content_type="text/html")

    headers = {"Authorization": f"Bearer {SECRET}"}
    async with client(login, headers=headers, attempts=1, address_setting="THE_URL") as store:
        with pytest.raises(JobFailed, match=r"the response is not JSON: <title>Log  ?in</title>") as failed:
            await store.json(await store.get("/"), "read")
    assert SECRET not in str(failed.value)
    assert failed.value.hint == "check THE_URL"


async def test_a_password_that_a_server_echoes_is_masked() -> None:
    async def echo(_: web.Request) -> web.Response:
        return web.Response(status=401, text=f"no user with the password {SECRET}" + "x" * 500)

    headers = {"Authorization": "Basic " + b64encode(f"user:{SECRET}".encode()).decode()}
    async with client(echo, headers=headers) as store:
        with pytest.raises(JobFailed, match=r"401 no user with the password \*+x") as failed:
            await store.get("/")
    assert len(str(failed.value)) < 400
