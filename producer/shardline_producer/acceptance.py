"""Acceptance: a create-only record that binds a job id to one job permanently."""

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
    """The acceptance record: the normalised spec, and when it was first accepted (RFC 3339)."""

    spec: JobSpec
    accepted_at: str

    def encode(self) -> bytes:
        """The record as JSON."""
        value = {"accepted_at": self.accepted_at, "spec": self.spec.model_dump(mode="json")}
        return orjson.dumps(value, option=orjson.OPT_INDENT_2)

    @classmethod
    def decode(cls, data: bytes) -> "Acceptance":
        """The record of `encode`."""
        value = orjson.loads(data)
        return cls(JobSpec.model_validate(value["spec"]), value["accepted_at"])


async def accept(store: ObjectStore, spec: JobSpec, clock: Clock) -> Acceptance:
    """Accept a job. Returns the record in the store. The same body again is the same job.

    Raises:
        JobConflict: the id belongs to a job with another body; that job is unchanged.
        StoreUnavailable: try again later.
    """
    acceptance = Acceptance(spec, stamp(clock))
    try:
        await store.create(job_key(spec.job_id), acceptance.encode())
    except ObjectExists:
        existing = Acceptance.decode(await store.get(job_key(spec.job_id)))
        if existing.spec.body() != spec.body():
            raise JobConflict(
                f"the job id '{spec.job_id}' was accepted before with another body",
                hint="the first job is untouched; choose another job_id, or leave it out",
            ) from None
        return existing
    return acceptance


async def state_from_store(store: ObjectStore, acceptance: Acceptance, offset: int) -> JobState:
    """The state of a job without a checkpoint: a new job, or one whose outcome is in the store.

    Args:
        store: the store of its dataset.
        acceptance: the job's record.
        offset: the offset of the submission in dataset.jobs; -1 when there is none.

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
        # A worker publishes a dataset that a killed worker left unpublished. Then the runner ends the job.
        state.state, state.planned, state.progress = State.COMPLETING, True, 1.0
        state.source_count = outcome.source_count or 0
        state.partitions = [PartitionState(sent, hash_sum) for sent, hash_sum in outcome.produced]
    else:
        state.state = State(outcome.ending)
        state.code, state.message = outcome.code, outcome.message
    return state
