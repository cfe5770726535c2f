"""Committing a staged segment: killed anywhere and tried again, by a zombie, by another version."""

from collections.abc import AsyncIterator, Callable
from dataclasses import fields, replace
from pathlib import Path

import orjson
import pytest

from shardline_common.assembly import extra
from shardline_common.assembly import sidecar as sidecars
from shardline_common.assembly.stored_sidecars import read_stored_sidecar, sidecar_facts
from shardline_common.dataset.chain import ChainRecord, SegmentObjects
from shardline_common.dataset.contents import list_sizes, read_segments
from shardline_common.dataset.leftovers import remove_leftovers
from shardline_common.dataset.read import StoredBytes
from shardline_common.dataset.segment_check import SegmentChecker
from shardline_common.dataset.staged import prove_staged, staged_rows
from shardline_common.errors import FailureCode, JobFailed
from shardline_common.job.names import Layout
from shardline_common.job.plan import Plan
from shardline_common.job.segment_limits import SegmentLimits, max_spool_bytes
from shardline_common.memory.store import MemoryStore
from shardline_consumer.spool.file import SpoolDamaged
from tests.docs.blocks import ROOT
from tests.make import job
from tests.staged import (
    EVERYTHING,
    Item,
    assembled_job,
    chain,
    land,
    messages,
    open_segment,
    rules_of,
    sidecar,
    sink_of,
)

SPEC = assembled_job(**EVERYTHING)
LAYOUT = Layout.of(SPEC)
KINDS = ("row", "row", "rejected", "dead", "row", "empty", "row")
ITEMS = [Item(KINDS[n % 7], f"d{n % 11}", f"dies ist der Text Nummer {n} von vielen") for n in range(30)]


class Killed(Exception):
    """The process ended."""


async def etags(store: MemoryStore) -> dict[str, str]:
    return {info.key: info.etag async for info in store.list("")}


async def landed(tmp_path: Path) -> MemoryStore:
    store = MemoryStore()
    await land(sink_of(store, tmp_path, SPEC), messages(ITEMS), iter(()))
    return store


def killed_at(passage: int, when: str) -> Callable[[str, str, str], None]:
    passages = 0

    def fault(moment: str, operation: str, _key: str) -> None:
        nonlocal passages
        if (moment, operation) == (when, "create"):
            passages += 1
            if passages == passage:
                raise Killed

    return fault


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_kill_at_any_put_and_another_try_give_the_same_objects(tmp_path: Path, when: str) -> None:
    records, once = messages(ITEMS[:12]), MemoryStore()
    await land(sink_of(once, tmp_path, SPEC), records, iter(()))
    undisturbed = await etags(once)
    # Two segments, of all kinds of objects.
    assert len(undisturbed) > 2 * len(fields(SegmentObjects))
    for passage in range(1, len(undisturbed) + 1):
        store = MemoryStore(killed_at(passage, when))
        with pytest.raises(Killed):
            await land(sink_of(store, tmp_path, SPEC), records, iter((5,)))
        await land(sink_of(store, tmp_path, SPEC), records, iter((3, 2)))
        assert await etags(store) == undisturbed
    assert list(tmp_path.iterdir()) == []


async def test_a_retry_in_another_attempt_finds_its_objects(tmp_path: Path) -> None:
    store = MemoryStore()
    first = await land(sink_of(store, tmp_path, SPEC), messages(ITEMS), iter(()))
    await store.delete([LAYOUT.chain_record(0, record.first) for record in first])
    again = await land(sink_of(store, tmp_path, SPEC, 2), messages(ITEMS), iter(()))
    assert all(one.has_same_content(other) for one, other in zip(first, again, strict=True))


@pytest.mark.parametrize(
    ("number", "other", "key"),
    [
        (0, Item("row", "d0", "ein anderer Text"), LAYOUT.staged(0, 0)),
        (2, Item("rejected", "another", "x"), LAYOUT.rejected(0, 0)),
        (5, Item("dead", "d5"), LAYOUT.rejected(0, 0)),
    ],
)
async def test_a_zombie_with_other_documents_is_refused(
    tmp_path: Path, number: int, other: Item, key: str
) -> None:
    store = await landed(tmp_path)
    before = await etags(store)
    # It has read the chain before the others wrote it.
    segment = open_segment(SPEC, tmp_path, None)
    segment.take(messages([*ITEMS[:number], other, *ITEMS[number + 1 :]]))
    with pytest.raises(JobFailed, match=key) as caught:
        await sink_of(store, tmp_path, SPEC).commit_segment(0, segment, lambda: None)
    segment.discard()
    assert caught.value.code is FailureCode.NOT_REPRODUCIBLE
    assert await etags(store) == before


async def test_a_zombie_whose_sidecar_alone_differs_is_refused(tmp_path: Path) -> None:
    spec = assembled_job(quality={"min_score": 0.2}, dedup={"exact": True})
    store, layout = MemoryStore(), Layout.of(spec)
    await land(sink_of(store, tmp_path, spec), messages(ITEMS), iter(()))
    before = await etags(store)
    segment = open_segment(spec, tmp_path, None)
    # Rejected documents are stored nowhere else.
    segment.take(messages([*ITEMS[:2], Item("rejected", "another"), *ITEMS[3:]]))
    with pytest.raises(JobFailed, match=layout.records(0, 0)) as caught:
        await sink_of(store, tmp_path, spec).commit_segment(0, segment, lambda: None)
    segment.discard()
    assert caught.value.code is FailureCode.NOT_REPRODUCIBLE
    assert await etags(store) == before


async def test_a_sidecar_of_another_library_is_adopted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await landed(tmp_path)
    first = await chain(store, SPEC)
    await store.delete([LAYOUT.chain_record(0, record.first) for record in first])
    before = await etags(store)
    monkeypatch.setattr(sidecars, "_OFTEN_EQUAL", ())
    again = await land(sink_of(store, tmp_path, SPEC), messages(ITEMS), iter(()))
    assert {key: etag for key, etag in (await etags(store)).items() if key in before} == before
    # The record has the hash of what is stored, not of what this worker wrote.
    assert [record.objects for record in again] == [record.objects for record in first]


@pytest.mark.parametrize("which", [0, 1])
async def test_a_damaged_spool_file_is_found_before_its_bytes_get_a_new_hash(
    tmp_path: Path, which: int
) -> None:
    store, segment = MemoryStore(), open_segment(SPEC, tmp_path, None)
    segment.take(messages(ITEMS))
    assert segment.rows is not None
    assert segment._index.file is not None
    path = (segment.rows.path, segment._index.file.path)[which]
    data = path.read_bytes()
    path.write_bytes(data[:200] + bytes([data[200] ^ 1]) + data[201:])
    with pytest.raises(SpoolDamaged):
        await sink_of(store, tmp_path, SPEC).commit_segment(0, segment, lambda: None)
    segment.discard()
    assert await etags(store) == {}
    assert list(tmp_path.iterdir()) == []


async def produced(store: MemoryStore) -> list[tuple[int, int]]:
    upto = (await chain(store, SPEC))[-1].upto
    return [(upto.records, upto.hash_sum)]


async def test_the_contents_of_a_dataset_are_its_sidecars(tmp_path: Path) -> None:
    store = await landed(tmp_path)
    await store.create(LAYOUT.plan, Plan([], {}).encode())
    sizes = await list_sizes(store, LAYOUT)
    contents = await read_segments(store, SPEC, LAYOUT, await produced(store), sizes)
    keys = {LAYOUT.root + key for key in contents.objects}
    assert keys == {key for key in await etags(store) if key.startswith(LAYOUT.root)}
    assert not any(key.startswith(f"{LAYOUT.root}data/") for key in keys)
    rows = await prove_staged(store, LAYOUT, contents.records)
    assert {one.key for one in rows} == {key for key in await etags(store) if key.startswith("_staged/")}
    # Segments of another layout than the job's are of workers that do not know it.
    stream = job(quality=SPEC.quality.model_dump(), partitions=1)
    with pytest.raises(JobFailed, match="staged rows"):
        await read_segments(store, stream, LAYOUT, await produced(store), sizes)


async def test_staged_rows_that_are_lost_or_changed_are_named(tmp_path: Path) -> None:
    store = await landed(tmp_path)
    records = await chain(store, SPEC)
    key = LAYOUT.staged(0, records[1].first)
    await store.delete([key])
    with pytest.raises(JobFailed, match=f"{key} is not in the store") as caught:
        await prove_staged(store, LAYOUT, records)
    assert caught.value.code is FailureCode.OBJECT_LOST
    await store.create(key, b"{}")
    with pytest.raises(JobFailed, match=f"{key} has 2 bytes"):
        await prove_staged(store, LAYOUT, records)


@pytest.mark.parametrize("change", ["sha256", "key", "none"])
async def test_a_chain_record_that_contradicts_itself_is_named(tmp_path: Path, change: str) -> None:
    record = (await chain(await landed(tmp_path), SPEC))[0]
    assert record.objects is not None
    data = record.objects.data
    assert data is not None
    changed: ChainRecord = {
        "sha256": replace(record, sha256="0" * 64),
        "key": replace(record, key="another"),
        "none": replace(record, objects=replace(record.objects, data=None)),
    }[change]
    with pytest.raises(JobFailed, match="contradicts itself"):
        list(staged_rows([changed], LAYOUT))
    checker = SegmentChecker(MemoryStore(), rules_of(SPEC))
    assert any("the chain names" in problem for problem in (await checker.check(changed)).problems)


async def test_the_check_of_a_segment_reads_its_sidecars(tmp_path: Path) -> None:
    store = await landed(tmp_path)
    record = (await chain(store, SPEC))[0]
    for read in (None, sidecar_facts):
        checked = await SegmentChecker(store, rules_of(SPEC, read_sidecar=read)).check(record)
        assert checked.problems == []
        assert {"records", "bands", "signatures"} <= {key.split("/")[1] for key in checked.objects}
    key = LAYOUT.root + sidecar(record, "records").key
    body = await store.get(key)
    for changed in (body[:100] + b"x" + body[101:], body[:-20], b""):
        await store.delete([key])
        await store.create(key, changed)
        for read in (None, sidecar_facts):
            checked = await SegmentChecker(store, rules_of(SPEC, read_sidecar=read)).check(record)
            assert any(key.removeprefix(LAYOUT.root) in problem for problem in checked.problems)


async def test_the_check_of_a_segment_compares_the_sums_of_its_records(tmp_path: Path) -> None:
    store = await landed(tmp_path)
    record = (await chain(store, SPEC))[0]
    counted = replace(record, segment=replace(record.segment, hash_sum=1))
    checked = await SegmentChecker(store, rules_of(SPEC, read_sidecar=sidecar_facts)).check(counted)
    assert any("its records sum to" in problem for problem in checked.problems)


async def test_what_a_killed_run_left_without_a_chain_record_is_removed(tmp_path: Path) -> None:
    store = await landed(tmp_path)
    await store.create(LAYOUT.plan, Plan([], {}).encode())
    records = await chain(store, SPEC)
    await store.delete([LAYOUT.chain_record(0, records[-1].first)])
    await store.create("_staged/another/another/rows/part-00000-000000000000.jsonl", b"")
    removed = await remove_leftovers(store, LAYOUT, assembled=True)
    first = f"part-00000-{records[-1].first:012d}"
    assert sorted(removed) == [
        f"_staged/{LAYOUT.root}rows/{first}.jsonl",
        f"_state/bands/{first}.parquet",
        f"_state/records/{first}.parquet",
        f"_state/signatures/{first}.parquet",
        *(key for key in removed if key.startswith(("dead-letters", "rejected"))),
    ]
    assert not any(first in key for key in await etags(store))


def test_the_record_of_a_stream_has_no_word_of_sidecars() -> None:
    record = ChainRecord.decode(
        orjson.dumps(
            {
                "split": "train",
                "partition": 0,
                "first": 0,
                "next": 1,
                "key": None,
                "rejected_key": None,
                "sha256": "0" * 64,
                "segment": {"rows": 1},
                "upto": {"rows": 1},
                "position": [1],
                "attempt": 1,
                "offset": 1,
                "objects": {"data": None, "rejected": None, "dead_letters": None},
            }
        )
    )
    assert record.objects == SegmentObjects()
    assert list(orjson.loads(record.encode())["objects"]) == ["data", "rejected", "dead_letters"]


def test_a_staged_segment_needs_its_rows_twice_and_an_index() -> None:
    output = {"layout": "assembled", "compression": "gzip"}
    stream, plain, near = job(), job(output=output), job(output=output, dedup={"near": True})
    rows = stream.output.shard_bytes + stream.max_document_bytes
    assert max_spool_bytes(plain) > max_spool_bytes(stream) + rows
    assert max_spool_bytes(near) > max_spool_bytes(plain)
    # Its records are bounded by the bytes of its rows, and with them the memory of the sort.
    limits = [SegmentLimits.of(one).records for one in (plain, stream)]
    assert limits == [stream.output.shard_bytes // 256, 1_000_000]
    assert SegmentLimits.of(job(output={"layout": "assembled", "shard_bytes": 1024})).records == 1024


@pytest.mark.parametrize("dedup", [None, {"near": True}, {"near": {"verify": 0.8}}])
def test_the_spool_of_a_staged_segment_is_the_documented_one(dedup: dict[str, object] | None) -> None:
    page = " ".join((ROOT / "docs" / "deployment.md").read_text().split())
    spec = job(output={"layout": "assembled"}, dedup=dedup)
    assert f"{max_spool_bytes(spec) >> 20} MiB" in page
    assert f"with compression: {max_spool_bytes(job()) >> 20} MiB by default" in page


def test_a_worker_without_the_extra_fails_the_job_and_not_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extra, "find_spec", lambda name: None if name == "pyarrow" else name)
    with pytest.raises(JobFailed, match="needs pyarrow on every worker") as caught:
        open_segment(SPEC, tmp_path, None)
    assert caught.value.code is FailureCode.EXTRA_MISSING


class DamagingStore(MemoryStore):
    """Damages the first `left` reads of sidecars."""

    left = 0

    async def stream(self, key: str, *, offset: int = 0, size: int | None = None) -> AsyncIterator[bytes]:
        async for chunk in super().stream(key, offset=offset, size=size):
            if key.endswith(".parquet") and self.left:
                self.left -= 1
                yield chunk[:-30]
            else:
                yield chunk


@pytest.mark.parametrize("left", [1, 100])
async def test_a_damaged_read_of_a_sidecar_is_no_fact_about_it(tmp_path: Path, left: int) -> None:
    store = DamagingStore()
    await land(sink_of(store, tmp_path, SPEC), messages(ITEMS), iter(()))
    record = (await chain(store, SPEC))[0]
    key, item = LAYOUT.records(0, 0), sidecar(record, "records")
    store.left = left
    read = read_stored_sidecar(store, key, sidecars.RECORDS, tmp_path / "read.parquet", item.plain_sha256)
    if left == 1:
        assert await read == (item.plain_sha256, StoredBytes(item.stored_bytes, item.stored_sha256))
        return
    with pytest.raises(JobFailed) as caught:
        await read
    assert caught.value.code is FailureCode.DATASET_DAMAGED
