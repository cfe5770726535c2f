"""One suite for every object store: what a port promises, the fake and the real one keep."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from shardline_common.errors import (
    JobFailed,
    ObjectExists,
    ObjectMissing,
    StoreRefused,
    StoreUnavailable,
    UsageError,
)
from shardline_common.memory.store import MemoryStore
from shardline_common.ports.store import HashedFile, ObjectStore
from shardline_common.runtime.clock import SystemClock
from shardline_common.runtime.retry import longest_failing
from shardline_common.storage.directory import DirectoryStore
from shardline_common.storage.probe import probe_create_only
from shardline_common.storage.s3 import S3Options, S3Store, open_s3
from shardline_common.storage.watched import WatchedStore
from shardline_producer.sources.files.bucket_files import S3Files
from shardline_producer.sources.files.file_documents import FileDocuments
from shardline_producer.sources.files.local_files import LocalFiles
from tests.make import job, memory_pages
from tests.services import S3
from tests.source_items import item_ids


def options(s3: S3, **changes: object) -> S3Options:
    fields = {
        "bucket": s3.bucket,
        "endpoint_url": s3.endpoint,
        "region": "us-east-1",
        "access_key_id": s3.access_key,
        "secret_access_key": s3.secret_key,
        "addressing_style": "path",
    }
    return S3Options(**fields | changes)  # type: ignore[arg-type]


@pytest.fixture(params=["memory", "directory", pytest.param("s3", marks=pytest.mark.server)])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ObjectStore]:
    if request.param == "memory":
        yield MemoryStore()
    elif request.param == "directory":
        yield DirectoryStore(tmp_path / "root")
    else:
        found = options(request.getfixturevalue("seaweed"))
        async with open_s3(found) as client:
            yield S3Store(client, found.bucket, secrets.token_hex(4))


async def keys(store: ObjectStore, prefix: str, start_after: str = "") -> list[str]:
    return [info.key async for info in store.list(prefix, start_after=start_after)]


async def read(store: ObjectStore, key: str, offset: int = 0, size: int | None = None) -> bytes:
    return b"".join([chunk async for chunk in store.stream(key, offset=offset, size=size)])


async def test_exactly_one_of_many_creators_wins(store: ObjectStore) -> None:
    async def create(number: int) -> bool:
        try:
            await store.create("a/key", b"%d" % number)
        except ObjectExists:
            return False
        return True

    for _ in range(3):
        wins = await asyncio.gather(*map(create, range(12)))
        assert sum(wins) == 1
        assert await store.get("a/key") == b"%d" % wins.index(True)
        await store.delete(["a/key"])
    await probe_create_only(store)
    assert await keys(store, "") == []


async def test_bytes_and_files_come_back_as_they_were(store: ObjectStore, tmp_path: Path) -> None:
    body = secrets.token_bytes(5 << 20)
    (tmp_path / "body").write_bytes(body)
    await store.create("from/file", tmp_path / "body")
    await store.create("from/bytes", b"")
    assert await read(store, "from/file") == body
    assert await read(store, "from/file", 1_234_567) == body[1_234_567:]
    assert await read(store, "from/bytes") == b""
    assert [(info.key, info.size) async for info in store.list("from/")] == [
        ("from/bytes", 0),
        ("from/file", len(body)),
    ]


async def test_a_range_of_an_object_is_read(store: ObjectStore) -> None:
    body = secrets.token_bytes(3 << 20)
    await store.create("a", body)
    await store.create("empty", b"")
    watched = WatchedStore(store, SystemClock())
    for offset, size in (
        *((0, 1), (0, len(body)), (5, 100), (1 << 20, 1 << 20), (len(body) - 1, 1), (1, (2 << 20) + 7)),
        *((0, len(body) + 1), (len(body) - 3, 1 << 40), (len(body), 1), (len(body) + 9, 5)),
    ):
        chunks = [chunk async for chunk in store.stream("a", offset=offset, size=size)]
        assert b"".join(chunks) == body[offset : offset + size], (offset, size)
        assert all(0 < len(chunk) <= 1 << 20 for chunk in chunks)
        assert await read(watched, "a", offset, size) == body[offset : offset + size]
    assert await read(store, "empty", 0, 5) == b""
    with pytest.raises(ObjectMissing):
        await read(store, "no/such", 3, 5)


async def test_missing_objects(store: ObjectStore) -> None:
    with pytest.raises(ObjectMissing):
        await store.get("no/such")
    with pytest.raises(ObjectMissing):
        await read(store, "no/such")
    await store.delete(["no/such"])
    assert await keys(store, "no/") == []


async def test_lists_are_in_byte_order_and_whole(store: ObjectStore) -> None:
    wanted = [f"many/{number:05d}.json" for number in range(1100)]
    # In one folder: some stores sort a folder by its name without the slash behind it.
    odd = ["odd/a-b", "odd/a.b", "odd/a0", "odd/ü"]
    gate = asyncio.Semaphore(16)

    async def create(key: str) -> None:
        async with gate:
            await store.create(key, b"x")

    await asyncio.gather(*map(create, [*wanted, *odd]))
    assert await keys(store, "many/") == wanted
    assert await keys(store, "many/", "many/00999.json") == wanted[1000:]
    assert await keys(store, "odd/") == sorted(odd, key=str.encode)
    assert await keys(store, "odd/a") == sorted(odd, key=str.encode)[:3]
    await store.delete(wanted)
    assert await keys(store, "many/") == []


@pytest.mark.parametrize("versions", [False, True])
async def test_a_purge_deletes_what_is_below_its_prefix(store: ObjectStore, versions: bool) -> None:
    for key in ("a/1", "a/b/2", "a-1", "b/1"):
        await store.create(key, b"x")
    assert await store.purge("a/", versions=versions) is None
    assert await keys(store, "") == ["a-1", "b/1"]
    assert await store.purge("a/", versions=versions) is None
    await store.create("a/1", b"y")
    assert await store.get("a/1") == b"y"


@pytest.mark.parametrize("key", ["../up", "/root", "a//b", "a/./b", "a/../b", "", "a\\b", "a\nb", "x" * 1025])
async def test_keys_cannot_escape(store: ObjectStore, key: str) -> None:
    with pytest.raises(UsageError, match="no valid object key"):
        await store.create(key, b"x")


async def test_a_cancelled_create_is_whole_or_nothing(store: ObjectStore, tmp_path: Path) -> None:
    body = secrets.token_bytes(4 << 20)
    (tmp_path / "body").write_bytes(body)
    task = asyncio.ensure_future(store.create("cancelled", tmp_path / "body"))
    await asyncio.sleep(0.005)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    try:
        assert await read(store, "cancelled") == body
    except ObjectMissing:
        await store.create("cancelled", tmp_path / "body")


async def test_a_store_that_is_away_says_where_and_what_to_do(seaweed: S3) -> None:
    away = options(seaweed, endpoint_url="http://127.0.0.1:9", attempts=2)
    async with open_s3(away) as client:
        with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:9") as caught:
            await S3Store(client, away.bucket, "").get("x")
    assert "AWS_ENDPOINT_URL_S3" in str(caught.value.hint)
    assert seaweed.secret_key not in repr(away)


@pytest.mark.parametrize(
    ("change", "hint"),
    [({"secret_access_key": "wrong"}, "AWS_SECRET_ACCESS_KEY"), ({"bucket": "no-such"}, "create the bucket")],
)
async def test_refusals_name_the_cure(seaweed: S3, change: dict[str, str], hint: str) -> None:
    wrong = options(seaweed, **change)
    async with open_s3(wrong) as client:
        with pytest.raises(StoreRefused) as caught:
            await keys(S3Store(client, wrong.bucket, ""), "")
    assert hint in str(caught.value.hint)


async def test_a_bucket_that_is_removed_is_named(seaweed: S3) -> None:
    gone = options(seaweed, bucket=f"gone-{secrets.token_hex(4)}")
    async with open_s3(gone) as client:
        await client._client.create_bucket(Bucket=gone.bucket)
        store = WatchedStore(S3Store(client, gone.bucket, "sets"), SystemClock())
        await store.create("a", b"1")
        await store.delete(["a"])
        await client._client.delete_bucket(Bucket=gone.bucket)
        source = S3Files(client)
        frozen = {"path": f"s3://{gone.bucket}/sets/a", "size": 1, "version": '"1"'}
        # SeaweedFS creates a bucket that is missing when an administrator puts an object: no put here.
        for call in (store.get("a"), keys(store, "")):
            with pytest.raises(StoreRefused, match=f"there is no bucket s3://{gone.bucket} at"):
                await call
        failing = longest_failing(SystemClock())
        assert failing is not None
        assert gone.bucket in failing.what
        assert "there is no bucket" in failing.reason
        with pytest.raises(JobFailed, match=f"there is no bucket s3://{gone.bucket} at") as failed:
            await source.find(f"s3://{gone.bucket}/sets/*")
        assert failed.value.code == "source_invalid"
        with pytest.raises(JobFailed, match=f"s3://{gone.bucket}"):
            await anext(source.stream(frozen, 0))


async def test_tables_of_a_bucket_are_read_whole_and_from_any_row(seaweed: S3, tmp_path: Path) -> None:
    table = pa.table({"document_id": [f"d{n}" for n in range(500)], "content": ["text"] * 500})
    pa.parquet.write_table(table, tmp_path / "a", row_group_size=200)
    folder = f"tables-{secrets.token_hex(4)}"
    async with open_s3(options(seaweed)) as client:
        await S3Store(client, seaweed.bucket, folder).create("a.parquet", (tmp_path / "a").read_bytes())
        spec = job(source={"type": "files", "paths": [f"s3://{seaweed.bucket}/{folder}/*"]})
        source = FileDocuments(spec, LocalFiles(tmp_path), S3Files(client), memory_pages())
        frozen = await source.freeze()
        items = [item async for batch in source.read(frozen, None) for item in batch]
        assert item_ids(items) == [f"d{n}" for n in range(500)]
        behind = [item async for batch in source.read(frozen, items[250].position) for item in batch]
        assert behind == items[251:]


async def test_bytes_that_are_not_those_of_their_sha256_are_not_stored(seaweed: S3, tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(b"rows")
    async with open_s3(options(seaweed, attempts=1)) as client:
        store = S3Store(client, seaweed.bucket, f"hashed-{secrets.token_hex(4)}")
        with pytest.raises(StoreUnavailable):
            await store.create("a", HashedFile(tmp_path / "rows", sha256(b"other").hexdigest()))
        with pytest.raises(ObjectMissing):
            await store.get("a")
        await store.create("a", HashedFile(tmp_path / "rows", sha256(b"rows").hexdigest()))
        assert await store.get("a") == b"rows"
