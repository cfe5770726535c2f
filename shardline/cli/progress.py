"""The progress of a job on the terminal."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from shardline.cli.console import print_message, stderr_console
from shardline.services.client import JobView
from shardline.services.job_rates import JobRates, RateEstimator
from shardline.services.units import format_counts, format_duration, format_size
from shardline_common.job.state import State

_STYLE = {State.COMPLETED: "green", State.FAILED: "red", State.CANCELLED: "yellow"}


def job_panel(view: JobView, rates: JobRates) -> RenderableType:
    """Render a job: state, bar, percent, rate, time left, lag, and the counts of its documents."""
    state, progress = view.state, view.progress
    if not state.active:
        # An ended job has no rates: the views of the last seconds may span its end.
        rates = JobRates()
    head = Table.grid(padding=(0, 2))
    style = _STYLE.get(state.state, "cyan")
    head.add_row(
        Text(state.spec.job_id, style="bold"),
        Text(state.state.value, style=style),
        ProgressBar(total=1.0, completed=view.ratio, width=32),
        f"{view.ratio:6.1%}",
        f"{rates.documents:,.0f} documents/s" if rates.documents is not None else "",
        f"{format_size(rates.bytes)}/s" if rates.bytes is not None else "",
        f"ETA {format_duration(rates.left)}" if rates.left is not None else "",
        f"lag {view.lag:,}",
    )
    lines: list[RenderableType] = [head]
    # Before the first segment is committed, only the number of documents read shows progress.
    rate = f" ({rates.read:,.0f}/s)" if rates.read else ""
    counts = f"  read {state.source_count:,}{rate} · kept {progress.rows:,} ({format_size(progress.bytes)})"
    counts += f" · rejected: {format_counts(progress.rejected)}"
    counts += f" · dead letters: {format_counts(progress.dead)}"
    lines.append(Text(counts, style="dim"))
    if state.message or state.warning:
        lines.append(Text(f"  {state.message or 'warning: ' + str(state.warning)}", style=style))
    elif view.waiting:
        lines.append(Text(f"  {view.waiting}", style="yellow"))
    return Group(*lines)


class Screen:
    """Shows a job's progress: a live panel on a terminal, else a line for each change of its state."""

    def __init__(self, live: Live | None) -> None:
        self._live = live
        self._estimator = RateEstimator()
        self._printed: State | None = None

    def show(self, view: JobView) -> None:
        """Show the newest view of the job."""
        rates = self._estimator.add(view, time.monotonic())
        if self._live is not None:
            self._live.update(job_panel(view, rates))
        elif view.state.state is not self._printed:
            self._printed = view.state.state
            print_message(f"{view.state.spec.job_id}: {view.state.state.value}")


@contextmanager
def open_screen() -> Iterator[Screen]:
    """Open a screen on stderr."""
    if not sys.stderr.isatty():
        yield Screen(None)
        return
    with Live(console=stderr_console(), refresh_per_second=5, transient=False) as live:
        yield Screen(live)
