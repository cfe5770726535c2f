"""The state of a job in the checkpoints topic. It is committed in one transaction with the documents."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

import orjson

from shardline_common.job.messages import Position
from shardline_common.job.names import checkpoint_key
from shardline_common.job.spec import JobSpec
from shardline_common.job.submission import Owner, Submission
from shardline_common.job.trace_headers import trace_headers, traceparent_of
from shardline_common.ports.broker import Message, Record

_log = logging.getLogger(__name__)


class State(StrEnum):
    """The state of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETING = "completing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DELETED = "deleted"


ACTIVE = frozenset({State.QUEUED, State.RUNNING, State.COMPLETING})
RETRIABLE = frozenset({State.FAILED, State.CANCELLED})


@dataclass(slots=True)
class PartitionState:
    """The counts of one partition: messages sent, the hash sum of their keys, scanned bytes, dead letters.

    `resume_after`: an earlier attempt sent the messages up to this source position.
    """

    sequence: int = 0
    hash_sum: int = 0
    bytes: int = 0
    dead: int = 0
    resume_after: Position | None = None


@dataclass(slots=True)
class JobState:
    """The state of a job. A producer continues the job from it, and a worker takes part in its attempt.

    `traceparent`: the trace of the job, in the headers of the checkpoint. `request_offset`: the offset of the
    last message of dataset.jobs that this state covers. `cursor`: the source position up to which all items
    are sent. `planned`: the topic exists and the columns are frozen. `notes`: those of the plan.
    `findings`: the source's, once all is sent. `vanished`: how many dead letters stand for documents that
    vanished from the source. `first_dead_letter` names the first of all.
    `pending_notifications`: ended attempts whose notification is not delivered yet.
    `submitted_at`, `owner` and `owner_issuer`: those of the acceptance record.

    `slice`: the number of the slice that this is the state of, with the partitions and the cursor of that
    slice alone; None: the state of a whole job. `slices`: of a job that several producers read, how many of
    its slices are in which state. `home`: the partition of the checkpoint that was read.
    """

    spec: JobSpec
    state: State = State.QUEUED
    attempt: int = 1
    request_offset: int = -1
    accepted_at: str = ""
    traceparent: str | None = None
    updated_at: str = ""
    columns: dict[str, str] | None = None
    planned: bool = False
    cursor: Position | None = None
    source_count: int = 0
    progress: float = 0.0
    partitions: list[PartitionState] = field(default_factory=list)
    topic_removed: bool = False
    code: str | None = None
    message: str | None = None
    warning: str | None = None
    notes: dict[str, Any] = field(default_factory=dict)
    pending_notifications: list[int] = field(default_factory=list)
    findings: dict[str, Any] = field(default_factory=dict)
    vanished: int = 0
    first_dead_letter: str = ""
    submitted_at: str = ""
    owner: str | None = None
    owner_issuer: str | None = None
    slice: int | None = None
    slices: dict[str, int] = field(default_factory=dict)
    home: int | None = field(default=None, compare=False)
    # Any: a schema of this class is made for docs/asyncapi.json, and has no type for a fragment.
    _encoded_spec: Any = field(default=None, init=False, repr=False, compare=False)

    @property
    def submission(self) -> Submission:
        """When the job was submitted, and its owner."""
        owner = Owner(self.owner, self.owner_issuer) if self.owner else None
        return Submission(self.submitted_at or self.accepted_at, owner)

    @submission.setter
    def submission(self, value: Submission) -> None:
        self.submitted_at = value.submitted_at
        self.owner = value.owner.subject if value.owner else None
        self.owner_issuer = value.owner.issuer if value.owner else None

    @property
    def active(self) -> bool:
        """Whether the job has an undecided attempt."""
        return self.state in ACTIVE

    @property
    def blocked(self) -> bool:
        """Whether the attempt cannot end without somebody; `message` says why.

        Its dataset is completed and cannot be published, or its outcome cannot be read.
        """
        return self.active and self.code is not None

    @property
    def retriable(self) -> bool:
        """Whether a retry opens a new attempt."""
        return self.state in RETRIABLE or self.blocked

    @property
    def settled(self) -> bool:
        """Whether the job has ended, or waits for somebody to retry or cancel it."""
        return not self.active or self.blocked

    @property
    def waiting_slices(self) -> str | None:
        """How many slices no producer has taken, as a sentence; None for none, or when the job ended."""
        queued = self.slices.get(State.QUEUED.value, 0)
        if not queued or not self.active:
            return None
        return f"{queued} of {sum(self.slices.values())} slices wait for a producer"

    @property
    def numbers(self) -> range:
        """The numbers of `partitions` in the topic of the attempt."""
        count = self.spec.slice_partitions
        if self.slice is None:
            return range(self.spec.total_partitions)
        return range(self.slice * count, (self.slice + 1) * count)

    @property
    def source_facts(self) -> dict[str, Any]:
        """What is known about the source: its type, the notes of the plan, and its findings."""
        return {"type": self.spec.source.type, **self.notes, **self.findings}

    def releases_topic_of(self, attempt: int) -> bool:
        """Whether the topic of that attempt is no longer needed. Attempt numbers only rise."""
        return attempt < self.attempt or (attempt == self.attempt and self.topic_removed)

    @property
    def produced(self) -> int:
        """Messages sent, over all partitions."""
        return sum(part.sequence for part in self.partitions)

    @property
    def dead(self) -> int:
        """Dead letters sent, over all partitions."""
        return sum(part.dead for part in self.partitions)

    def encode(self) -> bytes:
        """The state as JSON, without the trace: it is random, and states are compared as bytes."""
        values = {name: getattr(self, attribute) for attribute, name in _JSON_NAMES.items()}
        for name in _LATER_FIELDS:
            if not values[name]:
                del values[name]
        if self.slice is None:
            del values["slice"]
        values["spec"] = self._spec_as_json()
        return _dumps(values)

    def _spec_as_json(self) -> Any:
        # Each transaction has a checkpoint, and pydantic takes 0.2 ms for the spec.
        if self._encoded_spec is None or self._encoded_spec[0] is not self.spec:
            self._encoded_spec = self.spec, orjson.Fragment(_dumps(self.spec.model_dump(mode="json")))
        return self._encoded_spec[1]

    @classmethod
    def of(cls, record: Record) -> "JobState":
        """The state of a checkpoint that is not a tombstone."""
        state = cls.decode(record.value or b"")
        state.traceparent = traceparent_of(record.headers)
        state.home = record.partition
        return state

    @classmethod
    def decode(cls, data: bytes) -> "JobState":
        """The state of `encode`."""
        value: dict[str, Any] = orjson.loads(data)
        value["spec"] = JobSpec.model_validate(value["spec"])
        value["state"] = State(value["state"])
        value["cursor"] = _position(value["cursor"])
        value["partitions"] = [
            PartitionState(**part | {"resume_after": _position(part["resume_after"])})
            for part in value["partitions"]
        ]
        value["pending_notifications"] = value.pop("owed", [])
        # A process of a later version may have written further fields.
        return cls(**{name: value[name] for name in _FIELDS if name in value})


# Attribute -> name in the checkpoint. During an upgrade, processes of the previous version read the old name.
_JSON_NAMES = {
    item.name: "owed" if item.name == "pending_notifications" else item.name
    for item in fields(JobState)
    if item.name not in ("traceparent", "home", "_encoded_spec")
}


_FIELDS = frozenset(item.name for item in fields(JobState) if item.init)
# Left out while they are empty: processes of the version before refuse a checkpoint with unknown fields.
_LATER_FIELDS = (
    "findings",
    "vanished",
    "first_dead_letter",
    "submitted_at",
    "owner",
    "owner_issuer",
    "slices",
)


def checkpoint(state: JobState) -> Message:
    """The state as a message of the checkpoints topic."""
    key = checkpoint_key(state.spec.job_id, state.slice).encode()
    # The partition of a slice is chosen, so that consecutive slices belong to different producers.
    partition = None if state.slice is None else state.home
    return Message(key, state.encode(), partition, trace_headers(state.traceparent))


def latest_states(records: Sequence[Record]) -> dict[str, JobState]:
    """The last state of each job among checkpoints. One that cannot be read is logged and left out."""
    latest = {
        record.key: record
        for record in records
        if record.value is not None and b"/" not in (record.key or b"")
    }
    return {state.spec.job_id: state for state in map(_readable, latest.values()) if state is not None}


def latest_slices(records: Sequence[Record]) -> dict[tuple[str, int], JobState]:
    """The last state of each slice among checkpoints, by job id and number. As `latest_states`."""
    latest = {record.key: record for record in records if b"/" in (record.key or b"")}
    states = (_readable(record) for record in latest.values() if record.value is not None)
    return {
        (state.spec.job_id, state.slice): state
        for state in states
        if state is not None and state.slice is not None
    }


def _readable(record: Record) -> JobState | None:
    try:
        return JobState.of(record)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        _log.warning("the checkpoint at %d/%d cannot be read: %s", record.partition, record.offset, error)
        return None


def _position(value: list[Any] | None) -> Position | None:
    return None if value is None else tuple(value)


def _dumps(value: object) -> bytes:
    return orjson.dumps(value, default=_json_default, option=orjson.OPT_PASSTHROUGH_SUBCLASS)


def _json_default(value: object) -> object:
    if isinstance(value, State):
        return value.value
    raise TypeError(type(value).__name__)
