"""How far the running step of a decision is: published for people, and logged."""

import logging
from collections.abc import Callable
from functools import partial

from shardline_common.dataset.stage_events import Stage, StageEvent, stage_message
from shardline_common.errors import BrokerUnavailable
from shardline_common.job.names import EVENTS
from shardline_common.runtime.clock import stamp
from shardline_common.runtime.waits import log_failure
from shardline_consumer.commit import SegmentSink

_log = logging.getLogger(__name__)
_PUBLISH_SECONDS = 0.5
_LOG_SECONDS = 30.0


class StepProgress:
    """Follows a decider. Its producer sees the steps that are done, and not how far the running one is.

    Args:
        sink: of the attempt.
        steps: the names of the steps of the decision, in their order. What follows them is its last part.
        statement: the share of the running statement that is done, 0 to 1.
    """

    def __init__(self, sink: SegmentSink, steps: tuple[str, ...], statement: Callable[[], float]) -> None:
        self._sink = sink
        self._steps = steps
        self._statement = statement
        self._running: tuple[str, int, int] | None = None
        self._known: tuple[str, float] = ("", 0.0)

    def begin(self, step: str, done: int, parts: int) -> None:
        """A part of a step begins. Called on the thread of the decider."""
        self._running = (step, done, parts)

    async def publish(self) -> None:
        """Publish and log until cancelled. Events are hints: what cannot be published is not repeated."""
        clock = self._sink.context.clock
        logged = clock.monotonic()
        while True:
            await clock.sleep(_PUBLISH_SECONDS)
            if self._running is None:
                continue
            step, done, parts = self._running
            share = (done + self._statement()) / parts if done < parts else 1.0
            if step == self._known[0]:
                # A step has several statements, and DuckDB's estimate of one may fall.
                share = max(share, self._known[1])
            if (step, share) != self._known:
                self._known = (step, share)
                await self._publish(step, share)
            if clock.monotonic() - logged >= _LOG_SECONDS:
                logged = clock.monotonic()
                _log.info("the dataset is being decided: step %s, %.0f %%", step, 100 * share)

    async def _publish(self, step: str, share: float) -> None:
        sink, steps = self._sink, self._steps
        done = steps.index(step) if step in steps else len(steps)
        make = partial(StageEvent, sink.spec.job_id, sink.attempt, Stage.DECIDING, done, len(steps) + 1)
        event = make(stamp(sink.context.clock), step=step, step_share=round(share, 3))
        try:
            await sink.context.broker.publish(EVENTS, [stage_message(event)])
        except BrokerUnavailable as error:
            log_failure(_log, error, "the progress of the decision is not published: %s", error)
