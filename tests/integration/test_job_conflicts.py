"""An id that belongs to another job: who is refused, what the refusal names, and what `--replace` deletes."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from shardline.services.client import Client
from shardline.services.replace import delete_old_dataset, find_old_job
from shardline.services.sample import write_sample
from shardline_common.errors import JobConflict, JobFailed, JobInvalid, ObjectExists, StoreUnavailable
from shardline_common.job.dead_letters import message_dead_letter
from shardline_common.job.names import CHECKPOINTS, DEAD_LETTERS, JOBS, Layout, job_key
from shardline_common.job.spec import JobSpec, parse_job
from shardline_common.job.spec_diff import check_same_job, differing_fields
from shardline_common.job.state import JobState, State, checkpoint
from shardline_common.memory.broker import MemoryBroker
from shardline_common.memory.store import MemoryStore
from shardline_common.ports.broker import Record
from shardline_common.runtime.clock import SystemClock
from shardline_common.storage.directory import DirectoryStore
from shardline_producer.acceptance import Acceptance, accept
from shardline_producer.topics import ensure_system_topics
from tests.make import job
from tests.support.embedded import run_embedded, verify
from tests.themis_reading import InstantClock

DOCUMENTS = 60
NEIGHBOURS = (
    "test/test-2/data/train/part.jsonl",
    "test/other/_SUCCESS",
    "test-2/test/_SUCCESS",
    "_jobs/test-2.json",
    "_exports/test/test-2/x.csv",
    "_plans/test/test-2/1234/000000000000.json",
)


def small(**changes: Any) -> JobSpec:
    body: dict[str, Any] = {
        "source": {"type": "files", "paths": ["sample.jsonl"]},
        "output": {"shard_bytes": 8192},
        "partitions": 2,
    }
    return job(**(body | changes))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("conflicts")
    write_sample(folder / "sample.jsonl", DOCUMENTS)
    return folder


@pytest.fixture(scope="module")
def finished(folder: Path) -> MemoryStore:
    """A store with the dataset of `small()`, an export of it, and objects whose keys are close to its own."""

    async def make() -> MemoryStore:
        store = MemoryStore()
        assert (await run_embedded(small(), store, folder)).state.state == "completed"
        await store.create("_exports/test/test/x.csv", b"x")
        await store.create("_plans/test/test/1234/000000000000.json", b"x")
        for key in NEIGHBOURS:
            await store.create(key, b"x")
        return store

    return asyncio.run(make())


async def keys(store: MemoryStore | DirectoryStore, prefix: str = "") -> list[str]:
    return [info.key async for info in store.list(prefix)]


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"name": "Other"}, ["name"]),
        ({"quality": {"min_score": 0.4}}, ["quality.min_score"]),
        ({"labels": {"team": "legal"}}, ["labels.team"]),
        ({"purpose": "a test"}, ["purpose"]),
        ({"dead_letter_originals": False}, ["dead_letter_originals"]),
        ({"source": {"type": "themis"}}, ["source"]),
        (
            {"source": {"type": "files", "paths": ["a.jsonl"]}, "partitions": 3},
            ["partitions", "source.paths"],
        ),
        ({"query": {"filters": {"domain": "x"}}}, ["query.filters.domain"]),
        ({"format": {"metadata": ["title"]}}, ["format.metadata"]),
    ],
)
async def test_a_run_of_another_job_under_a_used_id_is_refused(
    folder: Path, finished: MemoryStore, changes: dict[str, Any], fields: list[str]
) -> None:
    before = await keys(finished)
    async with asyncio.timeout(20):
        with pytest.raises(JobConflict, match=", ".join(fields)) as caught:
            await run_embedded(small(**changes), finished, folder)
    assert list(caught.value.fields) == fields
    assert await keys(finished) == before


@pytest.mark.parametrize("left", ["only the record", "a killed run"])
async def test_a_run_is_refused_whatever_is_left_of_the_first_job(
    folder: Path, finished: MemoryStore, left: str
) -> None:
    # `delete` leaves the record of a job; a killed run leaves a part of its dataset.
    store, layout = MemoryStore.copy_of(finished), Layout.of(small())
    doomed = layout.root if left == "only the record" else layout.success
    await store.delete(await keys(store, doomed))
    async with asyncio.timeout(20):
        with pytest.raises(JobConflict, match=r"partitions"):
            await run_embedded(small(partitions=3), store, folder)


def test_many_and_long_differences_are_cut_in_the_message() -> None:
    first, second = job(), job(labels={f"label-{number:02}-{'x' * 1000}": "x" for number in range(30)})
    assert differing_fields(first, job()) == []
    with pytest.raises(JobConflict, match=r" and 18 more$") as caught:
        check_same_job(first, second)
    assert len(caught.value.fields) == 30
    assert len(str(caught.value)) < 2000


async def test_a_job_without_an_id_is_advised_to_take_one() -> None:
    # Its id is made from the fields that the digest covers, so a changed purpose meets the same id.
    body = {"name": "a", "source": {"type": "files", "paths": ["x"]}}
    first = parse_job(orjson.dumps(body), default_id=True)
    second = parse_job(orjson.dumps(body | {"purpose": "x"}), default_id=True)
    store = MemoryStore()
    await accept(store, first, SystemClock())
    with pytest.raises(JobConflict) as caught:
        await accept(store, second, SystemClock())
    assert "give it a job_id" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        (b"{", "cannot be read"),
        (b"[]", "cannot be read"),
        (b"{}", "cannot be read"),
        (orjson.dumps({"accepted_at": "", "spec": {"colour": 1}}), "colour"),
        (Acceptance(job(job_id="other"), "").encode(), "is that of the job 'other'"),
    ],
)
async def test_a_record_that_is_not_of_the_id_is_a_conflict(record: bytes, sentence: str) -> None:
    store = MemoryStore()
    await store.create(job_key("test"), record)
    with pytest.raises(JobConflict, match=sentence):
        await accept(store, job(), SystemClock())
    # Its dataset is not known: nothing can be replaced.
    with pytest.raises(JobConflict, match=sentence):
        await find_old_job(store, job())


async def test_a_folder_with_state_of_an_unknown_job_is_not_continued(
    folder: Path, finished: MemoryStore
) -> None:
    store = MemoryStore.copy_of(finished)
    await store.delete([job_key("test")])
    before = await keys(store)
    async with asyncio.timeout(20):
        with pytest.raises(JobConflict, match=r"_jobs/test\.json is missing"):
            await run_embedded(small(partitions=3), store, folder)
    assert await keys(store) == before


async def test_a_store_that_refuses_a_record_and_has_none_refuses_the_job() -> None:
    def fault(when: str, operation: str, _key: str) -> None:
        if (when, operation) == ("before", "create"):
            raise ObjectExists("by a test")

    with pytest.raises(JobFailed, match=r"refuses to create _jobs/test\.json"):
        await accept(MemoryStore(fault), job(), InstantClock())


async def test_replace_deletes_the_old_dataset_and_nothing_else(finished: MemoryStore) -> None:
    store, changed = MemoryStore.copy_of(finished), small(name="Moved")
    old = await find_old_job(store, changed)
    assert old == small()
    await delete_old_dataset(store, old)
    assert sorted(await keys(store)) == sorted(NEIGHBOURS)
    assert await find_old_job(store, changed) is None


async def test_the_same_job_has_nothing_to_replace(finished: MemoryStore) -> None:
    assert await find_old_job(finished, small()) is None
    assert await find_old_job(finished, small(job_id="unused")) is None


@pytest.mark.parametrize("deletes", range(8))
async def test_a_slow_replace_does_not_delete_the_new_dataset(
    folder: Path, finished: MemoryStore, deletes: int
) -> None:
    # Two `--replace` of one job at the same time on S3, where no lock separates them.
    store, new = MemoryStore.copy_of(finished), small(partitions=3)
    calls = 0

    class Slow(MemoryStore):
        async def delete(self, keys: Sequence[str]) -> None:
            nonlocal calls
            await super().delete(keys)
            calls += 1
            if calls == deletes + 1:
                await delete_old_dataset(store, small())
                assert (await run_embedded(new, store, folder)).state.state == "completed"

    slow = Slow()
    slow._objects = store._objects
    with pytest.raises(JobConflict, match="in the meantime"):
        await delete_old_dataset(slow, small())
    assert (await verify(new, store)).ok


class Killed(Exception):
    """The process was killed."""


def dying_copy(store: MemoryStore, deletes: int) -> MemoryStore:
    """A copy of a store that is killed before its delete number `deletes`."""
    left = [deletes]

    def fault(_when: str, operation: str, _key: str) -> None:
        if operation == "delete":
            left[0] -= 1
            if left[0] < 0:
                raise Killed

    copy = MemoryStore(fault)
    copy._objects = dict(store._objects)
    return copy


async def replace_until_killed(store: MemoryStore, deletes: int) -> MemoryStore:
    dying = dying_copy(store, deletes)
    with pytest.raises(Killed):
        await delete_old_dataset(dying, small())
    return MemoryStore.copy_of(dying)


async def test_a_replace_that_is_killed_anywhere_is_continued_by_the_next(finished: MemoryStore) -> None:
    own = len(await keys(finished)) - len(NEIGHBOURS)
    for deletes in range(own):
        left = await replace_until_killed(finished, deletes)
        old = await find_old_job(left, small(partitions=3))
        assert old == small(), deletes
        await delete_old_dataset(left, old)
        assert sorted(await keys(left)) == sorted(NEIGHBOURS), deletes


async def test_the_old_job_completes_after_a_replace_that_was_killed(
    folder: Path, finished: MemoryStore
) -> None:
    own = len(await keys(finished)) - len(NEIGHBOURS)
    digest = (await verify(small(), finished)).digest
    for deletes in sorted({1, 2, 3, 4, 5, 6, own // 3, own // 2, own - 3, own - 2, own - 1}):
        left = await replace_until_killed(finished, deletes)
        async with asyncio.timeout(30):
            view = await run_embedded(small(), left, folder)
        assert view.state.state == "completed", (deletes, view.to_json())
        report = await verify(small(), left)
        assert (report.ok, report.digest) == (True, digest), (deletes, report.problems)


async def test_a_linked_folder_outside_of_the_dataset_is_kept(tmp_path: Path) -> None:
    outside, store = tmp_path / "outside", DirectoryStore(tmp_path / "store")
    outside.mkdir()
    (outside / "precious.txt").write_text("x")
    await accept(store, job(), SystemClock())
    await store.create("test/test/data/train/part.jsonl", b"{}\n")
    (tmp_path / "store/test/test/link").symlink_to(outside)
    await delete_old_dataset(store, job())
    assert await keys(store) == []
    assert (outside / "precious.txt").read_text() == "x"


async def test_a_put_during_the_replace_is_reported() -> None:
    store = MemoryStore()
    await accept(store, job(), SystemClock())
    await store.create("_plans/test/test/1234/000000000000.json", b"{}")

    class Worked(MemoryStore):
        async def delete(self, keys: Sequence[str]) -> None:
            await super().delete(keys)
            if any(key.startswith("_plans/") for key in keys):
                await super().create("test/test/data/train/late.jsonl", b"{}")

    worked = Worked()
    worked._objects = store._objects
    with pytest.raises(StoreUnavailable, match=r"late\.jsonl was written"):
        await delete_old_dataset(worked, job())
    assert await find_old_job(worked, small()) == job()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that looks for a refusal, and says that no producer accepts the job, at once."""
    monkeypatch.setattr("shardline.services.client._REFUSE_SECONDS", 0.0)
    monkeypatch.setattr("shardline.services.client._ACCEPT_SECONDS", 0.0)


async def system(*states: JobState) -> tuple[MemoryBroker, Client]:
    broker = MemoryBroker()
    await ensure_system_topics(broker, 1)
    await broker.publish(CHECKPOINTS, [checkpoint(state) for state in states])
    return broker, Client(broker, 1)


@pytest.mark.parametrize(
    ("state", "spec", "sentence"),
    [
        (State.RUNNING, job(partitions=3), "differs in partitions"),
        (State.COMPLETED, job(name="other"), "differs in name"),
        (State.DELETED, job(partitions=3), "differs in partitions"),
        (State.DELETED, job(), "belongs to a job that was deleted"),
    ],
)
async def test_submit_refuses_an_id_that_is_taken(state: State, spec: JobSpec, sentence: str) -> None:
    broker, client = await system(JobState(job(), state=state))
    with pytest.raises(JobConflict, match=sentence):
        await client.submit(spec)
    async with broker.table_reader(JOBS) as table:
        assert await table.catch_up(deadline=10) == []


def refusal_of(record: Record, reason: str) -> Callable[[MemoryBroker], Awaitable[None]]:
    async def refuse(broker: MemoryBroker) -> None:
        await broker.publish(DEAD_LETTERS, [message_dead_letter(record, reason, "by a test")])

    return refuse


async def submitted_records(broker: MemoryBroker) -> Sequence[Record]:
    async with broker.table_reader(JOBS) as table:
        return await table.catch_up(deadline=10)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("reason", "error"), [("job_conflict", JobConflict), ("invalid_job", JobInvalid), ("any", JobInvalid)]
)
async def test_waiting_for_a_submission_that_is_refused_ends(reason: str, error: type[Exception]) -> None:
    # The id belongs to a dataset in the store that Kafka does not know: one of `run`, for example.
    broker, client = await system()
    await client.submit(job())
    (record,) = await submitted_records(broker)
    await refusal_of(record, reason)(broker)
    async with asyncio.timeout(20):
        with pytest.raises(error, match="by a test"):
            await client.wait("test", lambda _: None, submitted=job())


@pytest.mark.usefixtures("impatient")
async def test_a_refusal_of_an_earlier_message_does_not_count() -> None:
    broker, client = await system()
    await client.submit(job())
    await refusal_of((await submitted_records(broker))[0], "job_conflict")(broker)
    await client.submit(job())
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        warned = asyncio.Event()
        waiting = tasks.create_task(
            client.wait("test", lambda _: None, submitted=job(), on_unaccepted=warned.set)
        )
        await warned.wait()
        await broker.publish(CHECKPOINTS, [checkpoint(JobState(job(), state=State.COMPLETED))])
        assert (await waiting).state.state is State.COMPLETED


async def test_waiting_ends_when_another_job_gets_the_id() -> None:
    broker, client = await system()
    await client.submit(job())
    await broker.publish(CHECKPOINTS, [checkpoint(JobState(job(partitions=3), state=State.RUNNING))])
    async with asyncio.timeout(20):
        with pytest.raises(JobConflict, match="partitions"):
            await client.wait("test", lambda _: None, submitted=job())
