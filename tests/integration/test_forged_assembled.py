"""Assembled datasets that fit themselves, and not their sidecars or their rules: `verify` finds each."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet
import pytest

from shardline.services.decision_check import NOT_CHECKED, NOT_RECOMPUTED, decision_checker
from shardline.services.local_run import verify_dataset
from shardline_common.dataset.chain import SegmentObject
from shardline_common.dataset.decision import (
    Counted,
    DecisionHead,
    DropList,
    Reason,
    ShardCut,
    SplitCut,
    total,
)
from shardline_common.dataset.publish import publish_dataset
from shardline_common.dataset.shard_record import ShardRecord
from shardline_common.dataset.success import hash_of
from shardline_common.dataset.verify import Report, Verifier
from shardline_common.errors import UsageError
from shardline_common.job.hashing import MODULUS
from shardline_common.job.names import Layout
from shardline_common.job.outcome import read_outcome
from shardline_common.memory.store import MemoryStore
from shardline_common.runtime.clock import SystemClock
from shardline_common.settings.load import Settings
from shardline_common.storage.directory import DirectoryStore
from tests.make import job
from tests.support.embedded import run_embedded

SPEC = job(
    source={"type": "files", "paths": ["sample.jsonl"]},
    quality={"min_score": 0, "duplicate_ids": "first"},
    dedup={"exact": True},
    output={
        "splits": {"train": 0.7, "validation": 0.3},
        "group_by": "court",
        "shards": {"count": 2},
        "keep_staged": True,
        "shard_bytes": 4096,
    },
    partitions=2,
)
LAYOUT = Layout.of(SPEC)
DOCUMENTS = [
    {"document_id": f"d{n}", "content": f"Text {n % 50 if n % 5 == 0 else n}", "court": f"court {n % 12}"}
    for n in range(120)
] + [{"document_id": f"d{n}", "content": f"Other {n}", "court": f"court {n % 12}"} for n in range(3, 120, 9)]


@dataclass
class Dataset:
    """What a forger changes: the positions of each shard in order, the drops by position, moved groups."""

    records: dict[int, dict[str, Any]]
    rows: dict[int, bytes]
    head: DecisionHead
    shards: dict[str, list[list[int]]]
    drops: dict[int, tuple[str, int | None]]
    moved: list[tuple[int, int]] = field(default_factory=list)

    def key(self, position: int) -> tuple[int, int]:
        return self.records[position]["order"], position


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The objects of a finished dataset with its staged rows, by key."""
    folder = tmp_path_factory.mktemp("forged")
    (folder / "sample.jsonl").write_bytes(b"\n".join(map(orjson.dumps, DOCUMENTS)))

    async def made() -> dict[str, bytes]:
        store = MemoryStore()
        view = await run_embedded(SPEC, store, folder)
        assert view.state.state == "completed", view.state.message
        return {info.key: await store.get(info.key) async for info in store.list("")}

    return asyncio.run(made())


@pytest.fixture
def store(objects: dict[str, bytes]) -> MemoryStore:
    found = MemoryStore()
    for key, body in objects.items():
        asyncio.run(found.create(key, body))
    return found


def opened(objects: dict[str, bytes], folder: Path) -> Dataset:
    records, rows = dict[int, dict[str, Any]](), dict[int, bytes]()
    for key, body in objects.items():
        if key.startswith(f"{LAYOUT.root}_state/records/"):
            (folder / "x.parquet").write_bytes(body)
            staged = objects[f"{LAYOUT.staged_rows}{Path(key).stem}.jsonl"]
            for record in pyarrow.parquet.read_table(folder / "x.parquet").to_pylist():
                records[record["position"]] = record
                rows[record["position"]] = staged[record["offset"] :][: record["size"]]
    by_row = {row: position for position, row in rows.items()}
    head = DecisionHead.decode(objects[LAYOUT.decision])
    shards = {
        split.name: [
            [
                by_row[line]
                for line in objects[LAYOUT.shard(split.name, cut.number, len(split.shards))].splitlines(
                    keepends=True
                )
            ]
            for cut in split.shards
        ]
        for split in head.splits
    }
    drops = dict[int, tuple[str, int | None]]()
    for key, body in objects.items():
        if "/drops/" in key:
            drops |= {entry[0]: tuple(entry[1:]) for entry in map(orjson.loads, body.splitlines())}
    return Dataset(records, rows, head, shards, drops)


async def publish(store: MemoryStore, dataset: Dataset) -> None:
    """Write the dataset as forged, with counts, hashes, records, manifest and _SUCCESS that fit."""
    records, head = dataset.records, dataset.head
    splits, below = list[SplitCut](), 0
    old = [info.key async for info in store.list(LAYOUT.root)]
    wrong = ("/decision/", "/shards/", "/data/", "manifest.json", "README.md", "_SUCCESS")
    await store.delete([key for key in old if any(part in key for part in wrong)])
    for split in head.splits:
        own = {
            position: drop
            for position, drop in dataset.drops.items()
            if below <= records[position]["group"] < (split.below or MODULUS)
        }
        below = split.below or MODULUS
        cuts = []
        for number, positions in enumerate(dataset.shards[split.name]):
            ends = [dataset.key(part[0]) for part in dataset.shards[split.name]]
            listed = sorted(
                (
                    position
                    for position in own
                    if number == max([n for n, end in enumerate(ends) if end <= dataset.key(position)] or [0])
                ),
                key=dataset.key,
            )
            lines = b"".join(orjson.dumps([position, *own[position]]) + b"\n" for position in listed)
            if lines:
                await store.create(LAYOUT.drops(split.name, number), lines)
            chosen = [records[position] for position in positions]
            cuts.append(
                ShardCut(
                    number=number,
                    rows=len(chosen),
                    bytes=sum(one["size"] for one in chosen),
                    hash_sum=sum(one["id_hash"] for one in chosen) % MODULUS,
                    first=dataset.key(positions[0]),
                    last=dataset.key(positions[-1]),
                    drops=DropList(len(listed), sha256(lines).hexdigest()),
                )
            )
        sums = sum(cut.rows for cut in cuts), sum(cut.bytes for cut in cuts)
        splits.append(SplitCut(split.name, split.below, *sums, tuple(cuts)))
    kept = total(Counted(cut.rows, cut.hash_sum) for split in splits for cut in split.shards)
    landed = total(Counted(1, one["id_hash"]) for one in records.values())
    ids = total(
        Counted(1, records[position]["id_hash"])
        for position, (reason, _) in dataset.drops.items()
        if reason == Reason.DUPLICATE_ID
    )
    # What is lost or kept twice is hidden in the sum of the drops.
    other = Counted(
        landed.records - kept.records - ids.records,
        (landed.hash_sum - kept.hash_sum - ids.hash_sum) % MODULUS,
    )
    dropped = {Reason.DUPLICATE_ID: ids, Reason.DUPLICATE: other}
    moved = b"".join(orjson.dumps(line) + b"\n" for line in sorted(dataset.moved))
    if moved:
        await store.create(LAYOUT.moved, moved)
    forged = replace(
        head,
        splits=tuple(splits),
        kept=kept,
        dropped=dropped,
        moved=DropList(len(dataset.moved), hash_of(moved)) if moved else None,
    )
    await store.create(LAYOUT.decision, forged.encode())
    for split in splits:
        for cut in split.shards:
            positions = dataset.shards[split.name][cut.number]
            body = b"".join(dataset.rows[position] for position in positions)
            key, digest = LAYOUT.shard(split.name, cut.number, len(split.shards)), hash_of(body)
            await store.create(key, body)
            stored = SegmentObject(key.removeprefix(LAYOUT.root), digest, len(body), digest)
            record = ShardRecord(
                split=split.name,
                number=cut.number,
                count=len(split.shards),
                rows=cut.rows,
                bytes=cut.bytes,
                sha256=digest,
                hash_sum=cut.hash_sum,
                words=sum(records[position]["words"] for position in positions),
                quality=sum(records[position]["score"] for position in positions),
                decision=hash_of(forged.encode()),
                object=stored,
            )
            await store.create(LAYOUT.shard_record(split.name, cut.number), record.encode())
    outcome = await read_outcome(store, LAYOUT, 1)
    assert outcome is not None
    assert await publish_dataset(store, SPEC, outcome, SystemClock()) is None


async def verified(store: MemoryStore, folder: Path, *, decision: bool = False) -> Report:
    checker = decision_checker(Settings(spool_dir=folder), recompute=decision)
    return await Verifier(store, LAYOUT.root, check_decision=checker).run()


def nothing(_: Dataset) -> None: ...


def keep_a_row_twice(dataset: Dataset) -> None:
    first, second = dataset.shards["train"]
    second[0] = first[-1]


def keep_two_rows_of_one_text(dataset: Dataset) -> None:
    keep_another(dataset, "duplicate")


def keep_two_rows_of_one_id(dataset: Dataset) -> None:
    keep_another(dataset, "duplicate_id")


def keep_another(dataset: Dataset, wanted: str) -> None:
    """Keep a row that was dropped for this reason, and drop another one."""
    train = dataset.shards["train"]
    kept = {position for shard in train for position in shard}
    position = next(
        one
        for one, (reason, of) in dataset.drops.items()
        if reason == wanted and of in kept and in_train(dataset, one)
    )
    other = next(one for one in train[0] if one != dataset.drops[position][1])
    train[0].remove(other)
    train[0] = sorted([*train[0], position], key=dataset.key)
    dataset.drops[other] = dataset.drops.pop(position)


def drop_the_other_row(dataset: Dataset) -> None:
    for position, (reason, of) in dataset.drops.items():
        for shard in dataset.shards["train"]:
            if reason == "duplicate" and of in shard[1:-1] and in_train(dataset, position):
                shard[shard.index(of)] = position
                shard.sort(key=dataset.key)
                dataset.drops[of] = ("duplicate", position)
                del dataset.drops[position]
                train = sorted((one for part in dataset.shards["train"] for one in part), key=dataset.key)
                half = len(dataset.shards["train"][0])
                dataset.shards["train"] = [train[:half], train[half:]]
                return
    raise AssertionError("no such row")


def in_train(dataset: Dataset, position: int) -> bool:
    group = dataset.records[position]["group"]
    return next(one for one in dataset.head.splits if group < (one.below or MODULUS)).name == "train"


def move_a_boundary(dataset: Dataset) -> None:
    first, second = dataset.shards["train"]
    first.append(second.pop(0))


def put_a_group_into_two_splits(dataset: Dataset) -> None:
    moved = dataset.shards["train"][0].pop(3)
    dataset.shards["validation"][0] = sorted([*dataset.shards["validation"][0], moved], key=dataset.key)


def name_two_splits_of_a_group(dataset: Dataset) -> None:
    """The list of moved groups puts a group of train into the splits of two others."""
    firsts = [dataset.records[dataset.shards[name][0][0]]["group"] for name in ("train", "validation")]
    group = next(
        record["group"]
        for record in dataset.records.values()
        if record["group"] not in firsts and in_train(dataset, record["position"])
    )
    dataset.moved = [(group, other) for other in firsts]


def swap_two_rows(dataset: Dataset) -> None:
    shard = dataset.shards["train"][1]
    shard[1], shard[2] = shard[2], shard[1]


FORGERIES: dict[Callable[[Dataset], None], str | None] = {
    keep_a_row_twice: "shard 1 of train should have",
    keep_two_rows_of_one_text: "are kept, and have the same text",
    keep_two_rows_of_one_id: "several documents with the id",
    name_two_splits_of_a_group: "is in two splits",
    put_a_group_into_two_splits: "of train should have",
    swap_two_rows: "shard 1 of train has other rows than the sidecars and the decision give",
    # They keep every law of a dataset, but are not what the rules give.
    drop_the_other_row: None,
    move_a_boundary: None,
    nothing: None,
}


@pytest.mark.parametrize("forge", FORGERIES, ids=lambda forge: forge.__name__)
async def test_verify_finds_a_forged_decision(
    store: MemoryStore, objects: dict[str, bytes], tmp_path: Path, forge: Callable[[Dataset], None]
) -> None:
    dataset = opened(objects, tmp_path)
    forge(dataset)
    await publish(store, dataset)
    said = FORGERIES[forge]
    assert (await Verifier(store, LAYOUT.root).run()).ok
    report = await verified(store, tmp_path)
    assert report.ok == (said is None), report.problems
    assert said is None or any(said in problem for problem in report.problems), report.problems
    report = await verified(store, tmp_path, decision=True)
    assert report.decision
    assert report.ok == (forge is nothing), report.problems
    if said is None and forge is not nothing:
        assert any("recomputed" in problem for problem in report.problems), report.problems


async def test_a_forger_who_changes_nothing_writes_the_same_bytes(
    store: MemoryStore, objects: dict[str, bytes], tmp_path: Path
) -> None:
    await publish(store, opened(objects, tmp_path))
    assert {info.key: await store.get(info.key) async for info in store.list("")} == objects


async def test_without_the_extra_verify_says_what_it_did_not_check(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardline.services.decision_check.missing_packages", lambda: ["duckdb"])
    report = await verified(store, tmp_path)
    assert (report.ok, report.notes) == (True, [NOT_CHECKED.format(names="duckdb")])
    with pytest.raises(UsageError, match="cannot be recomputed without duckdb"):
        await verified(store, tmp_path, decision=True)


async def test_a_dataset_in_a_folder_is_decided_again(objects: dict[str, bytes], tmp_path: Path) -> None:
    for key, body in objects.items():
        await DirectoryStore(tmp_path).create(key, body)
    settings = Settings(spool_dir=tmp_path)
    report = await verify_dataset(str(tmp_path / LAYOUT.root), settings, decision=True)
    assert (report.ok, report.decision, report.notes) == (True, True, [])


async def test_a_dataset_that_is_not_assembled_has_no_decision(tmp_path: Path) -> None:
    (tmp_path / "sample.jsonl").write_bytes(orjson.dumps(DOCUMENTS[0]))
    spec = job(source={"type": "files", "paths": ["sample.jsonl"]}, output={"shard_bytes": 4096})
    await run_embedded(spec, DirectoryStore(tmp_path / "out"), tmp_path)
    report = await verify_dataset(str(tmp_path / "out" / Layout.of(spec).root), Settings(), decision=True)
    assert report.notes == [f"{NOT_RECOMPUTED}: the dataset is not assembled"]
    assert (report.ok, report.decision) == (True, False)
