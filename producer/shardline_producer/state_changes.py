"""The changes of a job's committed state: each function changes the state that was read last, in place.

Another producer may have committed a later state meanwhile. A change that no longer fits it does nothing.
"""

from shardline_common.job.outcome import Outcome
from shardline_common.job.state import JobState, State


def apply_outcome(outcome: Outcome, state: JobState, *, empty: bool, notify: bool) -> None:
    """End the active attempt by its outcome. `empty`: it has no row. `notify`: a webhook is set."""
    if state.attempt != outcome.attempt or not state.active:
        return
    state.state = State(outcome.ending)
    state.code, state.message = outcome.code, outcome.message
    state.warning = "empty" if empty and outcome.ending == "completed" else None
    if notify:
        state.pending_notifications.append(outcome.attempt)


def apply_blocked(attempt: int, code: str, message: str, state: JobState) -> None:
    """Record why the active attempt cannot end."""
    if state.attempt == attempt and state.active:
        state.code, state.message = code, message


def apply_cancelled(outcome: Outcome, state: JobState, *, notify: bool) -> None:
    """Replace a blocked attempt by the next one, which is cancelled."""
    # Another producer may have done it meanwhile.
    if state.attempt == outcome.attempt - 1 and state.blocked:
        state.attempt = outcome.attempt
        apply_outcome(outcome, state, empty=False, notify=notify)


def apply_retry(offset: int, state: JobState) -> None:
    """Open the next attempt for the request at this offset of dataset.jobs."""
    # Another producer may have handled the request already: one request must open one attempt, not two.
    if not state.retriable or state.request_offset >= offset:
        return
    state.attempt += 1
    if state.state is not State.COMPLETING:
        state.state, state.planned = State.QUEUED, False
    # Else everything is produced: the new attempt only proves and publishes it.
    state.topic_removed = False
    state.code = state.message = state.warning = None
    state.slices = {}


def apply_topic_removal(attempt: int, state: JobState) -> None:
    """Record that the topic of an ended attempt is deleted."""
    # Another producer may have opened the next attempt already.
    if state.attempt == attempt and not state.active:
        state.topic_removed = True
