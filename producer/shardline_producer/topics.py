"""Topics: the four system topics and the topic of each attempt, with their required settings."""

import asyncio
from collections.abc import Mapping

from shardline_common.errors import FailureCode, JobFailed, TopicMissing, UsageError
from shardline_common.job.names import CHECKPOINTS, DEAD_LETTERS, EVENTS, JOBS, attempt_topic
from shardline_common.job.spec import JobSpec
from shardline_common.ports.broker import Broker, TopicSpec

_MIB = 1024 * 1024
_SEGMENT = 64 * _MIB
_MESSAGE_ROOM = 128 * 1024
_DAY_MS = 86_400_000


def system_topics(partitions: int) -> list[TopicSpec]:
    """The topics of the system. dataset.jobs and dataset.checkpoints have the same number of partitions."""
    compacted = {
        "cleanup.policy": "compact",
        "segment.bytes": str(8 * _MIB),
        "min.cleanable.dirty.ratio": "0.1",
    }
    unlimited = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}
    # Deleted dead letters must be removed within days; with the default settings it takes over a week.
    daily = {"segment.ms": str(_DAY_MS), "max.compaction.lag.ms": str(_DAY_MS)}
    dead_letters = {"cleanup.policy": "compact,delete", "retention.ms": str(30 * _DAY_MS)} | daily
    events = {"cleanup.policy": "delete", "retention.ms": str(7 * _DAY_MS)}
    return [
        TopicSpec(JOBS, partitions, unlimited),
        TopicSpec(CHECKPOINTS, partitions, compacted | {"max.message.bytes": str(8 * _MIB)}),
        TopicSpec(EVENTS, partitions, events),
        TopicSpec(DEAD_LETTERS, partitions, dead_letters),
    ]


async def ensure_system_topics(broker: Broker, partitions: int) -> int:
    """Create the system topics that do not exist. Returns the number of partitions of dataset.jobs.

    Args:
        broker: the broker.
        partitions: the number of partitions of a topic that is created.

    Raises:
        UsageError: dataset.jobs and dataset.checkpoints differ in their number of partitions.
        TopicMissing: one of them was deleted during the call.
    """
    wanted = system_topics(partitions)
    found = await asyncio.gather(*(broker.partitions(topic.name) for topic in wanted))
    missing = [topic for topic, count in zip(wanted, found, strict=True) if not count]
    await asyncio.gather(*map(broker.create_topic, missing))
    jobs, checkpoints = await asyncio.gather(broker.partitions(JOBS), broker.partitions(CHECKPOINTS))
    if not jobs or not checkpoints:
        raise TopicMissing(
            f"{JOBS} or {CHECKPOINTS} does not exist", hint="stop the program that deletes them"
        )
    if jobs != checkpoints:
        raise UsageError(
            f"dataset.jobs has {jobs} partitions, dataset.checkpoints {checkpoints}",
            hint="add partitions to the smaller one until both have the same number",
        )
    return jobs


def attempt_topic_spec(spec: JobSpec, attempt: int, limit: int) -> TopicSpec:
    """The topic of an attempt, which may hold `limit` bytes.

    With a small limit its log segments are small, because Kafka deletes only closed ones.
    """
    segment = max(_MIB, min(_SEGMENT, limit // (4 * spec.total_partitions)))
    config = {
        "cleanup.policy": "delete",
        "retention.ms": "-1",
        "retention.bytes": "-1",
        "segment.bytes": str(segment),
        "max.message.bytes": str(spec.max_document_bytes + max(_MESSAGE_ROOM, _MIB)),
    }
    return TopicSpec(attempt_topic(spec.job_id, attempt), spec.total_partitions, config)


async def ensure_attempt_topic(broker: Broker, wanted: TopicSpec) -> None:
    """Create the topic of an attempt, or use an existing one whose settings fit.

    Raises:
        JobFailed: the existing topic would lose or refuse documents (`topic_unsuitable`).
    """
    if await broker.create_topic(wanted):
        return
    found = await broker.describe_topic(wanted.name)
    if found is None:
        return
    problems = [] if found.partitions == wanted.partitions else [f"{found.partitions} partitions"]
    problems += _unsuitable_settings(found.config, wanted.config)
    if problems:
        raise JobFailed(
            FailureCode.TOPIC_UNSUITABLE,
            f"the topic {wanted.name} exists with {', '.join(problems)}; "
            f"needed are {wanted.partitions} partitions, unlimited retention, "
            f"max.message.bytes {wanted.config['max.message.bytes']}",
            hint="delete the topic or alter its settings, then retry the job",
        )


def _unsuitable_settings(found: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    problems = []
    if "compact" in found.get("cleanup.policy", "delete"):
        problems.append("cleanup.policy " + found["cleanup.policy"])
    problems += [
        f"{name} {found[name]}"
        for name in ("retention.ms", "retention.bytes")
        if found.get(name, "-1") != "-1"
    ]
    if int(found.get("max.message.bytes", wanted["max.message.bytes"])) < int(wanted["max.message.bytes"]):
        problems.append("max.message.bytes " + found["max.message.bytes"])
    return problems
