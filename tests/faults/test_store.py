"""Faults of the object store: errors, lost responses, outages. The dataset is the undisturbed one."""

import asyncio
import random
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from shardline_common.job.names import attempt_topic
from shardline_common.job.spec import Request
from tests.e2e.system import running_system
from tests.faults.oracle import SHORT, judge_sample
from tests.faults.proxies import Fault, S3Proxy, until
from tests.sampled import Sampled
from tests.services import S3

# Seconds that a worker may take for its end: the second one must not need them.
GRACES = ("30", "600")
LANDING = "/(data|rejected|_state/chain)/"
MOST_MIB = 200 * 1e6 / (1 << 20)


@pytest.fixture
def proxy(seaweed: S3) -> Iterator[tuple[S3Proxy, str]]:
    """A proxy before the store, and its endpoint."""
    server = S3Proxy(seaweed.endpoint)
    with server.running() as endpoint:
        yield server, endpoint


@pytest.fixture
def proxies(seaweed: S3) -> Iterator[list[tuple[S3Proxy, str]]]:
    """Two proxies, one for each worker, so that a request can be attributed to its worker."""
    servers = [S3Proxy(seaweed.endpoint) for _ in range(2)]
    with ExitStack() as stack:
        yield [(server, stack.enter_context(server.running())) for server in servers]


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
async def test_bursts_of_store_faults_leave_the_undisturbed_digest(
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


async def test_workers_wait_for_the_end_of_a_store_outage(
    tmp_path: Path, kafka: str, seaweed: S3, sampled: Sampled, proxy: tuple[S3Proxy, str]
) -> None:
    store, endpoint = proxy
    # A slow response of Kafka must not count as a lost membership.
    settings = SHORT | {"SHARDLINE_SOURCE_RATE": "80", "KAFKA_REQUEST_TIMEOUT_MS": "30000"}
    async with running_system(tmp_path, kafka, seaweed, sampled.folder, **settings) as system:
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
        # Five session time-outs long: a worker that stopped polling would lose its partitions.
        for worker in workers:
            await until(lambda one=worker: "failing for" in one.readiness(), "not ready, and says why")  # type: ignore[misc]  # bound now
            await until(lambda one=worker: one.metric("in_vain_seconds") > 4, "and for how long")  # type: ignore[misc]  # bound now
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
            await worker.until_ready()


async def test_work_pauses_while_credentials_are_expired(
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
        await until(lambda: store.count("PUT", LANDING, 403) > 4, "the worker retries")
        assert worker.metric("shards_written_total", "sample") == landed
        assert "AWS_SECRET_ACCESS_KEY" in worker.log_text() or "ExpiredToken" in worker.log_text()
        assert seaweed.secret_key not in worker.log_text()
        store.faults = []
        await system.hurry()
        view = await system.finished("sample")
        assert view.state.state == "completed", view.to_json()
        await judge_sample(system, sampled, spec)


async def test_sigterm_during_a_slow_upload(
    tmp_path: Path, kafka: str, seaweed: S3, sampled: Sampled, proxies: list[tuple[S3Proxy, str]]
) -> None:
    async with running_system(tmp_path, kafka, seaweed, sampled.folder, **SHORT) as system:
        spec = sampled.job("sample")
        system.start("producer")
        workers = []
        for (store, endpoint), seconds in zip(proxies, GRACES, strict=True):
            store.faults = [Fault("PUT", "/data/", "held")]
            grace = {"SHARDLINE_SHUTDOWN_GRACE_SECONDS": seconds}
            workers.append(system.start("worker", S3_ENDPOINT_URL=endpoint, **grace))
        for worker in workers:
            await worker.until_ready()
        await system.submit(spec)
        for worker in workers:
            await worker.until_metric("documents_consumed_total", "sample", 1)
        await until(lambda: all(store.held for store, _ in proxies), "both workers upload")
        # One SIGTERM: the worker abandons the upload and exits within its grace. Two: it exits at once.
        assert await asyncio.to_thread(workers[0].end, signal.SIGTERM, 60) == 0
        workers[1].send(signal.SIGTERM)
        # Two waits for the same process would get one result.
        await until(
            lambda: "a second signal stops at once" in workers[1].log_text(), "the first signal is handled"
        )
        workers[1].send(signal.SIGTERM)
        gone = await asyncio.to_thread(workers[1].popen.wait, 60)
        assert gone in (0, 128 + signal.SIGTERM, -signal.SIGTERM)
        for store, _ in proxies:
            store.release()
        system.start("worker")
        view = await system.finished("sample")
        assert view.state.state == "completed", view.to_json()
        await judge_sample(system, sampled, spec)


async def test_a_job_cancelled_during_an_upload_can_be_retried(
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


async def test_a_partition_is_reassigned_during_its_upload(
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
        # Another worker takes a partition and leaves. The first has it back before its old put has ended.
        guest = system.start("worker")
        await guest.until_metric("documents_consumed_total", "sample", 1)
        assert await asyncio.to_thread(guest.end, signal.SIGTERM, 20) == 0
        store.faults = []
        view = await system.finished("sample")
        assert view.state.state == "completed", view.to_json()
        assert worker.popen.poll() is None
        await judge_sample(system, sampled, spec)


@pytest.mark.parametrize("how", ["full", "removed"])
async def test_a_worker_exits_when_its_spool_cannot_be_written(
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


async def test_an_unreachable_source_fails_the_job_and_a_retry_resumes(
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
