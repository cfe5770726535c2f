"""What is asked of a store, seen by a store that only records: encryption, refusals of single deletes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from botocore.endpoint_provider import RuleSet

from shardline.services.wiring.stores import s3_options
from shardline_common.errors import StoreUnavailable, UsageError
from shardline_common.settings.load import Settings
from shardline_common.storage.probe import ROUNDS, WRITERS, probe_create_only
from shardline_common.storage.s3 import S3Store, open_s3

KEY = "arn:aws:kms:eu-central-1:111122223333:key/1"
_ERROR = "<Error><Key>{}</Key><Code>AccessDenied</Code><Message>no</Message></Error>"


class Recorder:
    """A store that keeps what it was asked; the first to create a key wins."""

    def __init__(self) -> None:
        self.puts: list[dict[str, str]] = []
        self._bodies: dict[str, bytes] = {}

    async def handle(self, request: web.Request) -> web.Response:
        """PUT and GET of an object, POST of a delete, which is refused for each key."""
        sent = await request.read()
        if request.method == "GET":
            return web.Response(body=self._bodies[request.path], headers={"ETag": '"1"'})
        if request.method == "POST":
            body = f"<DeleteResult>{_ERROR.format('a')}</DeleteResult>"
            return web.Response(text=body, content_type="application/xml")
        self.puts.append({name.lower(): value for name, value in request.headers.items()})
        if request.path in self._bodies:
            return web.Response(status=412, text="<Error><Code>PreconditionFailed</Code></Error>")
        self._bodies[request.path] = sent
        return web.Response(headers={"ETag": '"1"'})


@asynccontextmanager
async def recorded(**fields: Any) -> AsyncIterator[tuple[S3Store, Recorder]]:
    recorder = Recorder()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", recorder.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    settings = Settings(
        s3_bucket="bucket",
        aws_endpoint_url_s3=f"http://127.0.0.1:{port}",
        aws_access_key_id="key",
        aws_secret_access_key="secret",  # noqa: S106 - of no store
        s3_addressing_style="path",
        **fields,
    )
    try:
        async with open_s3(s3_options(settings)) as client:
            yield S3Store(client, "bucket", "prefix"), recorder
    finally:
        await runner.cleanup()


async def test_the_endpoint_of_a_bucket_is_found_once_for_all_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    found = list[dict[str, Any]]()

    def evaluate(rules: RuleSet, given: dict[str, Any]) -> Any:
        found.append(given)
        return original(rules, given)

    original = RuleSet.evaluate
    monkeypatch.setattr(RuleSet, "evaluate", evaluate)
    async with recorded() as (store, _):
        for key in ("a", "b", "c"):
            await store.create(key, key.encode())
            assert await store.get(key) == key.encode()
    assert [given["Bucket"] for given in found] == ["bucket"]


async def test_each_put_asks_for_encryption() -> None:
    async with recorded() as (store, recorder):
        await store.create("a", b"1")
    assert not any(name.startswith("x-amz-server-side") for name in recorder.puts[0])
    async with recorded(s3_encryption="AES256") as (store, recorder):
        await store.create("a", b"1")
    assert recorder.puts[0]["x-amz-server-side-encryption"] == "AES256"
    async with recorded(s3_encryption="aws:kms", s3_kms_key_id=KEY) as (store, recorder):
        await store.create("a", b"1")
    assert recorder.puts[0]["x-amz-server-side-encryption"] == "aws:kms"
    assert recorder.puts[0]["x-amz-server-side-encryption-aws-kms-key-id"] == KEY
    assert recorder.puts[0]["if-none-match"] == "*"


async def test_a_key_without_its_encryption_is_refused() -> None:
    with pytest.raises(UsageError, match="S3_KMS_KEY_ID"):
        s3_options(Settings(s3_bucket="bucket", s3_encryption="AES256", s3_kms_key_id=KEY))


async def test_what_was_not_removed_is_told_and_the_probe_needs_no_right_to() -> None:
    async with recorded() as (store, recorder):
        with pytest.raises(StoreUnavailable, match="delete a: AccessDenied") as error:
            await store.delete(["a"])
        assert "rights on the bucket" in str(error.value.hint)
        await probe_create_only(store)
        assert len(recorder.puts) == 1 + WRITERS * ROUNDS
