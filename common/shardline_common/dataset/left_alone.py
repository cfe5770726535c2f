"""The event by which a worker says that it takes no part in a job: its filters are not those of the plan.

It travels as the header of an event without counts, as a stage event does. Clients that do not know it add
that event up as any other, and it changes none of their figures.
"""

import logging
from dataclasses import asdict, dataclass

import orjson

from shardline_common.dataset.events import Event, event_message
from shardline_common.ports.broker import Message, Record

_log = logging.getLogger(__name__)
LEFT_ALONE_HEADER = "left_alone"
# No partition has this number.
_NO_PARTITION = -1


@dataclass(frozen=True, slots=True)
class LeftAlone:
    """A worker takes no part in an attempt, for a reason. `at` is an RFC 3339 time: it is said again."""

    job_id: str
    attempt: int
    reason: str
    at: str


def left_alone_message(event: LeftAlone) -> Message:
    """The event as a message of the events topic."""
    nothing = Event(event.job_id, event.attempt, _NO_PARTITION, 0, 0, 0, event.at)
    header = (LEFT_ALONE_HEADER, orjson.dumps(asdict(event)))
    return event_message(nothing)._replace(headers=(header,))


def left_alone_of(record: Record) -> LeftAlone | None:
    """The event of a record of the events topic; None for any other, and for one that cannot be read."""
    for name, value in record.headers:
        if name == LEFT_ALONE_HEADER:
            try:
                body = orjson.loads(value)
                return LeftAlone(*(body[field] for field in ("job_id", "attempt", "reason", "at")))
            except (ValueError, KeyError, TypeError) as error:
                _log.debug("an event cannot be read: %s", error)
    return None
