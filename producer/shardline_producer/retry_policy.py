"""How long a producer retries an attempt: without a limit, except for refusals and unreachable sources."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias

from shardline_common.errors import (
    BrokerRefused,
    BrokerUnavailable,
    FailureCode,
    JobFailed,
    ServiceUnavailable,
    SourceUnavailable,
)
from shardline_common.job.messages import Position
from shardline_common.job.names import CHECKPOINTS
from shardline_common.job.state import JobState, checkpoint
from shardline_common.ports.broker import Broker, TransactionalWriter
from shardline_common.ports.clock import Clock
from shardline_common.runtime.durations import seconds_text
from shardline_common.runtime.retry import Backoff

_MAX_REFUSALS = 8
# Where a refusal is known only after the deadline of a transaction, so many of them would take too long.
_REFUSED_SECONDS = 60.0
_BACKOFF = Backoff(base=0.2, cap=5.0)
FenceAndLoad: TypeAlias = Callable[[], AbstractAsyncContextManager[tuple[TransactionalWriter, JobState]]]


class AttemptRetryPolicy:
    """Counts the failures of one attempt since it last made progress.

    `fence_and_load` is that of the attempt's job: see `JobStateStore`.
    """

    def __init__(
        self, broker: Broker, clock: Clock, source_seconds: float, fence_and_load: FenceAndLoad
    ) -> None:
        self._broker = broker
        self._clock = clock
        self._source_seconds = source_seconds
        self._fence_and_load = fence_and_load
        self._cursor: Position | None = None
        self._failures = 0
        self._refusals = 0
        self._refused_since = 0.0
        self._since = 0.0

    async def pause(self, error: ServiceUnavailable, cursor: Position | None) -> None:
        """Wait before the next try.

        Args:
            error: the error of the last try.
            cursor: the source position that was reached; a new position resets the count.

        Raises:
            JobFailed: the source was unreachable for `source_seconds` (`source_unreachable`) or kept changing
                (`source_changed`), or Kafka refused this job repeatedly, for a reason that lasts, and accepts
                checkpoints (`broker_refused`).
        """
        now = self._clock.monotonic()
        if self._failures == 0 or cursor != self._cursor:
            self._failures, self._refusals, self._since = 0, 0, now
        self._cursor = cursor
        self._failures += 1
        if isinstance(error, BrokerRefused):
            self._refused_since = self._refused_since if self._refusals else now
            self._refusals += 1
        if isinstance(error, SourceUnavailable) and now - self._since >= self._source_seconds:
            if error.lasting is FailureCode.SOURCE_UNREACHABLE:
                what, first = "did not answer", "start the source"
            else:
                what, first = "could not be listed as a whole", "stop what writes to the source"
            raise JobFailed(
                error.lasting,
                f"the source {what} for {seconds_text(now - self._since)}: {error}",
                hint=f"{first}, then retry the job; the documents read so far are kept",
            )
        lasts = self._refusals > 1 and now - self._refused_since >= _REFUSED_SECONDS
        if isinstance(error, BrokerRefused) and (lasts or self._refusals > _MAX_REFUSALS):
            await self._fail_if_recordable(error)
        # Without jitter: only one producer retries this attempt.
        await self._clock.sleep(_BACKOFF.longest(self._failures))

    async def _fail_if_recordable(self, error: BrokerRefused) -> None:
        # Where Kafka refuses every job, the failure of this one could not be recorded either. The job then
        # waits for the operator, and goes on by itself. So the last checkpoint is committed once more, as the
        # failure would be: with the same coordinator and the same partition. Other brokers may accept what
        # these refuse while they are in trouble.
        try:
            await self._broker.check()
            async with self._fence_and_load() as (writer, state), writer.transaction() as transaction:
                await transaction.send(CHECKPOINTS, [checkpoint(state)])
        except BrokerUnavailable:
            return
        raise JobFailed(
            FailureCode.BROKER_REFUSED, f"Kafka refuses the documents: {error}", hint=error.hint
        ) from error
