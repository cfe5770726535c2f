"""The progress of a job on the terminal."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from shardline.cli.console import print_message, stderr_console
from shardline.services.job_rates import JobRates, RateEstimator
from shardline.services.job_view import JobView
from shardline.services.units import format_counts, format_duration, format_size
from shardline_common.dataset.stage_events import Stage
from shardline_common.job.state import State

_LINE_SECONDS, _SELDOM_SECONDS = 10.0, 30.0
_OFTEN_SECONDS = 60.0
_BAR, _LEAST_BAR = 32, 8
_STYLE = {State.COMPLETED: "green", State.FAILED: "red", State.CANCELLED: "yellow"}


@dataclass(frozen=True, slots=True)
class _Head:
    """The first line of a panel. Where it does not fit with a bar, its words without one."""

    job_id: Text
    state: Text
    ratio: float
    facts: Sequence[str]

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        percent = f"{self.ratio:6.1%}"
        cells = (self.job_id.plain, self.state.plain, percent, *self.facts)
        room = options.max_width - sum(len(cell) + 2 for cell in cells)
        if room < _LEAST_BAR:
            words = filter(None, (percent.strip(), *self.facts))
            yield Text.assemble(self.job_id, "  ", self.state, "  ", "  ".join(words))
            return
        row = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=1.0, completed=self.ratio, width=min(_BAR, room))
        row.add_row(self.job_id, self.state, bar, percent, *self.facts)
        yield row


def _speed(view: JobView, rates: JobRates) -> float | None:
    """Documents per second; None where no documents arrive any more, because all have landed."""
    if view.stage in (Stage.DECIDING, Stage.ASSEMBLING):
        return None
    return rates.read if view.by_reading else rates.documents


def _rows(view: JobView) -> str:
    """The rows of a job. Until a dataset is decided, they have landed, and none of them is kept for sure."""
    progress, event = view.progress, view.stage_event
    landed = view.stage is not None and (event is None or event.counts is None)
    return f"{'landed' if landed else 'kept'} {progress.rows:,} ({format_size(progress.bytes)})"


def job_panel(view: JobView, rates: JobRates, *, shows_failure: bool = True) -> RenderableType:
    """Render a job: state, bar, percent, rate, time left, lag, and the counts of its documents.

    `shows_failure`: why a job has failed. A command that ends with this error prints it itself.
    """
    state, progress = view.state, view.progress
    if not state.active:
        # An ended job has no rates: the views of the last seconds may span its end.
        rates = JobRates()
    speed, landed = _speed(view, rates), view.stage in (Stage.DECIDING, Stage.ASSEMBLING)
    style = _STYLE.get(state.state, "cyan")
    facts = (
        f"{speed:,.0f} documents/s" if speed is not None else "",
        f"{format_size(rates.bytes)}/s" if rates.bytes else "",
        f"ETA {format_duration(rates.left)}" if rates.left is not None else "",
        f"lag {view.lag:,}" if not landed else "",
    )
    head = _Head(Text(state.spec.job_id, style="bold"), Text(view.phase, style=style), view.ratio, facts)
    lines: list[RenderableType] = [head]
    # Before the first segment is committed, only the number of documents read shows progress.
    rate = f" ({rates.read:,.0f}/s)" if rates.read and not view.by_reading else ""
    counts = f"  read {state.source_count:,}{rate} · {_rows(view)}"
    counts += f" · rejected: {format_counts(progress.rejected)}"
    counts += f" · dead letters: {format_counts(progress.dead)}"
    counts += f" · personal data: {format_counts(progress.pii)}" if progress.pii else ""
    lines.append(Text(counts, style="dim"))
    hidden = state.settled and state.state is not State.COMPLETED and not shows_failure
    if (state.message or state.warning) and not hidden:
        lines.append(Text(f"  {state.message or 'warning: ' + str(state.warning)}", style=style))
    elif view.waiting:
        lines.append(Text(f"  {view.waiting}", style="yellow"))
    # Of a completed run, its last lines have them.
    if state.active or shows_failure:
        lines += [Text(f"  warning: {one}", style="yellow") for one in view.decision_warnings]
    return Group(*lines)


def job_line(view: JobView, rates: JobRates) -> str:
    """Render the progress of an active job as one line of a log."""
    state, speed = view.state, _speed(view, rates)
    parts = [
        f"{state.spec.job_id}: {view.phase}, {view.ratio:.1%}",
        f"read {state.source_count:,}",
        _rows(view),
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
        live: Live | None,
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
    """Open a screen on stderr. `shows_failure` as in `job_panel`."""
    if not sys.stderr.isatty():
        yield Screen(None)
        return
    with Live(console=stderr_console(), refresh_per_second=5, transient=False) as live:
        yield Screen(live, shows_failure=shows_failure)
