"""Processes are killed at each failpoint in turn, and stopped there for longer than their session."""

import asyncio
import random
import signal
from pathlib import Path

import psutil
import pytest

from shardline_common.job.names import Layout
from shardline_common.runtime.failpoints import POINTS, VARIABLE
from tests.e2e.system import Process, System, running_system
from tests.faults.oracle import SHORT, judge_sample
from tests.faults.proxies import Fault, S3Proxy, until
from tests.sampled import Sampled
from tests.services import S3

FINISH = POINTS[POINTS.index("worker.before_outcome") :]


def shuffled(kind: str, dice: random.Random) -> list[str]:
    """The failpoints of a kind of process in random order, without those of the completion."""
    points = [name for name in POINTS if name.startswith(kind) and name not in FINISH]
    dice.shuffle(points)
    return points


async def killed_in_turn(system: System, dice: random.Random, points: list[str]) -> None:
    """Start one process after another, each killed at its failpoint."""
    for point in points:
        await dead(system.start(point.partition(".")[0], **{VARIABLE: f"{point}=kill@{dice.randint(1, 3)}"}))


async def dead(process: Process) -> None:
    """Return when it was killed by its own failpoint."""
    async with asyncio.timeout(180):
        while process.popen.poll() is None:
            await asyncio.sleep(0.05)
    assert process.popen.returncode == -signal.SIGKILL, process.log_text()


async def stopped(process: Process) -> None:
    """Return when it was stopped by its own failpoint."""
    seen = psutil.Process(process.popen.pid)
    async with asyncio.timeout(180):
        while seen.status() != psutil.STATUS_STOPPED:
            await asyncio.sleep(0.05)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_processes_are_killed_at_every_failpoint(
    tmp_path: Path, kafka: str, seaweed: S3, sampled: Sampled, seed: int
) -> None:
    async with running_system(
        tmp_path, kafka, seaweed, sampled.folder, SHARDLINE_SOURCE_RATE="1000", **SHORT
    ) as system:
        spec = sampled.job("sample")
        await system.submit(spec)
        dice = random.Random(seed)
        lives = shuffled("worker", dice)
        async with asyncio.TaskGroup() as lanes:
            lanes.create_task(killed_in_turn(system, dice, shuffled("producer", dice)))
            lanes.create_task(killed_in_turn(system, dice, lives[::2]))
            lanes.create_task(killed_in_turn(system, dice, lives[1::2]))
        producer = system.start("producer")
        lander = system.start("worker", **{VARIABLE: f"{FINISH[0]}=kill"})
        await dead(lander)
        # A producer publishes too when the workers take too long, and they take turns here.
        producer.send(signal.SIGKILL)
        for point in FINISH[1:]:
            await dead(system.start("worker", **{VARIABLE: f"{point}=kill"}))
        for kind in ("producer", "worker"):
            system.start(kind)
        view = await system.finished("sample")
        assert view.state.state == "completed", view.to_json()
        await judge_sample(system, sampled, spec)


@pytest.mark.parametrize("of", ["/data/", "/chain/"])
async def test_a_put_of_a_replaced_worker_is_refused(
    tmp_path: Path, kafka: str, seaweed: S3, sampled: Sampled, of: str
) -> None:
    proxy = S3Proxy(seaweed.endpoint)
    with proxy.running() as endpoint:
        async with running_system(
            tmp_path, kafka, seaweed, sampled.folder, SHARDLINE_SOURCE_RATE="80", **SHORT
        ) as system:
            await refuse_the_zombie(system, sampled, proxy, endpoint, of)


async def refuse_the_zombie(system: System, sampled: Sampled, proxy: S3Proxy, endpoint: str, of: str) -> None:
    spec = sampled.job("sample")
    zombie = system.start("worker", S3_ENDPOINT_URL=endpoint)
    await zombie.until_ready()
    system.start("producer")
    await system.submit(spec)
    await until(lambda: proxy.count("PUT", of, 200) > 0, "the first segment lands")
    # Past the check of its epoch: sent, and in the store only when another has landed the segment.
    proxy.faults.append(Fault("PUT", of, "held", times=1))
    await until(lambda: proxy.held > 0, "a put is under way")
    zombie.send(signal.SIGSTOP)
    other = system.start("worker")
    await system.until_chains_move(spec)
    before = await objects(system, spec_root := Layout.of(spec).root)
    # Only the zombie's requests pass the proxy.
    proxy.release()
    await until(lambda: proxy.count("PUT", of, 412) > 0, "the zombie's put is refused")
    zombie.send(signal.SIGCONT)
    after = await objects(system, spec_root)
    assert {key: after.get(key) for key in before} == before, "an object was replaced"
    await system.hurry()
    view = await system.finished("sample")
    assert view.state.state == "completed", view.to_json()
    after = await objects(system, spec_root)
    assert {key: after.get(key) for key in before} == before, "an object was replaced by who had woken"
    assert other.popen.poll() is None
    assert zombie.popen.poll() is None
    await judge_sample(system, sampled, spec)


async def objects(system: System, root: str) -> dict[str, str]:
    return {info.key: info.etag async for info in system.store.list(root)}
