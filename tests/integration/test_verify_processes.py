"""`verify` with several processes gives the report of one process."""

import asyncio
import multiprocessing
import random
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest

import shardline
from shardline import errors
from shardline.api.results import VerifyProgress
from shardline.services import segment_processes
from shardline.services.local_run import verify_dataset
from shardline.services.sample import write_sample
from shardline.services.wiring.stores import open_store_at
from shardline_common.dataset.chain import Chain, ChainRecord
from shardline_common.dataset.manifest import Manifest
from shardline_common.dataset.segment_check import CheckedSegment, SegmentChecker, SegmentRules
from shardline_common.dataset.segment_checks import SegmentChecks
from shardline_common.dataset.shard_record import ShardRecord
from shardline_common.dataset.verify import Report, Verifier
from shardline_common.errors import StoreUnavailable
from shardline_common.job.columns import Columns
from shardline_common.job.names import Layout
from shardline_common.memory.store import MemoryStore
from shardline_common.settings.load import Settings, load_settings
from shardline_common.storage.directory import DirectoryStore
from tests.services import S3
from tests.support.embedded import first_key, run_embedded, small_job

SPEC = small_job(quality={"min_score": 0.6, "keep_rejected": True}, output={"shard_bytes": 32_768})
ROOT = Layout.of(SPEC).root
Tamper = Callable[[bytes], bytes | None]
DAMAGE: dict[str, tuple[str, Tamper]] = {
    "nothing": ("manifest.json", lambda body: body),
    "a row": ("data/train/part-00001", lambda body: body.replace(b'"source":"files"', b'"source":5')),
    "a cut": ("data/train/part-00000", lambda body: body[: len(body) // 2]),
    "a lost shard": ("data/train/part-00002", lambda _: None),
    "a rejected document": ("rejected/part-00000", lambda body: body.replace(b"below", b"above")),
    "a dead letter": ("dead-letters/part-00002", lambda body: body[5:]),
    "a long line": ("data/train/part-00000", lambda body: body + b"x" * (6 << 20)),
    "a lost record": ("_state/chain/00001/", lambda _: None),
    "a record": ("_state/chain/00001/", lambda body: body.replace(b'"words": ', b'"words": 1', 1)),
    "counts": ("manifest.json", lambda body: body.replace(b'"messages": ', b'"messages": 1')),
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset in a folder, of more than 30 segments."""
    folder = tmp_path_factory.mktemp("processes")
    write_sample(folder / "sample.jsonl", 600, broken=True)
    asyncio.run(run_embedded(SPEC, DirectoryStore(folder / "out"), folder))
    return folder / "out"


async def in_memory(dataset: Path) -> MemoryStore:
    """A copy of the dataset."""
    store, folder = MemoryStore(), DirectoryStore(dataset)
    async for info in folder.list(ROOT):
        await store.create(info.key, await folder.get(info.key))
    return store


async def damage(store: MemoryStore | DirectoryStore, prefix: str, tamper: Tamper) -> None:
    key = await first_key(store, ROOT + prefix)  # type: ignore[arg-type]
    body = tamper(await store.get(key))
    await store.delete([key])
    if body is not None:
        await store.create(key, body)


class SegmentsShuffled:
    """Checks five segments at once, which end in any order."""

    def __init__(self, store: MemoryStore, rules: SegmentRules) -> None:
        self._checker = SegmentChecker(store, rules)
        self._random = random.Random(19)
        self._order = list[tuple[int, int]]()
        self._running = 0
        self.most = 0
        self.shuffled = False

    async def __aenter__(self) -> SegmentChecks:
        return SegmentChecks(self._check, 5)

    async def __aexit__(self, *_: object) -> None:
        self.shuffled = self._order != sorted(self._order)

    async def _check(self, record: ChainRecord | ShardRecord) -> CheckedSegment:
        self._running += 1
        self.most = max(self.most, self._running)
        for _ in range(self._random.randrange(60)):
            await asyncio.sleep(0)
        checked = await self._checker.check(record)
        self._running -= 1
        if isinstance(record, ChainRecord):
            self._order.append((record.partition, record.first))
        return checked


async def reported(store: MemoryStore, *, at_once: bool) -> tuple[Report, list[tuple[int, int]]]:
    """The report, and the progress up to it."""
    progress, opened = list[tuple[int, int]](), list[SegmentsShuffled]()

    def open_checks(rules: SegmentRules, _: int) -> SegmentsShuffled:
        opened.append(SegmentsShuffled(store, rules))
        return opened[-1]

    report = await Verifier(
        store,
        ROOT,
        lambda done, total: progress.append((done, total)),
        open_checks=open_checks if at_once else None,
    ).run()
    if report.ok and at_once:
        assert (opened[0].most, opened[0].shuffled) == (5, True)
    return report, progress


@pytest.mark.parametrize("kind", DAMAGE)
async def test_segments_that_are_checked_at_once_are_reported_in_order(dataset: Path, kind: str) -> None:
    store = await in_memory(dataset)
    await damage(store, *DAMAGE[kind])
    if kind == "counts":
        # The sentence about a partition stands behind that of its last segment.
        keys = [info.key async for info in store.list(f"{ROOT}data/train/part-00000")]
        await damage(store, keys[-1].removeprefix(ROOT), DAMAGE["a cut"][1])
    one, several = await reported(store, at_once=False), await reported(store, at_once=True)
    assert one == several
    assert one[0].ok is (kind == "nothing"), one[0].problems


async def test_an_outage_of_the_store_is_raised_in_both_ways(dataset: Path) -> None:
    store = await in_memory(dataset)
    key = await first_key(store, f"{ROOT}data/train/part-00001")

    def fault(when: str, call: str, of: str) -> None:
        if (when, call, of) == ("before", "get", key):
            raise StoreUnavailable("the store is down", hint="wait")

    failing = MemoryStore(fault)
    failing._objects = store._objects
    for at_once in (False, True):
        with pytest.raises(StoreUnavailable, match="is down"):
            await reported(failing, at_once=at_once)


@pytest.fixture
def small_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every dataset is large enough for as many processes as are asked for."""
    monkeypatch.setattr(segment_processes, "_BYTES_OF_PROCESS", 1)


@pytest.mark.usefixtures("small_processes")
async def test_three_processes_report_what_one_reports(dataset: Path, tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    async for info in DirectoryStore(dataset).list(ROOT):
        await store.create(info.key, await DirectoryStore(dataset).get(info.key))
    for damaged in (False, True):
        if damaged:
            for kind in ("a row", "a cut", "a lost shard", "a rejected document", "a dead letter"):
                await damage(store, *DAMAGE[kind])
        reports, progresses = [], []
        for processes in (1, 3):
            progress = list[VerifyProgress]()
            uri = tmp_path / ROOT
            reports.append(await shardline.verify(uri, processes=processes, on_progress=progress.append))
            progresses.append(progress)
        assert reports[0] == reports[1]
        assert progresses[0] == progresses[1]
        assert (reports[0].ok, len(reports[0].problems) > 5) == (not damaged, damaged)


async def test_fewer_than_one_process_is_refused() -> None:
    with pytest.raises(errors.UsageError, match="0 processes"):
        await shardline.verify("datasets", processes=0)


@pytest.mark.usefixtures("small_processes")
async def test_processes_open_the_store_on_s3_with_the_keys_of_the_settings(
    dataset: Path, seaweed: S3
) -> None:
    store, folder = DirectoryStore(dataset), secrets.token_hex(4)
    settings = load_settings(environ=seaweed.env).settings
    async with open_store_at(f"s3://{seaweed.bucket}/{folder}", settings) as remote:
        async for info in store.list(ROOT):
            await remote.create(info.key, await store.get(info.key))
    report = await verify_dataset(f"s3://{seaweed.bucket}/{folder}/{ROOT}", settings, processes=2)
    assert (report.ok, report.problems) == (True, [])
    assert report == await verify_dataset(str(dataset / ROOT), settings, processes=1)


async def opened_record(store: DirectoryStore) -> tuple[SegmentRules, ChainRecord]:
    """The rules of the dataset, and its first chain record."""
    manifest = Manifest.decode(await store.get(f"{ROOT}manifest.json"))
    record = await anext(aiter(Chain(store, Layout(ROOT), 0).records()))
    columns = Columns.from_json(manifest.rows_schema.columns)
    return SegmentRules(Layout(ROOT), columns, manifest.job.max_document_bytes, shards_only=False), record


@pytest.mark.usefixtures("small_processes")
async def test_segments_of_killed_processes_are_checked_here(
    dataset: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = DirectoryStore(dataset)
    rules, record = await opened_record(store)
    before = set(multiprocessing.active_children())
    async with segment_processes.open_checks(store, str(dataset), Settings(), 2, rules, 100) as checks:
        whole = await checks.check(record)
        workers = set(multiprocessing.active_children()) - before
        assert (len(workers), checks.at_once) == (2, 4)
        for worker in workers:
            worker.kill()
        assert [await checks.check(record) for _ in range(3)] == [whole] * 3
    assert (whole.problems, bool(whole.objects)) == ([], True)
    assert caplog.text.count("was killed") == 1
    assert not set(multiprocessing.active_children()) & workers


@pytest.mark.parametrize(("processes", "row_bytes"), [(1, 1 << 40), (64, (1 << 29) - 1)])
async def test_no_process_is_started_where_it_does_not_pay(
    dataset: Path, monkeypatch: pytest.MonkeyPatch, processes: int, row_bytes: int
) -> None:
    monkeypatch.setattr(segment_processes, "open_processes", None)
    store = DirectoryStore(dataset)
    rules, record = await opened_record(store)
    opened = segment_processes.open_checks(store, str(dataset), Settings(), processes, rules, row_bytes)
    async with opened as checks:
        assert checks.at_once == 1
        assert not (await checks.check(record)).problems
