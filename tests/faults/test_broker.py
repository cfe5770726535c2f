"""A killed broker and a faulty network to it: the dataset is the undisturbed one."""

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardline_common.errors import BrokerUnavailable
from tests.e2e.system import System, running_system
from tests.faults.oracle import SHORT, judge_sample
from tests.faults.proxies import TcpProxy
from tests.sampled import Sampled
from tests.services import S3, ProxiedKafka, server_folder, service_started


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ProxiedKafka, TcpProxy]]:
    """A broker of this module's own, and a proxy before its second listener."""
    kafka = ProxiedKafka(server_folder(tmp_path_factory, "proxied-kafka"))
    with service_started(kafka):
        proxy = TcpProxy(kafka.ports["behind"], kafka.proxy_port)
        with proxy.running():
            yield kafka, proxy


async def ended(system: System) -> str:
    """The final state of the job. The job table may be unreadable meanwhile."""
    while True:
        try:
            return (await system.finished("sample")).state.state.value
        except BrokerUnavailable:
            await asyncio.sleep(0.5)


async def test_a_killed_broker_stays_down_for_several_sessions(
    tmp_path: Path, broker: tuple[ProxiedKafka, TcpProxy], seaweed: S3, sampled: Sampled
) -> None:
    kafka, _ = broker
    async with running_system(
        tmp_path, kafka.bootstrap, seaweed, sampled.folder, SHARDLINE_SOURCE_RATE="80", **SHORT
    ) as system:
        spec = sampled.job("sample")
        for kind in ("producer", "worker", "worker"):
            system.start(kind)
        await system.submit(spec)
        view = await system.until("sample", lambda view: view.progress.chained > 0)
        assert view.state.state == "running", "the broker must be killed while the job runs"
        await asyncio.to_thread(kafka.stop, kill=True)
        # Four session time-outs.
        await asyncio.sleep(8)
        await asyncio.to_thread(kafka.start)
        await system.hurry()
        assert await ended(system) == "completed"
        assert all(process.popen.poll() is None for process in system.processes)
        await judge_sample(system, sampled, spec)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_connections_are_cut_frozen_and_delayed(
    tmp_path: Path, broker: tuple[ProxiedKafka, TcpProxy], seaweed: S3, sampled: Sampled, seed: int
) -> None:
    kafka, proxy = broker
    dice = random.Random(seed)
    async with running_system(
        tmp_path, kafka.bootstrap, seaweed, sampled.folder, SHARDLINE_SOURCE_RATE="80", **SHORT
    ) as system:
        spec = sampled.job("sample")
        through = {"KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{kafka.proxy_port}"}
        for kind in ("producer", "worker", "worker"):
            await system.start(kind, **through).until_ready()
        await system.submit(spec)
        await system.until("sample", lambda view: view.state.produced > 0)
        before = proxy.connections
        harms = ["cut", "freeze", "slow", "cut", "away"]
        dice.shuffle(harms)
        for harm in harms:
            proxy.frozen, proxy.delay = harm == "freeze", 0.05 if harm == "slow" else 0.0
            if harm in ("cut", "away"):
                proxy.down = True
                await asyncio.sleep(0.1 if harm == "cut" else 3.0)
                proxy.down = False
            await asyncio.sleep(dice.uniform(0.5, 2.5))
        proxy.frozen, proxy.delay = False, 0.0
        assert proxy.connections > before + 3, "no process had to reconnect"
        await system.hurry()
        assert await ended(system) == "completed"
        assert all(process.popen.poll() is None for process in system.processes)
        await judge_sample(system, sampled, spec)
