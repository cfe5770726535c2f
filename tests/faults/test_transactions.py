"""Aborted and open transactions are not read; the older of two producers of a job is fenced."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiokafka import AIOKafkaProducer, TopicPartition

from shardline_common.job.names import attempt_topic
from shardline_common.job.spec import JobSpec
from shardline_common.runtime.failpoints import VARIABLE
from tests.e2e.system import System, running_system
from tests.faults.oracle import SHORT, judge_sample
from tests.faults.proxies import until
from tests.faults.test_failpoints import stopped
from tests.make import document
from tests.sampled import Sampled
from tests.services import S3


@asynccontextmanager
async def foreign_producer(system: System, name: str) -> AsyncIterator[AIOKafkaProducer]:
    """A transactional producer that is not Shardline's."""
    producer = AIOKafkaProducer(
        bootstrap_servers=system.kafka,
        transactional_id=f"{system.prefix}.{name}",
        transaction_timeout_ms=300_000,
    )
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def bogus(system: System, producer: AIOKafkaProducer, spec: JobSpec) -> None:
    """A document that must never be read, at the end of every partition."""
    topic = f"{system.prefix}.{attempt_topic(spec.job_id, 1)}"
    for partition in range(spec.total_partitions):
        value = document(1 << 20).value
        await producer.send_and_wait(topic, value, b"bogus", partition=partition)


async def only_markers(system: System, producer: AIOKafkaProducer, spec: JobSpec) -> None:
    """A committed transaction of which a partition holds nothing but the marker."""
    await producer.begin_transaction()
    places = {
        TopicPartition(f"{system.prefix}.{attempt_topic(spec.job_id, 1)}", number)
        for number in range(spec.total_partitions)
    }
    for place in places:
        producer._txn_manager.maybe_add_partition_to_txn(place)
    async with asyncio.timeout(10):
        while not places <= producer._txn_manager.txn_partitions:
            await asyncio.sleep(0.02)
    await producer.commit_transaction()


async def test_aborted_open_and_empty_transactions_are_not_read(
    tmp_path: Path, kafka: str, seaweed: S3, sampled: Sampled
) -> None:
    async with running_system(tmp_path, kafka, seaweed, sampled.folder, **SHORT) as system:
        spec = sampled.job("sample")
        # Each commit of this producer follows a transaction that was broken off.
        first = system.start("producer", **{VARIABLE: "producer.after_checkpoint=kill@2"})
        await system.submit(spec)
        assert await asyncio.to_thread(first.popen.wait, 60) == -signal.SIGKILL
        system.start("producer")
        await system.until("sample", lambda view: view.state.state == "completing")
        async with foreign_producer(system, "aborts") as aborts, foreign_producer(system, "opens") as opens:
            await aborts.begin_transaction()
            await bogus(system, aborts, spec)
            await aborts.abort_transaction()
            await only_markers(system, aborts, spec)
            await opens.begin_transaction()
            await bogus(system, opens, spec)
            worker = system.start("worker")
            view = await system.finished("sample")
            assert view.state.state == "completed", view.to_json()
            assert worker.metric("store_errors_total") == 0
            await opens.abort_transaction()
        await judge_sample(system, sampled, spec)


async def test_the_older_of_two_producers_of_a_job_is_fenced(
    tmp_path: Path, kafka: str, seaweed: S3, sampled: Sampled
) -> None:
    async with running_system(
        tmp_path, kafka, seaweed, sampled.folder, SHARDLINE_SOURCE_RATE="80", **SHORT
    ) as system:
        spec = sampled.job("sample")
        # It is stopped between its sends and its commit.
        older = system.start("producer", **{VARIABLE: "producer.after_checkpoint=stop@4"})
        system.start("worker")
        await system.submit(spec)
        await stopped(older)
        newer = system.start("producer")
        await newer.until_metric("documents_produced_total", "sample", 200)
        older.send(signal.SIGCONT)
        await until(lambda: "took over" in older.log_text(), "the older is fenced")
        await system.hurry()
        view = await system.finished("sample")
        assert view.state.state == "completed", view.to_json()
        await judge_sample(system, sampled, spec)
