"""The progress of a run on a terminal and in a log: it counts what is read, from the first second."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

import shardline
from shardline.cli.panel import job_panel
from shardline.cli.progress import Screen, job_line
from shardline.services.job_rates import JobRates, RateEstimator
from shardline.services.job_view import JobView
from shardline.services.sample import write_sample
from shardline_common.dataset.events import EventTotals
from shardline_common.job.state import JobState, State
from tests.make import job


def view(read: int, of: int = 1000, *, state: State = State.RUNNING, chained: int = 0) -> JobView:
    share = read / of
    return JobView(
        JobState(job(), state=state, source_count=read, progress=share),
        EventTotals(chained=chained, rows=chained),
        by_reading=True,
    )


def shown(one: JobView, rates: JobRates, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width, record=True)
    console.print(job_panel(one, rates))
    return console.export_text()


async def test_the_views_of_a_run_count_what_is_read_before_a_segment_is_full(tmp_path: Path) -> None:
    write_sample(tmp_path / "sample.jsonl", 400)
    seen: list[shardline.Progress] = []
    body = {"name": "laws", "source": {"type": "files", "paths": [str(tmp_path / "sample.jsonl")]}}
    await shardline.run(body, output=tmp_path / "out", settings={"source_rate": 200}, on_progress=seen.append)
    before = [one for one in seen if one.state == "running" and one.rows == 0]
    assert any(0 < one.ratio < 1 for one in before)
    assert any(one.seconds_left is not None for one in before)
    assert [one.ratio for one in seen] == sorted(one.ratio for one in seen)
    assert [one.ratio for one in seen if one.state != "completed"][-1] < 1.0
    assert seen[-1].ratio == 1.0


def test_percent_rate_and_time_left_move_with_what_is_read() -> None:
    estimator = RateEstimator()
    assert estimator.add(view(0), 0.0) == JobRates()
    assert estimator.add(view(100), 1.0) == JobRates()
    rates = estimator.add(view(200), 2.0)
    assert rates.left == pytest.approx(8.0)
    assert rates.read == pytest.approx(100.0)
    text = shown(view(200), rates)
    assert "20.0%" in text
    assert "100 documents/s" in text
    assert "ETA 8s" in text


def test_a_run_that_continues_has_the_rates_of_its_own_seconds() -> None:
    estimator = RateEstimator()
    estimator.add(view(0, state=State.QUEUED), 0.0)
    # The first batch behind what an earlier run has kept.
    estimator.add(view(500), 0.2)
    rates = estimator.add(view(510), 1.2)
    assert rates.left == pytest.approx(49.0)
    assert rates.read == pytest.approx(10.0)


def test_what_is_read_is_not_yet_done() -> None:
    estimator = RateEstimator()
    estimator.add(view(900), 0.0)
    read = view(1000, state=State.COMPLETING, chained=400)
    rates = estimator.add(read, 1.0)
    assert rates.left is None
    assert read.ratio < 1.0
    assert view(1000, state=State.COMPLETED).ratio == 1.0


@pytest.mark.parametrize("width", [30, 40, 60, 80, 100, 120])
def test_a_panel_cuts_no_word_on_a_narrow_terminal(width: int) -> None:
    text = shown(view(1234, 5000), JobRates(0.0, 1e6, 75.0, 1234.0), width)
    assert "…" not in text
    found = " ".join(text.split())
    for part in ("test running", "24.7%", "1,234 documents/s", "976.6 KiB/s", "ETA 1m 15s", "lag"):
        assert part in found
    assert all(len(line) <= width for line in text.splitlines())


def test_without_a_terminal_there_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    screen = Screen(None, lambda: now)
    for second in range(130):
        now = float(second)
        screen.show(view(second * 2))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "test: running"
    assert lines[1] == "test: running, 2.0%, read 20, kept 0 (0 B), 2 documents/s, ETA 8m 10s"
    # Every 10 seconds of the first minute, then every 30.
    assert len(lines) == 1 + 6 + 2
    screen.show(view(1000, state=State.COMPLETED))
    assert capsys.readouterr().err == "test: completed\n"


def test_a_line_before_the_first_batch_names_only_what_is_known() -> None:
    assert job_line(view(0, state=State.QUEUED), JobRates()) == "test: planning, 0.0%, read 0, kept 0 (0 B)"


def test_a_run_plans_and_waits_for_no_producer_and_no_worker() -> None:
    for state, waits_for in (
        (State.QUEUED, "for the plan of the source"),
        (State.RUNNING, "for the source, or the store of the dataset (0 messages are in no segment)"),
        (State.COMPLETING, "for the store of the dataset"),
    ):
        one = view(0, state=state)
        one = replace(one, state=replace(one.state, updated_at="2026-01-01T00:00:00+00:00"))
        assert str(one.waiting).endswith(waits_for)
        on_kafka = replace(one, by_reading=False)
        assert on_kafka.phase == state.value
        assert one.phase == ("planning" if state is State.QUEUED else state.value)
        assert not str(on_kafka.waiting).endswith(waits_for)
