"""What a job owes its webhook: told beside each other, from what stands in the store."""

import asyncio
import logging
from collections.abc import Callable

import orjson
import pytest

from shardline_common.job.names import Layout
from shardline_common.job.outcome import Outcome, decide
from shardline_common.memory.store import MemoryStore
from shardline_common.runtime.clock import SystemClock
from shardline_producer.notifications.outbox import NotificationOutbox
from tests.make import job

SPEC = job(job_id="laws", name="Gesetze")
LAYOUT = Layout.of(SPEC)


class Ear:
    """Implements `Receiver`: notes what it is told; an attempt in `held` is not taken."""

    def __init__(self, *held: str) -> None:
        self.told: dict[str, dict[str, object]] = {}
        self.held = held

    async def deliver(self, message_id: str, body: bytes) -> None:
        if message_id in self.held:
            await asyncio.Event().wait()
        self.told[message_id] = orjson.loads(body)


async def stored(*endings: str) -> MemoryStore:
    """A store in which the attempts ended so."""
    store = MemoryStore()
    for attempt, ending in enumerate(endings, 1):
        outcome = Outcome(attempt, ending, "2026-11-26T03:00:00.000Z", "", "0", "source_changed", "why")  # type: ignore[arg-type]
        await decide(store, LAYOUT, outcome)
    return store


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not what():
            await asyncio.sleep(0.01)


async def test_one_that_is_not_taken_holds_up_no_other() -> None:
    ear = Ear("laws_1")
    outbox = NotificationOutbox(ear, await stored("failed", "cancelled"), SystemClock(), SPEC)
    outbox.start([1])
    outbox.start([1, 2])
    await until(lambda: outbox.delivered == {2})
    assert len(outbox.deliveries) == 1
    assert (ear.told["laws_2"]["event"], ear.told["laws_2"]["attempt"]) == ("job.cancelled", 2)
    await outbox.stop()
    assert (outbox.deliveries, outbox.delivered) == ([], frozenset())
    # What was stopped is told when it is asked for again.
    ear.held = ()
    outbox.start([1])
    await until(lambda: outbox.delivered == {1})
    assert ear.told["laws_1"]["code"] == "source_changed"


async def test_what_was_deleted_meanwhile_is_not_told() -> None:
    ear = Ear()
    outbox = NotificationOutbox(ear, await stored("completed"), SystemClock(), SPEC)
    # Of the first the manifest is gone, of the second all.
    outbox.start([1, 2])
    await until(lambda: outbox.delivered == {1, 2})
    assert ear.told == {}


async def test_warnings_are_told_as_one_text() -> None:
    ear, store = Ear(), await stored("completed")
    manifest = {
        "warnings": ["empty", "degraded"],
        "digest": "d",
        "totals": {"rows": 0},
        "rejected": {"empty": 3},
        "dead_letters": {},
    }
    await store.create(LAYOUT.manifest, orjson.dumps(manifest))
    outbox = NotificationOutbox(ear, store, SystemClock(), SPEC)
    outbox.start([1])
    await until(lambda: outbox.delivered == {1})
    said = ear.told["laws_1"]
    assert (said["warning"], said["rejected"]) == ("empty, degraded", {"empty": 3})
    assert said["dataset"] == f"{store.uri}/gesetze/laws"


async def test_a_bug_ends_neither_the_job_nor_the_other_news(caplog: pytest.LogCaptureFixture) -> None:
    store = await stored("failed", "completed")
    await store.create(LAYOUT.manifest, b"no manifest")
    ear = Ear()
    outbox = NotificationOutbox(ear, store, SystemClock(), SPEC)
    with caplog.at_level(logging.ERROR):
        outbox.start([1, 2])
        await until(lambda: outbox.delivered == {1, 2})
    assert list(ear.told) == ["laws_1"]
    assert "a bug in Shardline: the notification of attempt 2 is discarded" in caplog.text


async def test_where_nobody_listens_nothing_is_told() -> None:
    outbox = NotificationOutbox(None, await stored("failed"), SystemClock(), SPEC)
    outbox.start([1])
    assert (outbox.enabled, outbox.deliveries, outbox.delivered) == (False, [], frozenset())
