"""What stores answer to a source: permanent answers fail the job at once, transient ones are waited for."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from neo4j.exceptions import Neo4jError

from shardline_common.errors import (
    JobFailed,
    SourceUnavailable,
    StoreRefused,
    StoreUnavailable,
    UsageError,
)
from shardline_common.memory.store import MemoryStore
from shardline_common.runtime.clock import SystemClock
from shardline_common.settings.load import Settings
from shardline_common.storage.s3 import S3Client, S3Store
from shardline_producer.sources.files.bucket_files import S3Files
from shardline_producer.sources.files.file_documents import FileDocuments
from shardline_producer.sources.files.local_files import LocalFiles
from shardline_producer.sources.http_store import HttpStoreOptions, open_http_store
from shardline_producer.sources.themis.client import (
    QueryRejected,
    ThemisOptions,
    display_url,
    open_themis,
)
from shardline_producer.sources.themis.limiter import RateLimiter
from shardline_producer.sources.uds3.chroma.body_store import ChromaBodyStore
from shardline_producer.sources.uds3.chroma.collection import ChromaOptions
from shardline_producer.sources.uds3.chroma.ranker import ChromaRanker
from shardline_producer.sources.uds3.couch.body_store import CouchBodyStore, CouchOptions
from shardline_producer.sources.uds3.embedding.embedder import EmbeddingOptions
from shardline_producer.sources.uds3.embedding.http_embedder import HttpEmbedder
from shardline_producer.sources.uds3.neo4j.options import Neo4jOptions
from shardline_producer.sources.uds3.neo4j.ranker import Neo4jRanker
from shardline_producer.sources.uds3.neo4j.ranker import _translated as translated_neo4j
from shardline_producer.sources.uds3.postgres.connection import _refused_connection
from shardline_producer.sources.uds3.postgres.connection import _translated as translated_postgres
from shardline_producer.sources.uds3.postgres.options import PostgresOptions
from shardline_producer.sources.uds3.store_ports import BodyRequest
from tests.make import job, memory_pages
from tests.support.answering import SECRET, answering, s3_at
from tests.support.certificates import Authority
from tests.support.embedded import run_embedded

S3_ANSWERS = [
    (404, "NoSuchBucket", JobFailed),
    (403, "AccessDenied", JobFailed),
    (403, "InvalidAccessKeyId", JobFailed),
    (403, "SignatureDoesNotMatch", JobFailed),
    (403, "InvalidObjectState", JobFailed),
    (400, "InvalidBucketName", JobFailed),
    (400, "AuthorizationHeaderMalformed", JobFailed),
    (405, "MethodNotAllowed", JobFailed),
    (400, "ExpiredToken", SourceUnavailable),
    (403, "RequestTimeTooSkewed", SourceUnavailable),
    (429, "TooManyRequests", SourceUnavailable),
    (503, "SlowDown", SourceUnavailable),
    (500, "InternalError", SourceUnavailable),
    (501, "NotImplemented", SourceUnavailable),
]


def of_bucket(client: S3Client, path: str = "s3://input/laws-*.jsonl") -> FileDocuments:
    spec = job(source={"type": "files", "paths": [path]})
    return FileDocuments(spec, LocalFiles(Path()), S3Files(client), memory_pages())


@pytest.mark.parametrize(("status", "code", "kind"), S3_ANSWERS, ids=[code for _, code, _ in S3_ANSWERS])
async def test_answers_of_s3_to_a_source(
    monkeypatch: pytest.MonkeyPatch, status: int, code: str, kind: type[Exception]
) -> None:
    monkeypatch.setattr("shardline_common.storage.s3._BACKOFF.__class__.pause", lambda *_: 0.0)
    text = f"<Error><Code>{code}</Code><Message>no</Message></Error>"
    async with answering(status, text) as url, s3_at(url) as client:
        source = of_bucket(client)
        frozen = [{"path": "s3://input/laws-1.jsonl", "size": 1, "version": '"1"'}]
        for reading in (source.freeze(), anext(source.read(frozen, None))):
            with pytest.raises(kind, match=f"s3://input at {url}.*{code}") as failed:
                await reading
            assert "datasets" not in str(failed.value)
            assert "S3_BUCKET" not in str(failed.value.hint)  # type: ignore[attr-defined]
            assert SECRET not in f"{failed.value}"
            if isinstance(failed.value, JobFailed):
                assert failed.value.code == "source_invalid"


async def test_a_job_over_a_missing_bucket_ends_at_once(tmp_path: Path) -> None:
    text = "<Error><Code>NoSuchBucket</Code></Error>"
    spec = job(source={"type": "files", "paths": ["s3://input/a.jsonl"]})
    async with answering(404, text) as url, s3_at(url) as client, asyncio.timeout(30):
        view = await run_embedded(spec, MemoryStore(), tmp_path, remote=client)
    assert (view.state.state, view.state.code) == ("failed", "source_invalid")
    assert "there is no bucket s3://input" in str(view.state.message)


@pytest.mark.parametrize("path", ["s3://a b/x", "s3://UPPER_case!/x*", "s3://a/" + "k" * 2000])
async def test_a_bucket_that_cannot_exist_is_a_permanent_error(path: str) -> None:
    async with answering(400, "<Error><Code>KeyTooLongError</Code></Error>") as url, s3_at(url) as client:
        with pytest.raises(JobFailed, match="s3://") as failed:
            await of_bucket(client, path).freeze()
    assert failed.value.code == "source_invalid"
    assert "\n" not in str(failed.value)


async def test_missing_keys_of_s3_are_a_permanent_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    none = {"aws_access_key_id": None, "aws_secret_access_key": None}
    async with answering(200) as url, s3_at(url, **none) as client:
        with pytest.raises(JobFailed, match="redentials"):
            await of_bucket(client).freeze()


@pytest.mark.parametrize("code", ["NoSuchBucket", "AccessDenied"])
async def test_a_refused_dataset_is_named_with_its_bucket(code: str) -> None:
    async with answering(404, f"<Error><Code>{code}</Code></Error>") as url, s3_at(url) as client:
        store = S3Store(client, "datasets", "sets")
        listed = anext(store.list(""))
        for call in (store.create("a", b""), store.get("a"), listed):
            with pytest.raises(StoreRefused, match=f"s3://datasets at {url}.*{code}") as refused:
                await call
            assert isinstance(refused.value, StoreUnavailable), "a dataset's store is waited for"
            assert refused.value.hint


@pytest.mark.parametrize("text", ["[]", "{}", "null", "7", '"x"', '{"id": null}', '{"rows": {}, "ids": 3}'])
async def test_another_servers_json_is_a_permanent_error(text: str) -> None:
    async with answering(200, text) as url:
        options = HttpStoreOptions("the store", url, attempts=1)
        chroma, couch = ChromaOptions(options), CouchOptions(options, "db")
        request = [BodyRequest("a")]
        for call in (
            ChromaRanker(chroma, HttpEmbedder(EmbeddingOptions(), url)).filter_fields(),
            ChromaBodyStore(chroma).check(),
            ChromaBodyStore(chroma).bodies(request, 100),
            CouchBodyStore(couch).check(),
            CouchBodyStore(couch).bodies(request, 100),
            HttpEmbedder(EmbeddingOptions(), url).embed("x"),
        ):
            with pytest.raises(JobFailed, match=url) as failed:
                await call
            assert failed.value.code == "source_invalid"


HTTP_ANSWERS = [
    *((status, JobFailed) for status in (301, 400, 401, 403, 404, 405, 410, 418, 422)),
    *((status, SourceUnavailable) for status in (408, 425, 429, 500, 501, 502, 503, 504, 507, 520, 599)),
]


@pytest.mark.parametrize(("status", "kind"), HTTP_ANSWERS)
async def test_answers_of_stores_over_http(status: int, kind: type[Exception]) -> None:
    async with answering(status, "said no") as url:
        options = HttpStoreOptions("the store", url, {"Authorization": SECRET}, attempts=1)
        async with open_http_store(options) as http:
            with pytest.raises(kind, match=f"{status}") as failed:
                await http.json(await http.get("/x"), "read")
    assert f"the store at {url}" in str(failed.value)
    assert SECRET not in str(failed.value)


@pytest.mark.parametrize(("status", "kind"), HTTP_ANSWERS)
@pytest.mark.parametrize("text", ["<html>no</html>", '{"message": "said no"}'])
async def test_answers_of_themisdb(
    monkeypatch: pytest.MonkeyPatch, status: int, kind: type[Exception], text: str
) -> None:
    monkeypatch.setattr("shardline_producer.sources.themis.client._ATTEMPTS", 1)
    monkeypatch.setattr("shardline_producer.sources.themis.client._MAX_PAUSE_SECONDS", 0.0)
    clock = SystemClock()
    async with answering(status, text) as url:
        options = ThemisOptions(url, SECRET)
        async with open_themis(options, RateLimiter(0, clock), clock) as client:
            expected = QueryRejected if status == 400 and "{" in text else kind
            with pytest.raises(expected, match=f"{status}|said no|refuses the token") as failed:
                await client.health()
            if status in (401, 403):
                assert "refuses the token" in str(failed.value)
    assert SECRET not in str(failed.value)


@asynccontextmanager
async def untrusted(folder: Path) -> AsyncIterator[int]:
    """The port of a server whose authority nobody trusts."""
    pair = Authority(folder).issue("server")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.certificate, pair.key)

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        yield int(server.sockets[0].getsockname()[1])


@asynccontextmanager
async def saying(line: bytes) -> AsyncIterator[int]:
    """The port of a server of another protocol."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(line)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield int(server.sockets[0].getsockname()[1])


async def read_by_all(port: int, scheme: str) -> AsyncIterator[tuple[str, Exception]]:
    """The errors of each client at a port."""
    clock = SystemClock()
    plain = scheme == "http"
    try:
        async with open_http_store(HttpStoreOptions("h", f"{scheme}://127.0.0.1:{port}", attempts=1)) as http:
            await http.get("/")
    except (JobFailed, SourceUnavailable) as error:
        yield "http", error
    try:
        options = ThemisOptions(f"{scheme}://127.0.0.1:{port}")
        async with open_themis(options, RateLimiter(0, clock), clock) as client:
            await client.health()
    except (JobFailed, SourceUnavailable) as error:
        yield "themis", error
    try:
        async with s3_at(f"{scheme}://127.0.0.1:{port}") as s3:
            await of_bucket(s3).freeze()
    except (JobFailed, SourceUnavailable) as error:
        yield "s3", error
    try:
        uri = f"{'bolt' if plain else 'bolt+s'}://127.0.0.1:{port}"
        await Neo4jRanker(Neo4jOptions(uri, attempts=1)).filter_fields()
    except (JobFailed, SourceUnavailable) as error:
        yield "neo4j", error


async def test_a_certificate_that_is_not_trusted_is_a_permanent_error(
    tmp_path: Path,
) -> None:
    async with untrusted(tmp_path) as port:
        found = dict([pair async for pair in read_by_all(port, "https")])
    assert {name: type(error) for name, error in found.items()} == dict.fromkeys(
        ("http", "themis", "s3", "neo4j"), JobFailed
    )
    assert all("ertificate" in f"{error} {error.hint}" for error in found.values())  # type: ignore[attr-defined]


async def test_a_server_without_tls_is_a_permanent_error() -> None:
    async with saying(b"220 ready\r\n") as port:
        found = dict([pair async for pair in read_by_all(port, "https")])
    assert {name: type(error) for name, error in found.items()} == dict.fromkeys(
        ("http", "themis", "s3", "neo4j"), JobFailed
    )


async def test_another_server_at_the_port_of_neo4j_is_a_permanent_error() -> None:
    async with saying(b"SSH-2.0-OpenSSH\r\n") as port:
        with pytest.raises(JobFailed, match=f"{port}") as failed:
            await Neo4jRanker(Neo4jOptions(f"bolt://127.0.0.1:{port}", attempts=1)).filter_fields()
    assert "NEO4J_URI" in str(failed.value.hint)


@pytest.mark.parametrize("url", ["http://host:port", "http://[::1", "http://h:99999"])
async def test_an_address_that_is_no_url_is_a_permanent_error(url: str) -> None:
    async with open_http_store(HttpStoreOptions("the store", url, attempts=1)) as http:
        with pytest.raises(JobFailed) as failed:
            await http.get("/")
    assert failed.value.code == "source_invalid"


@pytest.mark.parametrize(
    "fields",
    [
        {"aws_endpoint_url_s3": "foo"},
        {"aws_endpoint_url_s3": "http://[::1"},
        {"aws_region": "a b"},
        {"aws_ca_bundle": "/nowhere.pem"},
    ],
)
async def test_a_wrong_setting_of_s3_is_a_usage_error(fields: dict[str, str]) -> None:
    with pytest.raises(UsageError) as refused:
        async with s3_at("http://127.0.0.1:9", **fields):
            pass
    assert "AWS_" in str(refused.value.hint) or "/nowhere.pem" in str(refused.value)


async def test_an_address_that_is_no_url_is_named_by_its_setting() -> None:
    clock = SystemClock()
    with pytest.raises(JobFailed, match="EMBEDDING_URL is no URL"):
        HttpEmbedder(EmbeddingOptions(), "http://[::1")
    with pytest.raises(JobFailed, match="ThemisDB is no URL"):
        async with open_themis(ThemisOptions("http://u:secret@[::1"), RateLimiter(0, clock), clock):
            pass
    assert display_url("http://u:secret@[::1") == "its address"


async def test_a_missing_ca_file_is_a_usage_error() -> None:
    options = Neo4jOptions("bolt://127.0.0.1:9", ca_file="/nowhere.pem", attempts=1)
    with pytest.raises(UsageError, match=r"/nowhere\.pem cannot be read"):
        await Neo4jRanker(options).filter_fields()


async def test_a_wrong_setting_of_a_source_fails_the_job(tmp_path: Path) -> None:
    spec = job(source={"type": "uds3"}, query={"text": "law", "search_types": ["vector"]})
    settings = Settings(chroma_host="127.0.0.1", chroma_ca_file="/nowhere.pem", chroma_tls=True)
    async with asyncio.timeout(30):
        view = await run_embedded(spec, MemoryStore(), tmp_path, settings=settings)
    assert (view.state.state, view.state.code) == ("failed", "source_invalid")
    assert "/nowhere.pem cannot be read" in str(view.state.message)


NEO4J = [
    ("Neo.ClientError.Security.Unauthorized", JobFailed),
    ("Neo.ClientError.Security.Forbidden", JobFailed),
    ("Neo.ClientError.Security.AuthenticationRateLimit", JobFailed),
    ("Neo.ClientError.Database.DatabaseNotFound", JobFailed),
    ("Neo.ClientError.Statement.SyntaxError", JobFailed),
    ("Neo.ClientError.Security.AuthorizationExpired", SourceUnavailable),
    ("Neo.ClientError.Transaction.TransactionTimedOut", SourceUnavailable),
    ("Neo.TransientError.Transaction.Terminated", SourceUnavailable),
    ("Neo.TransientError.General.DatabaseUnavailable", SourceUnavailable),
    ("Neo.TransientError.General.OutOfMemoryError", SourceUnavailable),
    ("Neo.DatabaseError.General.UnknownError", SourceUnavailable),
]


@pytest.mark.parametrize(("code", "kind"), NEO4J)
def test_answers_of_neo4j(code: str, kind: type[Exception]) -> None:
    options = Neo4jOptions("bolt://graph", "u", SECRET)
    error = Neo4jError._hydrate_neo4j(code=code, message="no")
    with pytest.raises(kind, match="graph") as failed, translated_neo4j(options):
        raise error
    assert SECRET not in str(failed.value)


POSTGRES: list[tuple[Exception, type[Exception]]] = [
    (asyncpg.InvalidPasswordError("no"), JobFailed),
    (asyncpg.InvalidAuthorizationSpecificationError("no"), JobFailed),
    (asyncpg.InvalidCatalogNameError("no"), JobFailed),
    (asyncpg.InsufficientPrivilegeError("no"), JobFailed),
    (asyncpg.UndefinedFunctionError("no"), JobFailed),
    (asyncpg.InterfaceError("unsupported authentication method"), JobFailed),
    (ConnectionError("rejected SSL upgrade"), JobFailed),
    (ssl.SSLCertVerificationError("certificate verify failed"), JobFailed),
    (ssl.SSLError("wrong version number"), JobFailed),
    (UnicodeError("label too long"), JobFailed),
    (ssl.SSLEOFError("EOF in handshake"), SourceUnavailable),
    (ConnectionRefusedError("no"), SourceUnavailable),
    (ConnectionResetError("no"), SourceUnavailable),
    (TimeoutError(), SourceUnavailable),
    (asyncpg.CannotConnectNowError("the database system is starting up"), SourceUnavailable),
    (asyncpg.AdminShutdownError("shutting down"), SourceUnavailable),
    (asyncpg.CrashShutdownError("no"), SourceUnavailable),
    (asyncpg.TooManyConnectionsError("too many clients already"), SourceUnavailable),
    (asyncpg.OutOfMemoryError("no"), SourceUnavailable),
    (asyncpg.QueryCanceledError("statement timeout"), SourceUnavailable),
    (asyncpg.LockNotAvailableError("lock timeout"), SourceUnavailable),
    (asyncpg.DeadlockDetectedError("no"), SourceUnavailable),
    (asyncpg.ConnectionDoesNotExistError("no"), SourceUnavailable),
]


@pytest.mark.parametrize(("error", "kind"), POSTGRES, ids=[type(error).__name__ for error, _ in POSTGRES])
def test_answers_of_postgresql_to_a_connection(error: Exception, kind: type[Exception]) -> None:
    options = PostgresOptions("db", 5432, "u", SECRET, "uds3", sslmode="require")
    with (
        pytest.raises(kind, match="PostgreSQL db:5432/uds3") as failed,
        translated_postgres(options),
        _refused_connection(options),
    ):
        raise error
    assert SECRET not in str(failed.value)


def test_a_server_that_restarts_refuses_tls_only_for_now() -> None:
    # It answers with an error instead of "N" then, which asyncpg takes for a refusal of TLS.
    options = PostgresOptions("db", 5432, "u", SECRET, "uds3")
    with (
        pytest.raises(SourceUnavailable),
        translated_postgres(options),
        _refused_connection(options),
    ):
        raise ConnectionError("rejected SSL upgrade")
