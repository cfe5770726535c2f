"""Processes killed and stopped while they work: the dataset has the undisturbed digest."""

import asyncio
import random
import signal
from pathlib import Path

import pytest

from tests.e2e.system import Process, System, multiset, running_system
from tests.faults.oracle import SHORT
from tests.laws import Laws
from tests.services import S3

KILLS = 10


async def judge(system: System, laws: Laws, job_id: str) -> None:
    """The oracle: ids, chains, and the undisturbed run's digest."""
    spec = laws.job(job_id)
    report = await system.verify(spec)
    assert report.ok, report.problems
    assert multiset(await system.rows(spec)) == dict.fromkeys(laws.expected.rows, 1)
    assert report.rejected == laws.expected.rejected
    assert report.digest == laws.digest


@pytest.mark.timeout(400)
@pytest.mark.corpus
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_random_kills_leave_the_undisturbed_digest(
    tmp_path: Path, kafka: str, seaweed: S3, laws: Laws, seed: int
) -> None:
    dice = random.Random(seed)
    kills, again = 0, 0.0
    async with running_system(
        tmp_path, kafka, seaweed, laws.folder, SHARDLINE_SOURCE_RATE="1600", **SHORT
    ) as system:
        alive = [system.start("producer"), system.start("worker"), system.start("worker")]
        spec = laws.job("laws")
        await system.submit(spec)
        await system.until("laws", lambda view: view.progress.chained > 0)
        while kills < KILLS:
            # Seeded, and long enough that what was started again gets into its work.
            await asyncio.sleep(dice.uniform(0.5, 2.0))
            if not (await system.client.job_table()).job("laws").state.active:
                break
            place = dice.randrange(len(alive))
            victim = alive[place]
            if victim.kind == "worker":
                again += victim.metric("documents_consumed_total", "laws")
            victim.end(signal.SIGKILL)
            kills += 1
            alive[place] = system.start(victim.kind)
        workers = [process for process in alive if process.kind == "worker"]
        for worker in workers:
            # Every worker that is left commits segments: a member without work would mean a stuck group.
            await worker.until_metric("shards_written_total", "laws", 1)
        again += await read_to_the_end(system, workers)
        view = await system.finished("laws")
        assert view.state.state == "completed", view.to_json()
        await judge(system, laws, "laws")
    # The kills took effect: there were enough, and documents that killed workers had read were read again.
    assert kills >= KILLS, "the job ended before all kills"
    assert again > laws.expected.documents, again


async def read_to_the_end(system: System, workers: list[Process]) -> float:
    """How many documents the workers read, asked until the job ends, which removes its metrics."""
    read = [0.0] * len(workers)
    async with asyncio.TaskGroup() as tasks:
        ended = tasks.create_task(system.finished("laws", deadline=300))
        while not ended.done():
            for number, worker in enumerate(workers):
                now = await asyncio.to_thread(worker.metric, "documents_consumed_total", "laws")
                read[number] = max(read[number], now)
            await asyncio.wait([ended], timeout=0.1)
    return sum(read)


@pytest.mark.corpus
async def test_a_paused_worker_resumes_behind_the_chain(
    tmp_path: Path, kafka: str, seaweed: S3, laws: Laws
) -> None:
    async with running_system(
        tmp_path, kafka, seaweed, laws.folder, SHARDLINE_SOURCE_RATE="1000", **SHORT
    ) as system:
        zombie, other = system.start("worker"), system.start("worker")
        system.start("producer")
        spec = laws.job("laws")
        await system.submit(spec)
        await system.until("laws", lambda view: view.progress.chained > 2000)
        await zombie.until_metric("shards_written_total", "laws", 1)
        zombie.send(signal.SIGSTOP)
        before = (await system.client.job_table()).job("laws").progress.chained
        # The other worker must take over all partitions: every chain grows while the first is stopped.
        await system.until_chains_move(spec)
        zombie.send(signal.SIGCONT)
        await system.hurry()
        view = await system.finished("laws")
        assert view.state.state == "completed", view.to_json()
        assert view.progress.chained > before
        assert other.popen.poll() is None
        assert zombie.popen.poll() is None
        await judge(system, laws, "laws")
