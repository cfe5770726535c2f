"""The check of `doctor` that writes to Kafka: one transaction, as a producer commits it, read back."""

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import replace

from shardline_common.errors import BrokerRefused, BrokerUnavailable, ShardlineError
from shardline_common.job.names import CHECKPOINTS, EVENTS, attempt_group, attempt_topic, transactional_id
from shardline_common.job.spec import JobSpec
from shardline_common.ports.broker import Broker, GroupListener, Message, TopicSpec
from shardline_producer.topics import attempt_topic_spec

_TRIES = 3
_READ_SECONDS = 20.0
_JOIN_SECONDS = 15.0


async def probe_transaction(broker: Broker, topic_bytes: int) -> str:
    """Commit a transaction and read it back. Returns a sentence.

    1. Create a topic as that of an attempt; without that right, take dataset.events.
    2. Commit a message to it; then a tombstone to each partition of dataset.checkpoints, which readers pass
    over. Apart, because nobody can read checkpoints while Kafka refuses the other half of a transaction.
    3. Read a message back. 4. Join a group as that of an attempt. 5. Delete the topic.

    No job can have the names of the topic, the transactional id, the group and the key.

    Args:
        broker: the broker, with the settings and the rights of a producer.
        topic_bytes: the limit of the topic of a job.

    Raises:
        BrokerUnavailable: Kafka refuses one of the steps, or does not answer.
        ShardlineError: what was written is not read.
    """
    job_id = f"_doctor-{secrets.token_hex(4)}"
    spec = _topic_spec(attempt_topic(job_id, 1), topic_bytes)
    try:
        # 1.
        topic = await _writable_topic(broker, spec)
        checkpoints = await broker.partitions(CHECKPOINTS)
        # 2. The first transaction in a cluster waits until its topic is made.
        for left in reversed(range(_TRIES)):
            try:
                await _commit(broker, job_id, topic, checkpoints)
                break
            except BrokerRefused:
                raise
            except BrokerUnavailable:
                if not left:
                    raise
        # 3.
        seen = await _read_back(broker, job_id, CHECKPOINTS if checkpoints else topic)
        # 4.
        joined = await _join(broker, job_id, topic)
    finally:
        # 5. Also when its creation failed half way.
        if await broker.partitions(spec.name):
            await broker.delete_topic(spec.name)
    where = "a topic of its own" if topic == spec.name else topic
    return f"a transaction on {where} was committed and {seen}; {joined}"


def _topic_spec(name: str, topic_bytes: int) -> TopicSpec:
    job = JobSpec.model_validate(
        {"job_id": "doctor", "name": "doctor", "source": {"type": "files", "paths": ["none.jsonl"]}}
    )
    return replace(attempt_topic_spec(job, 1, topic_bytes), name=name, partitions=1)


async def _writable_topic(broker: Broker, spec: TopicSpec) -> str:
    try:
        await broker.create_topic(spec)
    except BrokerRefused:
        # Topics may be made beforehand, without the right to create them.
        if await broker.partitions(spec.name) or not await broker.partitions(EVENTS):
            raise
        return EVENTS
    return spec.name


async def _commit(broker: Broker, job_id: str, topic: str, checkpoints: int) -> None:
    key = job_id.encode()
    async with broker.transactional(transactional_id(job_id)) as writer:
        async with writer.transaction() as transaction:
            await transaction.send(topic, [Message(key, None, 0)])
        if checkpoints:
            tombstones = [Message(key, None, number) for number in range(checkpoints)]
            async with writer.transaction() as transaction:
                await transaction.send(CHECKPOINTS, tombstones)


async def _read_back(broker: Broker, job_id: str, topic: str) -> str:
    try:
        async with broker.table_reader(topic, [0]) as table:
            records = await table.catch_up(deadline=_READ_SECONDS)
    except BrokerRefused as error:
        if topic == CHECKPOINTS or not error.forbidden:
            raise
        return f"not read back: a producer needs no right to read {topic}"
    if not any(record.key == job_id.encode() for record in records):
        raise ShardlineError(
            f"a message that was committed to {topic} is not read", hint="see the brokers' log"
        )
    return "read back"


async def _join(broker: Broker, job_id: str, topic: str) -> str:
    assigned = asyncio.Event()

    async def on_assigned(_: Sequence[int]) -> None:
        assigned.set()

    async def on_revoked(_: Sequence[int]) -> None:
        assigned.clear()

    listener, group = GroupListener(on_assigned, on_revoked), attempt_group(job_id, 1)
    try:
        async with broker.group_reader(topic, group, listener) as reader, asyncio.timeout(_JOIN_SECONDS):
            while not assigned.is_set():
                await reader.poll((), timeout=0.1, max_records=1)
    except BrokerRefused as error:
        if not error.forbidden:
            raise
        return "no group was joined: a producer needs no right to one of workers"
    except TimeoutError:
        reason = broker.failing(0.0) or "no answer"
        raise BrokerUnavailable(
            f"a group was not joined within {_JOIN_SECONDS:.0f} s: {reason}",
            hint="set what is named on the brokers",
        ) from None
    return "a group was joined"
