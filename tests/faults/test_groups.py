"""Groups of workers: members join and leave, versions differ, partitions are many, dead letters wait."""

import asyncio
import json
import shutil
import signal
from pathlib import Path

import psutil
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from shardline_common.dataset.chain import Chain
from shardline_common.job.names import DEAD_LETTERS, JOBS, Layout, attempt_group, attempt_topic
from shardline_common.job.spec import JobSpec
from shardline_common.ports.broker import Message
from shardline_common.runtime.failpoints import VARIABLE
from shardline_producer.topics import ensure_system_topics
from tests.e2e.system import PARTITIONS, Process, System, running_system
from tests.faults.oracle import SHORT, judge_sample
from tests.faults.proxies import until
from tests.faults.test_failpoints import stopped
from tests.laws import embedded_digest
from tests.make import job, sample_job
from tests.sampled import Sampled
from tests.services import S3

REPOSITORY = Path(__file__).parent.parent.parent
PACKAGES = (
    "common/shardline_common",
    "consumer/shardline_consumer",
    "producer/shardline_producer",
    "shardline",
)
MOST_MIB = 200 * 1e6 / (1 << 20)


async def test_workers_join_and_leave_a_running_job(
    tmp_path: Path, kafka: str, seaweed: S3, sampled: Sampled
) -> None:
    async with running_system(
        tmp_path, kafka, seaweed, sampled.folder, SHARDLINE_SOURCE_RATE="40", **SHORT
    ) as system:
        spec = sampled.job("sample", partitions=2)
        system.start("producer")
        await system.submit(spec)
        alive: list[Process] = []
        for wanted in (1, 4, 2, 4, 1):
            while len(alive) < wanted:
                alive.append(system.start("worker"))
            while len(alive) > wanted:
                await asyncio.to_thread(alive.pop(0).end, signal.SIGTERM, 30)
            await alive[-1].until_ready()
            await asyncio.sleep(1.5)
        assert (await system.client.job_table()).job("sample").state.active, "it ended before the last change"
        await system.hurry()
        view = await system.finished("sample")
        assert view.state.state == "completed", view.to_json()
        await judge_sample(system, sampled, spec)


async def test_committed_offsets_never_decrease(
    tmp_path: Path, kafka: str, seaweed: S3, sampled: Sampled
) -> None:
    # The offsets of the group end with the topic, perhaps before this test has read them last.
    settings = SHORT | {"SHARDLINE_SOURCE_RATE": "80", "SHARDLINE_TOPIC_GRACE_SECONDS": "300"}
    async with running_system(tmp_path, kafka, seaweed, sampled.folder, **settings) as system:
        spec = sampled.job("sample")
        # It stops between its chain record and its commit. The other one goes on, commits and leaves first.
        zombie = system.start("worker", **{VARIABLE: "worker.after_chain=stop@2"})
        await zombie.until_ready()
        system.start("producer")
        await system.submit(spec)
        await stopped(zombie)
        other = system.start("worker")
        await other.until_metric("shards_written_total", "sample", 6)
        await until_committed(system, spec)
        assert await asyncio.to_thread(other.end, signal.SIGTERM, 20) == 0
        then = await committed(system, spec)
        assert all(offset > 0 for offset in then), then
        zombie.send(signal.SIGCONT)
        await system.hurry()
        while (await system.client.job_table()).job("sample").state.active:
            now = await committed(system, spec)
            assert all(new >= old for new, old in zip(now, then, strict=True)), (then, now)
            then = now
            await asyncio.sleep(0.2)
        assert (await system.finished("sample")).state.state == "completed"
        await judge_sample(system, sampled, spec)


async def until_committed(system: System, spec: JobSpec) -> None:
    """Return when every partition has an offset."""
    async with asyncio.timeout(60):
        while not all(offset > 0 for offset in await committed(system, spec)):
            await asyncio.sleep(0.1)


async def committed(system: System, spec: JobSpec) -> list[int]:
    topic = f"{system.prefix}.{attempt_topic(spec.job_id, 1)}"
    places = [TopicPartition(topic, number) for number in range(spec.total_partitions)]
    admin = AIOKafkaAdminClient(bootstrap_servers=system.kafka)
    await admin.start()
    try:
        group = f"{system.prefix}.{attempt_group(spec.job_id, 1)}"
        found = await admin.list_consumer_group_offsets(group, partitions=places)
    finally:
        await admin.close()
    return [found[place].offset for place in places]


async def test_a_worker_of_the_next_version_joins(
    tmp_path: Path, kafka: str, seaweed: S3, sampled: Sampled
) -> None:
    later = tmp_path / "later"
    for package in PACKAGES:
        source = REPOSITORY / package
        shutil.copytree(source, later / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    init = later / "shardline_common" / "__init__.py"
    init.write_text(init.read_text().replace('__version__ = "', '__version__ = "99.'))
    async with running_system(
        tmp_path, kafka, seaweed, sampled.folder, SHARDLINE_SOURCE_RATE="80", **SHORT
    ) as system:
        spec = sampled.job("sample")
        system.start("producer")
        now = system.start("worker")
        await system.submit(spec)
        await now.until_metric("shards_written_total", "sample", 1)
        new = system.start("worker", PYTHONPATH=str(later))
        await new.until_metric("shards_written_total", "sample", 1)
        assert 'version="99.' in new.get("/metrics")
        await system.hurry()
        view = await system.finished("sample")
        assert view.state.state == "completed", view.to_json()
        await judge_sample(system, sampled, spec)


async def test_three_hundred_slow_partitions_need_bounded_memory(
    tmp_path: Path, kafka: str, seaweed: S3, sampled: Sampled
) -> None:
    async with running_system(
        tmp_path, kafka, seaweed, sampled.folder, SHARDLINE_SOURCE_RATE="500"
    ) as system:
        spec = sampled.job("sample", partitions=300, max_document_bytes=65_536)
        system.start("producer")
        worker = system.start("worker")
        await system.submit(spec)
        await worker.until_metric("documents_consumed_total", "sample", 2000)
        assert psutil.Process(worker.popen.pid).memory_info().rss / (1 << 20) < MOST_MIB
        view = await system.finished("sample")
        assert view.state.state == "completed", view.to_json()
        report = await system.verify(spec)
        assert report.ok, report.problems
        assert report.rows + sum(report.rejected.values()) == sampled.ids.total()


async def test_a_segment_waits_until_its_dead_letters_are_written(
    tmp_path: Path, kafka: str, seaweed: S3, sampled: Sampled
) -> None:
    lines = (sampled.folder / "sample.jsonl").read_bytes().splitlines(keepends=True)[:600]
    lines[300:300] = [b"no json\n", b'{"content": "no id"}\n']
    (tmp_path / "sample.jsonl").write_bytes(b"".join(lines))
    async with running_system(tmp_path, kafka, seaweed, tmp_path, **SHORT) as system:
        await ensure_system_topics(system.broker, PARTITIONS)
        spec = sampled.job("sample")
        producer, worker = system.start("producer"), system.start("worker")
        # A process creates missing topics at its start.
        await producer.until_ready()
        await worker.until_ready()
        await system.broker.delete_topic(DEAD_LETTERS)
        # Submitting a job with the client would create the topic again.
        await system.broker.publish(JOBS, [Message(spec.job_id.encode(), spec.body())])
        await until(lambda: worker.metric("in_vain_seconds") > 3, "the letter is tried in vain")
        tips = [await Chain(system.store, Layout.of(spec), number).head() for number in range(2)]
        assert all(tip is None or not tip.upto.dead for tip in tips)
        await ensure_system_topics(system.broker, PARTITIONS)
        view = await system.finished("sample")
        assert view.state.state == "completed", view.to_json()
        letters = await system.client.dead_letters()
        assert sorted(letter.reason for letter in letters.values()) == ["invalid_json", "missing_id"]
        report = await system.verify(spec)
        assert report.ok, report.problems
        assert sum(report.dead_letters.values()) == 2
        assert report.digest == await embedded_digest(spec, tmp_path, tmp_path / "embedded")


async def test_empty_small_and_uneven_sources(tmp_path: Path, kafka: str, seaweed: S3) -> None:
    good = {"title": "t", "domain": "d", "document_type": "x"}
    text = "wort " * 300
    many = [{"document_id": f"d{number}", "content": text, **good} for number in range(200)]
    sources = {
        "empty": [],
        "rejected": [{"document_id": f"d{number}", "content": "kurz"} for number in range(50)],
        "fewer": many[:3],
        "lopsided": [*many[:100], {"document_id": "huge", "content": "x" * 700_000, **good}, *many[100:]],
    }
    specs = []
    for name, documents in sources.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in documents))
        source = {"type": "files", "paths": [f"{name}.jsonl"]}
        specs.append(job(**sample_job(name, name=name, source=source, partitions=8)))
    async with running_system(tmp_path, kafka, seaweed, tmp_path) as system:
        system.start("producer")
        system.start("worker")
        for spec in specs:
            await system.submit(spec)
        for spec in specs:
            view = await system.finished(spec.job_id)
            assert view.state.state == "completed", view.to_json()
            report = await system.verify(spec)
            assert report.ok, report.problems
            kept = 0 if spec.job_id == "rejected" else len(sources[spec.job_id])
            assert report.rows == kept
            assert view.state.warning == (None if kept else "empty")
            assert report.digest == await embedded_digest(spec, tmp_path, tmp_path / f"run-{spec.job_id}")
