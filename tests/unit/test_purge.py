"""What `delete` says about versions that a store keeps, by stores that refuse or do not tell."""

from dataclasses import replace
from typing import Any

import pytest

from shardline.services.wiring.stores import s3_options
from shardline_common.errors import BrokerUnavailable, StoreUnavailable
from shardline_common.job.names import Layout
from shardline_common.job.spec import Request
from shardline_common.job.state import JobState, State
from shardline_common.memory.broker import MemoryBroker
from shardline_common.memory.store import MemoryStore
from shardline_common.ports.store import KeptVersions
from shardline_common.storage.s3 import S3Store, open_s3
from shardline_producer.cleanup import DatasetDeletion, apply_deletion, describe_kept
from shardline_producer.topics import ensure_system_topics
from tests.make import job
from tests.support.small_s3 import BUCKET, small_s3


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(
    ("versioning", "refused", "kept"),
    [
        ("<Status>Enabled</Status>", {}, KeptVersions(2)),
        ("<Status>Suspended</Status>", {}, KeptVersions(2)),
        ("", {}, None),
        ("", {"GetBucketVersioning": (403, "AccessDenied")}, KeptVersions(2, certain=False)),
        ("", {"GetBucketVersioning": (501, "NotImplemented")}, KeptVersions(2, certain=False)),
    ],
)
async def test_a_store_that_names_no_marker_is_asked_whether_it_keeps_versions(
    versioning: str, refused: dict[str, tuple[int, str]], kept: KeptVersions | None, named: bool
) -> None:
    async with small_s3() as server, open_s3(s3_options(server.settings())) as client:
        server.names_deleted, server.versioning, server.refused = named, versioning, refused
        store = S3Store(client, BUCKET, "sets")
        for key in ("a/1", "a/2", "b"):
            await store.create(key, b"1")
        found = await store.purge("a/")
        assert found == (None if named and kept and not kept.certain else kept)
        assert list(server.objects) == ["sets/b"]


async def test_a_right_that_is_missing_does_not_hold_up_the_delete() -> None:
    async with small_s3() as server, open_s3(s3_options(server.settings())) as client:
        server.refused = {"ListObjectVersions": (403, "AccessDenied")}
        store = S3Store(client, BUCKET, "sets")
        await store.create("a/1", b"1")
        kept = await store.purge("a/", versions=True)
        assert kept is not None
        assert (kept.count, kept.certain) == (0, False)
        assert "AccessDenied" in kept.refused
        assert server.objects == {}
        server.refused = {"ListObjectVersions": (501, "NotImplemented")}
        assert await store.purge("a/", versions=True) is None


@pytest.mark.parametrize("root", ["ListVersionsResult", "ListBucketVersionsResult", "ListBucketResult"])
async def test_stores_give_the_list_of_versions_different_names(root: str) -> None:
    async with small_s3() as server, open_s3(s3_options(server.settings())) as client:
        server.versions_root = root
        assert await S3Store(client, BUCKET, "sets").purge("a/", versions=True) is None


async def test_a_store_that_cannot_serve_is_waited_for() -> None:
    async with small_s3() as server, open_s3(replace(s3_options(server.settings()), attempts=1)) as client:
        store = S3Store(client, BUCKET, "sets")
        for request in ("ListObjectsV2", "ListObjectVersions"):
            server.refused = {request: (503, "SlowDown")}
            with pytest.raises(StoreUnavailable, match="SlowDown"):
                await store.purge("a/", versions=True)


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        (
            KeptVersions(1),
            (
                "the store keeps 1 version of deleted objects, because the bucket has versioning; "
                "`shardline delete laws --versions` removes them"
            ),
        ),
        (
            KeptVersions(0, certain=False),
            (
                "the store may keep versions of the deleted objects: it does not say; "
                "`shardline delete laws --versions` removes them"
            ),
        ),
        (
            KeptVersions(
                1200, named=("a until 2027-01-01T00:00:00+00:00", "b until 2028-01-01T00:00:00+00:00")
            ),
            (
                "the store keeps 1,200 versions of deleted objects, which are locked: "
                "a until 2027-01-01T00:00:00+00:00, b until 2028-01-01T00:00:00+00:00 and 1,198 more; "
                "repeat `shardline delete laws --versions` when the locks have ended"
            ),
        ),
        (
            KeptVersions(0, certain=False, refused="AccessDenied"),
            (
                "the store may keep versions of deleted objects: AccessDenied; give the producer the "
                "rights for versions (docs/stores-s3.md), and repeat `shardline delete laws --versions`"
            ),
        ),
    ],
)
def test_the_message_says_what_to_do(kept: KeptVersions, message: str) -> None:
    assert describe_kept(kept, "laws") == message


def test_a_message_stays_until_the_versions_are_removed() -> None:
    state = JobState(job(), State.FAILED, code="spool", message="the disk was full")
    apply_deletion(None, state, versions=False)
    assert (state.state, state.code, state.message) == (State.DELETED, "spool", "the disk was full")
    apply_deletion(KeptVersions(3), state, versions=False)
    message = state.message
    assert (state.code, state.warning) == (None, "versions_kept")
    apply_deletion(None, state, versions=False)
    assert (state.message, state.warning) == (message, "versions_kept")
    apply_deletion(None, state, versions=True)
    assert (state.message, state.warning) == (None, None)


def test_a_request_has_versions_only_if_they_are_asked_for() -> None:
    plain = Request(job_id="laws", action="delete")
    assert b"versions" not in plain.body()
    whole = Request(job_id="laws", action="delete", versions=True)
    assert Request.model_validate_json(whole.body()) == whole


class Versioned(MemoryStore):
    """Keeps a version of each object that it deletes."""

    async def purge(self, prefix: str, *, versions: bool = False) -> KeptVersions | None:
        found = [info.key async for info in self.list(prefix)]
        await super().purge(prefix, versions=versions)
        return KeptVersions(len(found)) if found else None


async def test_what_the_store_keeps_is_remembered_when_kafka_fails_behind_it() -> None:
    class Failing(MemoryBroker):
        failures = 2

        def table_reader(self, *arguments: Any) -> Any:
            if self.failures:
                self.failures -= 1
                raise BrokerUnavailable("away")
            return super().table_reader(*arguments)

    spec, store, broker = job(), Versioned(), Failing()
    await ensure_system_topics(broker, 1)
    await store.create(f"{Layout.of(spec).root}data/a", b"1")
    deletion = DatasetDeletion(broker, store, JobState(spec), versions=False)
    for _ in range(2):
        with pytest.raises(BrokerUnavailable):
            await deletion.run()
    assert await deletion.run() == KeptVersions(1)
