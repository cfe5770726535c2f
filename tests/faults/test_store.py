"""The object store fails in every way it can: the dataset is the undisturbed one, and nothing hangs."""

import asyncio
import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import psutil
import pytest

from common.layout import attempt_topic
from common.models import Request
from tests.e2e.system import Process, running_system
from tests.faults.oracle import SHORT, judge_sample
from tests.faults.proxies import Fault, S3Proxy, until
from tests.sampled import Sampled
from tests.services import S3

LANDING = "/(data|rejected|_state/chain)/"
MOST_MIB = 200 * 1e6 / (1 << 20)


@pytest.fixture
def proxy(seaweed: S3) -> Iterator[tuple[S3Proxy, str]]:
    """A proxy before the store, and its endpoint."""
    server = S3Proxy(seaweed.endpoint)
    with server.running() as endpoint:
        yield server, endpoint


def burst(dice: random.Random) -> list[Fault]:
    """Faults of every kind, in any order: each hits a few requests."""
    faults = [Fault("PUT", LANDING, "lost", dice.randint(2, 5)), Fault("PUT", "/_state/", "lost", 2)]
    faults += [Fault("PUT", LANDING, status, dice.randint(1, 4)) for status in (409, 429, 500, 503)]
    faults += [Fault("PUT", LANDING, "reset", dice.randint(1, 4))]
    faults += [
        Fault("GET", ".", kind, dice.randint(1, 4)) for kind in ("half", "reset", 503, 500, "error body")
    ]
    dice.shuffle(faults)
    return faults


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_bursts_of_every_fault(
    tmp_path: Path, kafka: str, seaweed: S3, sampled: Sampled, proxy: tuple[S3Proxy, str], seed: int
) -> None:
    store, endpoint = proxy
    async with running_system(tmp_path, kafka, seaweed, sampled.folder, **SHORT) as system:
        spec = sampled.job("sample")
        for kind in ("producer", "worker", "worker"):
            system.start(kind, S3_ENDPOINT_URL=endpoint)
        for process in system.processes:
            await process.until_ready()
        store.faults = burst(random.Random(seed))
        await system.submit(spec)
        view = await system.finished("sample")
        assert view.state.state == "completed", view.to_json()
        await judge_sample(system, sampled, spec)
    assert all(fault.times == 0 for fault in store.faults if fault.method == "PUT"), store.faults
    assert store.count("PUT", LANDING, 412) > 0, "no lost answer came back as a refused create"


async def test_an_outage_is_waited_out(
    tmp_path: Path, kafka: str, seaweed: S3, sampled: Sampled, proxy: tuple[S3Proxy, str]
) -> None:
    store, endpoint = proxy
    async with running_system(
        tmp_path, kafka, seaweed, sampled.folder, SHARDLINE_SOURCE_RATE="80", **SHORT
    ) as system:
        spec = sampled.job("sample")
        system.start("producer", S3_ENDPOINT_URL=endpoint)
        workers = [
            system.start("worker", S3_ENDPOINT_URL=endpoint, SHARDLINE_STUCK_SECONDS="4") for _ in range(2)
        ]
        await system.submit(spec)
        for worker in workers:
            await worker.until_metric("shards_written_total", "sample", 1)
        assigned = [worker.log_text().count("joining again") for worker in workers]
        store.down = True
        # Five sessions long: whoever stopped polling would have lost its partitions.
        for worker in workers:
            await until(lambda one=worker: "in vain" in readiness(one), "not ready, and says why")  # type: ignore[misc]  # bound now
        assert all(worker.metric("in_vain_seconds") > 4 for worker in workers)
        await asyncio.sleep(10)
        store.down = False
        await system.hurry()
        view = await system.finished("sample")
        assert view.state.state == "completed", view.to_json()
        await judge_sample(system, sampled, spec)
        assert [worker.log_text().count("joining again") for worker in workers] == assigned
        for process in system.processes:
            assert process.popen.poll() is None
            assert psutil.Process(process.popen.pid).memory_info().rss / (1 << 20) < MOST_MIB
        for worker in workers:
            await until(lambda one=worker: '"ready":true' in readiness(one), "ready again")  # type: ignore[misc]  # bound now


def readiness(process: Process) -> str:
    try:
        with urlopen(f"http://127.0.0.1:{process.port}/readyz", timeout=10) as answer:
            return str(answer.read())
    except HTTPError as error:
        with error:
            return str(error.read())


async def test_expired_credentials_freeze_and_resume(
    tmp_path: Path, kafka: str, seaweed: S3, sampled: Sampled, proxy: tuple[S3Proxy, str]
) -> None:
    store, endpoint = proxy
    async with running_system(
        tmp_path, kafka, seaweed, sampled.folder, SHARDLINE_SOURCE_RATE="80", **SHORT
    ) as system:
        spec = sampled.job("sample")
        system.start("producer")
        worker = system.start("worker", S3_ENDPOINT_URL=endpoint)
        await system.submit(spec)
        await worker.until_metric("shards_written_total", "sample", 1)
        store.faults = [Fault(method, ".", 403) for method in ("PUT", "GET")]
        await worker.until_metric("store_errors_total", "sample", 3)
        landed = worker.metric("shards_written_total", "sample")
        await until(lambda: store.count("PUT", LANDING, 403) > 4, "it goes on asking")
        assert worker.metric("shards_written_total", "sample") == landed
        assert "AWS_SECRET_ACCESS_KEY" in worker.log_text() or "ExpiredToken" in worker.log_text()
        assert seaweed.secret_key not in worker.log_text()
        store.faults = []
        await system.hurry()
        view = await system.finished("sample")
        assert view.state.state == "completed", view.to_json()
        await judge_sample(system, sampled, spec)


async def test_sigterm_while_the_store_is_slow(
    tmp_path: Path, kafka: str, seaweed: S3, sampled: Sampled, proxy: tuple[S3Proxy, str]
) -> None:
    store, endpoint = proxy
    async with running_system(tmp_path, kafka, seaweed, sampled.folder, **SHORT) as system:
        spec = sampled.job("sample")
        system.start("producer")
        slow = Fault("PUT", "/data/", "slow", seconds=30.0)
        store.faults = [slow]
        workers = [
            system.start("worker", S3_ENDPOINT_URL=endpoint, SHARDLINE_SHUTDOWN_GRACE_SECONDS="20")
            for _ in range(2)
        ]
        await system.submit(spec)
        await until(lambda: slow.times <= (1 << 30) - 2, "both upload")
        # Once: it lets go of the upload and leaves. Twice: it is gone at once.
        assert await asyncio.to_thread(workers[0].end, signal.SIGTERM, 20) == 0
        workers[1].send(signal.SIGTERM)
        workers[1].send(signal.SIGTERM)
        assert await asyncio.to_thread(workers[1].popen.wait, 5) in (0, 128 + signal.SIGTERM, -signal.SIGTERM)
        store.faults = []
        system.start("worker", S3_ENDPOINT_URL=endpoint)
        view = await system.finished("sample")
        assert view.state.state == "completed", view.to_json()
        await judge_sample(system, sampled, spec)


async def test_cancelled_in_the_middle_of_an_upload_then_retried(
    tmp_path: Path, kafka: str, seaweed: S3, sampled: Sampled, proxy: tuple[S3Proxy, str]
) -> None:
    store, endpoint = proxy
    async with running_system(tmp_path, kafka, seaweed, sampled.folder, **SHORT) as system:
        spec = sampled.job("sample")
        system.start("producer")
        system.start("worker", S3_ENDPOINT_URL=endpoint)
        slow = Fault("PUT", "/data/", "slow", seconds=3.0)
        store.faults = [slow]
        await system.submit(spec)
        await until(lambda: slow.times <= (1 << 30) - 2, "an upload is under way")
        await system.client.request(Request(job_id="sample", action="cancel"))
        view = await system.finished("sample")
        assert view.state.state == "cancelled", view.to_json()
        await system.until("sample", lambda view: view.state.topic_removed)
        assert await system.broker.describe_topic(attempt_topic("sample", 1)) is None
        store.faults = []
        await system.client.request(Request(job_id="sample", action="retry"))
        view = await system.until("sample", lambda view: view.state.attempt == 2 and not view.state.active)
        assert view.state.state == "completed", view.to_json()
        await judge_sample(system, sampled, spec)


async def test_a_partition_lost_and_gained_while_its_upload_is_pending(
    tmp_path: Path, kafka: str, seaweed: S3, sampled: Sampled, proxy: tuple[S3Proxy, str]
) -> None:
    store, endpoint = proxy
    async with running_system(tmp_path, kafka, seaweed, sampled.folder, **SHORT) as system:
        spec = sampled.job("sample")
        system.start("producer")
        slow = Fault("PUT", "/data/", "slow", seconds=5.0)
        store.faults = [slow]
        worker = system.start("worker", S3_ENDPOINT_URL=endpoint)
        await system.submit(spec)
        await until(lambda: slow.times <= (1 << 30) - 2, "both partitions upload")
        # It comes, takes a partition, and leaves: the first has it back before its old put has ended.
        guest = system.start("worker")
        await guest.until_metric("documents_consumed_total", "sample", 1)
        assert await asyncio.to_thread(guest.end, signal.SIGTERM, 20) == 0
        store.faults = []
        view = await system.finished("sample")
        assert view.state.state == "completed", view.to_json()
        assert worker.popen.poll() is None
        await judge_sample(system, sampled, spec)


@pytest.mark.parametrize("how", ["full", "removed"])
async def test_a_spool_that_cannot_be_written(
    tmp_path: Path, kafka: str, seaweed: S3, sampled: Sampled, how: str
) -> None:
    async with running_system(
        tmp_path, kafka, seaweed, sampled.folder, SHARDLINE_SOURCE_RATE="80", **SHORT
    ) as system:
        spec = sampled.job("sample")
        system.start("producer")
        worker = system.start("worker")
        await system.submit(spec)
        await worker.until_metric("shards_written_total", "sample", 1)
        if how == "full":
            # A quota on every file of the process: what a full disk answers, without filling one.
            psutil.Process(worker.popen.pid).rlimit(psutil.RLIMIT_FSIZE, (16_384, 16_384))
        else:
            for folder in tmp_path.glob("shardline-*"):
                shutil.rmtree(folder)
        assert await asyncio.to_thread(worker.popen.wait, 60) == 3
        said = worker.log_text()
        assert "cannot be written" in said
        assert "SHARDLINE_SPOOL_DIR" in said
        assert "Traceback" not in said
        system.start("worker")
        await system.hurry()
        view = await system.finished("sample")
        assert view.state.state == "completed", view.to_json()
        await judge_sample(system, sampled, spec)


async def test_a_source_that_goes_away_fails_its_job_and_a_retry_goes_on(
    tmp_path: Path, kafka: str, seaweed: S3, sampled: Sampled, proxy: tuple[S3Proxy, str]
) -> None:
    store, endpoint = proxy
    async with running_system(
        tmp_path, kafka, seaweed, sampled.folder, SHARDLINE_SOURCE_RATE="500", **SHORT
    ) as system:
        await system.store.create("in/sample.jsonl", sampled.folder / "sample.jsonl")
        uri = f"s3://{seaweed.bucket}/{system.prefix}/in/sample.jsonl"
        spec = sampled.job("sample", source={"type": "files", "paths": [uri]})
        store.faults = [Fault("GET", "/in/", "half", 2)]
        producer = system.start("producer", S3_ENDPOINT_URL=endpoint, SHARDLINE_SOURCE_PATIENCE_SECONDS="2")
        system.start("worker")
        await producer.until_ready()
        store.faults += [Fault("GET", "/in/", 503)]
        await system.submit(spec)
        view = await system.finished("sample")
        assert (view.state.state, view.state.code) == ("failed", "source_unreachable"), view.to_json()
        assert "did not answer" in (view.state.message or "")
        store.faults = [Fault("GET", "/in/", "half", 2)]
        await system.client.request(Request(job_id="sample", action="retry"))
        view = await system.until("sample", lambda view: view.state.attempt == 2 and not view.state.active)
        assert view.state.state == "completed", view.to_json()
        await judge_sample(system, sampled, spec)
