"""The decision of a job's runner, as a table."""

import pytest

from shardline_common.job.spec import Request
from shardline_common.job.state import JobState, State
from shardline_producer.actions import Action, next_action
from shardline_producer.notifications.outbox import NotificationStatus
from tests.make import job

CANCEL, RETRY, DELETE = (
    Request.model_validate({"job_id": "test", "action": action}) for action in ("cancel", "retry", "delete")
)
NOTHING = NotificationStatus()
ACTIVE = (State.QUEUED, State.RUNNING, State.COMPLETING)
ENDED = (State.COMPLETED, State.FAILED, State.CANCELLED, State.DELETED)


@pytest.mark.parametrize(
    ("states", "request_", "action"),
    [
        (ACTIVE, CANCEL, Action.CANCEL_ATTEMPT),
        (ACTIVE, DELETE, Action.CANCEL_ATTEMPT),
        (ACTIVE, RETRY, Action.REFUSE_REQUEST),
        (ENDED, CANCEL, Action.REFUSE_REQUEST),
        (ENDED, DELETE, Action.DELETE_DATASET),
        ((State.FAILED, State.CANCELLED), RETRY, Action.OPEN_ATTEMPT),
        ((State.COMPLETED, State.DELETED), RETRY, Action.REFUSE_REQUEST),
    ],
)
@pytest.mark.parametrize("topic_removed", [False, True])
@pytest.mark.parametrize("status", [NOTHING, NotificationStatus(frozenset({1}), delivering=True)])
def test_requests_come_first(
    states: tuple[State, ...],
    request_: Request,
    action: Action,
    topic_removed: bool,
    status: NotificationStatus,
) -> None:
    for state in states:
        job_state = JobState(job(), state=state, topic_removed=topic_removed, pending_notifications=[1])
        for later in ((), (CANCEL,), (RETRY,), (DELETE,)):
            assert next_action(job_state, [request_, *later], status) is action, state


@pytest.mark.parametrize(
    ("request_", "action"),
    [
        (CANCEL, Action.CANCEL_BLOCKED),
        (RETRY, Action.OPEN_ATTEMPT),
        (DELETE, Action.DELETE_DATASET),
        (None, Action.RUN_ATTEMPT),
    ],
)
def test_a_job_that_cannot_be_published_takes_every_request(request_: Request | None, action: Action) -> None:
    state = JobState(job(), state=State.COMPLETING, code="output_not_empty", message="README.md exists")
    assert next_action(state, [request_] if request_ else [], NOTHING) is action


@pytest.mark.parametrize(
    ("states", "topic_removed", "pending", "status", "action"),
    [
        (ACTIVE, False, [], NOTHING, Action.RUN_ATTEMPT),
        (ACTIVE, True, [1], NotificationStatus(frozenset({1})), Action.RUN_ATTEMPT),
        (ENDED, False, [], NOTHING, Action.REMOVE_TOPIC),
        (ENDED, False, [1], NotificationStatus(frozenset({1})), Action.REMOVE_TOPIC),
        (ENDED, True, [1], NotificationStatus(frozenset({1})), Action.RECORD_DELIVERIES),
        (ENDED, True, [1, 2], NotificationStatus(frozenset({2}), delivering=True), Action.RECORD_DELIVERIES),
        (ENDED, True, [1], NotificationStatus(delivering=True), Action.WAIT_FOR_DELIVERIES),
        (ENDED, True, [], NotificationStatus(frozenset({1})), Action.STOP),
        (ENDED, True, [], NOTHING, Action.STOP),
        # Without a receiver nothing is delivered, and nothing is waited for.
        (ENDED, True, [1], NOTHING, Action.STOP),
    ],
)
def test_without_a_request_the_state_decides(
    states: tuple[State, ...],
    topic_removed: bool,
    pending: list[int],
    status: NotificationStatus,
    action: Action,
) -> None:
    for state in states:
        job_state = JobState(
            job(), state=state, topic_removed=topic_removed, pending_notifications=list(pending)
        )
        assert next_action(job_state, [], status) is action, state
