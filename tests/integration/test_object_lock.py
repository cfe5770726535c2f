"""Buckets that keep versions and lock objects: puts, deletes, and the removal of versions."""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from shardline.services.client import Client
from shardline.services.sample import write_sample
from shardline.services.wiring.producer import job_slots, producer_policy
from shardline.services.wiring.sources import source_factory
from shardline_common.dataset.verify import Verifier
from shardline_common.job.names import Layout
from shardline_common.job.spec import Request
from shardline_common.memory.broker import MemoryBroker
from shardline_common.runtime.clock import SystemClock
from shardline_common.settings.load import Settings
from shardline_common.storage.probe import probe_create_only
from shardline_common.storage.s3 import S3Client, S3Options, S3Store, open_s3
from shardline_common.telemetry.metrics import Metrics
from shardline_consumer.worker import Worker
from shardline_producer.context import ProducerContext
from shardline_producer.coordinator import JobCoordinator
from shardline_producer.topics import ensure_system_topics
from tests.make import job, sample_job, worker_context
from tests.services import S3
from tests.support.secured_system import at_work

SERVERS = ["moto", "seaweed"]
RETENTION = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 3}}}


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> S3:
    found: S3 = request.getfixturevalue(request.param)
    return found


@asynccontextmanager
async def bucket_of(
    server: S3, *, versions: bool = True, lock: bool = False, retention: bool = True
) -> AsyncIterator[S3Client]:
    name = f"kept-{secrets.token_hex(4)}"
    options = S3Options(
        name,
        endpoint_url=server.endpoint,
        access_key_id=server.access_key,
        secret_access_key=server.secret_key,
        addressing_style="path",
    )
    async with open_s3(options) as client:
        s3: Any = client._client
        await s3.create_bucket(Bucket=name, ObjectLockEnabledForBucket=lock)
        if versions:
            enabled = {"Status": "Enabled"}
            await s3.put_bucket_versioning(Bucket=name, VersioningConfiguration=enabled)
        if lock and retention:
            await s3.put_object_lock_configuration(Bucket=name, ObjectLockConfiguration=RETENTION)
        yield client


def store_of(client: S3Client, prefix: str = "sets") -> S3Store:
    return S3Store(client, client.bucket, prefix)


async def versions_of(client: S3Client) -> list[list[str]]:
    """The keys of all versions, and of all delete markers."""
    found: Any = await client._client.list_object_versions(Bucket=client.bucket)
    return [sorted(entry["Key"] for entry in found.get(kind, [])) for kind in ("Versions", "DeleteMarkers")]


async def keys(store: S3Store) -> list[str]:
    return [info.key async for info in store.list("")]


async def test_a_bucket_with_default_retention_takes_every_put(server: S3, tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(b"x" * 300_000)
    async with bucket_of(server, lock=True) as client:
        store = store_of(client)
        await store.create("bytes", b"1")
        await store.create("empty", b"")
        await store.create("file", tmp_path / "body")
        assert await store.get("file") == b"x" * 300_000
        await probe_create_only(store, rounds=1)
        assert await keys(store) == ["bytes", "empty", "file"]


async def test_deleted_objects_are_named_as_kept_in_a_bucket_with_versions(server: S3) -> None:
    async with bucket_of(server) as client:
        store = store_of(client)
        for key in ("a/1", "a/2", "b/1"):
            await store.create(key, b"1")
        kept = await store.purge("a/")
        assert kept is not None
        assert (kept.count, kept.certain, kept.named, kept.refused) == (2, True, (), "")
        assert await keys(store) == ["b/1"]
        assert await store.purge("a/") is None, "there is nothing left to delete"
        assert await store.purge("a/", versions=True) is None
        assert await versions_of(client) == [["sets/b/1"], []]


async def test_nothing_is_kept_in_a_bucket_without_versions(server: S3) -> None:
    async with bucket_of(server, versions=False) as client:
        store = store_of(client)
        for key in ("a/1", "a/2"):
            await store.create(key, b"1")
        assert await store.purge("a/") is None
        await store.create("a/1", b"2")
        assert await store.purge("a/", versions=True) is None
        assert await keys(store) == []


async def test_locked_versions_stay_with_their_markers_and_are_named(server: S3) -> None:
    async with bucket_of(server, lock=True) as client:
        store = store_of(client)
        for number in range(5):
            await store.create(f"a/{number}", b"1")
        kept = await store.purge("a/", versions=True)
        assert kept is not None
        assert (kept.count, len(kept.named), kept.refused) == (5, 3, "")
        key, until = kept.named[0].split(" until ")
        assert key == "sets/a/0"
        end = datetime.fromisoformat(until)
        assert timedelta(days=2) < end - datetime.now(UTC) <= timedelta(days=3)
        # Without its marker a locked object would be visible again.
        assert await keys(store) == []
        assert len((await versions_of(client))[0]) == 5


async def test_versions_beside_locked_ones_are_removed(server: S3) -> None:
    until: Any = {"Mode": "COMPLIANCE", "RetainUntilDate": datetime.now(UTC) + timedelta(days=1)}
    async with bucket_of(server, lock=True, retention=False) as client:
        store, s3 = store_of(client), client._client
        for key in ("a/held", "a/locked", "a/free"):
            await store.create(key, b"1")
        await s3.put_object_legal_hold(Bucket=client.bucket, Key="sets/a/held", LegalHold={"Status": "ON"})
        await s3.put_object_retention(Bucket=client.bucket, Key="sets/a/locked", Retention=until)
        kept = await store.purge("a/", versions=True)
        assert kept is not None
        assert kept.named[0] == "sets/a/held until its legal hold is released"
        assert kept.named[1].startswith("sets/a/locked until 2")
        assert await versions_of(client) == [["sets/a/held", "sets/a/locked"]] * 2


async def test_more_versions_than_a_page_are_removed(moto: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shardline_common.storage.s3_purge._BATCH", 3)
    async with bucket_of(moto) as client:
        store = store_of(client)
        for turn in range(3):
            for number in range(4):
                await store.create(f"a/{number}", b"%d" % turn)
            await store.purge("a/")
        assert [len(found) for found in await versions_of(client)] == [12, 12]
        assert await store.purge("a/", versions=True) is None
        assert await versions_of(client) == [[], []]


async def test_delete_of_a_job_says_what_the_store_keeps(tmp_path: Path, moto: S3) -> None:
    write_sample(tmp_path / "sample.jsonl", 60)
    settings, broker, clock = Settings(files_root=tmp_path), MemoryBroker(), SystemClock()
    await ensure_system_topics(broker, 1)
    source = source_factory(settings, tmp_path, confined=True, remote=None)
    policy = producer_policy(
        settings.model_copy(update={"progress_seconds": 0.1, "topic_grace_seconds": 0.0})
    )
    spec, client = job(**sample_job("locked")), Client(broker, 1)
    async with bucket_of(moto, lock=True) as s3:
        store = store_of(s3)
        context = ProducerContext(broker, store, clock, Metrics(), source, policy, job_slots(settings))
        worker = Worker(worker_context(broker, store, tmp_path, clock=clock))
        async with at_work(JobCoordinator(context).run, worker.run):
            await client.submit(spec)
            view = await reached(client, "completed")
            assert (await Verifier(store, Layout.of(spec).root).run()).ok
            messages = []
            for versions in (False, False, True):
                before = view.state.request_offset
                await client.request(Request(job_id="locked", action="delete", versions=versions))
                view = await reached(client, "deleted", before)
                assert (view.state.warning, view.state.code) == ("versions_kept", None)
                messages.append(view.state.message or "")
    assert re.match(r"the store keeps \d+ versions of deleted objects, because the bucket has", messages[0])
    assert "`shardline delete locked --versions`" in messages[0]
    assert messages[1] == messages[0]
    assert re.search(r"which are locked: sets/sample/locked/\S+ until 20.* more; repeat", messages[2])


async def reached(client: Client, state: str, behind: int = -1) -> Any:
    async with asyncio.timeout(60):
        while True:
            view = (await client.job_table()).find("locked")
            if view is not None and view.state.state.value == state and view.state.request_offset > behind:
                return view
            await asyncio.sleep(0.05)
