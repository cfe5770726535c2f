"""The rates of a running job and its remaining time, from successive views of it."""

from collections import deque
from dataclasses import dataclass

from shardline.services.job_view import JobView
from shardline_common.dataset.stage_events import Stage
from shardline_common.job.state import State

_WINDOW_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class JobRates:
    """Rates of a job over the last seconds; None while a rate is not known.

    Attributes:
        documents: documents in committed segments, per second.
        bytes: bytes in committed segments, per second.
        left: seconds until the job ends.
        read: documents read from the source, per second.
    """

    documents: float | None = None
    bytes: float | None = None
    left: float | None = None
    read: float | None = None


class RateEstimator:
    """Computes the rates of one job from its views of the last 15 seconds."""

    def __init__(self) -> None:
        self._views: deque[tuple[float, JobView]] = deque()

    def add(self, view: JobView, now: float) -> JobRates:
        """Add the view at the time `now` (monotonic seconds) and return the rates."""
        if self._views and not self._views[-1][1].ratio and view.ratio:
            # A job that continues begins with what was done before, which is no work of these seconds.
            self._views.clear()
        if self._views and self._views[-1][1].stage is not view.stage:
            # The rate of a stage says nothing about that of the next one.
            self._views.clear()
        self._views.append((now, view))
        while len(self._views) > 2 and now - self._views[0][0] > _WINDOW_SECONDS:  # noqa: PLR2004 - first and last
            self._views.popleft()
        started, first = self._views[0]
        elapsed = now - started
        if elapsed <= 0:
            return JobRates()
        documents = max(0, view.progress.chained - first.progress.chained) / elapsed
        done = view.ratio - first.ratio
        left = (1.0 - view.ratio) / (done / elapsed) if done > 0 else None
        assembling = view.stage is Stage.ASSEMBLING
        if view.by_reading and view.state.state is State.COMPLETING and not assembling:
            # All is read, and how long the rest takes to be written is not known.
            left = None
        if view.stage is Stage.DECIDING:
            # Its steps differ too much.
            left = None
        read = max(0, view.state.source_count - first.state.source_count) / elapsed
        return JobRates(documents, max(0, view.progress.bytes - first.progress.bytes) / elapsed, left, read)
