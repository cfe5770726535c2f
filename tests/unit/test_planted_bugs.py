"""Planted bugs that schedules of the simulation meet rarely: each check holds, and fails with its bug."""

from dataclasses import replace
from typing import Any

import pytest

from shardline_common.dataset.chain import EMPTY_SHA256, Chain, ChainRecord, Totals
from shardline_common.errors import FailureCode, JobFailed
from shardline_common.job.names import Layout, attempt_topic
from shardline_common.job.state import JobState, PartitionState
from shardline_common.memory.broker import MemoryBroker
from shardline_common.memory.store import MemoryStore
from shardline_common.ports.broker import Message, TopicSpec
from shardline_producer.backlog import Backlog
from tests.make import job
from tests.simulation.mutants import CAUGHT_BY_TEST, planted

SPEC = job(partitions=1)
LAYOUT = Layout.of(SPEC)
REJECTED = Totals(rejected={"empty": 3}, hash_sum=7, scanned_bytes=90, segments=1)
RECORD = ChainRecord(
    "train", 0, 0, 3, None, None, EMPTY_SHA256, REJECTED, REJECTED, (0, 3, 3), attempt=1, offset=4
)
OTHER_CONTENT: dict[str, Any] = {
    "next": 2,
    "key": "data/x",
    "rejected_key": "rejected/x",
    "sha256": "0" * 64,
    "segment": replace(REJECTED, hash_sum=8),
    "upto": replace(REJECTED, scanned_bytes=91),
    "position": (0, 4, 4),
}


async def refusal(standing: ChainRecord) -> FailureCode | None:
    """The error of a worker whose record is refused because of `standing`."""
    store = MemoryStore()
    await store.create(LAYOUT.chain_record(0, 0), standing.encode())
    try:
        await Chain(store, LAYOUT, 0).append(RECORD)
    except JobFailed as error:
        return error.code
    return None


@pytest.mark.parametrize("field", OTHER_CONTENT)
async def test_a_standing_chain_record_with_other_content_is_refused(field: str) -> None:
    standing = replace(RECORD, **{field: OTHER_CONTENT[field]})
    assert await refusal(standing) is FailureCode.NOT_REPRODUCIBLE
    with planted(CAUGHT_BY_TEST["a standing chain record with other content is accepted"][0]):
        assert await refusal(standing) is None


async def test_a_standing_chain_record_of_an_earlier_attempt_is_accepted() -> None:
    assert await refusal(replace(RECORD, attempt=2, offset=9)) is None


async def trimmed_below(attempt: int) -> int:
    """The start of the topic of attempt 2 after two chain records of `attempt` were read."""
    store, broker = MemoryStore(), MemoryBroker()
    topic = attempt_topic(SPEC.job_id, 2)
    await broker.create_topic(TopicSpec(topic, 1))
    await broker.publish(topic, [Message(b"k", b"v", 0)] * 20)
    backlog = Backlog(broker, store, JobState(SPEC, attempt=2, partitions=[PartitionState(20)]), 1)
    for first, offset in ((0, 4), (3, 9)):
        upto = replace(REJECTED, rejected={"empty": first + 3})
        record = replace(RECORD, first=first, next=first + 3, upto=upto, attempt=attempt, offset=offset)
        await Chain(store, LAYOUT, 0).append(record)
        await backlog.refresh()
    return broker.topic(topic).logs[0].start


async def test_offsets_of_an_earlier_attempt_trim_nothing() -> None:
    assert [await trimmed_below(attempt) for attempt in (1, 2)] == [0, 9]
    with planted(CAUGHT_BY_TEST["trimming by an earlier attempt's offsets"][0]):
        assert await trimmed_below(1) == 9
