"""The rights that `doctor --print-acls` prints are enough for a whole job, and none of them is too much."""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest

from shardline.gateway.job_watcher import JobWatcher
from shardline.services.client import Client
from shardline.services.doctor import Check, run_checks
from shardline.services.processes import kafka_probe
from shardline_common.errors import BrokerUnavailable
from shardline_common.job.names import (
    ATTEMPT_GROUPS,
    ATTEMPT_TOPICS,
    CHECKPOINTS,
    DEAD_LETTERS,
    EVENTS,
    JOBS,
    PRODUCERS,
    TRANSACTIONAL_IDS,
)
from shardline_common.job.spec import Request
from shardline_common.ports.broker import TopicSpec
from shardline_common.runtime.retry import retry_forever
from shardline_common.settings.load import Settings
from shardline_producer.topics import attempt_topic_spec, ensure_system_topics
from tests.make import job, sample_job
from tests.support.kafka_rights import Acl
from tests.support.secure_kafka import SecureKafka
from tests.support.secured_system import CLOCK, SecuredSystem, at_work, open_secured_system
from tests.support.token_endpoint import TokenEndpoint


async def test_a_whole_job_needs_no_more(tmp_path: Path, secure: SecureKafka, tokens: TokenEndpoint) -> None:
    async with open_secured_system(tmp_path, secure, tokens) as system:
        await ensure_system_topics(system.brokers["producer"], 1)
        watch = JobWatcher(system.brokers["gateway"], 1, CLOCK)
        async with at_work(system.owner().run, system.worker().run, watch.run):
            spec = job(**sample_job("whole"))
            await Client(system.brokers["submitter"], 1).submit(spec)
            view = await system.seen("whole", lambda view: not view.state.active)
            assert view.state.state == "completed", view.to_json()
            await system.seen("whole", lambda view: view.progress.chained == view.state.produced > 300)
            async with asyncio.timeout(30):
                while watch.unavailable_reason is not None:
                    await watch.wait_for_refresh()
            await watch.submit(job(**sample_job("over-http")))
            await system.seen("over-http", lambda view: view.state.state == "completed")
            assert len(await Client(system.everyone, 1).dead_letters()) > 0
            await Client(system.brokers["submitter"], 1).request(Request(job_id="whole", action="delete"))
            await Client(system.brokers["submitter"], 1).request(Request(job_id="over-http", action="delete"))
            for job_id in ("whole", "over-http"):
                await system.seen(job_id, lambda view: view.state.state == "deleted")
        assert await Client(system.everyone, 1).dead_letters() == {}
        assert sorted(await system.everyone.topics()) == sorted([JOBS, CHECKPOINTS, EVENTS, DEAD_LETTERS])


Step = Callable[[SecuredSystem], Awaitable[object]]


async def look(system: SecuredSystem) -> None:
    await Client(system.brokers["reader"], 1).job_table()


async def submit(system: SecuredSystem) -> None:
    await Client(system.brokers["submitter"], 1).submit(job(**sample_job(f"s-{secrets.token_hex(4)}")))


async def watch(system: SecuredSystem) -> None:
    watched = JobWatcher(system.brokers["gateway"], 1, CLOCK)
    async with at_work(watched.run), asyncio.timeout(20):
        while (reason := watched.unavailable_reason) is not None:
            if "does not allow" in reason:
                raise BrokerUnavailable(reason)
            await asyncio.sleep(0.02)
        await watched.submit(job(**sample_job(f"g-{secrets.token_hex(4)}")))


async def test_a_client_needs_each_of_its_rights(
    tmp_path: Path, secure: SecureKafka, tokens: TokenEndpoint
) -> None:
    steps: dict[str, Step] = {"reader": look, "submitter": submit, "gateway": watch}
    async with open_secured_system(tmp_path, secure, tokens) as system:
        await ensure_system_topics(system.everyone, 1)
        for role, step in steps.items():
            for acl in system.granted[role]:
                await system.rights.take(acl)
                with pytest.raises(BrokerUnavailable, match="does not allow"):
                    await step(system)
                await system.rights.give([acl])
            await step(system)


async def test_who_makes_the_topics_needs_each_right_to(
    tmp_path: Path, secure: SecureKafka, tokens: TokenEndpoint
) -> None:
    async with open_secured_system(tmp_path, secure, tokens) as system:
        broker = system.brokers["producer"]
        for acl in [one for one in system.granted["producer"] if one.operation == "Create"]:
            name = acl.name.removeprefix(system.prefix)
            await system.rights.take(acl)
            wanted = TopicSpec(f"{name}x.1" if acl.pattern == "prefixed" else name, 1)
            with pytest.raises(BrokerUnavailable, match="has no right to create it") as error:
                await broker.create_topic(wanted)
            assert "--print-topics" in str(error.value.hint)
            # What others made is used.
            await system.everyone.create_topic(wanted)
            assert await broker.create_topic(wanted) is False


async def test_readiness_names_a_missing_right_until_it_is_given(
    tmp_path: Path, secure: SecureKafka, tokens: TokenEndpoint
) -> None:
    async with open_secured_system(tmp_path, secure, tokens) as system:
        broker = system.brokers["producer"]
        await ensure_system_topics(broker, 1)
        (acl,) = [one for one in system.granted["producer"] if one.resource == "transactional-id"]
        await system.rights.take(acl)
        probe = kafka_probe(broker, Settings(stuck_seconds=0.5))
        async with at_work(system.owner().run, system.worker().run), asyncio.timeout(60):
            await Client(system.brokers["submitter"], 1).submit(job(**sample_job("wait")))
            while (found := await probe()) is None:
                await asyncio.sleep(0.05)
            right = f"--operation Write --transactional-id {system.prefix}dataset.producer.wait"
            assert f"User:producer {right}" in found
            await system.rights.give([acl])
            await system.seen("wait", lambda view: view.state.state == "completed")
            while await probe() is not None:
                await asyncio.sleep(0.05)


async def test_doctor_needs_the_rights_of_a_producer_and_names_a_missing_one(
    tmp_path: Path, secure: SecureKafka, tokens: TokenEndpoint
) -> None:
    async def found() -> Check:
        checks = await run_checks(system.settings)
        return next(check for check in checks if check.name == "kafka")

    async with open_secured_system(tmp_path, secure, tokens) as system:
        check = await found()
        assert check.ok
        assert "committed and not read back: a producer needs no right" in check.found
        await ensure_system_topics(system.brokers["producer"], 1)
        check = await found()
        assert check.ok
        assert "committed and read back; no group was joined: a producer needs no right" in check.found
        acls = {
            (one.name.removeprefix(system.prefix), one.operation): one for one in system.granted["producer"]
        }
        await system.rights.take(acls[ATTEMPT_TOPICS, "Create"])
        assert "a transaction on dataset.events was committed" in (await found()).found
        for name, operation in ((TRANSACTIONAL_IDS, "Write"), (CHECKPOINTS, "Write")):
            await system.rights.take(acls[name, operation])
            check = await found()
            assert check.ok is False
            assert f"--add --allow-principal User:producer --operation {operation}" in check.found
            assert system.prefix + name in check.found
            await system.rights.give([acls[name, operation]])
        # Nobody took what the probe wrote for a job.
        await Client(system.brokers["reader"], 1).job_table()
        assert sorted(await system.everyone.topics()) == sorted([JOBS, CHECKPOINTS, EVENTS, DEAD_LETTERS])


class Ladder:
    """Takes all rights of producer and worker, and gives one after the other, each when it is missed."""

    def __init__(self, system: SecuredSystem, caplog: pytest.LogCaptureFixture) -> None:
        self._house = system
        self._caplog = caplog
        self._left = {
            (role, acl.name.removeprefix(system.prefix), acl.operation): acl
            for role in ("producer", "worker")
            for acl in system.granted[role]
            # Everything is there already: who makes it is another test.
            if acl.operation != "Create"
        }

    async def pull_up(self) -> None:
        """Nobody may do anything but see that the topics are there."""
        for acl in self._left.values():
            await self._house.rights.take(acl)
        for role, names in _SEEN.items():
            for name in names:
                pattern = "prefixed" if name == ATTEMPT_TOPICS else "literal"
                seen = Acl(f"User:{role}", "topic", self._house.prefix + name, pattern, "Describe")
                await self._house.rights.give([seen])

    async def rung(self, complaint: str, role: str, name: str, operation: str) -> None:
        """Wait for the complaint, then give the right."""
        acl = self._left.pop((role, name, operation))
        async with asyncio.timeout(60):
            while not any(complaint in said for said in self._complaints()):
                await asyncio.sleep(0.02)
        await self._house.rights.give([acl])
        self._caplog.clear()

    def _complaints(self) -> list[str]:
        return [one.getMessage() for one in self._caplog.records if "does not allow" in one.getMessage()]

    @property
    def left(self) -> list[Acl]:
        """What was never missed."""
        return list(self._left.values())


_SEEN = {
    "producer": (JOBS, CHECKPOINTS, DEAD_LETTERS, ATTEMPT_TOPICS),
    "worker": (CHECKPOINTS, EVENTS, DEAD_LETTERS, ATTEMPT_TOPICS),
}


def work_of(system: SecuredSystem, role: str) -> Callable[[], Awaitable[None]]:
    """A process as it starts: first it looks for the topics."""
    broker, work = system.brokers[role], (system.owner if role == "producer" else system.worker)

    async def start() -> None:
        await retry_forever(
            partial(ensure_system_topics, broker, 1), CLOCK, "create the system topics", cap=0.5
        )
        await work().run()

    return start


async def test_a_job_stands_still_without_each_of_the_rights(
    tmp_path: Path, secure: SecureKafka, tokens: TokenEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    # Of many tries in vain only the first is a warning.
    caplog.set_level(logging.DEBUG, "shardline_common.runtime.tasks")
    # Who follows slices has met some of the refusals before.
    caplog.set_level(logging.DEBUG, "shardline_producer.attempt")
    async with open_secured_system(tmp_path, secure, tokens) as system:
        ladder, client = Ladder(system, caplog), Client(system.everyone, 1)
        await ladder.pull_up()
        spec = job(**sample_job("climb"))
        await ensure_system_topics(system.everyone, 1)
        await system.everyone.create_topic(attempt_topic_spec(spec, 1, 1 << 30))
        await client.submit(spec)
        async with at_work(work_of(system, "producer")):
            await ladder.rung("dataset.events cannot be described", "producer", EVENTS, "Write")
            await ladder.rung("dataset.jobs cannot be read", "producer", PRODUCERS, "Read")
            await ladder.rung("dataset.jobs cannot be read", "producer", JOBS, "Read")
            await ladder.rung("climb cannot be opened", "producer", TRANSACTIONAL_IDS, "Write")
            await ladder.rung("the transaction", "producer", CHECKPOINTS, "Write")
            await ladder.rung("table cannot be read", "producer", CHECKPOINTS, "Read")
            await ladder.rung("cannot be described", "producer", ATTEMPT_TOPICS, "DescribeConfigs")
            await ladder.rung("the transaction", "producer", ATTEMPT_TOPICS, "Write")
            async with at_work(work_of(system, "worker")):
                await ladder.rung("dataset.jobs cannot be described", "worker", JOBS, "Describe")
                await ladder.rung("table cannot be read", "worker", CHECKPOINTS, "Read")
                await ladder.rung("climb.1 cannot be read", "worker", ATTEMPT_GROUPS, "Read")
                await ladder.rung("climb.1 cannot be read", "worker", ATTEMPT_TOPICS, "Read")
                await ladder.rung("dead-letters cannot be written", "worker", DEAD_LETTERS, "Write")
                await ladder.rung("events cannot be written", "worker", EVENTS, "Write")
                await ladder.rung("cannot be deleted", "producer", ATTEMPT_TOPICS, "Delete")
                await system.seen("climb", lambda view: view.state.topic_removed)
                await client.request(Request(job_id="climb", action="delete"))
                await ladder.rung("table cannot be read", "producer", DEAD_LETTERS, "Read")
                await ladder.rung("dead-letters cannot be written", "producer", DEAD_LETTERS, "Write")
                await system.seen("climb", lambda view: view.state.state == "deleted")
        assert ladder.left == []
