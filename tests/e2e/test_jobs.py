"""Jobs on a running system: concurrent, queued, cancelled, retried, deleted, refused."""

import asyncio
import signal
from contextlib import aclosing
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import orjson
import pytest

from shardline.services.client import JobTable, submission
from shardline.services.sample import INVALID_LINES, write_sample
from shardline_common.job.names import JOBS, Layout, attempt_topic, job_key
from shardline_common.job.outcome import read_outcome
from shardline_common.job.spec import Request
from shardline_common.job.state import State
from shardline_common.ports.broker import Message
from tests.e2e.system import Process, System, running_system
from tests.laws import Laws
from tests.make import job, sample_job
from tests.services import S3


@pytest.mark.corpus
async def test_a_second_job_does_not_disturb_the_first(
    tmp_path: Path, kafka: str, seaweed: S3, laws: Laws
) -> None:
    write_sample(laws.folder / "sample.jsonl", 500)
    async with running_system(tmp_path, kafka, seaweed, laws.folder, SHARDLINE_SOURCE_RATE="1000") as system:
        workers = [system.start("worker"), system.start("worker")]
        system.start("producer")
        first = laws.job("first")
        await system.submit(first)
        # The repeated work after the second worker joins belongs to the first job: wait until it is over.
        for worker in workers:
            await worker.until_metric("shards_written_total", "first", 1)
        await system.until_chains_move(first)
        before = [worker.metric("documents_consumed_total", "first") for worker in workers]
        repeated = [_repeated(worker) for worker in workers]
        second = job(**sample_job("second"))
        await system.submit(second)
        ended = await system.finished("second")
        assert ended.state.state == "completed"
        assert (await system.client.job_table()).job("first").state.active, (
            "the first must outlast the second"
        )
        after = [worker.metric("documents_consumed_total", "first") for worker in workers]
        assert all(now >= then for now, then in zip(after, before, strict=True))
        assert [_repeated(worker) for worker in workers] == repeated
        await system.hurry()
        view = await system.finished("first")
        assert view.state.state == "completed"
        assert (await system.verify(first)).digest == laws.digest


def _repeated(worker: Process) -> list[float]:
    return [worker.metric(name, "first") for name in ("records_replayed_total", "creates_refused_total")]


async def test_twelve_jobs_queue_for_two_producers(tmp_path: Path, kafka: str, seaweed: S3) -> None:
    write_sample(tmp_path / "sample.jsonl", 400)
    async with running_system(
        tmp_path, kafka, seaweed, tmp_path, SHARDLINE_MAX_JOBS="2", SHARDLINE_SOURCE_RATE="100"
    ) as system:
        producers = [system.start("producer"), system.start("producer")]
        system.start("worker")
        for producer in producers:
            await producer.until_ready()
        names = [f"job-{number:02d}" for number in range(12)]
        queued, running = await most_of(system, names)
        # Two producers run two jobs each; all others are queued.
        assert running <= 4
        assert queued >= 4
        for name in names:
            view = await system.finished(name)
            assert view.state.state == "completed", view.to_json()
        reports = [await system.verify(job(**sample_job(name))) for name in names]
        assert len({report.digest for report in reports}) == 1
        assert all(report.ok for report in reports)
        assert all("accepted" in producer.log_text() for producer in producers)


async def most_of(system: System, names: list[str]) -> tuple[int, int]:
    """Submit jobs; returns the highest numbers of queued and of running jobs until all have ended."""
    queued = running = 0
    async with aclosing(system.client.follow(0.1)) as tables, asyncio.timeout(150):
        await anext(tables)
        # In one batch, and after the table is read: one by one, the first would end before the last is sent.
        await system.broker.publish(JOBS, [submission(job(**sample_job(name))) for name in names])
        async for table in tables:
            states = [view.state.state for view in table.jobs()]
            queued = max(queued, states.count(State.QUEUED))
            running = max(running, await at_work(system, table))
            if len(states) == len(names) and not any(view.state.active for view in table.jobs()):
                break
    return queued, running


async def at_work(system: System, table: JobTable) -> int:
    """How many jobs occupy a slot: those without an outcome, which is written before their checkpoint."""
    busy = [view.state for view in table.jobs() if view.state.state in (State.RUNNING, State.COMPLETING)]
    outcomes = [await read_outcome(system.store, Layout.of(state.spec), state.attempt) for state in busy]
    return outcomes.count(None)


async def test_cancel_retry_delete(tmp_path: Path, kafka: str, seaweed: S3) -> None:
    write_sample(tmp_path / "sample.jsonl", 3000)
    async with running_system(tmp_path, kafka, seaweed, tmp_path, SHARDLINE_SOURCE_RATE="200") as system:
        system.start("producer")
        system.start("worker")
        spec = job(**sample_job("work"))
        await system.submit(spec)
        await system.until("work", lambda view: view.progress.chained > 0)
        await system.client.request(Request(job_id="work", action="cancel", requested_by="a test"))
        view = await system.finished("work")
        assert (view.state.state, view.state.message) == ("cancelled", "cancelled by a test")
        await system.until("work", lambda view: view.state.topic_removed)
        assert await system.broker.describe_topic(attempt_topic("work", 1)) is None
        kept = view.progress.chained
        await system.hurry()
        await system.client.request(Request(job_id="work", action="retry"))
        view = await system.until("work", lambda view: view.state.attempt == 2 and not view.state.active)
        assert view.state.state == "completed", view.to_json()
        report = await system.verify(spec)
        assert report.ok, report.problems
        other = job(**sample_job("undisturbed"))
        await system.submit(other)
        await system.finished("undisturbed")
        assert report.digest == (await system.verify(other)).digest
        assert kept > 0
        await system.client.request(Request(job_id="work", action="delete"))
        await system.until("work", lambda view: view.state.state == "deleted")
        left = [info.key async for info in system.store.list(Layout.of(spec).root)]
        assert left == []
        # A put that was under way then may land after it: deleting once more takes that away, too.
        late = Layout.of(spec).root + "data/train/late.jsonl"
        (tmp_path / "late").write_bytes(b"{}\n")
        await system.store.create(late, tmp_path / "late", content_type="application/x-ndjson")
        await system.client.request(Request(job_id="work", action="delete"))
        async with asyncio.timeout(60):
            while [info async for info in system.store.list(Layout.of(spec).root)]:
                await asyncio.sleep(0.1)
        # The id of a deleted job stays taken.
        assert await system.store.get(job_key("work"))


async def test_refused_messages_do_not_affect_other_jobs(tmp_path: Path, kafka: str, seaweed: S3) -> None:
    write_sample(tmp_path / "sample.jsonl", 100)
    async with running_system(tmp_path, kafka, seaweed, tmp_path) as system:
        system.start("producer")
        system.start("worker")
        good = job(**sample_job("good"))
        await system.submit(good)
        bad = {
            b"null": None,
            b"json": b"{not json",
            b"utf8": b"\xff\xfe",
            b"list": b"[1]",
            b"deep": b"[" * 5000,
            b"field": orjson.dumps(sample_job("field", colour="red")),
            b"range": orjson.dumps(sample_job("range", partitions=0)),
            b"escape": orjson.dumps(sample_job("../../escape")),
            b"other-key": good.body(),
            b"ghost": Request(job_id="ghost", action="cancel").body(),
            b"good": orjson.dumps(sample_job("good", partitions=3)),
        }
        await system.broker.publish(JOBS, [Message(key, value) for key, value in bad.items()])
        view = await system.finished("good")
        assert view.state.state == "completed"
        async with asyncio.timeout(30):
            while len(found := await system.client.dead_letters()) < len(bad):
                await asyncio.sleep(0.2)
        by_job = {letter.job_id: letter for letter in found.values()}
        assert {letter.encode() for letter in by_job if letter} == set(bad)
        assert by_job["field"].hint.startswith("colour: unknown field; there are ")
        assert by_job["ghost"].reason == "unknown_job"
        assert by_job["good"].reason == "job_conflict"
        assert by_job["utf8"].original == b"\xff\xfe"
        assert (await system.verify(good)).ok


async def test_invalid_documents_become_dead_letters(tmp_path: Path, kafka: str, seaweed: S3) -> None:
    write_sample(tmp_path / "sample.jsonl", 200, broken=True)
    huge = orjson.dumps({"document_id": "huge", "content": "x" * 20_000})
    with (tmp_path / "sample.jsonl").open("ab") as file:
        file.write(huge + b"\n")
    async with running_system(tmp_path, kafka, seaweed, tmp_path) as system:
        system.start("producer")
        system.start("worker")
        spec = job(**sample_job("poison", max_document_bytes=16_384))
        await system.submit(spec)
        view = await system.finished("poison")
        assert view.state.state == "completed", view.to_json()
        report = await system.verify(spec)
        assert report.ok, report.problems
        assert sum(report.dead_letters.values()) == len(INVALID_LINES) + 1
        assert report.rows + sum(report.rejected.values()) == 200
        letters = await system.client.dead_letters()
        assert len(letters) == len(INVALID_LINES) + 1
        assert {letter.original for letter in letters.values()} == {*INVALID_LINES, huge}
        assert all(letter.hint.startswith("sample.jsonl:") for letter in letters.values())
        strict = job(**sample_job("strict", quality={"max_dead_letters": 3}))
        await system.submit(strict)
        view = await system.finished("strict")
        assert (view.state.state, view.state.code) == ("failed", "too_many_dead_letters")
        assert "the job allows 3" in str(view.state.message)


async def test_a_deleted_topic_fails_the_job_and_retry_rebuilds_it(
    tmp_path: Path, kafka: str, seaweed: S3
) -> None:
    write_sample(tmp_path / "sample.jsonl", 6000)
    async with running_system(
        tmp_path, kafka, seaweed, tmp_path, SHARDLINE_SOURCE_RATE="300", KAFKA_REQUEST_TIMEOUT_MS="4000"
    ) as system:
        system.start("producer")
        system.start("worker")
        spec = job(**sample_job("lost"))
        await system.submit(spec)
        await system.until("lost", lambda view: view.progress.chained > 0)
        await system.broker.delete_topic(attempt_topic("lost", 1))
        view = await system.finished("lost")
        assert (view.state.state, view.state.code) == ("failed", "topic_lost"), view.to_json()
        assert await system.broker.describe_topic(attempt_topic("lost", 1)) is None
        await system.hurry()
        await system.client.request(Request(job_id="lost", action="retry"))
        view = await system.until("lost", lambda view: view.state.attempt == 2 and not view.state.active)
        assert view.state.state == "completed", view.to_json()
        report = await system.verify(spec)
        assert report.ok, report.problems
        assert report.rows + sum(report.rejected.values()) == 6000


async def test_health_readiness_and_shutdown_of_processes(tmp_path: Path, kafka: str, seaweed: S3) -> None:
    write_sample(tmp_path / "sample.jsonl", 2000)
    async with running_system(tmp_path, kafka, seaweed, tmp_path, SHARDLINE_SOURCE_RATE="100") as system:
        producer, worker = system.start("producer"), system.start("worker")
        await system.submit(job(**sample_job("long")))
        await system.until("long", lambda view: view.progress.chained > 0)
        for process in (producer, worker):
            await process.until_ready()
            assert process.get("/healthz") == "ok\n"
        assert producer.metric("documents_produced_total", "long") > 0
        assert producer.metric("jobs") == 1
        assert worker.end(signal.SIGTERM, wait=25) == 0
        assert producer.end(signal.SIGTERM, wait=25) == 0
        deaf = system.start("worker", KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:9", KAFKA_REQUEST_TIMEOUT_MS="1000")
        assert await unready(deaf)
        system.start("producer", SHARDLINE_SOURCE_RATE="0")
        system.start("worker")
        view = await system.finished("long")
        assert view.state.state == "completed"


async def unready(process: Process) -> bool:
    try:
        await asyncio.to_thread(urlopen, f"http://127.0.0.1:{process.port}/readyz", timeout=60)
    except HTTPError as error:
        with error:
            return error.code == 503 and b'"ready":false' in error.read()
    return False
