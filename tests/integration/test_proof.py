"""The proof covers every object and every field of a dataset: `verify` fails when any of them is changed."""

import asyncio
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import zstandard

from shardline.services.sample import write_sample
from shardline_common.dataset.success import SuccessMarker, hash_of
from shardline_common.dataset.verify import NOT_COVERED, Report, Verifier
from shardline_common.job.names import Layout
from shardline_common.job.spec import JobSpec
from shardline_common.memory.store import MemoryStore
from shardline_common.runtime.clock import SystemClock
from shardline_common.storage.directory import DirectoryStore
from shardline_producer.acceptance import accept
from tests.support.embedded import run_embedded, small_job
from tools.proof_fields import FIELDS, WHOLE

GOLDEN = Path(__file__).parents[1] / "golden"
COMPRESSIONS = ("none", "gzip", "zstd")
SLICED = "sliced"
"""A dataset without compression whose job has two slices."""


def spec_of(compression: str) -> JobSpec:
    return small_job(
        partitions=2,
        slices=2 if compression == SLICED else 1,
        output={
            "shard_bytes": 16_384,
            "compression": "none" if compression == SLICED else compression,
            "validation_fraction": 0.2,
        },
        quality={"min_score": 0.5, "keep_rejected": True},
        labels={"team": "legal"},
        submitted_by="m.huber",
        purpose="test",
    )


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, MemoryStore]:
    """A finished dataset of each compression and one with slices, with objects of every kind."""
    folder = tmp_path_factory.mktemp("proof")
    write_sample(folder / "sample.jsonl", 60, broken=True)
    return asyncio.run(finished(folder))


async def finished(folder: Path) -> dict[str, MemoryStore]:
    found = {}
    for compression in (*COMPRESSIONS, SLICED):
        store, spec = MemoryStore(), spec_of(compression)
        await accept(store, spec, SystemClock())
        await store.create(Layout.of(spec).plan_pages + "000000000000.json", b'{"ids":[]}')
        view = await run_embedded(spec, store, folder)
        assert view.state.state == "completed", view.to_json()
        report = await verified(store, spec)
        assert report.ok, report.problems
        assert (report.notes, report.signed) == ([], False)
        found[compression] = store
    return found


async def verified(store: MemoryStore, spec: JobSpec) -> Report:
    return await Verifier(store, Layout.of(spec).root).run()


async def keys(store: MemoryStore, prefix: str = "") -> list[str]:
    return [info.key async for info in store.list(prefix)]


async def changed(store: MemoryStore, key: str, body: bytes | None) -> MemoryStore:
    """A copy of the store in which one object has another body, or is missing."""
    copy = MemoryStore.copy_of(store)
    await copy.delete([key])
    if body is not None:
        await copy.create(key, body)
    return copy


def kind_of(key: str) -> str:
    """The kind of an object, as `tools.proof_fields` names it."""
    if key.startswith("_state/outcome"):
        return "_state/outcome-<attempt>.json"
    if key.startswith("_state/plan/"):
        return "_state/plan/<page>.json"
    if key.startswith("_state/chain"):
        return "_state/chain/<partition>/<sequence>.json"
    for folder in ("data", "rejected", "dead-letters"):
        if key.startswith(folder + "/"):
            return "data/<split>/part-…" if folder == "data" else f"{folder}/part-…"
    return key


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """The path and value of everything in a JSON value that holds nothing further."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    empty = True
    for name, item in inner:
        empty = False
        yield from leaves(item, (*path, name))
    if empty:
        yield path, value


KEYED = frozenset({"rejected", "dead", "dead_letters", "columns", "labels", "splits", "completeness"})
"""The fields whose names inside depend on the data."""


def name_of(path: tuple[Any, ...]) -> str:
    """The name of a path in `tools.proof_fields`."""
    name = ""
    for parent, part in zip(("", *path), path, strict=False):
        keyed = parent in KEYED and "objects" not in path
        name += "[]" if isinstance(part, int) else ".*" if keyed else f".{part}"
    return name.removeprefix(".")


def other(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return value[:-1] + ("x" if value[-1:] != "x" else "y")
    return {"x": 1} if isinstance(value, dict) else [1] if isinstance(value, list) else "x"


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(copy[path[0]], path[1:], new)
    return copy


@pytest.mark.parametrize("compression", COMPRESSIONS)
async def test_verify_fails_when_any_object_is_changed_removed_or_added(
    datasets: dict[str, MemoryStore], compression: str
) -> None:
    store, spec = datasets[compression], spec_of(compression)
    root = Layout.of(spec).root
    kinds = set()
    for key in await keys(store, root):
        kinds.add(kind_of(key.removeprefix(root)))
        body = await store.get(key)
        for new in (None, b"", body[:-1], body + b"\n", body[:9] + bytes([body[9] ^ 1]) + body[10:]):
            assert not (await verified(await changed(store, key, new), spec)).ok, (key, new)
        beside = await changed(store, key + ".bak", body)
        assert not (await verified(beside, spec)).ok, key
    assert kinds == set(WHOLE) | set(FIELDS)


async def test_verify_fails_when_any_field_is_changed(datasets: dict[str, MemoryStore]) -> None:
    objects_of_a_segment = ("data", "rejected", "dead_letters")
    seen: dict[str, set[str]] = {}
    found = [
        (datasets[name], spec_of(name), key)
        for name in ("none", SLICED)
        for key in await keys(datasets[name], Layout.of(spec_of(name)).root)
    ]
    for store, spec, key in found:
        root = Layout.of(spec).root
        kind = kind_of(key.removeprefix(root))
        if kind not in FIELDS:
            continue
        body = orjson.loads(await store.get(key))
        for path, value in leaves(body):
            absent = value is None and path[-1] in objects_of_a_segment
            if absent or (value == {} and path[-1] in KEYED):
                continue
            name = name_of(path)
            if name in seen.setdefault(kind, set()):
                continue
            seen[kind].add(name)
            forged = orjson.dumps(replaced(body, path, other(value)), option=orjson.OPT_INDENT_2)
            assert not (await verified(await changed(store, key, forged), spec)).ok, (key, path)
    # A new field needs an entry, and with it a thought about what covers it.
    assert {kind: sorted(names) for kind, names in seen.items()} == {
        kind: sorted(names) for kind, names in FIELDS.items()
    }


def with_a_member(body: bytes, row: bytes, compression: str) -> bytes:
    more = {"none": lambda: row, "gzip": lambda: gzip.compress(row), "zstd": lambda: zstandard.compress(row)}
    return body + more[compression]()


@pytest.mark.parametrize("compression", COMPRESSIONS)
async def test_an_appended_member_frame_or_row_is_found(
    datasets: dict[str, MemoryStore], compression: str
) -> None:
    store, spec = datasets[compression], spec_of(compression)
    (key, *_) = await keys(store, Layout.of(spec).root + "data/train/")
    body = await store.get(key)
    row = plain(body, compression).splitlines(keepends=True)[0]
    report = await verified(await changed(store, key, with_a_member(body, row, compression)), spec)
    assert any("rows and" in problem for problem in report.problems), report.problems


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
async def test_rows_that_are_compressed_again_are_found(
    datasets: dict[str, MemoryStore], compression: str
) -> None:
    store, spec = datasets[compression], spec_of(compression)
    (key, *_) = await keys(store, Layout.of(spec).root + "data/train/")
    rows = plain(await store.get(key), compression)
    again = gzip.compress(rows, 1) if compression == "gzip" else zstandard.compress(rows, 19)
    report = await verified(await changed(store, key, again), spec)
    assert any("the stored bytes are not those that were put" in text for text in report.problems)


def plain(body: bytes, compression: str) -> bytes:
    """As the readers of training clusters read it: over all members or frames."""
    if compression == "gzip":
        return gzip.decompress(body)
    if compression == "none":
        return body
    reader = zstandard.ZstdDecompressor().stream_reader(body, read_across_frames=True)
    return bytes(reader.read())


@pytest.mark.parametrize("compression", COMPRESSIONS)
async def test_plain_readers_get_exactly_the_rows_of_the_manifest(
    datasets: dict[str, MemoryStore], compression: str
) -> None:
    store, layout = datasets[compression], Layout.of(spec_of(compression))
    manifest = orjson.loads(await store.get(layout.manifest))
    for shard in manifest["shards"]:
        rows = plain(await store.get(layout.root + shard["key"]), compression)
        assert (rows.count(b"\n"), len(rows)) == (shard["rows"], shard["bytes"])


async def test_a_manifest_whose_hash_is_forged_too_must_still_agree_with_the_dataset(
    datasets: dict[str, MemoryStore],
) -> None:
    store, spec = datasets["none"], spec_of("none")
    layout = Layout.of(spec)
    original = await store.get(layout.manifest)
    passed = set()
    for path, value in leaves(orjson.loads(original)):
        forged = orjson.dumps(replaced(orjson.loads(original), path, other(value)))
        marker = SuccessMarker.decode(await store.get(layout.success))
        hashes = {**marker.hashes, "manifest.json": hash_of(forged)}
        copy = await changed(store, layout.manifest, forged)
        copy = await changed(copy, layout.success, SuccessMarker(marker.digest, hashes).encode())
        if (await verified(copy, spec)).ok:
            passed.add(name_of(path))
    # They decide no row. Only a signature, or a digest that is kept elsewhere, protects them.
    assert passed == {"job.job_id", "job.submitted_by", "job.purpose", "job.labels.*"}


@pytest.mark.parametrize("compression", COMPRESSIONS)
async def test_a_dataset_of_version_0_1_still_verifies(compression: str) -> None:
    report = await Verifier(DirectoryStore(GOLDEN / f"version-0-1-{compression}"), "").run()
    assert report.ok, report.problems
    assert (report.rows, report.notes) == (14, [NOT_COVERED])


async def test_a_manifest_of_a_later_version_is_refused(datasets: dict[str, MemoryStore]) -> None:
    store, spec = datasets["none"], spec_of("none")
    key = Layout.of(spec).manifest
    later = orjson.dumps({**orjson.loads(await store.get(key)), "version": 4})
    report = await verified(await changed(store, key, later), spec)
    assert report.problems == [
        "manifest.json has version 4; this Shardline reads up to 3; install a newer version"
    ]
