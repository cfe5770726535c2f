"""Whether a completed attempt is published, and what blocks it."""

import logging
from collections.abc import Awaitable, Callable

from shardline_common.dataset.publish import is_published, publish_dataset, unpublished_reason
from shardline_common.errors import FailureCode, JobFailed, ObjectMissing
from shardline_common.job.names import Layout
from shardline_common.job.outcome import Outcome, read_outcome
from shardline_common.job.spec import JobSpec
from shardline_producer.context import ProducerContext
from shardline_producer.job_state_store import JobStateStore

_log = logging.getLogger(__name__)
_PUBLISH_AGAIN_SECONDS = 30.0


class Publication:
    """Waits for the workers to publish the dataset of one job, and publishes it if none does."""

    def __init__(self, context: ProducerContext, spec: JobSpec, states: JobStateStore) -> None:
        self._context = context
        self._spec = spec
        self._layout = Layout.of(spec)
        self._states = states
        self._publish_at: float | None = None

    async def is_done(self, outcome: Outcome, is_current: Callable[[], Awaitable[bool]]) -> bool:
        """Whether the dataset is published. Workers publish it; if none has done so in time, this does.

        An error is committed to the job's state, where `status` shows it, unless the attempt is no longer
        the active one, as `is_current` says.
        """
        store, now = self._context.store, self._context.clock.monotonic()
        missing = await unpublished_reason(store, self._layout, outcome.attempt)
        if missing is None:
            return True
        if self._publish_at is None:
            self._publish_at = now + self._context.policy.publish_seconds
        if now < self._publish_at:
            return False
        self._publish_at = now + _PUBLISH_AGAIN_SECONDS
        _log.warning("the dataset is not published, and this producer publishes it: %s", missing)
        try:
            clock, sign = self._context.clock, self._context.sign
            later = await publish_dataset(store, self._spec, outcome, clock, sign)
            if later is None:
                return False
            failure = JobFailed(
                FailureCode.OUTPUT_NOT_EMPTY,
                f"the dataset is not published, because {later} says that a later attempt is decided",
                hint="retry the job; or move this object, if it is not of this job",
            )
        except JobFailed as error:
            failure = error
        except ObjectMissing as error:
            failure = JobFailed(FailureCode.OBJECT_LOST, str(error), hint="submit a new job")
        # Otherwise another producer has opened that attempt, or has deleted the dataset.
        if await is_current():
            await self._states.record_blocked(outcome.attempt, failure)
        return False

    async def outcome_lost(self, attempt: int) -> bool:
        """Whether `_SUCCESS` names the attempt. Its outcome, which nobody would write again, may be gone."""
        store, layout = self._context.store, self._layout
        if not await is_published(store, layout, attempt):
            return False
        if await read_outcome(store, layout, attempt) is None:
            message = f"{layout.outcome(attempt)} is not in the store, although {layout.success} names it"
            error = JobFailed(FailureCode.OBJECT_LOST, message, hint="restore it, or submit a new job")
            await self._states.record_blocked(attempt, error)
        return True
