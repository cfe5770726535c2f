"""Whole jobs land: every document of the source is in one sidecar, at its place in source and order."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from shardline_common.dataset.chain import Chain
from shardline_common.job.hashing import group_hash, order_key, order_partition
from shardline_common.job.names import Layout
from shardline_common.job.spec import JobSpec
from shardline_common.memory.store import MemoryStore
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.failpoints import VARIABLE
from shardline_common.storage.directory import DirectoryStore
from tests.make import job
from tests.staged import lines, sidecar
from tests.support.embedded import run_embedded

COURTS = ["VG Berlin", "VG Köln", None]
DOCUMENTS = [
    {
        "document_id": f"d{n % 190}",
        "content": f"Der Text Nummer {n} hat sieben Worte.",
        "court": COURTS[n % 3],
    }
    for n in range(200)
]
SLICE_BITS = 48
Line = dict[str, Any]


def sliced(partitions: int, slices: int, output: dict[str, Any]) -> JobSpec:
    return job(
        source={"type": "files", "paths": ["sample.jsonl"]},
        quality={"min_score": 0, "max_dead_letters": 10},
        output={"shard_bytes": 4096, "keep_staged": True, **output},
        dedup={"exact": True},
        partitions=partitions,
        slices=slices,
    )


async def landed(spec: JobSpec, store: MemoryStore, folder: Path) -> list[tuple[int, Line]]:
    """The lines of all sidecars, each with its partition."""
    await run_embedded(spec, store, folder)
    found = []
    for partition in range(spec.total_partitions):
        async for record in Chain(store, Layout.of(spec), partition).records():
            own = await lines(store, spec, sidecar(record, "records").key, folder)
            assert own == sorted(own, key=lambda line: (line["order"], line["position"]))
            found += [(partition, line) for line in own]
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [orjson.dumps(document) for document in DOCUMENTS]
    (tmp_path / "sample.jsonl").write_bytes(b"\n".join([*rows[:50], b"{no json", *rows[50:]]) + b"\n")
    return tmp_path


@pytest.mark.parametrize(("partitions", "slices"), [(1, 1), (4, 1), (2, 3)])
async def test_each_document_lands_once_at_its_place(folder: Path, partitions: int, slices: int) -> None:
    spec = sliced(partitions, slices, {"order": {"seed": 5}})
    found = await landed(spec, MemoryStore(), folder)
    assert len({line["position"] for _, line in found}) == len(found) == len(DOCUMENTS) + 1
    # Whatever slices there are, the positions rise in the order of the source.
    in_source_order = sorted(found, key=lambda one: one[1]["position"])
    ids = [document["document_id"] for document in DOCUMENTS]
    assert [line["id"] for _, line in in_source_order] == [*ids[:50], "sample.jsonl:51", *ids[50:]]
    for partition, line in found:
        number, within = divmod(partition, partitions)
        assert line["position"] >> SLICE_BITS == number
        assert line["order"] == order_key(5, line["id"].encode())
        assert within == order_partition(line["order"], partitions)


async def test_the_group_is_that_of_the_field(folder: Path) -> None:
    output = {"splits": {"train": 0.5, "test": 0.5}, "group_by": "court", "order": "source"}
    found = await landed(sliced(2, 1, output), MemoryStore(), folder)
    by_position = sorted((line["position"], line) for _, line in found)
    rows = [line for _, line in by_position if line["status"] == 0]
    for document, line in zip(DOCUMENTS, rows, strict=True):
        group = str(document["court"] or document["document_id"])
        assert line["group"] == group_hash(group.encode())
        assert line["order"] == 0


def run(spec: JobSpec, folder: Path, failpoint: str) -> int:
    path = folder / "job.json"
    path.write_bytes(spec.body())
    command = [sys.executable, "-m", "shardline", "run", str(path), "--output", str(folder / "out")]
    env = os.environ | {VARIABLE: failpoint}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, check=False).returncode


async def landed_bytes(spec: JobSpec, store: ObjectStore) -> dict[str, bytes]:
    """The staged rows and the sidecars."""
    layout = Layout.of(spec)
    kept = (layout.staged_rows, f"{layout.state}records/")
    return {info.key: await store.get(info.key) for prefix in kept async for info in store.list(prefix)}


async def test_a_run_that_is_killed_while_it_lands_leaves_what_one_run_leaves(folder: Path) -> None:
    spec, undisturbed, store = sliced(2, 1, {}), MemoryStore(), DirectoryStore(folder / "out")
    await run_embedded(spec, undisturbed, folder)
    assert await asyncio.to_thread(run, spec, folder, "staging.before_sidecar=kill@4") == -signal.SIGKILL
    before = await landed_bytes(spec, store)
    assert await asyncio.to_thread(run, spec, folder, "") == 0
    found = await landed_bytes(spec, store)
    assert found == await landed_bytes(spec, undisturbed)
    assert 0 < len(before) < len(found)
