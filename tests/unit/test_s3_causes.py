"""Errors of S3 name the true cause, in the store's own words, and one thing to do."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from shardline.services.wiring.stores import open_source_s3, s3_options
from shardline_common.errors import StoreRefused, StoreUnavailable, UsageError
from shardline_common.settings.load import load_settings
from shardline_common.storage.s3 import S3Client, S3Store, open_s3
from tests.make import job
from tests.support.answering import SECRET, answering, s3_at, serving
from tests.support.certificates import Authority

NO_KEYS: dict[str, Any] = {"aws_access_key_id": None, "aws_secret_access_key": None}


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No pauses, and nothing of the machine's own AWS configuration and proxies."""
    monkeypatch.setattr("shardline_common.storage.s3._BACKOFF.__class__.pause", lambda *_: 0.0)
    for name in (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_PROFILE",
        "AWS_CA_BUNDLE",
    ):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))


def error_body(code: str, message: str = "the store's own words", more: str = "") -> str:
    return f"<Error><Code>{code}</Code><Message>{message}</Message>{more}<RequestId>R1D</RequestId></Error>"


async def failures(client: S3Client) -> list[StoreUnavailable]:
    """The errors of a put, a get and a list."""
    store = S3Store(client, "datasets", "")
    found = []
    for call in (store.create("a", b""), store.get("a"), anext(store.list(""))):
        with pytest.raises(StoreUnavailable) as failed:
            await call
        found.append(failed.value)
    return found


Case = tuple[int, str, str, dict[str, str], type[Exception], str]
ANSWERS: list[Case] = [
    (403, error_body("AccessDenied"), "AccessDenied", {}, StoreRefused, "rights on the bucket"),
    (403, error_body("InvalidAccessKeyId"), "InvalidAccessKeyId", {}, StoreRefused, "AWS_ACCESS_KEY_ID"),
    (400, error_body("ExpiredToken"), "have ended", {}, StoreUnavailable, "AWS_SESSION_TOKEN_FILE"),
    (507, error_body("XMinioStorageFull"), "the store is full", {}, StoreRefused, "free space"),
    (403, error_body("QuotaExceeded"), "the store is full", {}, StoreRefused, "quota"),
    (507, "", "the store is full", {}, StoreRefused, "free space"),
    (500, error_body("NoSpaceLeftOnDevice"), "the store is full", {}, StoreRefused, "free space"),
    (400, error_body("InvalidBucketName"), "InvalidBucketName", {}, StoreRefused, "name of the bucket"),
    (503, error_body("SlowDown"), "SlowDown", {}, StoreUnavailable, "load"),
    (301, error_body("PermanentRedirect", more="<Endpoint>b.s3.eu.example</Endpoint>"), "PermanentRedirect",
     {"x-amz-bucket-region": "eu-central-1"}, StoreRefused,
     "set AWS_REGION to eu-central-1 and AWS_ENDPOINT_URL_S3 to https://b.s3.eu.example"),
    (400, error_body("AuthorizationHeaderMalformed", more="<Region>eu-west-3</Region>"), "Malformed", {},
     StoreRefused, "set AWS_REGION to eu-west-3"),
    (403, "<!DOCTYPE html><html><title>Blocked by  policy</title><p>", "Blocked by policy", {}, StoreRefused,
     "NO_PROXY"),
    (404, "404 page not found", "404 page not found", {}, StoreUnavailable, "AWS_ENDPOINT_URL_S3"),
    (400, "Client sent an HTTP request to an HTTPS server.", "HTTPS server", {}, StoreRefused, "scheme"),
    (200, "<html><head><title>Log in</title></head></html>", "Log in", {}, StoreUnavailable, "HTTP_PROXY"),
    (200, "<!DOCTYPE html><script>let x</script><p>Welcome", "Welcome", {}, StoreUnavailable, "HTTP_PROXY"),
    (200, error_body("InternalError"), "the store's own words", {}, StoreUnavailable, "AWS_ENDPOINT_URL_S3"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "text", "words", "headers", "kind", "hint"), ANSWERS, ids=[f"{c[0]}-{c[2]}" for c in ANSWERS]
)
async def test_an_answer_is_given_in_the_words_of_the_store(
    status: int, text: str, words: str, headers: Mapping[str, str], kind: type[Exception], hint: str
) -> None:
    async with answering(status, text, headers) as url, s3_at(url) as client:
        for number, error in enumerate(await failures(client)):
            if status == 200 and number == 1:
                # A get has its own check: the answer has no ETag.
                continue
            assert type(error) is kind
            assert words in str(error)
            assert f"s3://datasets at {url}" in str(error)
            assert hint in str(error.hint)
            assert SECRET not in f"{error}{error.hint}"
            if "RequestId" in text and status != 200:
                assert "the store's own words, request id R1D" in str(error)


async def test_the_words_of_a_store_are_short_and_hold_no_secret_and_no_control_character() -> None:
    text = error_body("AccessDenied", f"{SECRET}\t&#10;\n " + "long " * 500)
    async with answering(403, text) as url, s3_at(url) as client:
        for error in await failures(client):
            assert "AccessDenied: ******** long" in str(error)
            assert str(error).isprintable()
            assert len(str(error)) < 500


@pytest.mark.parametrize("ahead", [True, False])
async def test_the_difference_of_the_clocks_is_named(ahead: bool) -> None:
    async def skewed(_: web.Request) -> web.Response:
        then = datetime.now(UTC) + timedelta(seconds=-1000 if ahead else 1000)
        headers = {"Date": format_datetime(then, usegmt=True)}
        return web.Response(status=403, text=error_body("RequestTimeTooSkewed"), headers=headers)

    words = "ahead of" if ahead else "behind"
    async with serving(skewed) as url, s3_at(url) as client:
        for error in await failures(client):
            assert any(f"{seconds} s {words} the store's" in str(error) for seconds in range(995, 1006))
            assert "set the clock" in str(error.hint)


@pytest.mark.parametrize(("status", "code"), [(501, "NotImplemented"), (304, ""), (501, "")])
async def test_a_store_that_does_not_know_the_condition_is_named(status: int, code: str) -> None:
    async with answering(status, error_body(code) if code else "") as url, s3_at(url) as client:
        with pytest.raises(StoreRefused, match="does not know the condition of a create-only put") as failed:
            await S3Store(client, "datasets", "").create("a", b"")
    assert "stores-s3" in str(failed.value.hint)


@pytest.mark.parametrize("text", ["", error_body("NoSuchBucket"), error_body("NoSuchKey")])
async def test_a_list_of_a_missing_bucket_names_the_bucket(text: str) -> None:
    async with answering(404, text) as url, s3_at(url) as client:
        with pytest.raises(StoreRefused, match=f"there is no bucket s3://other at {url}") as failed:
            await anext(client.list_bucket("other", ""))
        assert failed.value.hint == "create the bucket, or name another"


@asynccontextmanager
async def untrusted(folder: Path, host: str = "127.0.0.1") -> AsyncIterator[str]:
    """A store whose authority nobody trusts."""
    pair = Authority(folder).issue("server")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.certificate, pair.key)

    async def answer(_: web.Request) -> web.Response:
        return web.Response(headers={"ETag": '"1"'})

    async with serving(answer, context, host) as url:
        yield url


async def connection_failure(url: str | None, **fields: Any) -> StoreUnavailable:
    async with s3_at(url, **fields) as client:
        found = await failures(client)
    assert len({(type(error), error.hint, error.cause) for error in found}) == 1
    assert SECRET not in f"{found[0]}{found[0].hint}"
    return found[0]


async def test_connections_that_fail_say_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    refused = await connection_failure("http://127.0.0.1:1")
    assert "nothing listens" in str(refused)
    named = await connection_failure("http://no-such-host.invalid:1")
    assert "host name cannot be resolved" in str(named)
    assert "DNS" in str(named.hint)
    async with untrusted(tmp_path) as url:
        certificate = await connection_failure(url)
        assert type(certificate) is StoreRefused
        assert "certificate is not trusted: [SSL: CERTIFICATE_VERIFY_FAILED]" in str(certificate)
        assert "AWS_CA_BUNDLE" in str(certificate.hint)
        plain = await connection_failure(url.replace("https", "http"))
        assert "https://" in str(plain.hint)
    # The certificate is for 127.0.0.1.
    async with untrusted(tmp_path, "127.0.0.2") as url:
        name = await connection_failure(url, aws_ca_bundle=str(tmp_path / "authority.pem"))
        assert "not valid for '127.0.0.2'" in str(name)
    async with answering(200) as url:
        tls = await connection_failure(url.replace("http", "https"))
        assert type(tls) is StoreRefused
        assert "TLS cannot be agreed on" in str(tls)
        assert "https:// only where" in str(tls.hint)
    region = await connection_failure(None, aws_region="xx-nowhere-9")
    assert "s3.xx-nowhere-9.amazonaws.com" in str(region)
    assert "AWS_REGION" in str(region.hint)
    monkeypatch.setenv("HTTP_PROXY", f"http://user:{SECRET}@127.0.0.1:1")
    proxy = await connection_failure("http://s3.example.com")
    assert "the proxy cannot be connected to" in str(proxy)
    assert "HTTP_PROXY" in str(proxy.hint)
    async with answering(403, "no") as url:
        monkeypatch.setenv("HTTPS_PROXY", url.replace("//", f"//user:{SECRET}@"))
        denied = await connection_failure("https://s3.example.com")
        assert "the proxy refuses" in str(denied)
        assert "HTTP_PROXY" in str(denied.hint)


async def test_a_certificate_behind_a_proxy_is_verified(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with untrusted(tmp_path) as url, tunnel() as proxy, asyncio.timeout(60):
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        failed = await connection_failure(url)
        assert "certificate is not trusted" in str(failed)


@asynccontextmanager
async def tunnel() -> AsyncIterator[str]:
    """A proxy that connects to what CONNECT names."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.append(asyncio.current_task())
        target = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
        host, _, port = target.rpartition(":")
        there, back = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.gather(pump(reader, back), pump(there, writer))
        for one in (writer, back):
            with suppress(OSError):
                await one.wait_closed()

    handlers: list[Any] = []
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await asyncio.gather(*handlers)


def config(folder: Path, text: str) -> str:
    path = folder / "aws-config"
    path.write_text(text)
    return str(path)


CHAINS = {
    "nothing": ({}, "", "no credentials are found", "AWS_ACCESS_KEY_ID"),
    "process fails": ({}, "credential_process = false", "custom-process", "credentials"),
    "no process": ({}, "credential_process = /no/such/program", "/no/such/program", "files"),
    "process prints junk": ({}, "credential_process = echo hello", "Expecting value", "credential_process"),
    "process prints a number": ({}, "credential_process = echo 7", "no attribute", "credential_process"),
    "process is not quoted": ({}, 'credential_process = "echo', "No closing quotation", "credential_process"),
    "no secret": ({"AWS_ACCESS_KEY_ID": "a"}, "", "missing: AWS_SECRET_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY"),
    "no token": ({"AWS_WEB_IDENTITY_TOKEN_FILE": "/no/token", "AWS_ROLE_ARN": "arn:aws:iam::1:role/x"}, "",
                 "/no/token", "files"),
    "no role": ({"AWS_WEB_IDENTITY_TOKEN_FILE": "/no/token"}, "", "AWS_ROLE_ARN", "AWS settings"),
    "no container": ({"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:1/x"}, "", "127.0.0.1:1/x",
                     "credentials"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHAINS)
async def test_credentials_that_cannot_be_read_say_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    environ, text, words, hint = CHAINS[name]
    for variable, value in environ.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("AWS_CONFIG_FILE", config(tmp_path, f"[default]\n{text}\n"))
    monkeypatch.setattr("botocore.utils.ContainerMetadataFetcher.SLEEP_TIME", 0)
    async with answering(200) as url:
        failed = await connection_failure(url, **NO_KEYS)
    assert words in str(failed)
    assert "credentials" in str(failed)
    assert hint in str(failed.hint)
    assert not any(record.exc_info for record in caplog.records)


async def test_an_sts_that_cannot_be_reached_or_refuses_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("a-web-identity")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/reader")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1")
    async with answering(200) as url:
        failed = await connection_failure(url, **NO_KEYS)
    assert "credentials from http://127.0.0.1:1" in str(failed)
    assert "nothing listens" in str(failed)
    denied = f"<ErrorResponse>{error_body('InvalidIdentityToken', 'wrong')}</ErrorResponse>"
    async with answering(400, denied) as sts:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts)
        failed = await connection_failure("http://127.0.0.1:1", **NO_KEYS)
    assert "AssumeRoleWithWebIdentity: InvalidIdentityToken: wrong" in str(failed)
    assert "AWS_ROLE_ARN" in str(failed.hint)


@pytest.mark.parametrize(
    ("environ", "text", "fields", "words"),
    [
        ({"AWS_PROFILE": "nope"}, "", {}, "nope"),
        ({}, "hello\n", {}, "config"),
        ({}, "[default\nx", {}, "config"),
        ({}, "[default]\nca_bundle = /no/ca.pem\n", {}, "/no/ca.pem"),
        ({"AWS_CA_BUNDLE": "/no/ca.pem"}, "", {}, "/no/ca.pem"),
        ({}, "[default]\nendpoint_url = store:9000\n", {"aws_endpoint_url_s3": None}, "store:9000"),
        ({}, "", {"aws_endpoint_url_s3": "store:9000"}, "store:9000"),
        ({}, "", {"aws_endpoint_url_s3": "store"}, "store"),
        ({"AWS_RETRY_MODE": "foo"}, "", {}, "foo"),
    ],
)
async def test_a_wrong_configuration_is_a_usage_error(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    environ: Mapping[str, str],
    text: str,
    fields: dict[str, Any],
    words: str,
) -> None:
    for variable, value in environ.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("AWS_CONFIG_FILE", config(tmp_path, text))
    with pytest.raises((UsageError, StoreRefused), match=words) as failed:
        async with s3_at("http://127.0.0.1:1", **fields) as client:
            await client.get("datasets", "a")
    assert failed.value.hint


async def test_credentials_that_appear_later_are_found(tmp_path: Path) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="x", headers={"ETag": '"1"'})

    async with serving(answer) as url, s3_at(url, **NO_KEYS) as client:
        with pytest.raises(StoreRefused, match="no credentials"):
            await client.get("datasets", "a")
        keys = "[default]\naws_access_key_id = a\naws_secret_access_key = b\n"
        (tmp_path / "none").write_text(keys)
        assert await client.get("datasets", "a") == b"x"


class Tokens:
    """A store that refuses all tokens but one."""

    def __init__(self, good: str, code: str = "ExpiredToken") -> None:
        self.good = good
        self.code = code
        self.refused = 0

    async def answer(self, request: web.Request) -> web.Response:
        if request.headers.get("X-Amz-Security-Token") != self.good:
            self.refused += 1
            return web.Response(status=400, text=error_body(self.code))
        return web.Response(text="x", headers={"ETag": '"1"'})


def renewed_by_files(folder: Path, number: int) -> dict[str, str]:
    """The environment of keys in files, which are written with this number."""
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    for name in names:
        (folder / name).write_text(f"{name}-{number}\n")
    return {f"{name}_FILE": str(folder / name) for name in names}


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidToken", "InvalidAccessKeyId"])
async def test_a_token_that_has_ended_is_read_again_from_its_file(tmp_path: Path, code: str) -> None:
    tokens = Tokens("AWS_SESSION_TOKEN-1", code)
    async with serving(tokens.answer) as url:
        environ = renewed_by_files(tmp_path, 1) | {"AWS_ENDPOINT_URL_S3": url, "S3_BUCKET": "datasets"}
        settings = load_settings(environ=environ, folder=tmp_path).settings
        async with open_s3(s3_options(settings)) as client:
            assert await client.get("datasets", "a") == b"x"
            tokens.good = "AWS_SESSION_TOKEN-2"
            with pytest.raises(StoreUnavailable, match=code):
                await client.get("datasets", "a")
            renewed_by_files(tmp_path, 2)
            assert await client.get("datasets", "a") == b"x"
            assert await client.get("datasets", "a") == b"x"
    # One of the first key, one of the second; another for each that was sent before the file was read.
    assert tokens.refused == 2


async def test_keys_of_the_shared_file_are_read_again(tmp_path: Path) -> None:
    tokens = Tokens("t1")

    def write(token: str) -> None:
        keys = "[default]\naws_access_key_id = a\naws_secret_access_key = b\n"
        (tmp_path / "none").write_text(f"{keys}aws_session_token = {token}\n")

    write("t1")
    async with serving(tokens.answer) as url, s3_at(url, **NO_KEYS) as client:
        assert await client.get("datasets", "a") == b"x"
        tokens.good = "t2"
        write("t2")
        assert await client.get("datasets", "a") == b"x"


async def test_a_source_uses_the_region_and_endpoint_of_the_aws_configuration(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    regions = []

    async def answer(request: web.Request) -> web.Response:
        regions.append(request.headers["Authorization"].split("/")[2])
        return web.Response(text="<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")

    async with serving(answer) as url:
        text = f"[default]\nregion = eu-south-2\nendpoint_url = {url}\n"
        monkeypatch.setenv("AWS_CONFIG_FILE", config(tmp_path, text))
        environ = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "S3_ADDRESSING_STYLE": "path"}
        settings = load_settings(environ=environ, folder=tmp_path).settings
        on_s3 = job(source={"type": "files", "paths": ["s3://input/a.jsonl"]})
        for spec in (on_s3, None):
            async with open_source_s3(settings, spec) as remote:
                assert remote is not None
                assert [info async for info in remote.list_bucket("input", "")] == []
        async with open_source_s3(settings, job()) as remote:
            assert remote is None
    assert regions == ["eu-south-2"] * 2


async def test_a_wrong_setting_of_a_source_fails_its_job_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # As in the gateway, which has no job when it starts.
    monkeypatch.setenv("AWS_PROFILE", "nope")
    settings = load_settings(environ={}, folder=tmp_path).settings
    async with open_source_s3(settings, None) as remote:
        assert remote is not None
        with pytest.raises(StoreRefused, match="nope"):
            await anext(remote.list_bucket("input", ""))
