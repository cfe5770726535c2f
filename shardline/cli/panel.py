"""The panel of a job on a terminal."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from shardline.cli.progress import read_speed, shown_rows
from shardline.services.job_rates import JobRates
from shardline.services.job_view import JobView
from shardline.services.units import format_counts, format_duration, format_size
from shardline_common.dataset.stage_events import Stage
from shardline_common.job.state import State

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


def job_panel(view: JobView, rates: JobRates, *, shows_failure: bool = True) -> RenderableType:
    """Render a job: state, bar, percent, rate, time left, lag, and the counts of its documents.

    `shows_failure`: why a job has failed. A command that ends with this error prints it itself.
    """
    state, progress = view.state, view.progress
    if not state.active:
        # An ended job has no rates: the views of the last seconds may span its end.
        rates = JobRates()
    speed, landed = read_speed(view, rates), view.stage in (Stage.DECIDING, Stage.ASSEMBLING)
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
    counts = f"  read {state.source_count:,}{rate} · {shown_rows(view)}"
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
