"""The progress of a job on the terminal."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from shardline.cli.console import print_message, stderr_console
from shardline.services.job_rates import JobRates, RateEstimator
from shardline.services.job_view import JobView
from shardline.services.units import format_duration, format_size
from shardline_common.dataset.stage_events import Stage

if TYPE_CHECKING:
    from rich.live import Live

_LINE_SECONDS, _SELDOM_SECONDS = 10.0, 30.0
_OFTEN_SECONDS = 60.0


def read_speed(view: JobView, rates: JobRates) -> float | None:
    """Documents per second; None where no documents arrive any more, because all have landed."""
    if view.stage in (Stage.DECIDING, Stage.ASSEMBLING):
        return None
    return rates.read if view.by_reading else rates.documents


def shown_rows(view: JobView) -> str:
    """The rows of a job. Until a dataset is decided, they have landed, and none of them is kept for sure."""
    progress, event = view.progress, view.stage_event
    landed = view.stage is not None and (event is None or event.counts is None)
    return f"{'landed' if landed else 'kept'} {progress.rows:,} ({format_size(progress.bytes)})"


def job_line(view: JobView, rates: JobRates) -> str:
    """Render the progress of an active job as one line of a log."""
    state, speed = view.state, read_speed(view, rates)
    parts = [
        f"{state.spec.job_id}: {view.phase}, {view.ratio:.1%}",
        f"read {state.source_count:,}",
        shown_rows(view),
        f"{speed:,.0f} documents/s" if speed is not None else "",
        f"ETA {format_duration(rates.left)}" if rates.left is not None else "",
        view.waiting or "",
    ]
    return ", ".join(filter(None, parts))


class Screen:
    """Shows a job's progress: a live panel on a terminal, else lines.

    There is a line for each change of the state or stage, and one every 10 seconds, after a minute every 30.
    """

    def __init__(
        self,
        live: "Live | None",
        monotonic: Callable[[], float] = time.monotonic,
        *,
        shows_failure: bool = True,
    ) -> None:
        self._live = live
        self._shows_failure = shows_failure
        self._monotonic = monotonic
        self._estimator = RateEstimator()
        self._printed: str | None = None
        self._started = self._due = monotonic()

    def show(self, view: JobView) -> None:
        """Show the newest view of the job."""
        now = self._monotonic()
        rates = self._estimator.add(view, now)
        if self._live is not None:
            from shardline.cli.panel import job_panel

            self._live.update(job_panel(view, rates, shows_failure=self._shows_failure))
        elif self._printed != (changed := (view.state.active and view.stage) or view.state.state):
            self._printed = changed
            print_message(f"{view.state.spec.job_id}: {view.phase}")
            self._due = now + _LINE_SECONDS
        elif view.state.active and now >= self._due:
            print_message(job_line(view, rates))
            self._due = now + (_LINE_SECONDS if now - self._started < _OFTEN_SECONDS else _SELDOM_SECONDS)


@contextmanager
def open_screen(*, shows_failure: bool = True) -> Iterator[Screen]:
    """Open a screen on stderr. `shows_failure` as in `panel.job_panel`."""
    if not sys.stderr.isatty():
        yield Screen(None)
        return
    # Rich takes as long to import as a small job takes to run.
    from rich.live import Live

    with Live(console=stderr_console(), refresh_per_second=5, transient=False) as live:
        yield Screen(live, shows_failure=shows_failure)
