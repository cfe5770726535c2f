"""How long a producer goes on trying: outages are waited out, refusals are not, sources have a limit."""

from shardline_common.errors import (
    BrokerUnavailable,
    FailureCode,
    JobFailed,
    ServiceUnavailable,
    SourceUnavailable,
)
from shardline_common.job.messages import Position
from shardline_common.ports.broker import Broker
from shardline_common.ports.clock import Clock

_MOST_REFUSALS = 8


class Patience:
    """Counts failures in a row, without a document sent between them."""

    def __init__(self, broker: Broker, clock: Clock, source_seconds: float) -> None:
        self._broker = broker
        self._clock = clock
        self._source_seconds = source_seconds
        self._reached: Position | None = None
        self._failures = 0
        self._since = 0.0

    async def spend(self, error: ServiceUnavailable, cursor: Position | None) -> None:
        """Wait before the next try.

        Raises:
            JobFailed: the source stayed away for too long, or Kafka answers and still refuses.
        """
        now = self._clock.monotonic()
        if self._failures == 0 or cursor != self._reached:
            self._failures, self._since = 0, now
        self._reached = cursor
        self._failures += 1
        if isinstance(error, SourceUnavailable) and now - self._since >= self._source_seconds:
            raise JobFailed(
                FailureCode.SOURCE_UNREACHABLE,
                f"the source did not answer for {now - self._since:.0f} s: {error}",
                hint="see that it runs and can be reached, then retry the job: what was read is kept",
            )
        await self._give_up_if_refused(error)
        await self._clock.sleep(min(5.0, 0.2 * 2**self._failures))

    async def _give_up_if_refused(self, error: ServiceUnavailable) -> None:
        # An outage is waited out; a broker that answers and still refuses is not going to change its mind.
        if self._failures <= _MOST_REFUSALS or not isinstance(error, BrokerUnavailable):
            return
        try:
            await self._broker.check()
        except BrokerUnavailable:
            return
        raise JobFailed(
            FailureCode.BROKER_REFUSED, f"Kafka refuses the documents: {error}", hint=error.hint
        ) from error
