"""A job as its state and its events show it: `status`, the gateway and the API read it."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from shardline_common.dataset.events import EventTotals
from shardline_common.dataset.left_alone import LeftAlone
from shardline_common.dataset.stage_events import Stage, StageEvent, share_of_job
from shardline_common.errors import FailureCode, JobFailed
from shardline_common.job.state import JobState, State

_QUIET_SECONDS = 30.0
_LEFT_ALONE_SECONDS = 60.0
# What is read is not yet written.
_READ_ALL = 0.999


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as `status` shows it: the state of its checkpoint, and the sum of its events.

    `by_reading`: the ratio counts what is read. A run in one process writes as fast as it reads, and a job
    of a few segments would show nothing until its end. `stage_event`: the last one of an assembled job. Once
    that is decided, the rows, bytes and counts of `progress` are those of the dataset.
    """

    state: JobState
    progress: EventTotals
    by_reading: bool = False
    stage_event: StageEvent | None = None
    left_alone: LeftAlone | None = None

    @property
    def lag(self) -> int:
        """Messages produced that are in no chain, according to the last events."""
        return max(0, self.state.produced - self.progress.chained)

    @property
    def ratio(self) -> float:
        """Share of the job that is done, 0 to 1."""
        if self.state.state is State.COMPLETED:
            return 1.0
        if self.by_reading:
            landed = min(self.state.progress, _READ_ALL)
        else:
            done = self.progress.chained / self.state.produced if self.state.produced else 0.0
            landed = self.state.progress * min(1.0, done)
        stage, event = self.stage, self.stage_event
        if stage is None:
            return landed if not self.state.spec.assembled else share_of_job(Stage.LANDING, landed)
        if stage is Stage.LANDING:
            return share_of_job(stage, landed)
        return min(share_of_job(stage, event.share if event else 0.0), _READ_ALL)

    @property
    def stage(self) -> Stage | None:
        """The stage of an assembled job that has been planned and is not completed; else None."""
        state = self.state
        if not state.spec.assembled or not state.planned or state.state in (State.COMPLETED, State.DELETED):
            return None
        if state.state is State.RUNNING:
            return Stage.LANDING
        if self.stage_event is not None:
            return self.stage_event.stage
        # Of an attempt that ended while it was sending, not all messages are produced.
        landed = state.progress >= 1.0 and not self.lag
        return Stage.DECIDING if landed else Stage.LANDING

    @property
    def waiting(self) -> str | None:
        """What an active job waits for, when its last checkpoint is 30 seconds old; else None.

        Slices that no producer has taken, and workers that take no part, are named at once, because the rest
        of the job goes on.
        Only its producer knows the cause: /readyz and the log have it.
        """
        state = self.state
        # In one process the slices run one after another.
        if state.waiting_slices and not self.by_reading:
            return state.waiting_slices
        if not state.active or not state.updated_at:
            return None
        if (left := self.left_alone) is not None and left.attempt == state.attempt:
            # A worker says it again every 30 seconds; others may do the job meanwhile.
            age = (datetime.now(UTC) - datetime.fromisoformat(left.at)).total_seconds()
            if age < _LEFT_ALONE_SECONDS:
                return f"a worker leaves the job alone: {left.reason}"
        # While a dataset is decided and assembled, there is no checkpoint.
        event = self.stage_event if self.stage not in (None, Stage.LANDING) else None
        since = max(map(datetime.fromisoformat, (state.updated_at, event.at if event else state.updated_at)))
        seconds = (datetime.now(UTC) - since).total_seconds()
        if seconds < _QUIET_SECONDS:
            return None
        return f"waiting for {seconds:.0f} s for {self._cause()}"

    def _cause(self) -> str:
        state, alone = self.state.state, self.by_reading
        if state is State.QUEUED:
            return (
                "the plan of the source" if alone else "a producer: a slot, the plan of the source, or Kafka"
            )
        if state is State.RUNNING:
            what = "the source, or the store of the dataset" if alone else "the source, Kafka or workers"
            return f"{what} ({self.lag} messages are in no segment)"
        if self.lag:
            what = "the store of the dataset" if alone else "workers"
            return f"{what}: {self.lag} messages are in no segment"
        if self.stage is Stage.DECIDING:
            return "the decision about the dataset" if alone else "a worker, which decides the dataset"
        if self.stage is Stage.ASSEMBLING and self.ratio < _READ_ALL:
            return "shards of the dataset" if alone else "workers, which assemble the shards"
        return "the store of the dataset" if alone else "a worker, which publishes the dataset"

    @property
    def decision_warnings(self) -> list[str]:
        """What a person should know about the decision of an assembled dataset."""
        event = self.stage_event
        return list(event.counts.warnings) if event is not None and event.counts is not None else []

    @property
    def phase(self) -> str:
        """The state, in the word for a person: a run in one process does not queue, it plans.

        Of an assembled job that runs or is being completed, its stage.
        """
        stage, event = self.stage, self.stage_event
        if stage is None or not self.state.active:
            planning = self.by_reading and self.state.state is State.QUEUED
            return "planning" if planning else self.state.state.value
        if stage is Stage.ASSEMBLING and event is not None:
            return f"{stage} {event.done:,} of {event.parts:,} shards"
        if stage is Stage.DECIDING and event is not None and event.step is not None:
            return f"{stage} {event.step} (step {event.done + 1} of {event.parts})"
        return stage.value

    def check_completed(self) -> None:
        """Raise JobFailed, with the code and the message of the outcome, unless the job is completed."""
        if self.state.state is not State.COMPLETED:
            code = FailureCode(self.state.code) if self.state.code else FailureCode.INTERNAL
            raise JobFailed(code, self.state.message or self.state.state.value)

    def to_json(self) -> dict[str, Any]:
        """Return the view as `status --json` prints it."""
        state, progress, stage = self.state, self.progress, self.stage
        event = self.stage_event if stage not in (None, Stage.LANDING) else None
        return {
            "job_id": state.spec.job_id,
            "name": state.spec.name,
            "state": state.state.value,
            "attempt": state.attempt,
            "submitted_at": state.submission.submitted_at,
            "accepted_at": state.accepted_at,
            "owner": state.owner,
            "updated_at": state.updated_at,
            "progress": round(self.ratio, 4),
            "stage": stage,
            "stage_done": event.done if event else None,
            "stage_parts": event.parts if event else None,
            "stage_step": event.step if event else None,
            "warnings": self.decision_warnings,
            "source_documents": state.source_count,
            "produced": state.produced,
            "chained": progress.chained,
            "lag": self.lag,
            "rows": progress.rows,
            "bytes": progress.bytes,
            "rejected": dict(progress.rejected),
            "dead_letters": dict(progress.dead),
            **({"pii": dict(progress.pii)} if progress.pii else {}),
            "code": state.code,
            "message": state.message,
            "warning": state.warning,
            "waiting": self.waiting,
            "slices": dict(state.slices) if state.active else {},
            "source": state.source_facts,
            "spec": state.spec.model_dump(mode="json"),
        }
