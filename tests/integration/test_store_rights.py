"""The policies of deploy/iam, judged by a store that keeps to them: enough for a job, and none too much."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from deploy.dev.seaweed import ACCESS_KEY, BUCKET, SECRET_KEY, Seaweed
from shardline.gateway.exports import DatasetExports
from shardline.services.client import Client
from shardline.services.sample import write_sample
from shardline.services.wiring.producer import job_slots, producer_policy
from shardline.services.wiring.sources import source_factory
from shardline_common.dataset.verify import Verifier
from shardline_common.errors import ObjectExists, ObjectMissing, StoreUnavailable
from shardline_common.job.names import Layout
from shardline_common.job.spec import Request
from shardline_common.memory.broker import MemoryBroker
from shardline_common.runtime.clock import SystemClock
from shardline_common.settings.load import Settings
from shardline_common.storage.probe import probe_create_only
from shardline_common.storage.s3 import S3Options, S3Store, open_s3
from shardline_common.telemetry.metrics import Metrics
from shardline_consumer.worker import Worker
from shardline_producer.context import ProducerContext
from shardline_producer.coordinator import JobCoordinator
from shardline_producer.topics import ensure_system_topics
from tests.make import job, sample_job, worker_context
from tests.services import server_folder, service_started
from tests.support.secured_system import at_work

POLICIES = Path(__file__).parent.parent.parent / "deploy" / "iam"
ROLES = sorted(path.stem for path in POLICIES.glob("*.json"))


def policy(role: str) -> dict[str, Any]:
    text = (POLICIES / f"{role}.json").read_text().replace("BUCKET", BUCKET).replace("PREFIX", "sets")
    return dict(json.loads(text))


def policies() -> dict[str, dict[str, Any]]:
    """Those of the roles, and each once more without one of its statements."""
    found = {role: policy(role) for role in ROLES}
    for role in ROLES:
        for one in policy(role)["Statement"]:
            rest = [other for other in policy(role)["Statement"] if other != one]
            found[f"{role}-{one['Sid']}"] = policy(role) | {"Statement": rest}
    return found


class GuardedSeaweed(Seaweed):
    """A store with an identity for each policy, by the policy's name."""

    def command(self, ports: Mapping[str, int]) -> list[str]:
        """Add the identities."""
        admin = {"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}
        identities = [{"name": "admin", "credentials": [admin], "actions": ["Admin"]}]
        identities += [
            {"name": name, "credentials": [{"accessKey": name, "secretKey": name}], "policyNames": [name]}
            for name in policies()
        ]
        written = [{"name": name, "content": json.dumps(content)} for name, content in policies().items()]
        config = self.folder / "identities.json"
        config.write_text(json.dumps({"identities": identities, "policies": written}))
        return [*super().command(ports), f"-s3.config={config}"]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedSeaweed]:
    store = GuardedSeaweed(server_folder(tmp_path_factory, "guarded"))
    with service_started(store):
        yield store


@asynccontextmanager
async def as_role(guarded: GuardedSeaweed, name: str, prefix: str = "sets") -> AsyncIterator[S3Store]:
    options = S3Options(
        BUCKET,
        endpoint_url=guarded.endpoint,
        access_key_id=name,
        secret_access_key=name,
        addressing_style="path",
        attempts=2,
    )
    async with open_s3(options) as client:
        yield S3Store(client, BUCKET, prefix)


async def test_a_whole_job_needs_no_more(tmp_path: Path, guarded: GuardedSeaweed) -> None:
    write_sample(tmp_path / "sample.jsonl", 300)
    settings, broker, clock = (
        Settings(files_root=tmp_path, progress_seconds=0.2, topic_grace_seconds=0),
        MemoryBroker(),
        SystemClock(),
    )
    await ensure_system_topics(broker, 1)
    source = source_factory(settings, tmp_path, confined=True, remote=None)
    spec, client = job(**sample_job("rights", quality={"keep_rejected": True})), Client(broker, 1)
    async with (
        as_role(guarded, "producer") as producing,
        as_role(guarded, "worker") as working,
        as_role(guarded, "gateway") as serving,
        as_role(guarded, "reader") as reading,
    ):
        parts = ProducerContext(
            broker, producing, clock, Metrics(), source, producer_policy(settings), job_slots(settings)
        )
        worker = Worker(worker_context(broker, working, tmp_path, clock=clock))
        async with at_work(JobCoordinator(parts).run, worker.run):
            await client.submit(spec)
            await reached(client, "completed")
            report = await Verifier(reading, Layout.of(spec).root).run()
            assert report.ok, report.problems
            manifest = json.loads(await serving.get(Layout.of(spec).manifest))
            await DatasetExports(serving, tmp_path).get_or_create(spec, manifest, "jsonl", metadata=True)
            assert [info.key async for info in reading.list(Layout.of(spec).exports)]
            await client.request(Request(job_id="rights", action="delete"))
            await reached(client, "deleted")
        assert [info.key async for info in reading.list("sample/")] == []
        assert [info.key async for info in reading.list(Layout.of(spec).exports)] == []


async def reached(client: Client, state: str) -> None:
    async with asyncio.timeout(60):
        while [view.state.state.value for view in (await client.job_table()).jobs()] != [state]:
            await asyncio.sleep(0.05)


async def used_as(role: str, store: S3Store) -> None:
    """All that a process of the role asks of the store."""
    key = "_exports/one" if role == "gateway" else "one"
    if role in ("producer", "worker"):
        await probe_create_only(store, rounds=1)
        assert [info.key async for info in store.list("_probe/")] == [], "the probe's object stays"
    if role != "reader":
        await create(store, key)
    with pytest.raises(ObjectMissing):
        await store.get("not-there")
    assert await store.get("one") == b"body"
    assert "one" in [info.key async for info in store.list("")]
    if role == "producer":
        await store.delete(["one"])


async def create(store: S3Store, key: str) -> None:
    try:
        await store.create(key, b"body")
    except ObjectExists:
        assert await store.get(key) == b"body"


@pytest.mark.parametrize("role", ROLES)
async def test_each_statement_is_needed(guarded: GuardedSeaweed, role: str) -> None:
    async with as_role(guarded, "producer") as owner:
        for name in [name for name in policies() if name.startswith(f"{role}-")]:
            await create(owner, "one")
            async with as_role(guarded, name) as store:
                with pytest.raises((StoreUnavailable, AssertionError), match=r"AccessDenied|probe's object"):
                    await used_as(role, store)
            await owner.delete([info.key async for info in owner.list("_probe/")])
        await create(owner, "one")
        async with as_role(guarded, role) as store:
            await used_as(role, store)


@pytest.mark.parametrize("role", ROLES)
async def test_nothing_outside_of_the_prefix(guarded: GuardedSeaweed, role: str) -> None:
    async with as_role(guarded, role, "other") as store:
        for refused in (store.create("two", b"body"), store.get("one"), store.delete(["one"])):
            with pytest.raises(StoreUnavailable, match="AccessDenied"):
                await refused
        with pytest.raises(StoreUnavailable, match="AccessDenied"):
            assert [info async for info in store.list("")]
