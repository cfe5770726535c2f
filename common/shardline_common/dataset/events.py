"""Progress events: hints for people and programs, cumulative per attempt and partition.

Events may be folded in any order and with repeats: the event of a partition with the highest `next` counts.
"""

import builtins
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace

import orjson

from shardline_common.dataset.chain import ChainRecord
from shardline_common.ports.broker import Message, Record

_PII_HEADER = "pii"


@dataclass(frozen=True, slots=True)
class Event:
    """The totals of a partition's chain. `at` is an RFC 3339 time."""

    job_id: str
    attempt: int
    partition: int
    next: int
    rows: int
    bytes: int
    at: str
    rejected: Mapping[str, int] = field(default_factory=dict)
    dead: Mapping[str, int] = field(default_factory=dict)
    pii: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, job_id: str, attempt: int, record: ChainRecord, at: str) -> "Event":
        """The event of a chain's head."""
        upto = record.upto
        return cls(
            job_id,
            attempt,
            record.partition,
            record.next,
            upto.rows,
            upto.bytes,
            at,
            upto.rejected,
            upto.dead,
            upto.pii,
        )

    @classmethod
    def decode(cls, data: builtins.bytes) -> "Event":
        """The event of its JSON."""
        return cls(**orjson.loads(data))

    @classmethod
    def of_record(cls, record: Record) -> "Event":
        """The event of a record that has a value, with what travels in its headers."""
        event = cls.decode(record.value or b"")
        counts = next((value for name, value in record.headers if name == _PII_HEADER), None)
        return event if counts is None else replace(event, pii=orjson.loads(counts))


def event_message(event: Event) -> Message:
    """The event as a message of the events topic.

    Personal data is counted in a header: clients of the version before refuse an event with unknown fields.
    """
    value = orjson.dumps({name: one for name, one in asdict(event).items() if name != "pii"})
    message = Message(event.job_id.encode(), value)
    return message._replace(headers=((_PII_HEADER, orjson.dumps(event.pii)),)) if event.pii else message


@dataclass(frozen=True, slots=True)
class EventTotals:
    """The sum of a job's events: the totals of its chains, as of the last events."""

    chained: int = 0
    rows: int = 0
    bytes: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    dead: Mapping[str, int] = field(default_factory=dict)
    pii: Mapping[str, int] = field(default_factory=dict)


def fold(events: Iterable[Event]) -> EventTotals:
    """The progress of one job. Chains continue over attempts, so each partition's furthest event counts."""
    furthest: dict[int, Event] = {}
    for event in events:
        known = furthest.get(event.partition)
        if known is None or event.next > known.next:
            furthest[event.partition] = event
    latest = furthest.values()
    return EventTotals(
        chained=sum(event.next for event in latest),
        rows=sum(event.rows for event in latest),
        bytes=sum(event.bytes for event in latest),
        rejected=_sum(event.rejected for event in latest),
        dead=_sum(event.dead for event in latest),
        pii=_sum(event.pii for event in latest),
    )


def _sum(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    result: dict[str, int] = {}
    for part in parts:
        for reason, count in part.items():
            result[reason] = result.get(reason, 0) + count
    return dict(sorted(result.items()))
