"""Who submitted a job and when: in the message's header, in the acceptance record, and in the job's state."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardline.gateway.job_watcher import JobWatcher
from shardline.gateway.responses import dataset_from_view
from shardline_common.errors import JobConflict
from shardline_common.job.names import job_key
from shardline_common.job.spec import JobSpec, parse_message
from shardline_common.job.state import JobState
from shardline_common.job.submission import (
    SUBMISSION_HEADER,
    Owner,
    Submission,
    submission_headers,
    submission_of,
)
from shardline_common.memory.broker import MemoryBroker
from shardline_common.memory.store import MemoryStore
from shardline_common.ports.broker import Message
from shardline_common.runtime.clock import SYSTEM_CLOCK
from shardline_producer.acceptance import Acceptance, accept, read_acceptance, state_from_store
from shardline_producer.topics import ensure_system_topics
from tests.make import job

ERIKA = Submission("2026-11-29T08:00:00.000Z", Owner("user-1", "https://sso.example.org/realms/vcc"))
OTTO = Submission("2026-11-29T09:00:00.000Z", Owner("user-2", "https://sso.example.org/realms/vcc"))


@asynccontextmanager
async def watched(watcher: JobWatcher) -> AsyncIterator[None]:
    """Run a watcher that has read the topics."""
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(watcher.run())
        while watcher.unavailable_reason:
            await asyncio.sleep(0)
        yield
        running.cancel()


@pytest.mark.parametrize("submission", [ERIKA, Submission(), Submission(owner=Owner("debug-user"))])
def test_a_submission_survives_in_the_header(submission: Submission) -> None:
    assert submission_of(submission_headers(submission)) == submission


@given(st.binary(max_size=60))
def test_any_header_is_harmless(value: bytes) -> None:
    assert isinstance(submission_of([(SUBMISSION_HEADER, value)]), Submission)


@pytest.mark.parametrize(
    "value",
    [
        {"owner": 7},
        {"owner": ""},
        {"owner": "x" * 2000},
        {"owner": None, "owner_issuer": "https://x"},
        {"submitted_at": "soon"},
        {"submitted_at": "2026-11-29T08:00:00"},
        [],
    ],
)
def test_a_header_that_is_not_valid_gives_no_owner(value: object) -> None:
    assert submission_of([(SUBMISSION_HEADER, orjson.dumps(value))]) == Submission()


def test_the_owner_is_no_part_of_the_job() -> None:
    spec = job()
    record = orjson.loads(Acceptance(spec, "", ERIKA).encode())
    assert record["owner"] == "user-1"
    assert record["spec"] == spec.model_dump(mode="json")
    assert "owner" not in record["spec"]


def test_a_record_without_an_owner_is_read_and_written_as_before() -> None:
    spec = job()
    old = orjson.dumps(
        {"accepted_at": "2026-01-01T00:00:00.000Z", "spec": spec.model_dump(mode="json")},
        option=orjson.OPT_INDENT_2,
    )
    found = Acceptance.decode(old)
    assert found.submission == Submission()
    assert found.encode() == old
    state = JobState(spec, accepted_at="2026-01-01T00:00:00.000Z")
    assert b"owner" not in state.encode()
    assert b"submitted_at" not in state.encode()
    assert state.submission.submitted_at == "2026-01-01T00:00:00.000Z"


async def test_the_first_submission_decides_the_owner() -> None:
    store, spec = MemoryStore(), job()
    await accept(store, spec, SYSTEM_CLOCK, ERIKA)
    again = await accept(store, spec, SYSTEM_CLOCK, OTTO)
    assert again.submission == ERIKA
    found = await read_acceptance(store, spec.job_id)
    assert found is not None
    assert found.submission == ERIKA
    # As after the loss of the topics: the state is made from the store.
    state = await state_from_store(store, found, -1)
    assert JobState.decode(state.encode()).submission == ERIKA
    assert orjson.loads(await store.get(job_key(spec.job_id)))["owner"] == "user-1"


async def test_a_submitted_job_has_its_time_and_owner_before_a_producer_accepts_it() -> None:
    broker, spec = MemoryBroker(), job()
    await ensure_system_topics(broker, 1)
    watcher = JobWatcher(broker, 1, SYSTEM_CLOCK)
    async with watched(watcher):
        owner = Owner("user-1", "issuer")
        view = await watcher.submit(spec, owner)
        first = dataset_from_view(view, None, {})
        assert first.created_at
        assert first.owner == "user-1"
        assert dataset_from_view(watcher.job(spec.job_id), None, {}).created_at == first.created_at
        # The id is the caller's own, or a conflict.
        with pytest.raises(JobConflict, match="another user"):
            await watcher.submit(spec, Owner("user-1", "another issuer"))
        assert (await watcher.submit(spec, owner)).state.submission == view.state.submission
    # Another gateway reads it from Kafka.
    other = JobWatcher(broker, 1, SYSTEM_CLOCK)
    async with watched(other):
        assert other.job(spec.job_id).state.submission == view.state.submission


async def test_a_job_of_another_program_has_a_time_too() -> None:
    broker, spec = MemoryBroker(), job()
    await ensure_system_topics(broker, 1)
    await broker.publish("dataset.jobs", [Message(spec.job_id.encode(), spec.body())])
    watcher = JobWatcher(broker, 1, SYSTEM_CLOCK)
    async with watched(watcher):
        found = dataset_from_view(watcher.job(spec.job_id), None, {})
        assert found.created_at
        assert found.owner is None


def test_the_message_of_a_job_has_no_owner() -> None:
    assert isinstance(parse_message(job().body()), JobSpec)
    assert b"owner" not in job().body()
