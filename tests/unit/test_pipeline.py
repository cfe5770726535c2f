"""The pipeline from source to topic, resumed from a checkpoint."""

import asyncio
import random

import pytest

from shardline_common.errors import FailureCode, JobFailed
from shardline_common.job.names import attempt_topic
from shardline_common.job.plan import Plan
from shardline_common.job.spec import JobSpec
from shardline_common.job.state import JobState, PartitionState, State
from shardline_common.memory.broker import MemoryBroker
from shardline_common.memory.store import MemoryStore
from shardline_common.ports.broker import TopicSpec
from shardline_common.runtime.clock import SystemClock
from shardline_common.telemetry.metrics import Metrics
from shardline_producer.backlog import Backlog
from shardline_producer.context import ProducerContext, ProducerPolicy
from shardline_producer.pipeline import Pipeline
from shardline_producer.topics import ensure_system_topics
from tests.make import job
from tests.simulation.simulated_source import MemorySource, documents


async def resume_at_the_end(spec: JobSpec, dead: int) -> list[int]:
    """Run the pipeline behind the last of three items. Returns the messages of each partition."""
    broker, store = MemoryBroker(), MemoryStore()
    await ensure_system_topics(broker, 1)
    topic = attempt_topic(spec.job_id, 1)
    await broker.create_topic(TopicSpec(topic, spec.partitions))
    source = MemorySource(documents(3), random.Random(1))
    context = ProducerContext(
        broker,
        store,
        SystemClock(),
        Metrics(),
        lambda _spec, _pages: source,
        ProducerPolicy(),
        asyncio.Semaphore(),
    )
    state = JobState(spec, State.RUNNING, planned=True, cursor=(0, 3, 3), source_count=3)
    state.partitions = [PartitionState(sequence=3, dead=dead)]
    backlog, plan = Backlog(broker, store, state, 1), Plan(await source.freeze(), {})
    async with broker.transactional("test") as writer:
        await Pipeline(context, writer, backlog, state, source, plan).run()
    return [len(log.records) for log in broker.topic(topic).logs]


async def test_too_many_dead_letters_before_a_crash_fail_the_job_after_it() -> None:
    # The batch with the last of them was committed; the producer was killed before it failed the job.
    spec = job(partitions=1, quality={"max_dead_letters": 1})
    assert await resume_at_the_end(spec, dead=1) == [1]
    with pytest.raises(JobFailed, match="2 dead letters, the job allows 1") as failed:
        await resume_at_the_end(spec, dead=2)
    assert failed.value.code is FailureCode.TOO_MANY_DEAD_LETTERS
