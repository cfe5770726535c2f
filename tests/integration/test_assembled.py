"""Assembled datasets of whole jobs, compared with a recomputation of a few lines."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

import orjson
import pytest

from shardline_common.assembly.normal_text import normal_text
from shardline_common.dataset.finished import finished_lines
from shardline_common.dataset.manifest import Manifest
from shardline_common.dataset.verify import Report
from shardline_common.job.hashing import group_hash, order_key, sample_key
from shardline_common.job.names import Layout
from shardline_common.job.spec import JobSpec
from shardline_common.memory.store import MemoryStore
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.failpoints import VARIABLE
from shardline_common.storage.directory import DirectoryStore
from shardline_consumer.assembly import other_datasets
from tests.make import job
from tests.support.embedded import run_embedded, verify

COURTS = ["VG Berlin", "VG Köln", "OVG Münster", None]
DOCUMENTS = [
    {
        "document_id": f"d{n % 280}",
        # Every seventh text is one of nine, with other white space.
        "content": f"Der  Text Nummer {n % 9}" + " \n" * (n % 3)
        if n % 7 == 0
        else f"Der Text Nummer {n} " + "x" * (n % 90),
        "court": COURTS[n % 4],
    }
    for n in range(300)
]
REASONS = ("duplicate_id", "duplicate", "sampled_out", "remainder")
JOBS: list[dict[str, Any]] = [
    {"output": {"shards": {"count": 3}, "shard_bytes": 4096}},
    {"output": {"order": "source", "shard_bytes": 4096}},
    {
        "dedup": {"exact": True},
        "output": {"order": {"seed": 7}, "shards": {"bytes": 2048}, "shard_bytes": 4096},
    },
    {
        "quality": {"duplicate_ids": "first"},
        "dedup": {"exact": True},
        "sample": {"rows": 180, "seed": 2},
        "output": {
            "splits": {"train": 0.6, "validation": 0.2, "test": 0.2},
            "group_by": "court",
            "shards": {"multiple_of": 4, "equal": True},
            "shard_bytes": 4096,
        },
    },
    {
        "sample": {"fraction": 0.5},
        "output": {"splits": {"a": 0.5, "b": 0.5}, "shards": {"count": 2}, "shard_bytes": 4096},
    },
]


def assembled(changes: Mapping[str, Any], partitions: int = 2, slices: int = 1, **more: Any) -> JobSpec:
    body = {
        "source": {"type": "files", "paths": ["sample.jsonl"]},
        "partitions": partitions,
        "slices": slices,
    }
    quality = {"min_score": 0, "max_dead_letters": 10} | changes.get("quality", {})
    return job(**(body | dict(changes) | {"quality": quality} | more))


def by_hand(spec: JobSpec, rows: list[bytes]) -> tuple[dict[str, list[bytes]], dict[str, int]]:
    """The shards by key, and the rejections: from the rows in the order of the source."""
    counts, seen, kept = (
        dict.fromkeys(REASONS, 0),
        set[tuple[str, str]](),
        list[tuple[int, int, bytes, dict[str, Any]]](),
    )
    for place, line in enumerate(rows):
        row = orjson.loads(line)
        rules = [("duplicate_id", row["document_id"], spec.quality.duplicate_ids == "first")]
        rules.append(("duplicate", normal_text(row["text"]), spec.dedup is not None and spec.dedup.exact))
        found = next((name for name, value, asked in rules if asked and (name, value) in seen), None)
        if found:
            counts[found] += 1
            continue
        seen |= {(name, value) for name, value, _ in rules}
        order = 0 if spec.order_seed is None else order_key(spec.order_seed, row["document_id"].encode())
        kept.append((order, place, line, row))
    if sample := spec.sample:
        keys = {one[1]: (sample_key(sample.seed, one[3]["document_id"].encode()), one[1]) for one in kept}
        first = sorted(keys.values())[: sample.rows] if sample.rows else None
        fraction = int((sample.fraction or 1) * 2**64)
        chosen = [
            one
            for one in kept
            if (keys[one[1]] in first if first is not None else keys[one[1]][0] < fraction)
        ]
        counts["sampled_out"], kept = len(kept) - len(chosen), chosen
    shards = dict[str, list[bytes]]()
    bounds = list(accumulate(share for _, share in spec.splits))
    for number, (name, _) in enumerate(spec.splits):
        low, high = (bounds[number - 1] if number else 0) * 2**64, bounds[number] * 2**64
        of_split = [
            one[2]
            for one in sorted(kept[:], key=lambda one: one[:2])
            if int(low) <= group_of(spec, one[3]) < int(high)
        ]
        cut(spec, name, of_split, shards, counts)
    return shards, {reason: count for reason, count in counts.items() if count}


def group_of(spec: JobSpec, row: Mapping[str, Any]) -> int:
    value = row["metadata"]["court"] if spec.output.group_by else None
    return group_hash((row["document_id"] if value is None else value).encode())


def cut(
    spec: JobSpec, split: str, rows: list[bytes], shards: dict[str, list[bytes]], counts: dict[str, int]
) -> None:
    """Cut the rows of a split into shards."""
    asked = spec.output.shards
    limit = max(asked.bytes if asked and asked.bytes else spec.output.shard_bytes, *map(len, rows))
    step, total = (asked and asked.multiple_of) or 1, len(rows)
    number = (asked and asked.count) or -(-sum(map(len, rows)) // limit // step) * step
    while True:
        number = min(number, total)
        used = number * (total // number) if asked and asked.equal else total
        found = [rows[index * used // number : (index + 1) * used // number] for index in range(number)]
        if (asked and asked.count) or number == total or max(sum(map(len, one)) for one in found) <= limit:
            break
        number += max(step, -(-(number // 256) // step) * step)
    counts["remainder"] += total - used
    for index, one in enumerate(found):
        shards[f"data/{split}/part-{index:05d}-of-{number:05d}.jsonl"] = one


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("assembled")
    lines = [orjson.dumps(document) for document in DOCUMENTS]
    (path / "sample.jsonl").write_bytes(b"\n".join([*lines[:50], b"{no json", *lines[50:]]) + b"\n")
    return path


@pytest.fixture(scope="module")
def rows(folder: Path) -> list[bytes]:
    """The rows in the order of the source: those of a stream with one partition."""
    store, spec = MemoryStore(), assembled({}, partitions=1)
    asyncio.run(run_embedded(spec, store, folder))
    return b"".join(asyncio.run(shards_of(spec, store)).values()).splitlines(keepends=True)


async def shards_of(spec: JobSpec, store: ObjectStore) -> dict[str, bytes]:
    root = Layout.of(spec).root
    keys = sorted([info.key async for info in store.list(f"{root}data/")])
    return {key.removeprefix(root): await store.get(key) for key in keys}


async def finished(spec: JobSpec, store: MemoryStore, folder: Path) -> Report:
    view = await run_embedded(spec, store, folder)
    assert view.state.state == "completed", view.to_json()
    report = await verify(spec, store)
    assert report.ok, report.problems
    return report


@pytest.mark.parametrize("changes", JOBS, ids=range(len(JOBS)))
async def test_shards_are_those_of_a_recomputation_whatever_the_partitions(
    folder: Path, rows: list[bytes], changes: dict[str, Any]
) -> None:
    digests = set[str]()
    for partitions, slices in ((1, 1), (4, 1), (16, 1), (2, 3)):
        spec, store = assembled(changes, partitions, slices), MemoryStore()
        report = await finished(spec, store, folder)
        expected, rejected = by_hand(spec, rows)
        found = await shards_of(spec, store)
        assert list(found) == sorted(expected)
        for key, body in found.items():
            assert body == b"".join(expected[key]), key
        assert (report.rejected, report.dead_letters) == (rejected, {"invalid_json": 1})
        digests.add(report.digest)
    assert len(digests) == 1


async def test_the_digest_knows_no_compression(folder: Path) -> None:
    digests = set()
    for compression in ("none", "gzip", "zstd"):
        changes = {"output": {"shards": {"count": 3}, "shard_bytes": 4096, "compression": compression}}
        digests.add((await finished(assembled(changes), MemoryStore(), folder)).digest)
    assert len(digests) == 1


def run(spec: JobSpec, folder: Path, output: Path, failpoint: str) -> int:
    path = output.with_suffix(".json")
    path.write_bytes(spec.body())
    command = [sys.executable, "-m", "shardline", "run", str(path), "--output", str(output)]
    env = os.environ | {VARIABLE: failpoint}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, check=False).returncode


async def test_a_run_that_is_killed_in_every_stage_ends_as_one_that_is_not(
    folder: Path, tmp_path: Path
) -> None:
    spec, undisturbed, output = assembled(JOBS[3]), MemoryStore(), tmp_path / "out"
    expected = await finished(spec, undisturbed, folder)
    points = (
        "staging.before_sidecar=kill@2",
        "assembly.before_decision=kill",
        "assembly.after_decision=kill",
        "assembly.before_shard=kill@2",
        "assembly.after_shard=kill@3",
        "worker.before_outcome=kill",
        "worker.after_outcome=kill",
        "worker.after_manifest=kill",
    )
    for point in points:
        assert await asyncio.to_thread(run, spec, folder, output, point) == -signal.SIGKILL, point
    assert await asyncio.to_thread(run, spec, folder, output, "") == 0
    store = DirectoryStore(output)
    assert await shards_of(spec, store) == await shards_of(spec, undisturbed)
    found = orjson.loads(await store.get(Layout.of(spec).manifest))
    assert found["digest"] == expected.digest
    assert [info.key async for info in store.list(Layout.of(spec).staged_root)] == []


@pytest.mark.parametrize("layout", ["stream", "assembled"])
async def test_texts_of_another_dataset_are_dropped(
    folder: Path, rows: list[bytes], tmp_path: Path, layout: str
) -> None:
    older = job(
        job_id="older",
        source={"type": "files", "paths": ["older.jsonl"]},
        quality={"min_score": 0},
        output={"layout": layout, "compression": "zstd", "shard_bytes": 4096},
    )
    half = [document | {"document_id": f"old {n}"} for n, document in enumerate(DOCUMENTS[::2])]
    lines = [orjson.dumps(document) for document in half]
    (folder / "older.jsonl").write_bytes(b"\n".join(lines))
    store, output = MemoryStore(), tmp_path / "older"
    await run_embedded(older, DirectoryStore(output), folder)
    address = str(output / Layout.of(older).root)
    spec = assembled({"dedup": {"against": [address]}, "output": {"order": "source", "shard_bytes": 4096}})
    report = await finished(spec, store, folder)
    held = {normal_text(str(document["content"])) for document in half}
    expected = [row for row in rows if normal_text(orjson.loads(row)["text"]) not in held]
    assert b"".join((await shards_of(spec, store)).values()) == b"".join(expected)
    assert report.rejected == {"duplicate_of_dataset": len(rows) - len(expected)}
    assert 0 < len(expected) < len(rows)


OLDER: dict[str, Any] = {
    "quality": {"min_score": 0, "duplicate_ids": "first"},
    "dedup": {"exact": True, "near": True},
    "sample": {"fraction": 0.7},
    "output": {
        "splits": {"train": 0.6, "test": 0.4},
        "shards": {"count": 7, "equal": True},
        "shard_bytes": 4096,
        "compression": "gzip",
    },
}


@pytest.mark.parametrize(
    ("changes", "damage", "by_sidecars"),
    [
        ({}, "", True),
        ({"dedup": {"near": {"bands": 2}}}, "", True),
        ({"dedup": {"exact": True, "ignore_case": True}}, "", False),
        ({}, "_state/records/*.parquet", False),
    ],
)
async def test_sidecars_of_another_dataset_drop_what_its_rows_would(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    damage: str,
    by_sidecars: bool,
) -> None:
    older = job(**OLDER | changes, job_id="older", source={"type": "files", "paths": ["older.jsonl"]})
    lines = [
        orjson.dumps(document | {"document_id": f"old {n % 200}"}) for n, document in enumerate(DOCUMENTS)
    ]
    (folder / "older.jsonl").write_bytes(b"\n".join(lines[:250]))
    await run_embedded(older, DirectoryStore(tmp_path), folder)
    address = tmp_path / Layout.of(older).root
    manifest = orjson.loads((address / "manifest.json").read_bytes())
    assert changes or {"duplicate_id", "duplicate", "sampled_out", "remainder"} <= manifest["rejected"].keys()
    for path in list(address.glob(damage))[:1] if damage else ():
        path.write_bytes(path.read_bytes()[:-1])
    read: list[str] = []

    async def noted(store: ObjectStore, manifest: Manifest) -> AsyncIterator[list[bytes]]:
        async for found in finished_lines(store, manifest):
            read.append("rows")
            yield found

    monkeypatch.setattr(other_datasets, "finished_lines", noted)
    spec = assembled({"dedup": {"against": [str(address)]}, "output": {"shard_bytes": 4096}})
    report = await finished(spec, MemoryStore(), folder)
    assert (not read) == by_sidecars
    monkeypatch.setattr(other_datasets.ContentsReader, "_fits", lambda _self, _manifest: False)
    assert (await finished(spec, MemoryStore(), folder)).digest == report.digest
    assert read
    assert 0 < report.rejected["duplicate_of_dataset"] < len(DOCUMENTS) - 50


async def test_a_dataset_to_compare_with_is_finished(folder: Path, tmp_path: Path) -> None:
    changes = {"dedup": {"against": [str(tmp_path)]}, "output": {"shard_bytes": 4096}}
    view = await run_embedded(assembled(changes), MemoryStore(), folder)
    assert (view.state.state, view.state.code) == ("failed", "source_invalid")
    assert "is no finished dataset" in str(view.state.message)
