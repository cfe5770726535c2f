"""Whole jobs in one process on the in-memory store: options, lost requests, faults and repeated runs."""

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from shardline.services.embedded import EmbeddedRun
from shardline.services.sample import write_sample
from shardline.services.wiring.sources import source_factory
from shardline_common.dataset.chain import ChainRecord
from shardline_common.errors import ObjectExists, ObjectMissing, StoreUnavailable
from shardline_common.job.names import Layout
from shardline_common.job.outcome import read_outcome
from shardline_common.job.state import JobState, State
from shardline_common.memory.store import MemoryStore
from shardline_common.runtime.clock import SystemClock
from shardline_common.settings.load import Settings
from shardline_common.telemetry.metrics import Metrics
from shardline_consumer.attempt_consumer import AttemptConsumer
from shardline_consumer.finish import Finisher
from shardline_producer.attempt import AttemptRun
from shardline_producer.context import ProducerPolicy
from tests.support.embedded import DOCUMENTS, completed, first_key, run_embedded, small_job, verify


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sample")
    write_sample(path / "sample.jsonl", DOCUMENTS)
    return path


@pytest.mark.parametrize("part", [AttemptConsumer, AttemptRun])
async def test_a_cancelled_task_is_started_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, part: Any
) -> None:
    begun = 0
    whole = part.run

    async def cancelled_at_first(one: Any) -> Any:
        nonlocal begun
        begun += 1
        if begun == 1:
            raise asyncio.CancelledError
        return await whole(one)

    monkeypatch.setattr(part, "run", cancelled_at_first)
    async with asyncio.timeout(60):
        await completed(small_job(), MemoryStore(), folder)
    assert begun == 2


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
async def test_the_digest_does_not_depend_on_compression(folder: Path, compression: str) -> None:
    plain = await completed(small_job(), MemoryStore(), folder)
    output = {"shard_bytes": 65_536, "compression": compression}
    packed = await completed(small_job(output=output), MemoryStore(), folder)
    assert packed.digest == plain.digest
    assert packed.shards > 3


async def test_validation_split_and_rejected_documents(folder: Path) -> None:
    store = MemoryStore()
    spec = small_job(
        output={"shard_bytes": 65_536, "validation_fraction": 0.2}, quality={"keep_rejected": True}
    )
    report = await completed(spec, store, folder)
    manifest = orjson.loads(await store.get(Layout.of(spec).manifest))
    share = manifest["splits"]["validation"]["documents"] / DOCUMENTS
    assert 0.15 < share < 0.25
    rejected: list[dict[str, Any]] = []
    async for info in store.list(Layout.of(spec).root + "rejected/"):
        rejected += map(orjson.loads, (await store.get(info.key)).splitlines())
    assert len(rejected) == sum(report.rejected.values())
    assert {line["reason"] for line in rejected} == set(report.rejected)
    card = (await store.get(Layout.of(spec).card)).decode()
    assert "- split: validation" in card


@pytest.mark.parametrize("count", [0, 1, 2])
async def test_fewer_documents_than_partitions(tmp_path: Path, count: int) -> None:
    write_sample(tmp_path / "sample.jsonl", count)
    store, spec = MemoryStore(), small_job()
    view = await run_embedded(spec, store, tmp_path)
    assert view.state.state == "completed", view.to_json()
    report = await verify(spec, store)
    assert report.ok, report.problems
    assert report.rows + sum(report.rejected.values()) == count


async def test_lost_responses_and_conflicts_change_nothing(folder: Path) -> None:
    expected = await completed(small_job(), MemoryStore(), folder)
    seen: set[tuple[str, str]] = set()

    def fault(when: str, operation: str, key: str) -> None:
        # Every first request is lost, and the answer of every create that was applied.
        if operation in ("create", "get") and "_probe" not in key and (when, key) not in seen:
            seen.add((when, key))
            raise StoreUnavailable("lost")

    metrics, store = Metrics(), MemoryStore(fault)
    view = await run_embedded(small_job(), store, folder, metrics)
    assert view.state.state == "completed", view.to_json()
    assert any(when == "after" and "/data/" in key for when, key in seen)
    assert any(when == "after" and "/chain/" in key for when, key in seen)
    report = await verify(small_job(), MemoryStore.copy_of(store))
    assert (report.ok, report.digest) == (True, expected.digest)


async def test_a_chain_record_deleted_while_read_fails_no_job(folder: Path) -> None:
    gone: list[str] = []

    def fault(when: str, operation: str, key: str) -> None:
        if (when, operation) == ("before", "get") and "/chain/" in key and not gone:
            gone.append(key)
            raise ObjectMissing("deleted since it was listed")

    await completed(small_job(), MemoryStore(fault), folder)
    assert len(gone) == 1


async def test_an_object_deleted_while_compared_fails_no_job(folder: Path) -> None:
    gone: list[str] = []

    def fault(when: str, operation: str, key: str) -> None:
        if (when, operation) == ("before", "create") and key == layout.chain_record(0, 0) and not gone:
            gone.append(key)
            raise ObjectExists("so it seemed")

    spec = small_job()
    layout = Layout.of(spec)
    await completed(spec, MemoryStore(fault), folder)
    assert len(gone) == 1


async def test_progress_is_complete_without_the_events_of_workers(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(consumer: AttemptConsumer, _: ChainRecord) -> None:
        consumer._progress.set()

    monkeypatch.setattr(AttemptConsumer, "segment_committed", silent)
    view = await run_embedded(small_job(), MemoryStore(), folder)
    assert view.progress.chained == view.state.produced == DOCUMENTS
    assert view.progress.rows + sum(view.progress.rejected.values()) == DOCUMENTS


async def test_metrics_count_what_was_committed(folder: Path) -> None:
    class Kept(Metrics):
        def remove_job(self, job: str) -> None:
            """The series stay, so that the test can read them."""

    metrics, store, spec = Kept(), MemoryStore(), small_job()
    await run_embedded(spec, store, folder, metrics)
    report = await verify(spec, store)

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(f"shardline_{name}", {"dataset_job": "test"} | labels)

    assert value("documents_written_total") == report.rows
    assert value("shards_written_total") == report.shards
    assert value("documents_produced_total") == DOCUMENTS
    assert value("documents_rejected_total", reason="empty") == report.rejected["empty"]
    # The last look is at the whole.
    assert value("job_documents", stage="produced") == DOCUMENTS
    assert value("job_documents", stage="kept") == report.rows
    assert (value("job_progress_ratio"), value("lag_documents")) == (1, 0)


async def test_running_a_completed_job_again_changes_nothing(folder: Path) -> None:
    store, spec = MemoryStore(), small_job()
    first = await completed(spec, store, folder)
    view = await run_embedded(spec, store, folder)
    assert (view.state.state, view.state.attempt) == ("completed", 1)
    assert (view.state.source_count, view.state.produced, view.progress.chained) == (DOCUMENTS,) * 3
    assert (await verify(spec, store)).digest == first.digest


async def test_a_changed_source_does_not_overwrite_the_dataset(folder: Path, tmp_path: Path) -> None:
    store, spec = MemoryStore(), small_job()
    await completed(spec, store, folder)
    layout = Layout.of(spec)
    victim = await first_key(store, layout.root + "data/")
    before = await store.get(victim)
    with pytest.raises(ObjectExists):
        await store.create(victim, b"other")
    await store.delete([layout.success, layout.manifest, layout.card, layout.outcome(1)])
    await store.delete([info.key async for info in store.list(layout.root + "_state/")])
    write_sample(tmp_path / "sample.jsonl", DOCUMENTS, seed=2)
    view = await run_embedded(spec, store, tmp_path)
    assert (view.state.state, view.state.code) == ("failed", "output_not_empty")
    # A planner of the changed source has overlooked the shards.
    planned = MemoryStore()
    await run_embedded(spec, planned, tmp_path)
    await store.create(layout.plan, await planned.get(layout.plan))
    view = await run_embedded(spec, store, tmp_path)
    assert (view.state.state, view.state.code) == ("failed", "not_reproducible")
    assert await store.get(victim) == before


async def test_the_next_run_retries_a_failed_one(folder: Path, tmp_path: Path) -> None:
    store, spec = MemoryStore(), small_job()
    view = await run_embedded(spec, store, tmp_path)
    assert (view.state.state, view.state.code) == ("failed", "source_invalid")
    view = await run_embedded(spec, store, folder)
    assert (view.state.state, view.state.attempt) == ("completed", 2)
    assert (await verify(spec, store)).ok


async def test_a_bug_in_the_worker_fails_the_job_with_its_message(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_self: Finisher, _state: JobState) -> bool:
        raise ZeroDivisionError("by a test")

    with monkeypatch.context() as patch:
        patch.setattr(Finisher, "try_finish", broken)
        store, spec = MemoryStore(), small_job()
        view = await run_embedded(spec, store, folder)
        assert (view.state.state, view.state.code) == ("failed", "internal")
        assert "ZeroDivisionError: by a test" in (view.state.message or "")
    await completed(spec, store, folder)


async def test_concurrent_finishers_agree_on_the_outcome(folder: Path) -> None:
    store, spec = MemoryStore(), small_job()
    view = await run_embedded(spec, store, folder)
    layout = Layout.of(spec)
    names = [layout.manifest, layout.card, layout.success]
    before = [await store.get(name) for name in names]
    outcome = await read_outcome(store, layout, 1)
    await store.delete([*names, layout.outcome(1)])
    state = view.state
    state.state = State.COMPLETING
    finishers = [Finisher(store, SystemClock(), state) for _ in range(5)]
    assert all(await asyncio.gather(*(finisher.try_finish(state) for finisher in finishers)))
    after = [await store.get(name) for name in names]
    decided = await read_outcome(store, layout, 1)
    assert outcome is not None
    assert decided is not None
    assert [text.replace(decided.at.encode(), outcome.at.encode()) for text in after[:2]] == before[:2]
    assert (await verify(spec, store)).ok
    # A cancel that comes later obeys; one short count is no completion.
    state.partitions[0].sequence += 1
    await store.delete([*names, layout.outcome(1)])
    assert not await finishers[0].try_finish(state)
    state.partitions[0].sequence -= 1
    state.source_count += 1
    assert await finishers[0].try_finish(state)
    decided = await read_outcome(store, layout, 1)
    assert decided is not None
    assert (decided.ending, decided.code) == ("failed", "conservation")


async def test_a_run_reports_its_dead_letters(tmp_path: Path) -> None:
    write_sample(tmp_path / "sample.jsonl", 100, broken=True)
    source = source_factory(Settings(), tmp_path, confined=True, remote=None)
    embedded = EmbeddedRun(
        MemoryStore(), SystemClock(), Metrics(), source, ProducerPolicy(progress_seconds=0.05), 1 << 28
    )
    ending = await embedded.run(small_job(), lambda _: None)
    assert [letter.reason for letter in ending.dead_letters][:3] == [
        "invalid_json",
        "invalid_utf8",
        "invalid_json",
    ]
    assert (
        ending.dead_letters[0].hint == "sample.jsonl:2: the line is not valid JSON (NaN and Infinity are not)"
    )
