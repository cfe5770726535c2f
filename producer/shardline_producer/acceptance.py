"""Acceptance: a create-only record that binds a job id to one job permanently."""

from dataclasses import dataclass, field
from functools import partial

import orjson

from shardline_common.errors import JobConflict, JobInvalid, ObjectMissing
from shardline_common.job.names import Layout, job_key
from shardline_common.job.outcome import latest_attempt
from shardline_common.job.spec import JobSpec, parse_job
from shardline_common.job.spec_diff import check_same_job
from shardline_common.job.state import JobState, PartitionState, State
from shardline_common.job.submission import Submission
from shardline_common.ports.clock import Clock
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.clock import stamp
from shardline_common.runtime.create_or_read import create_or_read
from shardline_common.runtime.read_again import read_again


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The acceptance record: the normalised spec, when it was first accepted (RFC 3339), and the submission.

    The submission is that of the first message. It is no part of the spec: the same job of another user is
    the same job, and stays the first one's.
    """

    spec: JobSpec
    accepted_at: str
    submission: Submission = field(default_factory=Submission)

    def encode(self) -> bytes:
        """The record as JSON."""
        value = {
            "accepted_at": self.accepted_at,
            **self.submission.to_json(),
            "spec": self.spec.model_dump(mode="json"),
        }
        return orjson.dumps(value, option=orjson.OPT_INDENT_2)

    @classmethod
    def decode(cls, data: bytes) -> "Acceptance":
        """The record of `encode`. Raises JobInvalid, ValueError, KeyError or TypeError for anything else."""
        value = orjson.loads(data)
        spec = parse_job(orjson.dumps(value["spec"]))
        # A record of an earlier version has no submission.
        return cls(spec, value["accepted_at"], Submission.from_json(value))


async def accept(
    store: ObjectStore, spec: JobSpec, clock: Clock, submission: Submission | None = None
) -> Acceptance:
    """Accept a job. Returns the record in the store. The same body again is the same job.

    `submission` is written only into a new record: a second submission does not change the owner.

    Raises:
        JobConflict: the id belongs to another job, or the dataset's folder has a chain or a plan of a job
            that is not known. Nothing is changed.
        JobFailed: the store refuses the record, and has none (`store_inconsistent`).
        StoreUnavailable: try again later.
    """
    existing = await read_acceptance(store, spec.job_id)
    if existing is None:
        await _check_no_dataset(store, spec)
        acceptance = Acceptance(spec, stamp(clock), submission or Submission())
        key = job_key(spec.job_id)
        create = partial(store.create, key, acceptance.encode())
        read = partial(_read, store, spec.job_id)
        existing = await create_or_read(create, read, key, clock, confirm=True)
        if existing is None:
            return acceptance
        # Another process accepted a job, or this is the record of a put whose response was lost.
    check_same_job(existing.spec, spec)
    return existing


async def read_acceptance(store: ObjectStore, job_id: str) -> Acceptance | None:
    """The acceptance record of an id; None when there is none.

    Raises:
        JobConflict: the record cannot be read, or is that of another id.
        StoreUnavailable: try again later.
    """
    try:
        return await _read(store, job_id)
    except ObjectMissing:
        return None


async def _read(store: ObjectStore, job_id: str) -> Acceptance:
    async def read() -> Acceptance:
        return _decode(await store.get(job_key(job_id)), job_id)

    return await read_again(read, lambda error: isinstance(error, JobConflict))


def _decode(body: bytes, job_id: str) -> Acceptance:
    key = job_key(job_id)
    try:
        found = Acceptance.decode(body)
    except (JobInvalid, ValueError, KeyError, TypeError) as error:
        raise JobConflict(
            f"the job id '{job_id}' is taken: its record {key} cannot be read by this version ({error})",
            hint="choose another job_id, or use the version of Shardline that accepted the job",
        ) from None
    if found.spec.job_id != job_id:
        raise JobConflict(
            f"the job id '{job_id}' is taken: its record {key} is that of the job '{found.spec.job_id}'",
            hint="choose another job_id",
        )
    return found


async def _check_no_dataset(store: ObjectStore, spec: JobSpec) -> None:
    """Refuse a folder with state of a job without a record: the new job would continue behind its chain."""
    layout = Layout.of(spec)
    async for info in store.list(layout.state):
        if await read_acceptance(store, spec.job_id) is not None:
            # Another process has accepted a job since, and works on it.
            return
        raise JobConflict(
            f"the folder {layout.root} has {info.key} of a job that is not known: "
            f"{job_key(spec.job_id)} is missing",
            hint="move or delete the folder, or choose another job_id",
        )


async def state_from_store(store: ObjectStore, acceptance: Acceptance, offset: int) -> JobState:
    """The state of a job without a checkpoint: a new job, or one whose outcome is in the store.

    Args:
        store: the store of its dataset.
        acceptance: the job's record.
        offset: the offset of the submission in dataset.jobs; -1 when there is none.

    Raises:
        JobFailed: the record of its latest attempt is damaged (`dataset_damaged`).
        StoreUnavailable: try again later.
    """
    state = JobState(acceptance.spec, accepted_at=acceptance.accepted_at, request_offset=offset)
    state.submission = acceptance.submission
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
