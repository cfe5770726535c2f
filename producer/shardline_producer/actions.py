"""The next action of a job runner: a pure function of the job's state, requests and notifications."""

from collections.abc import Sequence
from enum import Enum, auto

from shardline_common.job.spec import Request
from shardline_common.job.state import JobState
from shardline_producer.notifications.outbox import NotificationStatus


class Action(Enum):
    """One step of a job runner."""

    CANCEL_ATTEMPT = auto()
    """Decide the running attempt as cancelled, for the oldest request: a cancel or a delete."""
    CANCEL_BLOCKED = auto()
    """Open an attempt that is decided as cancelled, for the oldest request: a cancel."""
    OPEN_ATTEMPT = auto()
    """Open the next attempt, for the oldest request: a retry."""
    DELETE_DATASET = auto()
    """Delete the dataset, for the oldest request."""
    REFUSE_REQUEST = auto()
    """Publish the oldest request as a dead letter."""
    RUN_ATTEMPT = auto()
    """Run the attempt until it ends or a request arrives."""
    REMOVE_TOPIC = auto()
    """Delete the topic of the ended attempt after its grace time, unless a request arrives."""
    RECORD_DELIVERIES = auto()
    """Remove the delivered notifications from the checkpoint."""
    WAIT_FOR_DELIVERIES = auto()
    """Wait for the end of a delivery, or for a request."""
    STOP = auto()
    """There is nothing to do until a request arrives."""


def next_action(state: JobState, requests: Sequence[Request], notifications: NotificationStatus) -> Action:
    """The next action of a job's runner.

    Requests come first, in their order. Then the attempt, then the removal of its topic, then the
    notifications of ended attempts, which delay nothing else.

    Args:
        state: the last known state of the job.
        requests: the requests that are not handled yet, the oldest first.
        notifications: the status of the outbox.
    """
    if requests:
        return _for_request(state, requests[0])
    if state.active:
        return Action.RUN_ATTEMPT
    if not state.topic_removed:
        return Action.REMOVE_TOPIC
    if not notifications.delivered.isdisjoint(state.pending_notifications):
        return Action.RECORD_DELIVERIES
    return Action.WAIT_FOR_DELIVERIES if notifications.delivering else Action.STOP


def _for_request(state: JobState, request: Request) -> Action:
    if state.active and not state.blocked:
        return Action.REFUSE_REQUEST if request.action == "retry" else Action.CANCEL_ATTEMPT
    if state.active and request.action == "cancel":
        return Action.CANCEL_BLOCKED
    if request.action == "delete":
        # Also for a deleted job: a worker that was paused may have put an object since then.
        return Action.DELETE_DATASET
    if request.action == "retry" and state.retriable:
        return Action.OPEN_ATTEMPT
    return Action.REFUSE_REQUEST
