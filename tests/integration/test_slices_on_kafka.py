"""Two producers of one job on Kafka: both read, either may go, and an old one of a slice is fenced."""

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from shardline_common.errors import Fenced
from shardline_common.job.names import CHECKPOINTS, transactional_id
from shardline_common.job.state import checkpoint
from shardline_common.kafka.broker import KafkaBroker, open_kafka
from shardline_common.kafka.options import KafkaOptions
from tests.simulation.simulated_source import documents
from tests.support.slice_system import GatedSource, SliceSystem, running, sliced_job

COUNT = 240
ITEMS = documents(COUNT)
IDS = Counter(f"doc-{number}" for number in range(1, COUNT + 1))


@asynccontextmanager
async def on_kafka(
    source: GatedSource, spool: Path, kafka: str, producers: int = 2
) -> AsyncIterator[SliceSystem]:
    prefix = "t" + secrets.token_hex(4) + "."
    options = KafkaOptions(kafka, prefix=prefix, session_timeout_ms=6000, transaction_timeout_ms=10_000)
    async with AsyncExitStack() as stack:
        brokers: list[KafkaBroker] = [await stack.enter_async_context(open_kafka(options)) for _ in range(2)]
        yield await stack.enter_async_context(running(source, spool, producers, brokers=brokers))


async def test_two_producers_read_one_job_and_one_takes_over_the_slices_of_the_other(
    tmp_path: Path, kafka: str
) -> None:
    spec, gate = sliced_job(4), asyncio.Event()
    source = GatedSource(ITEMS, gate)
    async with on_kafka(source, tmp_path, kafka) as system:
        await system.client.submit(spec)
        # Both have sent documents of the job. One that joins late takes over slices first.
        await system.until(
            spec,
            lambda view: (
                view.state.slices == {"running": 4}
                and all(producer.metric("documents_produced_total") > 0 for producer in system.producers)
            ),
        )
        await system.producers[1].stop()
        gate.set()
        await system.finished(spec)
        assert await system.ids(spec) == IDS
        report = await system.verified(spec)
        assert await system.slices(spec) == {}
    async with running(GatedSource(ITEMS), tmp_path, 1) as undisturbed:
        await undisturbed.client.submit(spec)
        await undisturbed.finished(spec)
        assert report.digest == (await undisturbed.verified(spec)).digest


async def test_a_producer_that_lost_a_slice_commits_nothing_more(tmp_path: Path, kafka: str) -> None:
    spec, gate = sliced_job(2), asyncio.Event()
    async with on_kafka(GatedSource(ITEMS, gate), tmp_path, kafka, producers=1) as system:
        await system.client.submit(spec)
        await system.until(spec, lambda view: view.state.slices == {"running": 2})
        late = (await system.slices(spec))[1]
        async with system.broker.transactional(transactional_id(spec.job_id, 1)) as writer:
            gate.set()
            # The producer of the slice is fenced, opens it again, and sends the rest.
            await system.finished(spec)
            late.source_count = 0
            with pytest.raises(Fenced):
                async with writer.transaction() as transaction:
                    await transaction.send(CHECKPOINTS, [checkpoint(late)])
        assert await system.ids(spec) == IDS
        await system.verified(spec)
