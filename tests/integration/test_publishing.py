"""A job whose dataset folder is damaged or not empty fails, or its status says why it is not published."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from shardline.services.sample import write_sample
from shardline_common.dataset import publish
from shardline_common.dataset.card import dataset_card
from shardline_common.job.names import Layout, job_key
from shardline_common.job.spec import JobSpec
from shardline_common.memory.store import MemoryStore
from shardline_common.runtime.clock import SystemClock
from shardline_common.storage.directory import DirectoryStore
from shardline_producer.acceptance import accept
from shardline_producer.attempt import AttemptRun
from tests.support.embedded import DOCUMENTS, run_embedded, small_job, verify

SPEC = small_job()
LAYOUT = Layout.of(SPEC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sample")
    write_sample(path / "sample.jsonl", DOCUMENTS)
    return path


class InterveningStore(MemoryStore):
    """Calls `act` once, after an object was created whose key contains `where`."""

    def __init__(self, where: str, act: Callable[["InterveningStore", str], None]) -> None:
        super().__init__(self._intervene)
        self._where = where
        self._act: Callable[[InterveningStore, str], None] | None = act

    def _intervene(self, when: str, operation: str, key: str) -> None:
        if self._act is not None and (when, operation) == ("after", "create") and self._where in key:
            act, self._act = self._act, None
            act(self, key)

    def write(self, key: str, body: bytes) -> None:
        self._objects[key] = body

    def lose(self, key: str) -> None:
        del self._objects[key]

    def cut(self, key: str) -> None:
        self._objects[key] = self._objects[key][:-1]


def write_readme(store: InterveningStore, _: str) -> None:
    store.write(LAYOUT.card, b"# My notes\n")


async def is_whole(store: MemoryStore) -> bool:
    report = await verify(SPEC, store)
    assert report.ok, report.problems
    return report.rows + sum(report.rejected.values()) == DOCUMENTS


@pytest.mark.parametrize("name", ["README.md", "data/train/part-00000.jsonl", "notes.txt", "_SUCCESS"])
async def test_a_folder_with_foreign_objects_fails_at_planning(folder: Path, name: str) -> None:
    store = MemoryStore()
    await store.create(LAYOUT.root + name, b"mine")
    view = await run_embedded(SPEC, store, folder)
    assert (view.state.state, view.state.code) == ("failed", "output_not_empty")
    assert name in (view.state.message or "")
    assert [info.key async for info in store.list(LAYOUT.root + "_state/chain/")] == []
    assert await store.get(LAYOUT.root + name) == b"mine"
    await store.delete([LAYOUT.root + name])
    assert (await run_embedded(SPEC, store, folder)).state.state == "completed"
    assert await is_whole(store)


async def test_a_foreign_object_that_appears_during_the_job_fails_it_before_the_outcome(folder: Path) -> None:
    store = InterveningStore("_state/chain/", write_readme)
    view = await run_embedded(SPEC, store, folder)
    assert (view.state.state, view.state.code) == ("failed", "output_not_empty")
    assert "README.md" in (view.state.message or "")
    await store.delete([LAYOUT.card])
    assert (await run_embedded(SPEC, store, folder)).state.state == "completed"
    assert await is_whole(store)


async def test_a_foreign_object_that_appears_after_the_outcome_is_named_by_the_status(folder: Path) -> None:
    store = InterveningStore("_state/outcome-1", write_readme)
    view = await run_embedded(SPEC, store, folder)
    assert (view.state.state, view.state.attempt) == ("completing", 1)
    assert view.state.code == "output_not_empty"
    assert LAYOUT.card in (view.state.message or "")
    # Once more, and nothing has changed: the retry ends with the same reason.
    view = await run_embedded(SPEC, store, folder)
    assert (view.state.state, view.state.attempt, view.state.code) == ("failed", 2, "output_not_empty")
    assert await store.get(LAYOUT.card) == b"# My notes\n"
    await store.delete([LAYOUT.card])
    view = await run_embedded(SPEC, store, folder)
    assert (view.state.state, view.state.attempt) == ("completed", 3)
    assert await is_whole(store)


async def test_a_dataset_whose_folder_was_cleaned_is_published_by_the_next_run(folder: Path) -> None:
    store = InterveningStore("_state/outcome-1", write_readme)
    await run_embedded(SPEC, store, folder)
    await store.delete([LAYOUT.card])
    view = await run_embedded(SPEC, store, folder)
    assert (view.state.state, view.state.attempt) == ("completed", 1)
    assert await is_whole(store)


@pytest.mark.parametrize(
    ("where", "act", "code"),
    [
        ("data/train/part-00001", InterveningStore.lose, "object_lost"),
        ("data/train/part-00001", InterveningStore.cut, "object_lost"),
        ("_state/chain/00001/000000000000", InterveningStore.lose, "conservation"),
        ("_state/chain/00001/000000000000", InterveningStore.cut, "dataset_damaged"),
    ],
)
async def test_an_object_that_the_store_loses_fails_the_job(
    folder: Path, where: str, act: Callable[[InterveningStore, str], None], code: str
) -> None:
    store = InterveningStore(where, act)
    view = await run_embedded(SPEC, store, folder)
    assert (view.state.state, view.state.code) == ("failed", code), view.state.message
    again = await run_embedded(SPEC, store, folder)
    assert (again.state.state, again.state.attempt, again.state.code) == ("failed", 2, code)


@pytest.mark.parametrize("standing", [("manifest.json",), ("manifest.json", "README.md")])
async def test_another_version_completes_what_a_killed_process_published(
    folder: Path, monkeypatch: pytest.MonkeyPatch, standing: tuple[str, ...]
) -> None:
    store = MemoryStore()
    await run_embedded(SPEC, store, folder)
    manifest = await store.get(LAYOUT.manifest)
    await store.delete([LAYOUT.root + name for name in {"README.md", "_SUCCESS"} - set(standing)])
    monkeypatch.setattr(publish, "dataset_card", lambda manifest: dataset_card(manifest) + "\nNew line.\n")
    monkeypatch.setattr(publish, "build_manifest", lambda *_: {"version": 2, "digest": "of a later version"})
    assert (await run_embedded(SPEC, store, folder)).state.state == "completed"
    assert await store.get(LAYOUT.manifest) == manifest
    assert await is_whole(store)


async def test_a_manifest_of_other_content_is_not_adopted(folder: Path) -> None:
    store = MemoryStore()
    await run_embedded(SPEC, store, folder)
    body = await store.get(LAYOUT.manifest)
    await store.delete([LAYOUT.manifest, LAYOUT.success])
    await store.create(LAYOUT.manifest, body.replace(b'"digest": "', b'"digest": "0', 1))
    view = await run_embedded(SPEC, store, folder)
    # The run found it completed and unpublished, and has retried it.
    assert (view.state.state, view.state.attempt, view.state.code) == ("failed", 2, "output_not_empty")
    assert "manifest.json" in (view.state.message or "")


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
async def test_a_shard_that_another_worker_compressed_otherwise_is_taken_as_it_is(
    folder: Path, compression: str
) -> None:
    # A worker with another compression level puts all shards, and dies before it writes a chain record.
    spec = small_job(output={"shard_bytes": 65_536, "compression": compression})
    layout, finished, store = Layout.of(spec), MemoryStore(), MemoryStore()
    await run_embedded(spec, finished, folder)
    for key in (layout.plan, job_key(spec.job_id)):
        await store.create(key, await finished.get(key))
    put = {}
    async for info in finished.list(layout.root + "data/"):
        body = await finished.get(info.key)
        put[info.key] = (
            gzip.compress(gzip.decompress(body), 1)
            if compression == "gzip"
            else zstandard.compress(zstandard.decompress(body), 19)
        )
        assert put[info.key] != body
        await store.create(info.key, put[info.key])
    view = await run_embedded(spec, store, folder)
    assert view.state.state == "completed", view.to_json()
    assert {key: await store.get(key) for key in put} == put
    report = await verify(spec, store)
    assert report.ok, report.problems
    assert report.digest == (await verify(spec, finished)).digest


async def test_a_record_that_is_deleted_behind_the_worker_is_written_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardline_consumer.partition._IDLE_SECONDS", 0.2)
    spec = small_job(partitions=1, output={"shard_bytes": 1 << 26})
    store = InterveningStore("_state/chain/00000/", InterveningStore.lose)
    view = await run_embedded(spec, store, folder)
    assert view.state.state == "completed", view.to_json()
    report = await verify(spec, store)
    assert report.ok, report.problems


async def test_a_job_whose_plan_was_deleted_fails(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shardline_producer.attempt._TOPIC_CHECK_SECONDS", 0.2)
    store = InterveningStore("_state/chain/", lambda store, _: store.lose(LAYOUT.plan))
    view = await run_embedded(SPEC, store, folder)
    assert (view.state.state, view.state.code) == ("failed", "object_lost")
    assert LAYOUT.plan in (view.state.message or "")


async def test_an_outcome_that_cannot_be_read_is_named_by_the_status(folder: Path) -> None:
    store = InterveningStore("_state/outcome-1", InterveningStore.cut)
    view = await run_embedded(SPEC, store, folder)
    assert (view.state.state, view.state.code) == ("completing", "dataset_damaged")
    assert "outcome record cannot be read" in (view.state.message or "")


async def test_a_bug_in_the_producer_fails_the_job_and_is_named_by_the_status(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_self: AttemptRun) -> None:
        raise ZeroDivisionError("by a test")

    monkeypatch.setattr(AttemptRun, "_wait_for_outcome", broken)
    view = await run_embedded(SPEC, MemoryStore(), folder)
    assert (view.state.state, view.state.code) == ("failed", "internal")
    assert "ZeroDivisionError: by a test" in (view.state.message or "")


async def test_a_chain_record_that_is_listed_and_cannot_be_read_fails_the_job(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("shardline_common.dataset.chain._LISTED_SECONDS", 1.0)
    store = DirectoryStore(tmp_path)
    await accept(store, SPEC, SystemClock())
    await store.create(LAYOUT.plan, await plan_of(SPEC, folder))
    link = tmp_path / LAYOUT.chain_record(1, 999)
    link.parent.mkdir(parents=True)
    link.symlink_to("/nonexistent")
    view = await run_embedded(SPEC, store, folder)
    assert (view.state.state, view.state.code) == ("failed", "object_lost")
    assert LAYOUT.chain_record(1, 999) in (view.state.message or "")


async def plan_of(spec: JobSpec, folder: Path) -> bytes:
    store = MemoryStore()
    await run_embedded(spec, store, folder)
    return await store.get(Layout.of(spec).plan)
