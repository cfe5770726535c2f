"""Acceptance: a create-only record of the job, by which it is known for ever."""

from dataclasses import dataclass

import orjson

from shardline_common.errors import JobConflict, ObjectExists
from shardline_common.job.names import Layout, job_key
from shardline_common.job.outcome import latest_attempt
from shardline_common.job.spec import JobSpec
from shardline_common.job.state import JobState, PartitionState, State
from shardline_common.ports.clock import Clock
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.clock import stamp


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The record: the normalised spec and when it was first accepted."""

    spec: JobSpec
    accepted_at: str

    def encode(self) -> bytes:
        """The record as JSON."""
        value = {"accepted_at": self.accepted_at, "spec": self.spec.model_dump(mode="json")}
        return orjson.dumps(value, option=orjson.OPT_INDENT_2)

    @classmethod
    def decode(cls, data: bytes) -> "Acceptance":
        """The record of its JSON."""
        value = orjson.loads(data)
        return cls(JobSpec.model_validate(value["spec"]), value["accepted_at"])


async def accept(store: ObjectStore, spec: JobSpec, clock: Clock) -> Acceptance:
    """Accept a job; the same body again is the same job.

    Raises:
        JobConflict: the id was accepted before with another body; that job is untouched.
        StoreUnavailable: try again later.
    """
    acceptance = Acceptance(spec, stamp(clock))
    try:
        await store.create(job_key(spec.job_id), acceptance.encode())
    except ObjectExists:
        standing = Acceptance.decode(await store.get(job_key(spec.job_id)))
        if standing.spec.body() != spec.body():
            raise JobConflict(
                f"the job id '{spec.job_id}' was accepted before with another body",
                hint="the first job is untouched; choose another job_id, or leave it out",
            ) from None
        return standing
    return acceptance


async def state_from_store(store: ObjectStore, acceptance: Acceptance, offset: int) -> JobState:
    """A job's state where the checkpoints know nothing of it: new, or known only to the store.

    Raises:
        StoreUnavailable: try again later.
    """
    state = JobState(acceptance.spec, accepted_at=acceptance.accepted_at, request_offset=offset)
    attempt, outcome = await latest_attempt(store, Layout.of(acceptance.spec))
    if outcome is None:
        return state
    state.attempt = attempt
    state.topic_removed = True
    if outcome.ending == "completed":
        # A worker publishes what a killed one left unfinished; the runner then concludes.
        state.state, state.planned, state.progress = State.COMPLETING, True, 1.0
        state.source_count = outcome.source_count or 0
        state.partitions = [PartitionState(sent, hash_sum) for sent, hash_sum in outcome.produced]
    else:
        state.state = State(outcome.ending)
        state.code, state.message = outcome.code, outcome.message
    return state
