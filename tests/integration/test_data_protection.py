"""A job whose documents hold a marker, then `delete`: where the marker was, and that it is nowhere now."""

import asyncio
import base64
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import orjson
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from deploy.dev.kafka import Kafka
from shardline.gateway.exports import DatasetExports
from shardline_common.job.names import CHECKPOINTS, DEAD_LETTERS, EVENTS, JOBS, attempt_topic, job_key
from shardline_common.job.spec import JobSpec, Request
from shardline_common.ports.broker import Message
from tests.e2e.system import System, running_system
from tests.make import job, sample_job
from tests.services import S3, server_folder, service_started

MARKER = "Erika-Mustermann-1964-08-12"


def spellings() -> list[bytes]:
    """The marker as bytes may hold it: plain, and in base64, as far as its neighbours do not colour it."""
    shifted = [b"x" * shift + MARKER.encode() for shift in range(3)]
    coded = [base64.b64encode(text[: len(text) // 3 * 3])[4:] for text in shifted]
    return [MARKER.encode(), *coded]


def marked(data: bytes | None) -> bool:
    return any(spelling in (data or b"") for spelling in spellings())


class KeenKafka(Kafka):
    """A broker that compacts as soon as there is something to compact."""

    def configure(self, lines: dict[str, str], _: Mapping[str, int]) -> None:
        """Do not sleep between looks."""
        lines["log.cleaner.backoff.ms"] = "200"

    def files_with_the_marker(self) -> set[str]:
        """The folders of its disk, each a partition, whose files hold the marker."""
        found = set()
        for path in (self.folder / "data").rglob("*"):
            try:
                if path.is_file() and marked(path.read_bytes()):
                    found.add(path.parent.name)
            except FileNotFoundError:
                # Removed while we looked.
                continue
        return found


@pytest.fixture
def keen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeenKafka]:
    broker = KeenKafka(server_folder(tmp_path_factory, "keen-kafka"))
    with service_started(broker):
        yield broker


def write_documents(path: Path) -> None:
    """Documents that become rows, rejections and dead letters; all hold the marker."""
    with path.open("w") as file:
        for number in range(120):
            text = f"{MARKER} wohnt in der Hauptstraße. " * (40 if number % 2 else 1)
            file.write(
                json.dumps({"document_id": f"{MARKER}-{number}", "content": text, "title": MARKER}) + "\n"
            )
        file.write(f"{{broken {MARKER}\n")
        file.write(json.dumps({"document_id": 7, "content": [MARKER]}) + "\n")


async def marked_objects(system: System) -> list[str]:
    infos = [info.key async for info in system.store.list("")]
    return [key for key in infos if marked(await system.store.get(key))]


async def marked_topics(system: System) -> list[str]:
    found = []
    for topic in await system.broker.topics():
        async with system.broker.table_reader(topic) as table:
            records = await table.catch_up(deadline=60)
        if any(marked(record.key) or marked(record.value) for record in records):
            found.append(topic)
    return found


async def forget_soon(broker: KeenKafka, topic: str) -> None:
    """What a day brings: the segment is closed, and compacted."""
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    try:
        soon = {"segment.ms": "100", "max.compaction.lag.ms": "100", "cleanup.policy": "compact"}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, soon)])
    finally:
        await admin.close()


async def shown(system: System, *arguments: str) -> str:
    command = [sys.executable, "-m", "shardline", "doctor", "--data", *arguments]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, env=system.env())
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


async def test_what_delete_leaves(tmp_path: Path, keen: KeenKafka, seaweed: S3) -> None:
    write_documents(tmp_path / "sample.jsonl")
    spool = tmp_path / "spool"
    spool.mkdir()
    grace = {"SHARDLINE_TOPIC_GRACE_SECONDS": "3600", "SHARDLINE_SPOOL_DIR": str(spool)}
    async with running_system(tmp_path, keen.bootstrap, seaweed, tmp_path, **grace) as system:
        processes = [system.start("producer")]
        spec = job(**sample_job("person", quality={"keep_rejected": "full", "min_score": 0.45}))
        await system.submit(spec)
        await until(lambda: any("dataset.job." in folder for folder in keen.files_with_the_marker()))
        processes.append(system.start("worker"))
        view = await system.finished("person")
        assert view.state.state == "completed", view.to_json()
        manifest = await system.manifest(spec)
        assert manifest["totals"]["rows"] > 0
        assert sum(manifest["rejected"].values()) > 0
        await DatasetExports(system.store, spool).get_or_create(spec, manifest, "jsonl", metadata=True)
        await it_is_wherever_doctor_says(system, spec)

        await system.client.request(Request(job_id="person", action="delete", requested_by="the officer"))
        await system.until("person", lambda view: view.state.state == "deleted")

        assert [path for path in spool.rglob("*") if path.is_file() and marked(path.read_bytes())] == []
        await it_is_nowhere_that_can_be_asked(system)

        # On the brokers' disks: the attempt's files go at once, the letters with the next compaction.
        await until(lambda: all(DEAD_LETTERS in folder for folder in keen.files_with_the_marker()))
        await forget_soon(keen, f"{system.prefix}.{DEAD_LETTERS}")
        await rolled(system, keen)
        assert await marked_topics(system) == []
        for process in processes:
            assert not marked(process.log.read_bytes())


async def it_is_wherever_doctor_says(system: System, spec: JobSpec) -> None:
    assert DEAD_LETTERS in await marked_topics(system)
    folders = {key.removeprefix(f"{spec.slug}/person/").split("/")[0] for key in await marked_objects(system)}
    assert folders == {"data", "rejected", "dead-letters", "_exports"}
    found = {one["place"]: one["found"] for one in orjson.loads(await shown(system, "person", "--json"))}
    assert found["topic dataset.job.person.N"] == attempt_topic("person", 1)
    assert found["topic dataset.dead-letters"] == "2 dead letters of this job"
    assert sum("objects" in text for text in found.values()) == 9


async def it_is_nowhere_that_can_be_asked(system: System) -> None:
    assert await marked_objects(system) == []
    left = [info.key async for info in system.store.list("")]
    assert [key for key in left if not key.startswith("_probe/")] == [job_key("person")]
    assert sorted(await system.broker.topics()) == sorted([JOBS, CHECKPOINTS, EVENTS, DEAD_LETTERS])
    assert await system.client.dead_letters() == {}
    found = {one["place"]: one["found"] for one in orjson.loads(await shown(system, "person", "--json"))}
    assert found["topic dataset.checkpoints"] == "the job is deleted"
    assert [name for name, text in found.items() if "objects" in text] == [
        f"{system.store.uri}/{job_key('person')}"
    ]


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.1)


async def rolled(system: System, broker: KeenKafka) -> None:
    """Write on, as a system in use does, until nothing is left."""
    async with asyncio.timeout(90):
        while broker.files_with_the_marker():
            await system.broker.publish(
                DEAD_LETTERS, [Message(b"another/0/0", None, partition) for partition in range(4)]
            )
            await asyncio.sleep(0.3)
