"""A run that was killed between a put and its chain record, over a database whose rows changed since."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from shardline.services.sample import write_sample
from shardline_common.dataset.leftovers import leftover_keys, remove_leftovers
from shardline_common.dataset.verify import Verifier
from shardline_common.job.names import Layout
from shardline_common.job.spec import JobSpec
from shardline_common.memory.store import MemoryStore
from shardline_common.runtime.failpoints import VARIABLE
from shardline_common.storage.directory import DirectoryStore
from tests.databases import Database
from tests.make import job
from tests.support.embedded import DOCUMENTS, completed, run_embedded, small_job, verify

ROWS = 2_000
CREATE = "CREATE TABLE documents (document_id text PRIMARY KEY, content text, title text)"
FILL = (
    "INSERT INTO documents SELECT 'd' || lpad(n::text, 5, '0'), repeat('Satz ' || n || ' ', 40), 'T' "
    f"FROM generate_series(1, {ROWS}) n"
)


def scan() -> JobSpec:
    return job(
        job_id="laws",
        source={"type": "uds3"},
        quality={"min_score": 0},
        output={"shard_bytes": 16_384},
        partitions=2,
    )


def run(folder: Path, database: Database, *failpoints: str) -> subprocess.CompletedProcess[bytes]:
    path = folder / "job.json"
    path.write_bytes(orjson.dumps(scan().model_dump(mode="json")))
    command = [sys.executable, "-m", "shardline", "run", str(path), "--output", str(folder / "out"), "--json"]
    env = os.environ | database.env | {VARIABLE: ",".join(failpoints)}
    return subprocess.run(command, capture_output=True, check=False, env=env)


async def test_the_same_command_goes_on_over_changed_rows(tmp_path: Path, database: Database) -> None:
    await database.execute(CREATE, FILL)
    killed = await asyncio.to_thread(run, tmp_path, database, "worker.after_data=kill@3")
    assert killed.returncode < 0
    layout, store = Layout.of(scan()), DirectoryStore(tmp_path / "out")
    keys = [info.key.removeprefix(layout.root) async for info in store.list(layout.root)]
    assert leftover_keys(layout, keys)
    await database.execute("UPDATE documents SET content = content || 'geändert'")
    done = await asyncio.to_thread(run, tmp_path, database)
    assert done.returncode == 0, done.stderr
    report = await Verifier(store, layout.root).run()
    assert report.ok, report.problems
    assert report.rows == ROWS


async def left_behind(store: MemoryStore, folder: Path) -> list[str]:
    """Make a dataset of which the last records of the chains were never written. Returns the leftovers."""
    write_sample(folder / "sample.jsonl", DOCUMENTS)
    spec = small_job()
    await completed(spec, store, folder)
    layout = Layout.of(spec)
    published = [layout.manifest, layout.card, layout.success, layout.outcome(1)]
    last = [max([info.key async for info in store.list(layout.chain(number))]) for number in range(3)]
    await store.delete([*published, *last])
    keys = [info.key.removeprefix(layout.root) async for info in store.list(layout.root)]
    return leftover_keys(layout, keys)


async def test_leftovers_are_all_objects_of_segments_without_a_record(tmp_path: Path) -> None:
    store, spec = MemoryStore(), small_job()
    left, layout = await left_behind(store, tmp_path), Layout.of(spec)
    assert left
    foreign = ["data/train/mine.jsonl", "data/train/part-00000-999.jsonl", "notes/part-00000-000000000000.x"]
    for key in foreign:
        await store.create(layout.root + key, b"")
    assert await remove_leftovers(store, layout) == left
    keys = {info.key.removeprefix(layout.root) async for info in store.list(layout.root)}
    assert not keys & set(left)
    assert keys >= set(foreign)
    await store.delete([layout.root + key for key in foreign])
    view = await run_embedded(spec, store, tmp_path)
    assert view.state.state == "completed", view.to_json()
    assert (await verify(spec, store)).ok


def test_each_kind_of_object_can_be_left_behind() -> None:
    layout = Layout("a/b/", "zstd")
    kinds = [layout.data("train", 1, 5), layout.rejected(1, 5), layout.dead_letters(1, 5)]
    keys = [key.removeprefix(layout.root) for key in kinds]
    record = layout.chain_record(1, 5).removeprefix(layout.root)
    assert leftover_keys(layout, [*keys, layout.chain_record(1, 6).removeprefix(layout.root)]) == sorted(keys)
    assert leftover_keys(layout, [*keys, record]) == []
    assert leftover_keys(layout, ["data/train/part-00001-000000000005.jsonl"]) == []


@pytest.mark.parametrize("standing", ["manifest.json", "_SUCCESS", "no plan", "completed"])
async def test_what_may_be_a_finished_or_foreign_dataset_is_left_alone(tmp_path: Path, standing: str) -> None:
    store, layout = MemoryStore(), Layout.of(small_job())
    assert await left_behind(store, tmp_path)
    if standing == "no plan":
        await store.delete([layout.plan])
    elif standing == "completed":
        body = orjson.dumps(
            {"attempt": 2, "ending": "completed", "at": "", "accepted_at": "", "software": "0.1"}
        )
        await store.create(layout.outcome(2), body)
    else:
        await store.create(layout.root + standing, b"{}")
    assert await remove_leftovers(store, layout) == []


async def test_the_message_names_the_object_that_may_be_deleted(tmp_path: Path) -> None:
    store, spec = MemoryStore(), small_job()
    left, layout = await left_behind(store, tmp_path), Layout.of(spec)
    damaged = layout.root + next(key for key in left if key.startswith("data/"))
    await store.delete([damaged])
    await store.create(damaged, b'{"text": "of rows that have changed"}\n')
    view = await run_embedded(spec, store, tmp_path)
    assert view.state.code == "not_reproducible"
    assert f"delete {damaged}, and run or retry the job" in (view.state.message or "")
    await store.delete([damaged])
    view = await run_embedded(spec, store, tmp_path)
    assert (view.state.state, view.state.attempt) == ("completed", 2), view.to_json()
    assert (await verify(spec, store)).ok
