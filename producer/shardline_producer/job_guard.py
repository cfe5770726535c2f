"""The guard of one job: whatever its runner raises, the job goes on or ends with a reason."""

import logging
from typing import Protocol

from shardline_common.errors import JobFailed, ServiceUnavailable, explain, leaf_of
from shardline_common.ports.broker import Record
from shardline_common.runtime.task_group import UnrequestedCancel, no_foreign_cancel
from shardline_common.runtime.unexpected import Restarts, contains_only, internal_failure
from shardline_common.runtime.waits import log_failure
from shardline_common.telemetry.logs import ENDS_JOB
from shardline_producer.context import ProducerContext

_log = logging.getLogger(__name__)
_RESTART_SECONDS = 30.0
_AGAIN_SECONDS = 1.0
_TRIES = 3


class Runner(Protocol):
    """What a guard runs: a JobRunner, or the SliceRunner of a slice."""

    async def run(self, submission: Record | None) -> None:
        """Run until there is nothing to do."""

    async def end_by(self, failure: JobFailed, submission: Record | None, *, last_try: bool) -> bool:
        """End what an unexpected error has interrupted. False when there is nothing to go on with."""


class JobGuard:
    """Runs a JobRunner or SliceRunner to its end, and handles every error that it raises.

    - An error that nobody has foreseen fails the attempt as `internal`. During a request, or before the job
      is accepted, the runner tries three times, then it refuses the message.
    - A cancel that nobody has requested comes from a client library: the runner starts again, at most three
      times in a row.
    - A service that is unavailable is waited for.
    """

    def __init__(self, context: ProducerContext, runner: Runner) -> None:
        self._context = context
        self._runner = runner
        self._errors = context.errors
        self._restarts = Restarts(context.clock)
        self._bugs = 0

    async def run(self, submission: Record | None) -> None:
        """Run the job until there is nothing to do.

        Raises:
            JobFailed: the failure cannot be recorded, and this process has no other job.
        """
        while True:
            try:
                with no_foreign_cancel():
                    await self._runner.run(submission)
            except Exception as error:  # noqa: BLE001 - one job must not end the others
                if not await self._handle(error, submission):
                    return
            else:
                return

    async def _handle(self, error: Exception, submission: Record | None) -> bool:
        """Handle an error of the runner. False when there is no job to go on with."""
        if contains_only(error, ServiceUnavailable):
            log_failure(_log, error, "%s; the job continues", leaf_of(error))
            await self._context.clock.sleep(_AGAIN_SECONDS)
            return True
        if contains_only(error, UnrequestedCancel) and await self._restarts.allowed():
            self._errors.log(error, "the job was cancelled from inside, and is started again")
            return True
        self._bugs += 1
        failure = internal_failure(error, "the producer")
        if failure is error:
            _log.error("%s: %s", failure.code, explain(failure), extra=ENDS_JOB)
        else:
            self._errors.log(error, "the job ends, or is tried again")
        goes_on = await self._end(failure, submission)
        if self._bugs > _TRIES and self._context.policy.single_job:
            raise failure
        if goes_on and self._bugs > 1:
            # The first error has ended the attempt. Another one keeps its topic or a notification.
            await self._context.clock.sleep(_RESTART_SECONDS if self._bugs > _TRIES else _AGAIN_SECONDS)
        return goes_on

    async def _end(self, failure: JobFailed, submission: Record | None) -> bool:
        """Record the failure. Where it cannot be recorded, try again every 30 seconds."""
        tries = 0
        while True:
            try:
                with no_foreign_cancel():
                    return await self._runner.end_by(failure, submission, last_try=self._bugs >= _TRIES)
            except Exception as error:  # noqa: BLE001 - neither may this end the other jobs
                tries += 1
                self._errors.log(error, f"this is not recorded: {explain(failure)}")
            if self._context.policy.single_job and tries >= _TRIES:
                raise failure
            await self._context.clock.sleep(_AGAIN_SECONDS if tries < _TRIES else _RESTART_SECONDS)
