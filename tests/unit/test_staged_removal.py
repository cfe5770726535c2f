"""Staged rows are removed with their job and when it is completed, late ones by a sweep; others stay."""

import asyncio
from typing import Any

import pytest

from shardline.services.replace import delete_old_dataset, find_old_job
from shardline_common.dataset.staged import needs_staged
from shardline_common.errors import StoreUnavailable
from shardline_common.job.names import Layout, job_key, job_of_staged
from shardline_common.job.spec import JobSpec
from shardline_common.job.state import JobState, State
from shardline_common.memory.broker import MemoryBroker
from shardline_common.memory.store import MemoryStore
from shardline_common.runtime.clock import SystemClock
from shardline_common.runtime.unexpected import UnexpectedErrors
from shardline_producer.acceptance import accept
from shardline_producer.cleanup import DatasetDeletion
from shardline_producer.staged_sweep import remove_unneeded, sweep_staged
from shardline_producer.topics import ensure_system_topics
from tests.make import job
from tests.themis_reading import InstantClock

ASSEMBLED = job(output={"layout": "assembled"})
SEGMENTS = [(0, 0), (0, 70), (1, 0)]


async def keys(store: MemoryStore, prefix: str = "") -> list[str]:
    return [info.key async for info in store.list(prefix)]


async def dataset(store: MemoryStore, spec: JobSpec = ASSEMBLED) -> Layout:
    """The objects of a completed dataset with its staged rows, by their keys only."""
    layout = Layout.of(spec)
    await accept(store, spec, SystemClock())
    for partition, first in SEGMENTS:
        for key in (layout.records, layout.bands, layout.signatures, layout.chain_record, layout.staged):
            await store.create(key(partition, first), b"x")
        await store.create(layout.rejected(partition, first), b"x")
    await store.create(layout.step("ids"), b"x")
    for number in range(2):
        await store.create(layout.drops("train", number), b"x")
        await store.create(layout.shard("train", number, 2), b"x")
        await store.create(layout.shard_record("train", number), b"x")
    for one in (
        layout.plan,
        layout.decision,
        layout.outcome(1),
        layout.manifest,
        layout.card,
        layout.success,
    ):
        await store.create(one, b"x")
    return layout


NEIGHBOURS = (
    "_staged/test/other/rows/part-00000-000000000000.jsonl",
    "_staged/test-2/test-2/rows/part-00000-000000000000.jsonl",
    "_staged/readme.txt",
    "test/other/_SUCCESS",
)


async def with_neighbours() -> MemoryStore:
    store = MemoryStore()
    for key in NEIGHBOURS:
        await store.create(key, b"x")
    return store


@pytest.mark.parametrize(
    ("state", "output", "needed"),
    [
        (State.QUEUED, {}, True),
        (State.RUNNING, {}, True),
        (State.COMPLETING, {}, True),
        (State.FAILED, {}, True),
        (State.CANCELLED, {}, True),
        (State.COMPLETED, {}, False),
        (State.COMPLETED, {"keep_staged": True}, True),
        (State.DELETED, {}, False),
        (State.DELETED, {"keep_staged": True}, False),
    ],
)
async def test_a_sweep_removes_the_rows_of_completed_and_deleted_jobs(
    state: State, output: dict[str, Any], needed: bool
) -> None:
    store = await with_neighbours()
    spec = job(output={"layout": "assembled"} | output)
    late = Layout.of(spec).staged(3, 12_000)
    await store.create(late, b"of a worker that was paused")
    own = JobState(spec, state=state)
    assert needs_staged(own.spec, own.state) == needed
    await remove_unneeded(store, {"test": own}.get)
    assert sorted(await keys(store)) == sorted([*NEIGHBOURS, late] if needed else NEIGHBOURS)


async def test_rows_of_jobs_of_other_producers_and_of_other_names_are_kept() -> None:
    store = await with_neighbours()
    foreign = "_staged/another-name/test/rows/part-00000-000000000000.jsonl"
    await store.create(foreign, b"x")
    await remove_unneeded(store, {"test": JobState(ASSEMBLED, state=State.COMPLETED)}.get)
    assert sorted(await keys(store)) == sorted([*NEIGHBOURS, foreign])


async def test_a_foreign_folder_that_sorts_first_does_not_hide_the_rows_of_a_job() -> None:
    store = await with_neighbours()
    foreign, late = "_staged/a/test/rows/x", Layout.of(ASSEMBLED).staged(3, 12_000)
    for key in (foreign, late):
        await store.create(key, b"x")
    await remove_unneeded(store, {"test": JobState(ASSEMBLED, state=State.COMPLETED)}.get)
    assert sorted(await keys(store)) == sorted([*NEIGHBOURS, foreign])


@pytest.mark.parametrize(
    ("key", "job_id"),
    [
        (Layout.of(ASSEMBLED).staged(0, 0), "test"),
        (Layout.of(ASSEMBLED).step("ids"), "test"),
        ("_staged/a/laws-2026/rows/x", "laws-2026"),
        ("_staged/readme.txt", None),
        ("_staged/a/b", None),
        ("_plans/a/b/c", None),
        ("x/_staged/a/b/c", None),
    ],
)
def test_the_job_of_a_staged_object_is_in_its_key(key: str, job_id: str | None) -> None:
    assert job_of_staged(key) == job_id


async def test_a_sweep_goes_on_after_an_outage_and_after_a_bug(caplog: pytest.LogCaptureFixture) -> None:
    faults: list[Exception] = [StoreUnavailable("away"), ZeroDivisionError("a bug")]

    def fault(_when: str, operation: str, _key: str) -> None:
        if operation == "list" and faults:
            raise faults.pop(0)

    store, clock = MemoryStore(fault), InstantClock()
    late = Layout.of(ASSEMBLED).staged(0, 0)
    await store.create(late, b"x")
    states = {"test": JobState(ASSEMBLED, state=State.COMPLETED)}
    sweep = asyncio.create_task(sweep_staged(store, clock, 300.0, states.get, UnexpectedErrors()))
    async with asyncio.timeout(20):
        while late in store._objects:
            await asyncio.sleep(0)
    sweep.cancel()
    await asyncio.gather(sweep, return_exceptions=True)
    assert clock.seconds >= 1900.0
    assert "ZeroDivisionError" in caplog.text
    assert "that is completed were deleted" in caplog.text


@pytest.mark.parametrize("assembled", [True, False])
async def test_delete_removes_staged_rows(assembled: bool) -> None:
    store, broker = await with_neighbours(), MemoryBroker()
    await ensure_system_topics(broker, 1)
    spec = ASSEMBLED if assembled else job()
    layout = await dataset(store, spec)
    await DatasetDeletion(broker, store, JobState(spec), versions=False).run()
    left = [*NEIGHBOURS, job_key("test")]
    if not assembled:
        # A stream has none: nothing is looked for, and what somebody put there is not Shardline's.
        left += await keys(store, layout.staged_root)
    assert sorted(await keys(store)) == sorted(left)


class Killed(Exception):
    """The process was killed."""


async def test_a_replace_leaves_what_a_killed_run_could_have_left() -> None:
    whole = await with_neighbours()
    layout = await dataset(whole)
    for deletes in range(100):
        left = [deletes]

        def fault(_when: str, operation: str, _key: str, left: list[int] = left) -> None:
            if operation == "delete":
                left[0] -= 1
                if left[0] < 0:
                    raise Killed

        store = MemoryStore(fault)
        store._objects = dict(whole._objects)
        try:
            await delete_old_dataset(store, ASSEMBLED)
        except Killed:
            check_leftovers(set(store._objects), layout)
            store = MemoryStore.copy_of(store)
            assert await find_old_job(store, job()) == ASSEMBLED
            await delete_old_dataset(store, ASSEMBLED)
        else:
            break
        assert sorted(await keys(store)) == sorted(NEIGHBOURS), deletes
    assert sorted(await keys(store)) == sorted(NEIGHBOURS)
    assert deletes > len(SEGMENTS) * 6


def check_leftovers(names: set[str], layout: Layout) -> None:
    """Whatever says that something is there is right, so the old job could go on."""
    shards = {layout.shard_record("train", n): layout.shard("train", n, 2) for n in range(2)}
    for record, shard in shards.items():
        assert record not in names or shard in names
    drops = {layout.drops("train", number) for number in range(2)}
    assert layout.decision not in names or drops <= names
    for record in [*shards, layout.decision]:
        assert layout.success not in names or record in names
    for partition in (0, 1):
        own = [one for one in SEGMENTS if one[0] == partition]
        records = [layout.chain_record(*one) in names for one in own]
        assert records == sorted(records, reverse=True)
        for one, is_there in zip(own, records, strict=True):
            parts = (layout.staged, layout.records, layout.bands, layout.signatures, layout.rejected)
            assert not is_there or all(part(*one) in names for part in parts)
            # Without the plan, nothing may stand that another content would have to replace.
            assert layout.plan in names or not any(part(*one) in names for part in parts)
    assert job_key("test") in names
