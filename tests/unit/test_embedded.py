"""Whole jobs in one process on the in-memory store: options, faults, and what `verify` says of tampering."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from shardline.services.client import JobView
from shardline.services.embedded import EmbeddedRun
from shardline.services.sample import write_sample
from shardline.services.wiring.sources import source_factory
from shardline_common.dataset.chain import ChainRecord
from shardline_common.dataset.verify import Report, Verifier
from shardline_common.errors import ObjectExists, ObjectMissing, StoreUnavailable
from shardline_common.job.names import Layout
from shardline_common.job.outcome import read_outcome
from shardline_common.job.spec import JobSpec
from shardline_common.job.state import JobState, State
from shardline_common.memory.store import MemoryStore
from shardline_common.runtime.clock import SystemClock
from shardline_common.settings.load import Settings
from shardline_common.telemetry.metrics import Metrics
from shardline_consumer.attempt_consumer import AttemptConsumer
from shardline_consumer.finish import Finisher
from shardline_producer.attempt import AttemptRun
from shardline_producer.context import ProducerPolicy
from tests.make import job

DOCUMENTS = 1200


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sample")
    write_sample(path / "sample.jsonl", DOCUMENTS)
    return path


def sample_job(**changes: Any) -> JobSpec:
    body = {
        "source": {"type": "files", "paths": ["sample.jsonl"]},
        "output": {"shard_bytes": 65_536},
        "partitions": 3,
    }
    return job(**(body | changes))


async def run(spec: JobSpec, store: MemoryStore, folder: Path, metrics: Metrics | None = None) -> JobView:
    source = source_factory(Settings(), folder, confined=True, remote=None)
    limits = ProducerPolicy(progress_seconds=0.05)
    embedded = EmbeddedRun(store, SystemClock(), metrics or Metrics(), source, limits, 1 << 28)
    return (await embedded.run(spec, lambda _: None)).view


async def verify(spec: JobSpec, store: MemoryStore) -> Report:
    return await Verifier(store, Layout.of(spec).root).run()


async def completed(spec: JobSpec, store: MemoryStore, folder: Path) -> Report:
    view = await run(spec, store, folder)
    assert view.state.state == "completed", view.to_json()
    report = await verify(spec, store)
    assert report.ok, report.problems
    assert report.rows + sum(report.rejected.values()) + sum(report.dead_letters.values()) == DOCUMENTS
    return report


@pytest.mark.parametrize("part", [AttemptConsumer, AttemptRun])
async def test_what_a_client_cancels_is_begun_again(
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
        await completed(sample_job(), MemoryStore(), folder)
    assert begun == 2


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
async def test_the_digest_does_not_hang_on_compression(folder: Path, compression: str) -> None:
    plain = await completed(sample_job(), MemoryStore(), folder)
    output = {"shard_bytes": 65_536, "compression": compression}
    packed = await completed(sample_job(output=output), MemoryStore(), folder)
    assert packed.digest == plain.digest
    assert packed.shards > 3


async def test_validation_and_rejected(folder: Path) -> None:
    store = MemoryStore()
    spec = sample_job(
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
    store, spec = MemoryStore(), sample_job()
    view = await run(spec, store, tmp_path)
    assert view.state.state == "completed", view.to_json()
    report = await verify(spec, store)
    assert report.ok, report.problems
    assert report.rows + sum(report.rejected.values()) == count


async def test_lost_answers_and_refusals_change_nothing(folder: Path) -> None:
    expected = await completed(sample_job(), MemoryStore(), folder)
    seen: set[tuple[str, str]] = set()

    def fault(when: str, operation: str, key: str) -> None:
        # Every first request is lost, and the answer of every create that was applied.
        if operation in ("create", "get") and "_probe" not in key and (when, key) not in seen:
            seen.add((when, key))
            raise StoreUnavailable("lost")

    metrics, store = Metrics(), MemoryStore(fault)
    view = await run(sample_job(), store, folder, metrics)
    assert view.state.state == "completed", view.to_json()
    assert any(when == "after" and "/data/" in key for when, key in seen)
    assert any(when == "after" and "/chain/" in key for when, key in seen)
    report = await verify(sample_job(), MemoryStore.holding(store))
    assert (report.ok, report.digest) == (True, expected.digest)


async def test_a_chain_record_that_goes_while_it_is_read_fails_no_job(folder: Path) -> None:
    gone: list[str] = []

    def fault(when: str, operation: str, key: str) -> None:
        if (when, operation) == ("before", "get") and "/chain/" in key and not gone:
            gone.append(key)
            raise ObjectMissing("deleted since it was listed")

    await completed(sample_job(), MemoryStore(fault), folder)
    assert len(gone) == 1


async def test_an_object_that_goes_while_it_is_compared_fails_no_job(folder: Path) -> None:
    gone: list[str] = []

    def fault(when: str, operation: str, key: str) -> None:
        if (when, operation) == ("before", "create") and key == layout.link(0, 0) and not gone:
            gone.append(key)
            raise ObjectExists("so it seemed")

    spec = sample_job()
    layout = Layout.of(spec)
    await completed(spec, MemoryStore(fault), folder)
    assert len(gone) == 1


async def test_progress_is_whole_where_events_of_workers_are_lost(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(consumer: AttemptConsumer, _: ChainRecord) -> None:
        consumer._progress.set()

    monkeypatch.setattr(AttemptConsumer, "segment_committed", silent)
    view = await run(sample_job(), MemoryStore(), folder)
    assert view.progress.chained == view.state.produced == DOCUMENTS
    assert view.progress.rows + sum(view.progress.rejected.values()) == DOCUMENTS


async def test_metrics_tell_what_landed(folder: Path) -> None:
    class Kept(Metrics):
        def forget_job(self, job: str) -> None:
            """The series stay, so that the test can read them."""

    metrics, store, spec = Kept(), MemoryStore(), sample_job()
    await run(spec, store, folder, metrics)
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
    store, spec = MemoryStore(), sample_job()
    first = await completed(spec, store, folder)
    view = await run(spec, store, folder)
    assert (view.state.state, view.state.attempt) == ("completed", 1)
    assert (view.state.source_count, view.state.produced, view.progress.chained) == (DOCUMENTS,) * 3
    assert (await verify(spec, store)).digest == first.digest


async def test_another_source_is_not_written_over(folder: Path, tmp_path: Path) -> None:
    store, spec = MemoryStore(), sample_job()
    await completed(spec, store, folder)
    layout = Layout.of(spec)
    victim = await first_key(store, layout.root + "data/")
    before = await store.get(victim)
    with pytest.raises(ObjectExists):
        await store.create(victim, b"other")
    await store.delete([layout.success, layout.manifest, layout.card, layout.outcome(1)])
    await store.delete([info.key async for info in store.list(layout.root + "_state/")])
    write_sample(tmp_path / "sample.jsonl", DOCUMENTS, seed=2)
    view = await run(spec, store, tmp_path)
    assert (view.state.state, view.state.code) == ("failed", "not_reproducible")
    assert await store.get(victim) == before


async def test_a_failed_run_is_retried_by_the_next(folder: Path, tmp_path: Path) -> None:
    store, spec = MemoryStore(), sample_job()
    view = await run(spec, store, tmp_path)
    assert (view.state.state, view.state.code) == ("failed", "source_invalid")
    view = await run(spec, store, folder)
    assert (view.state.state, view.state.attempt) == ("completed", 2)
    assert (await verify(spec, store)).ok


async def first_key(store: MemoryStore, prefix: str) -> str:
    async for info in store.list(prefix):
        return info.key
    raise AssertionError(prefix)


async def test_a_bug_in_the_worker_fails_the_job_and_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_self: Finisher, _state: JobState) -> bool:
        raise ZeroDivisionError("by a test")

    with monkeypatch.context() as patch:
        patch.setattr(Finisher, "try_finish", broken)
        store, spec = MemoryStore(), sample_job()
        view = await run(spec, store, folder)
        assert (view.state.state, view.state.code) == ("failed", "internal")
        assert "ZeroDivisionError: by a test" in (view.state.message or "")
    await completed(spec, store, folder)


async def test_of_many_finishers_all_agree(folder: Path) -> None:
    store, spec = MemoryStore(), sample_job()
    view = await run(spec, store, folder)
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
    assert [text.replace(decided.at.encode(), outcome.at.encode()) for text in after] == before
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


async def test_dead_letters_of_a_run_are_told(tmp_path: Path) -> None:
    write_sample(tmp_path / "sample.jsonl", 100, broken=True)
    source = source_factory(Settings(), tmp_path, confined=True, remote=None)
    embedded = EmbeddedRun(
        MemoryStore(), SystemClock(), Metrics(), source, ProducerPolicy(progress_seconds=0.05), 1 << 28
    )
    ending = await embedded.run(sample_job(), lambda _: None)
    assert [letter.reason for letter in ending.dead_letters][:3] == [
        "invalid_json",
        "invalid_utf8",
        "invalid_json",
    ]
    assert (
        ending.dead_letters[0].hint == "sample.jsonl:2: the line is not valid JSON (NaN and Infinity are not)"
    )


Tamper = Callable[[bytes], bytes | None]


@pytest.mark.parametrize(
    ("folder_of", "tamper", "said"),
    [
        ("data/train/", lambda body: body.replace(b'"text":"', b'"text":"X', 1), "its sha256 is"),
        ("data/train/", lambda body: body[: len(body) // 2], "cut off"),
        ("data/train/", lambda body: body + body.split(b"\n")[0] + b"\n", "the chain says"),
        (
            "data/train/",
            lambda body: body.replace(b'"source":"files"', b'"source":5', 1),
            "source is not a str",
        ),
        ("data/train/", lambda _: None, "there is no"),
        ("_state/chain/00000/", lambda _: None, "the chain should continue at sequence 0"),
        ("_state/chain/00001/", lambda body: body.replace(b'"rows": ', b'"rows": 1', 1), "do not add up"),
        ("manifest.json", lambda body: body.replace(b'"digest": "', b'"digest": "0', 1), "the manifest says"),
        ("manifest.json", lambda body: body.replace(b'"count": ', b'"count": 1', 1), "the source counted"),
        ("manifest.json", lambda body: body[:50], "cannot be read"),
        ("manifest.json", lambda _: b"[]", "cannot be read"),
        ("manifest.json", lambda _: None, "there is no manifest.json"),
        ("_SUCCESS", lambda _: None, "there is no _SUCCESS"),
        ("_SUCCESS", lambda _: b"other", "_SUCCESS names another digest"),
    ],
)
async def test_verify_names_what_was_tampered_with(
    folder: Path, folder_of: str, tamper: Tamper, said: str
) -> None:
    store, spec = MemoryStore(), sample_job()
    await completed(spec, store, folder)
    key = await first_key(store, Layout.of(spec).root + folder_of)
    body = tamper(await store.get(key))
    await store.delete([key])
    if body is not None:
        await store.create(key, body)
    report = await verify(spec, store)
    assert not report.ok
    assert any(said in problem for problem in report.problems), report.problems


async def test_a_store_of_nothing_is_no_dataset() -> None:
    with pytest.raises(ObjectMissing):
        await MemoryStore().get("x")
    report = await Verifier(MemoryStore(), "").run()
    assert (report.ok, len(report.problems)) == (False, 1)
