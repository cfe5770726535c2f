"""The stages of an assembled job, and the events by which its producer publishes how far they are.

A stage event travels as the header of an event without counts. Clients that know no stages add that event up
as any other, and it changes none of their figures.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import orjson

from shardline_common.dataset.decision import DecisionHead
from shardline_common.dataset.events import Event, event_message
from shardline_common.ports.broker import Message, Record

_log = logging.getLogger(__name__)
STAGE_HEADER = "stage"
# No partition has this number.
_NO_PARTITION = -1


class Stage(StrEnum):
    """A stage of an assembled job, in the order in which they run."""

    LANDING = "landing"
    DECIDING = "deciding"
    ASSEMBLING = "assembling"


# Where a stage begins and ends as a share of the job: landing and assembling handle each row, deciding does
# not. Measured ones depend on the source; these keep a job that has landed from looking done.
_SPANS = {Stage.LANDING: (0.0, 0.6), Stage.DECIDING: (0.6, 0.7), Stage.ASSEMBLING: (0.7, 1.0)}


def share_of_job(stage: Stage, share: float) -> float:
    """The share of an assembled job that is done, when `share` of a stage is, 0 to 1."""
    begin, end = _SPANS[stage]
    return begin + (end - begin) * min(1.0, max(0.0, share))


@dataclass(frozen=True, slots=True)
class Counts:
    """What an assembled dataset has, as decided: its rows, their bytes, and the documents left out.

    `warnings` are those of the decision, as sentences.
    """

    rows: int
    bytes: int
    rejected: Mapping[str, int] = field(default_factory=dict)
    dead: Mapping[str, int] = field(default_factory=dict)
    warnings: Sequence[str] = ()

    @classmethod
    def of(cls, head: DecisionHead) -> "Counts":
        """The counts of a decision. What it drops is rejected by its reason, as in the manifest."""
        rejected = {reason: counted.records for reason, counted in head.rejected.items()}
        rejected |= {reason.value: counted.records for reason, counted in head.dropped.items()}
        return cls(
            head.kept.records,
            sum(split.bytes for split in head.splits),
            dict(sorted((reason, count) for reason, count in rejected.items() if count)),
            {reason: counted.records for reason, counted in sorted(head.dead.items())},
            head.warnings,
        )

    @classmethod
    def of_json(cls, value: Mapping[str, Any]) -> "Counts":
        """The counts of a decoded event."""
        warnings = tuple(value.get("warnings", ()))
        return cls(value["rows"], value["bytes"], value["rejected"], value["dead"], warnings)


@dataclass(frozen=True, slots=True)
class StageEvent:
    """How far an assembled job is: `done` of `parts` steps of the decision, or shards.

    `at` is an RFC 3339 time. `counts` are those of the dataset, once it is decided. `step` is the running
    step of the decision, and `step_share` how much of it is done, 0 to 1.
    """

    job_id: str
    attempt: int
    stage: Stage
    done: int
    parts: int
    at: str
    counts: Counts | None = None
    step: str | None = None
    step_share: float = 0.0

    @property
    def rank(self) -> tuple[int, int, int, float]:
        """Grows with the job. A stage continues over attempts, as the chains do."""
        return list(Stage).index(self.stage), self.done, self.attempt, self.step_share

    @property
    def share(self) -> float:
        """The share of the stage that is done, 0 to 1."""
        return min(1.0, (self.done + self.step_share) / self.parts) if self.parts else 1.0

    def encode(self) -> bytes:
        """The event as JSON."""
        return orjson.dumps(asdict(self))

    @classmethod
    def decode(cls, data: bytes) -> "StageEvent":
        """The event of its JSON. Fields of a later version are left out."""
        body: dict[str, Any] = orjson.loads(data)
        counts: dict[str, Any] | None = body.get("counts")
        return cls(
            body["job_id"],
            body["attempt"],
            Stage(body["stage"]),
            body["done"],
            body["parts"],
            body["at"],
            None if counts is None else Counts.of_json(counts),
            body.get("step"),
            body.get("step_share", 0.0),
        )


def stage_message(event: StageEvent) -> Message:
    """The event as a message of the events topic."""
    nothing = Event(event.job_id, event.attempt, _NO_PARTITION, 0, 0, 0, event.at)
    return event_message(nothing)._replace(headers=((STAGE_HEADER, event.encode()),))


def stage_of(record: Record) -> StageEvent | None:
    """The stage event of a record of the events topic; None for an event of a partition.

    One that cannot be read, such as that of a stage that this version does not know, is None too: the record
    then counts as an event without counts.
    """
    for name, value in record.headers:
        if name == STAGE_HEADER:
            try:
                return StageEvent.decode(value)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                _log.debug("a stage event cannot be read: %s", error)
    return None


def further(known: StageEvent | None, event: StageEvent) -> StageEvent:
    """The one of two stage events that counts."""
    return event if known is None or known.rank < event.rank else known
