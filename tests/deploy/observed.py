"""One run scraped by a real Prometheus: a job with dead letters, one that fails, a busy gateway."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import orjson
import requests

from shardline.services.sample import write_sample
from shardline_common.job.spec import JobSpec, parse_job
from tests.deploy.prometheus import Prometheus
from tests.e2e.system import Process, System, running_system
from tests.faults.proxies import Fault, S3Proxy
from tests.gateway.system import Server, body, running
from tests.make import sample_job
from tests.services import S3, service_started

JOB = "watched"
# More than a producer reads ahead, so that it reads while Prometheus looks.
DOCUMENTS, DEAD, RATE = 6000, 12, 600
# A partition takes seconds to fill such a segment: chains lag for so long, however fast workers are.
SEGMENT_BYTES = 786_432
_PORT = r"healthz and /readyz on port (\d+)"


@dataclass(frozen=True)
class Observed:
    """What was seen, between `start` and `end`; `left`: series of jobs that processes export afterwards."""

    prometheus: Prometheus
    start: float
    end: float
    left: list[str]


@contextmanager
def observed_run(folder: Path, kafka: str, s3: S3) -> Iterator[Observed]:
    """The run, and then Prometheus for as long as the context lasts."""
    with ExitStack() as stack:
        gateway = stack.enter_context(running(folder / "gateway"))
        yield asyncio.run(_run(folder, kafka, s3, gateway, stack))


async def _run(folder: Path, kafka: str, s3: S3, gateway: Server, stack: ExitStack) -> Observed:
    store = S3Proxy(s3.endpoint, [Fault("PUT", rf"/{JOB}/_state/outcome-1\.json$", "held")])
    s3 = replace(s3, endpoint=stack.enter_context(store.running()))
    write_sample(folder / "sample.jsonl", DOCUMENTS)
    with (folder / "sample.jsonl").open("a") as file:
        file.write('{"document_id": "no text"}\n' * DEAD)
    env = {"SHARDLINE_SOURCE_RATE": str(RATE)}
    async with running_system(folder, kafka, s3, folder, **env) as system:
        producer, *workers = [system.start(kind) for kind in ("producer", "worker", "worker")]
        for process in (producer, *workers):
            await process.until_ready()
        targets = {
            "shardline-producer": [producer.port],
            "shardline-worker": [worker.port for worker in workers],
            "shardline-gateway": [int(gateway.until_logged(_PORT)[1])],
        }
        prometheus = Prometheus(folder / "prometheus", targets)
        await asyncio.to_thread(stack.enter_context, service_started(prometheus))
        # Prometheus sees every counter at 0 before anything happens.
        await asyncio.to_thread(prometheus.until, "up == 1", lambda found: len(found) == 4)
        start = time.time()
        await _work(system, gateway, prometheus, store)
        seen = f'count by (__name__, job) ({{__name__=~"shardline_.*", dataset_job="{JOB}"}})'
        await asyncio.to_thread(prometheus.until, seen, lambda found: not found)
        return Observed(prometheus, start, time.time(), _left([producer, *workers]))


async def _work(system: System, gateway: Server, prometheus: Prometheus, store: S3Proxy) -> None:
    await system.submit(_job("broken", source={"type": "files", "paths": ["not-there.jsonl"]}))
    # Assembled: the stages have gauges of their own.
    await system.submit(_job(JOB, output={"layout": "assembled", "shard_bytes": SEGMENT_BYTES}))
    await asyncio.to_thread(_clients, gateway, prometheus)
    # The series end with the job: it may end once Prometheus has scraped the totals.
    produced = f'shardline_job_documents{{dataset_job="{JOB}", stage="produced"}} == {DOCUMENTS + DEAD}'
    await asyncio.to_thread(prometheus.until, produced)
    store.release()
    view = await system.finished(JOB)
    assert view.state.state == "completed", view.to_json()
    assert (await system.finished("broken")).state.state == "failed"
    firing = 'ALERTS{alertname=~"ShardlineJobFailed|ShardlineDeadLetters", alertstate="firing"}'
    await asyncio.to_thread(prometheus.until, firing, lambda found: len(found) == 2)


def _job(job_id: str, **changes: object) -> JobSpec:
    return parse_job(orjson.dumps(sample_job(job_id, **changes)))


def _clients(gateway: Server, prometheus: Prometheus) -> None:
    """Lists, whole streams, a refusal, a stream that breaks, one that is open, and watchers."""
    url = gateway.url
    for _ in range(5):
        requests.get(f"{url}/api/datasets", timeout=10).raise_for_status()
        requests.post(f"{url}/api/datasets/stream", json=body(), timeout=30).raise_for_status()
        assert requests.post(f"{url}/api/datasets/stream", json=body("away"), timeout=30).status_code == 503
        assert requests.get(f"{url}/api/datasets/none", timeout=10).status_code == 404
    # More than the socket buffers hold, and it is not read.
    endless = body("endless", top_k=10_000_000)
    with (
        requests.post(f"{url}/api/datasets/stream", json=endless, stream=True, timeout=30),
        requests.get(f"{url}/api/events", stream=True, timeout=30),
    ):
        prometheus.until("sum by (kind) (shardline_gateway_streams_open) == 1", lambda found: len(found) == 2)
    prometheus.until("sum (shardline_gateway_streams_open) == 0")


def _left(processes: list[Process]) -> list[str]:
    return [
        line
        for process in processes
        for line in process.get("/metrics").splitlines()
        if "dataset_job=" in line
    ]
