"""Jobs with slices on the broker in memory: one producer and two, moves, failures, cancel, retry, delete."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from shardline.services.embedded import EmbeddedRun
from shardline.services.sample import write_sample
from shardline_common.errors import FailureCode, Fenced, JobFailed
from shardline_common.job.names import CHECKPOINTS, Layout
from shardline_common.job.spec import JobSpec
from shardline_common.job.state import JobState, State, checkpoint
from shardline_common.memory.broker import MemoryBroker
from shardline_common.memory.store import MemoryStore
from shardline_common.ports.broker import TransactionalWriter
from shardline_common.runtime.clock import SystemClock
from shardline_common.telemetry.metrics import Metrics
from shardline_producer.context import ProducerPolicy
from shardline_producer.slice_states import SliceStates, open_slices
from shardline_producer.sources.documents import DeadLetterReason, dead_letter
from shardline_producer.sources.source import InvalidDocument, SourceItem
from shardline_producer.topics import ensure_system_topics
from tests.simulation.simulated_source import documents
from tests.support.embedded import DOCUMENTS, completed, small_job
from tests.support.slice_system import PARTITIONS, GatedSource, SliceSystem, running, sliced_job

COUNT = 240
BROKEN = dead_letter(DeadLetterReason.INVALID_JSON, "in", b"{", sha256(b"{").hexdigest(), 1)
ITEMS = documents(COUNT)
IDS = Counter(f"doc-{number}" for number in range(1, COUNT + 1))


class LateBroker(MemoryBroker):
    """Commits `late` when the next transactional writer is opened, before it fences the others."""

    late: JobState | None = None

    @asynccontextmanager
    async def transactional(self, transactional_id: str) -> AsyncIterator[TransactionalWriter]:
        """A writer."""
        if (late := self.late) is not None:
            self.late = None
            await self.publish(CHECKPOINTS, [checkpoint(late)])
        async with super().transactional(transactional_id) as writer:
            yield writer


async def embedded_digest(spec: JobSpec, tmp_path: Path) -> str:
    """The digest of `run`: one process, one slot."""
    system = SliceSystem(GatedSource(ITEMS), tmp_path)
    policy = ProducerPolicy(progress_seconds=0.05)
    run = EmbeddedRun(
        system.store, SystemClock(), Metrics(), lambda _spec, _pages: system.source, policy, 1 << 28
    )
    async with asyncio.timeout(60):
        view = (await run.run(spec, lambda _: None)).view
    assert view.state.state == "completed", view.to_json()
    assert await system.ids(spec) == IDS
    return (await system.verified(spec)).digest or ""


@pytest.fixture(scope="module")
def digests() -> dict[int, str]:
    """The digests of undisturbed runs, by their number of slices."""
    return {}


async def undisturbed(digests: dict[int, str], spec: JobSpec, tmp_path: Path) -> str:
    if spec.slices not in digests:
        digests[spec.slices] = await embedded_digest(spec, tmp_path)
    return digests[spec.slices]


@pytest.mark.parametrize("producers", [1, 2])
async def test_the_digest_does_not_depend_on_the_number_of_producers(
    tmp_path: Path, digests: dict[int, str], producers: int
) -> None:
    spec = sliced_job()
    async with running(GatedSource(ITEMS), tmp_path, producers) as system:
        await system.client.submit(spec)
        view = await system.finished(spec)
        assert view.state.source_count == COUNT
        assert await system.ids(spec) == IDS
        report = await system.verified(spec)
        assert await system.slices(spec) == {}
    assert report.digest == await undisturbed(digests, spec, tmp_path)


async def test_a_source_with_fewer_ranges_leaves_the_other_partitions_empty(tmp_path: Path) -> None:
    spec, few = sliced_job(4), documents(2)
    async with running(GatedSource(few), tmp_path, 2) as system:
        await system.client.submit(spec)
        view = await system.finished(spec)
        report = await system.verified(spec)
        assert (view.state.source_count, report.rows) == (2, 2)
        assert view.state.notes["slices"] == "2 of 4 slices have documents: there are no more items"


async def test_one_range_is_read_as_by_a_job_without_slices(tmp_path: Path) -> None:
    one = documents(1)
    reports = []
    for slices in (1, 3):
        async with running(GatedSource(one), tmp_path, 1) as system:
            spec = sliced_job(slices)
            await system.client.submit(spec)
            await system.finished(spec)
            reports.append(await system.verified(spec))
    assert reports[0].digest == reports[1].digest


async def test_a_slice_moves_to_another_producer_and_goes_on_where_it_was(
    tmp_path: Path, digests: dict[int, str]
) -> None:
    spec, gate = sliced_job(), asyncio.Event()
    source = GatedSource(ITEMS, gate)
    async with running(source, tmp_path, 2) as system:
        await system.client.submit(spec)
        await system.until(spec, lambda view: view.state.slices == {"running": 3} and view.state.produced > 3)
        # Each of the producers reads a slice. The one that is left takes over the slices of the other.
        await system.producers[0].stop()
        gate.set()
        await system.finished(spec)
        assert await system.ids(spec) == IDS
        report = await system.verified(spec)
    assert len(source.begun) > 3
    assert report.digest == await undisturbed(digests, spec, tmp_path)


async def test_status_says_how_many_slices_wait_for_a_producer(tmp_path: Path) -> None:
    spec, gate = sliced_job(), asyncio.Event()
    async with running(GatedSource(ITEMS, gate), tmp_path, 1, slots=1) as system:
        await system.client.submit(spec)
        view = await system.until(
            spec, lambda view: view.state.slices.get("running") == 1 and view.state.progress > 0
        )
        assert view.to_json()["slices"] == {"queued": 2, "running": 1}
        assert view.waiting == "2 of 3 slices wait for a producer"
        assert 0 < view.state.progress < 1
        gate.set()
        view = await system.finished(spec)
        assert (view.waiting, view.state.slices) == (None, {})


async def retried(system: SliceSystem, spec: JobSpec) -> str:
    """The digest after a retry, which reads each document once."""
    await system.client.request_action(spec.job_id, "retry")
    await system.until(spec, lambda view: view.state.attempt == 2)
    await system.finished(spec)
    assert await system.ids(spec) == IDS
    return (await system.verified(spec)).digest


async def test_a_slice_that_fails_fails_the_attempt_and_a_retry_goes_on(
    tmp_path: Path, digests: dict[int, str]
) -> None:
    spec, source = sliced_job(), GatedSource(ITEMS)

    def broken(first: int) -> None:
        if first == COUNT // 3:
            raise JobFailed(FailureCode.SOURCE_CHANGED, "a file changed", hint="put it back")

    source.broken = broken
    async with running(source, tmp_path, 2) as system:
        await system.client.submit(spec)
        view = await system.finished(spec, "failed")
        assert view.state.code == "source_changed"
        assert view.state.message == "slice 1 of 3: a file changed; put it back"
        assert await system.slices(spec) == {}
        source.broken = lambda _: None
        digest = await retried(system, spec)
    assert digest == await undisturbed(digests, spec, tmp_path)


async def test_an_error_nobody_has_foreseen_in_a_slice_fails_the_attempt(tmp_path: Path) -> None:
    spec, source = sliced_job(), GatedSource(ITEMS)

    def broken(first: int) -> None:
        assert first == 0, "a bug of the source"

    source.broken = broken
    async with running(source, tmp_path, 1) as system:
        await system.client.submit(spec)
        view = await system.finished(spec, "failed")
        assert view.state.code == "internal"


async def test_cancel_stops_every_slice_and_a_retry_gives_the_same_dataset(
    tmp_path: Path, digests: dict[int, str]
) -> None:
    spec, gate = sliced_job(), asyncio.Event()
    source = GatedSource(ITEMS, gate)
    async with running(source, tmp_path, 2) as system:
        await system.client.submit(spec)
        await system.until(spec, lambda view: view.state.slices == {"running": 3})
        await system.client.request_action(spec.job_id, "cancel")
        await system.finished(spec, "cancelled")
        assert await system.slices(spec) == {}
        gate.set()
        digest = await retried(system, spec)
    assert digest == await undisturbed(digests, spec, tmp_path)


async def test_delete_of_a_running_job_leaves_no_slice_and_no_object(tmp_path: Path) -> None:
    spec, gate = sliced_job(), asyncio.Event()
    async with running(GatedSource(ITEMS, gate), tmp_path, 2) as system:
        await system.client.submit(spec)
        await system.until(spec, lambda view: view.state.slices == {"running": 3})
        await system.client.request_action(spec.job_id, "delete")
        await system.until(spec, lambda view: view.state.state == "deleted")
        assert await system.slices(spec) == {}
        left = [info.key async for info in system.store.list(Layout.of(spec).root)]
        assert left == []


async def test_the_limits_of_dead_letters_count_over_all_slices(tmp_path: Path) -> None:
    """One slice has dead letters alone, which is no reason to fail."""
    broken = [
        SourceItem(item.position, InvalidDocument(f"in:{number}", BROKEN), 10)
        for number, item in enumerate(ITEMS[:12])
    ]
    source = GatedSource([*broken, *ITEMS[12:]])
    for allowed, state in ((0.5, "completed"), (0.01, "failed")):
        spec = sliced_job(20, quality={"min_score": 0, "max_dead_letter_ratio": allowed})
        async with running(source, tmp_path, 1) as system:
            await system.client.submit(spec)
            view = await system.finished(spec, state)
        assert (view.state.dead, view.state.code) == (12, None if allowed == 0.5 else "too_many_dead_letters")
        assert view.state.first_dead_letter


async def test_the_rows_of_a_file_are_those_of_a_job_without_slices(tmp_path: Path) -> None:
    write_sample(tmp_path / "sample.jsonl", DOCUMENTS)
    found = []
    for slices in (1, 4):
        store, spec = MemoryStore(), small_job(partitions=2, slices=slices)
        report = await completed(spec, store, tmp_path)
        rows = [
            line
            async for info in store.list(Layout.of(spec).root + "data/")
            for line in (await store.get(info.key)).splitlines()
        ]
        found.append((sorted(rows), report.rejected))
    assert found[0] == found[1]


async def test_the_older_producer_of_a_slice_is_fenced_before_its_state_is_read() -> None:
    spec, broker = sliced_job(), LateBroker()
    await ensure_system_topics(broker, PARTITIONS)
    state = JobState(spec, home=0)
    await commit_job(broker, state)
    slices = SliceStates(broker, spec.job_id, 0, PARTITIONS, 20.0)
    await open_slices(slices, state, 3, "")
    opened = await slices.load(range(3))
    assert {number: one.home for number, one in opened.items()} == {0: 0, 1: 1, 2: 2}
    async with slices.fence_and_load(1) as (older, known):
        assert known is not None
        # It commits while the newer one opens the slice, which must continue from there.
        broker.late = replace(known, state=State.RUNNING, source_count=7)
        async with slices.fence_and_load(1) as (_, newer):
            assert newer is not None
            assert newer.source_count == 7
            with pytest.raises(Fenced):
                async with older.transaction() as transaction:
                    await transaction.send(CHECKPOINTS, [checkpoint(known)])
    # What is open stays as it is, and a later attempt opens it anew.
    await open_slices(slices, state, 3, "")
    assert (await slices.load([1]))[1].source_count == 7
    await commit_job(broker, replace(state, attempt=2))
    await open_slices(slices, replace(state, attempt=2), 3, "")
    assert {one.attempt for one in (await slices.load(range(3))).values()} == {2}
    # An owner that was paused opens no slice of an attempt that has ended.
    await open_slices(slices, state, 3, "")
    await commit_job(broker, replace(state, attempt=3, state=State.FAILED))
    await open_slices(slices, replace(state, attempt=3), 3, "")
    assert {one.attempt for one in (await slices.load(range(3))).values()} == {2}


async def commit_job(broker: MemoryBroker, state: JobState) -> None:
    """Commit the state of a job whose checkpoint is in partition 0."""
    await broker.publish(CHECKPOINTS, [checkpoint(state)._replace(partition=0)])
